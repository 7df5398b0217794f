"""Tables in Markdown."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from moedb.queries.results.cells import shown_text
from moedb.queries.results.sheets import Sheet, TableOptions, bold_cells
from moedb.queries.results.visible import visible

_SPECIAL = re.compile(r"[\\`*|<\[\]&~$]|(?<![^\W_])_|_(?![^\W_])")


def escape_markdown(text: str) -> str:
    """Return text that Markdown prints as it is: no markup, no HTML, no formulas."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


@contextmanager
def _widths_in_characters() -> Iterator[None]:
    """Have the same bytes written whether wcwidth, which the shell brings, is installed or not."""
    import tabulate

    before = tabulate.WIDE_CHARS_MODE
    tabulate.WIDE_CHARS_MODE = False
    try:
        yield
    finally:
        tabulate.WIDE_CHARS_MODE = before


def markdown_text(sheet: Sheet, options: TableOptions) -> str:
    """Return a sheet as a pipe table, its caption above it and the footer below."""
    from tabulate import tabulate

    precision = options.paper_precision
    bold = bold_cells(sheet, options, precision)
    cells = [
        [
            f"**{text}**" if (r, c) in bold else text
            for c, text in enumerate(escape_markdown(shown_text(v, precision)) for v in row)
        ]
        for r, row in enumerate(sheet.rows)
    ]
    with _widths_in_characters():
        table = tabulate(
            cells,
            headers=[escape_markdown(header) for header in options.headers(sheet.columns)],
            tablefmt="pipe",
            colalign=[column.alignment for column in sheet.columns],
            disable_numparse=True,
        )
    caption = ["Table: " + escape_markdown(visible(options.caption))] if options.caption else []
    footer = [escape_markdown(sheet.footer)] if options.footer else []
    return "\n\n".join([*caption, table, *footer]) + "\n"
