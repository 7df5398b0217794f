"""Tables as pages of HTML."""

import html

from moedb.queries.results.cells import shown_text
from moedb.queries.results.sheets import Sheet, TableOptions, bold_cells
from moedb.queries.results.visible import visible


def html_page(sheet: Sheet, options: TableOptions) -> str:
    """Return a sheet as a page of its own."""
    precision = options.paper_precision
    bold = bold_cells(sheet, options, precision)
    styles = [
        "" if column.alignment == "left" else ' style="text-align: right"'
        for column in sheet.columns
    ]
    title = options.caption or sheet.source.provenance.name or "table"
    lines = ["<!doctype html>", '<meta charset="utf-8">']
    lines += [f"<title>{html.escape(visible(title))}</title>"]
    lines += ["<table>"]
    if options.caption:
        lines += [f"<caption>{html.escape(visible(options.caption))}</caption>"]
    lines += ["<thead>"]
    if sheet.spanner is not None and sheet.spanned:
        spanner = html.escape(visible(options.header_names.get(sheet.spanner, sheet.spanner)))
        cells = [f'<th colspan="{len(sheet.spanned)}">{spanner}</th>']
        cells = ["<th></th>"] * sheet.spanned.start + cells
        cells += ["<th></th>"] * (len(sheet.columns) - sheet.spanned.stop)
        lines += ["<tr>" + "".join(cells) + "</tr>"]
    headers = zip(styles, options.headers(sheet.columns), strict=True)
    lines += ["<tr>" + "".join(f"<th{s}>{html.escape(h)}</th>" for s, h in headers) + "</tr>"]
    lines += ["</thead>", "<tbody>"]
    for r, row in enumerate(sheet.rows):
        texts = [html.escape(shown_text(value, precision)) for value in row]
        marked = [f"<strong>{t}</strong>" if (r, c) in bold else t for c, t in enumerate(texts)]
        cells = [f"<td{s}>{text}</td>" for s, text in zip(styles, marked, strict=True)]
        lines += ["<tr>" + "".join(cells) + "</tr>"]
    lines += ["</tbody>"]
    if options.footer:
        footer = html.escape(sheet.footer)
        lines += [
            f'<tfoot><tr><td colspan="{len(sheet.columns)}"><small>{footer}</small></td></tr>'
        ]
        lines += ["</tfoot>"]
    return "\n".join([*lines, "</table>"]) + "\n"
