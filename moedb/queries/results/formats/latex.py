"""LaTeX tables that compile as they are where booktabs is loaded."""

from typing import cast

from moedb.queries.results.cells import shown_text
from moedb.queries.results.formats.latex_text import escape_latex
from moedb.queries.results.sheets import Sheet, TableOptions, bold_cells
from moedb.queries.results.visible import visible

_NULL = "--"


def latex_table(sheet: Sheet, options: TableOptions) -> str:
    """Return a sheet as a ``table`` environment.

    Parameters
    ----------
    sheet
        The rows.
    options
        Caption, label, precision, bold, header names, and whether the footer is wanted.

    Returns
    -------
    str
        The same text for the same sheet, always.
    """
    import pandas as pd

    precision = options.paper_precision
    bold = bold_cells(sheet, options, precision)
    cells = [
        [
            _NULL if value is None else _latex_cell(value, column.kind, precision)
            for value, column in zip(row, sheet.columns, strict=True)
        ]
        for row in sheet.rows
    ]
    headers = [escape_latex(name) for name in options.headers(sheet.columns)]
    # positions stand for names, which may occur twice
    frame = pd.DataFrame(cells, columns=range(len(headers)), dtype=object)
    styles = frame.map(lambda _: "")
    for row, column in bold:
        styles.iloc[row, column] = "textbf:--rwrap"
    spanner = None if sheet.spanner is None or not sheet.spanned else sheet.spanner
    if spanner is not None:
        shown = escape_latex(visible(options.header_names.get(spanner, spanner)))
        over = [(int(position in sheet.spanned), position) for position in range(len(headers))]
        frame.columns = styles.columns = pd.MultiIndex.from_tuples(over)
    with pd.option_context("styler.render.max_elements", max(1, 2 * frame.size)):
        styler = frame.style.hide(axis="index").format("{}", escape=None)
        if spanner is not None:
            styler = styler.format_index(lambda group: shown if group else "", axis=1, level=0)
        level = 0 if spanner is None else 1
        styler = styler.format_index(lambda at: headers[cast(int, at)], axis=1, level=level)
        text = styler.apply(lambda _: styles, axis=None).to_latex(
            hrules=True,
            column_format="".join(column.alignment[0] for column in sheet.columns),
            position="tbp",
            position_float="centering",
            caption=_caption(options),
            label=options.label,
            sparse_columns=True,
            multicol_align="c",
            environment="table",
        )
    if spanner is not None:
        first, last = sheet.spanned.start + 1, sheet.spanned.stop
        head, rest = text.split(r"\toprule" + "\n", 1)
        group, rest = rest.split("\n", 1)
        text = f"{head}\\toprule\n{group}\n\\cmidrule(lr){{{first}-{last}}}\n{rest}"
    if options.footer:
        line = "\n\n\\smallskip\n{\\footnotesize " + escape_latex(sheet.footer) + "\\par}\n"
        head, rest = text.rsplit("\\end{tabular}\n", 1)
        text = f"{head}\\end{{tabular}}{line}{rest}"
    return text.rstrip("\n") + "\n"


def _caption(options: TableOptions) -> str | None:
    if options.caption is None or options.caption_is_latex:
        return options.caption
    return escape_latex(visible(options.caption))


def _latex_cell(value: object, kind: str, precision: int) -> str:
    text = shown_text(value, precision)
    if kind == "text":
        return escape_latex(text)
    if text.endswith("inf"):
        return f"${text.removesuffix('inf')}\\infty$"
    return f"$-${text[1:]}" if text.startswith("-") else text
