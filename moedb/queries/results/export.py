"""Writing a result to a file, with a sidecar that says where it comes from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moedb.errors import UsageError
from moedb.queries.results.cells import json_value
from moedb.queries.results.files import check_folder, write_together
from moedb.queries.results.formats.rendering import format_of_path, render_sheet
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.sheets import Sheet, TableOptions, arrange
from moedb.schemas.formats import DATA_FORMATS

SIDECAR_ENDING = ".provenance.json"


def export(
    result: Result,
    path: str | Path,
    options: TableOptions | None = None,
    format: str | None = None,
    *,
    allow_empty: bool = False,
) -> list[Path]:
    """Write a result as a table, in the format that the ending of ``path`` asks for.

    Beside it goes ``<path>.provenance.json`` with the SQL, its parameters, the runs and their
    models, the snapshot, and the hash of the table's file. Both appear whole or not at all, and
    neither holds a time: the same result gives the same bytes.

    Parameters
    ----------
    result
        The query; it runs now.
    path
        A file that ends in .tex, .csv, .md, .html, .json, .jsonl or .parquet.
    options
        Columns, pivot, caption and so on.
    format
        One of `moedb.schemas.formats.FORMATS`, whatever the ending.
    allow_empty
        Whether to write a table without rows.

    Returns
    -------
    list of Path
        The files written: the table, its sidecar.

    Raises
    ------
    UsageError
        If the ending or a column is unknown, the format knows nothing of an option, the folder
        cannot be written to, or there are no rows: then what is at ``path`` stays as it is.
    """
    path = Path(path)
    format = format or format_of_path(path)
    options = options or TableOptions()
    _check_format(format, options)
    check_folder(path)
    return export_sheet(arrange(result, options), path, options, format, allow_empty=allow_empty)


def _check_format(format: str, options: TableOptions) -> None:
    """Refuse what a format would leave out without a word."""
    if format != "latex" and (options.environment != "table" or options.font_size is not None):
        raise UsageError(
            f"longtable, table* and sizes of letters are of LaTeX, not of {format}",
            "name a file that ends in .tex",
        )
    if format in DATA_FORMATS and options.header_names:
        name = next(iter(options.header_names))
        raise UsageError(
            f"{format} keeps the names of the columns, such as {name}, for who reads it again",
            "name columns in SQL: --sql 'select COLUMN as \"NAME\" from ...'",
        )


def export_sheet(
    sheet: Sheet, path: Path, options: TableOptions, format: str, *, allow_empty: bool = False
) -> list[Path]:
    """Write rows that are laid out already, and their sidecar; as :func:`export` does."""
    if not sheet.rows and not allow_empty:
        cut = f"the limit of {options.limit} rows leaves none" if sheet.truncated else None
        raise empty_error(path, cut or sheet.source.why_empty())
    rendered = render_sheet(sheet, format, options)
    content = rendered if isinstance(rendered, bytes) else rendered.encode()
    record = {
        "format": format,
        "options": json_value(asdict(options)),
        "columns": [{"name": c.name, "type": c.sql_type} for c in sheet.columns],
        "n_rows": len(sheet.rows),
        "truncated": sheet.truncated,
    }
    return write_with_sidecar(path, content, sheet.source.provenance, record)


def empty_error(path: Path, reason: str) -> UsageError:
    """The error that a file would hold no rows."""
    return UsageError(
        f"{path} is not written, as there are no rows for it: {reason}",
        "an empty one is written with --allow-empty, in Python with allow_empty=True",
    )


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of a file.

    Examples
    --------
    >>> sidecar_path(Path("overlap.tex")).name
    'overlap.tex.provenance.json'
    """
    return path.with_name(path.name + SIDECAR_ENDING)


def write_with_sidecar(
    path: Path, content: bytes, provenance: Provenance, record: Mapping[str, Any]
) -> list[Path]:
    """Write a file and its sidecar, both or neither.

    Parameters
    ----------
    path
        The file.
    content
        Its bytes.
    provenance
        Where they come from.
    record
        What else the sidecar says: format, options, columns.
    """
    sidecar = {
        **provenance.to_dict(),
        **record,
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(sidecar, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_together({path: content, sidecar_path(path): text.encode()})
    return [path, sidecar_path(path)]
