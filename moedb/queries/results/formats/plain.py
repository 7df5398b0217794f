"""The formats of the command line: a table, CSV, JSON. They import neither pandas nor pyarrow."""

import csv
import io
import json

from moedb.errors import UsageError
from moedb.queries.results.cells import json_value, plain_table, plain_text, shown_text
from moedb.queries.results.sheets import Sheet, TableOptions


def table_text(sheet: Sheet, options: TableOptions) -> str:
    """Return a table for a terminal."""
    cells = [[shown_text(value, options.precision) for value in row] for row in sheet.rows]
    headers = [options.header_names.get(column.name, column.name) for column in sheet.columns]
    return plain_table(headers, [column.kind for column in sheet.columns], cells)


def csv_text(sheet: Sheet, options: TableOptions) -> str:
    """Return CSV by RFC 4180."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([column.name for column in sheet.columns])
    writer.writerows([[plain_text(value) for value in row] for row in sheet.rows])
    return buffer.getvalue()


def json_text(sheet: Sheet, options: TableOptions) -> str:
    """Return a JSON array of objects, one a line."""
    return "[" + ",\n ".join(_json_objects(sheet)) + "]\n"


def jsonl_text(sheet: Sheet, options: TableOptions) -> str:
    """Return an object of JSON a line."""
    return "".join(line + "\n" for line in _json_objects(sheet))


def _json_objects(sheet: Sheet) -> list[str]:
    names = [column.name for column in sheet.columns]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} columns are named {name!r}, and JSON keeps one of them",
                "give one of them another name: as",
            )
    return [
        _escaped_json({name: json_value(value) for name, value in zip(names, row, strict=True)})
        for row in sheet.rows
    ]


def _escaped_json(value: object) -> str:
    """Return JSON with everything escaped that a terminal would act on; the values are the same."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c).strip('"') for c in text)
