"""LaTeX tables that compile as they are with booktabs, one over pages with longtable too."""

from moedb.queries.results.cells import Estimate, interval_text, shown_text
from moedb.queries.results.formats.latex_text import escape_latex
from moedb.queries.results.sheets import Sheet, TableOptions, bold_cells
from moedb.queries.results.visible import visible
from moedb.schemas.formats import FONT_SIZES

_NULL = "--"
_FOOTER_SIZE = "footnotesize"
_PLACES = {"table": "tbp", "table*": "tp"}
"""Where a float may go; what spans two columns goes to no bottom."""


def latex_table(sheet: Sheet, options: TableOptions) -> str:
    """Return a sheet as a ``table``, a ``table*`` or a ``longtable``.

    Parameters
    ----------
    sheet
        The rows.
    options
        Caption, label, precision, bold, header names, environment, size of the font, and whether
        the footer is wanted.

    Returns
    -------
    str
        The same text for the same sheet, always.
    """
    lines = _longtable(sheet, options) if options.environment == "longtable" else []
    return "\n".join(lines or _float(sheet, options)) + "\n"


def latex_packages(options: TableOptions) -> list[str]:
    """Return the packages that a document must load for a table.

    Examples
    --------
    >>> latex_packages(TableOptions(environment="longtable"))
    ['booktabs', 'longtable']
    """
    return ["booktabs", *(["longtable"] if options.environment == "longtable" else [])]


def _float(sheet: Sheet, options: TableOptions) -> list[str]:
    """The lines of a table that stays on one page."""
    name = options.environment
    lines = [rf"\begin{{{name}}}[{_PLACES[name]}]", r"\centering", *_caption(options)]
    if options.label is not None:
        lines.append(rf"\label{{{options.label}}}")
    if options.font_size is not None:
        lines.append(rf"\{options.font_size}")
    lines += [rf"\begin{{tabular}}{{{_alignment(sheet)}}}", *_head(sheet, options)]
    lines += [*_body(sheet, options), r"\bottomrule", r"\end{tabular}"]
    if options.footer:
        lines += ["", r"\smallskip", _footer(sheet, options)]
    return [*lines, rf"\end{{{name}}}"]


def _longtable(sheet: Sheet, options: TableOptions) -> list[str]:
    """The lines of a table that goes on over pages, its head on each of them."""
    caption, head = _caption(options), _head(sheet, options)
    label = "" if options.label is None else rf"\label{{{options.label}}}"
    width = len(sheet.columns)
    number = r"\tablename~\thetable{} " if caption else ""
    lines = [] if options.font_size is None else [rf"{{\{options.font_size}"]
    if not caption and label:
        lines.append(label)
    lines.append(rf"\begin{{longtable}}{{{_alignment(sheet)}}}")
    if caption:
        lines += [f"{caption[0]}{label} \\\\"]
    lines += [*head, r"\endfirsthead"]
    lines += [rf"\multicolumn{{{width}}}{{l}}{{{number}(continued)}} \\", *head, r"\endhead"]
    lines += [r"\midrule", rf"\multicolumn{{{width}}}{{r}}{{continued on the next page}} \\"]
    lines += [r"\endfoot", r"\bottomrule", r"\endlastfoot", *_body(sheet, options)]
    lines.append(r"\end{longtable}")
    if not caption:
        # every longtable takes a number, which only a caption shows
        lines.append(r"\addtocounter{table}{-1}")
    if options.footer:
        lines += [r"\nopagebreak\noindent", _footer(sheet, options)]
    return lines if options.font_size is None else [*lines, "}"]


def _alignment(sheet: Sheet) -> str:
    return "".join(column.alignment[0] for column in sheet.columns)


def _caption(options: TableOptions) -> list[str]:
    if options.caption is None:
        return []
    is_latex = options.caption_is_latex
    text = options.caption if is_latex else escape_latex(visible(options.caption))
    return [rf"\caption{{{text}}}"]


def _head(sheet: Sheet, options: TableOptions) -> list[str]:
    """The names of the columns between two rules; in a pivot what they are of above them."""
    lines = [r"\toprule"]
    if sheet.spanner is not None and sheet.spanned:
        spanned = sheet.spanned
        shown = escape_latex(visible(options.header_names.get(sheet.spanner, sheet.spanner)))
        group = [""] * spanned.start + [rf"\multicolumn{{{len(spanned)}}}{{c}}{{{shown}}}"]
        group += [""] * (len(sheet.columns) - spanned.stop)
        lines += [_row(group), rf"\cmidrule(lr){{{spanned.start + 1}-{spanned.stop}}}"]
    names = [escape_latex(name) for name in options.headers(sheet.columns)]
    return [*lines, _row(names), r"\midrule"]


def _body(sheet: Sheet, options: TableOptions) -> list[str]:
    precision = options.paper_precision
    bold = bold_cells(sheet, options, precision)
    lines = []
    for at, row in enumerate(sheet.rows):
        cells = [
            _NULL if value is None else _cell(value, column.kind, precision)
            for value, column in zip(row, sheet.columns, strict=True)
        ]
        lines.append(
            _row([rf"\textbf{{{c}}}" if (at, n) in bold else c for n, c in enumerate(cells)])
        )
    return lines


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(value: object, kind: str, precision: int) -> str:
    if isinstance(value, Estimate):
        return interval_text(value, precision, _number, r"$\pm$")
    text = shown_text(value, precision)
    return escape_latex(text) if kind == "text" else _number(text)


def _number(text: str) -> str:
    if text.endswith("inf"):
        return f"${text.removesuffix('inf')}\\infty$"
    return f"$-${text[1:]}" if text.startswith("-") else text


def _footer(sheet: Sheet, options: TableOptions) -> str:
    """What is below the table, in letters no larger than those in it."""
    sizes = [_FOOTER_SIZE, options.font_size or _FOOTER_SIZE]
    return rf"{{\{min(sizes, key=FONT_SIZES.index)} {escape_latex(sheet.footer)}\par}}"
