"""Writing a result to a file, with a sidecar that says where it comes from."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moedb.errors import UsageError
from moedb.queries.results.cells import json_value
from moedb.queries.results.files import check_folder, write_together
from moedb.queries.results.formats.rendering import format_of_path, render_sheet, render_stream
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.rows.streaming import RowStream
from moedb.queries.results.sheets import Sheet, TableOptions, arrange, check_renamed
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
    return export_counted(
        result, path, options or TableOptions(), format or format_of_path(path), allow_empty
    ).paths


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes
    ----------
    paths
        The table, and its sidecar.
    n_rows
        How many rows the table has.
    truncated
        Whether the limit left rows out.
    """

    paths: list[Path]
    n_rows: int
    truncated: bool


def export_counted(
    result: Result, path: Path, options: TableOptions, format: str, allow_empty: bool
) -> Written:
    """Write a result as :func:`export` does, and say how many rows were written.

    The rows are written as they come, where the format and the options allow it.
    """
    check_folder(path)
    _check_format(format, options)
    shown = options.in_format(format)
    rows: Sheet | RowStream
    if options.pivot is None:
        rows = RowStream.of(result, shown)
        check_renamed(rows.columns, options.header_names)
    else:
        rows = arrange(result, shown)

    def pieces() -> Iterator[bytes]:
        for piece in _pieces(rows, format, options):
            yield piece if isinstance(piece, bytes) else piece.encode()
        if not rows.n_rows and not allow_empty:
            cut = f"the limit of {options.limit} rows leaves none" if rows.truncated else None
            raise empty_error(path, cut or result.why_empty())

    def record() -> dict[str, Any]:
        return {
            "format": format,
            "options": json_value(asdict(options)),
            "columns": [{"name": c.name, "type": c.sql_type} for c in rows.columns],
            "n_rows": rows.n_rows,
            "truncated": rows.truncated,
        }

    paths = write_with_sidecar(path, pieces(), lambda: result.provenance, record)
    return Written(paths, rows.n_rows, rows.truncated)


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


def _pieces(rows: Sheet | RowStream, format: str, options: TableOptions) -> Iterable[str | bytes]:
    if isinstance(rows, Sheet):
        return (render_sheet(rows, format, options),)
    return render_stream(rows, format, options)


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
    path: Path,
    content: Iterable[bytes],
    provenance: Callable[[], Provenance],
    record: Callable[[], Mapping[str, Any]],
) -> list[Path]:
    """Write a file and its sidecar, both or neither.

    Parameters
    ----------
    path
        The file.
    content
        What is in it, in pieces.
    provenance
        Where that comes from, asked for once it is written.
    record
        What else the sidecar says then: format, options, columns.
    """
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in content:
            digest.update(piece)
            yield piece

    def sidecar() -> Iterator[bytes]:
        told = {
            **provenance().to_dict(),
            **record(),
            "file": path.name,
            "sha256": digest.hexdigest(),
        }
        yield (json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    write_together({path: hashed(), sidecar_path(path): sidecar()})
    return [path, sidecar_path(path)]
