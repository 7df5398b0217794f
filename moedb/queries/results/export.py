"""Writing a result to a file, with a sidecar that says where it comes from."""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moedb.errors import MoedbError, UsageError
from moedb.queries.results.cells import json_value
from moedb.queries.results.formats import TableOptions, arrange, format_of_path, render_sheet
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.sheets import Sheet
from moedb.store.files import sync_directory

__all__ = ["SIDECAR_ENDING", "TableOptions", "export", "sidecar_path", "write_together"]

SIDECAR_ENDING = ".provenance.json"

_logger = logging.getLogger(__name__)
_REQUEST_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)


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
        If the ending or a column is unknown, the folder cannot be written to, or there are no rows:
        then what is at ``path`` stays as it is.
    """
    path = Path(path)
    format = format or format_of_path(path)
    options = options or TableOptions()
    check_folder(path)
    return export_sheet(arrange(result, options), path, options, format, allow_empty=allow_empty)


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


def check_folder(path: Path) -> None:
    """Raise UsageError if no file can be made at ``path``."""
    folder = path.parent
    if not folder.exists():
        raise UsageError(f"cannot write {path}: there is no folder {folder}", f"mkdir -p {folder}")
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: {folder} is a file")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", "name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: no permission to write in {folder}")


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files so that a failure leaves all of them as they were.

    Each is written in full and synced beside its place, and only then all are moved there. A
    symbolic link stays, and what it points to is replaced.

    Parameters
    ----------
    contents
        The bytes of each file.

    Raises
    ------
    UsageError
        If a place cannot be written to.
    MoedbError
        If writing failed otherwise, such as on a full disk.
    """
    places = {Path(os.path.realpath(path)): content for path, content in contents.items()}
    staged: dict[Path, Path] = {}
    before: dict[Path, Path | None] = {}
    try:
        for place, content in places.items():
            check_folder(place)
            staged[place] = _beside(place)
            _write_synced(staged[place], content)
        for place, temporary in staged.items():
            kept = None
            if place.exists():
                kept = _kept_copy(place)
            before[place] = kept
            temporary.replace(place)
    except BaseException as error:
        _put_back(before, staged)
        if isinstance(error, OSError):
            raise _write_error(next(iter(contents)), error) from error
        raise
    finally:
        for temporary in [*staged.values(), *(kept for kept in before.values() if kept)]:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {place.parent for place in places}:
        _sync_folder(folder)


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name[:200]}.{secrets.token_hex(6)}.tmp")


def _kept_copy(place: Path) -> Path:
    kept = _beside(place)
    try:
        kept.hardlink_to(place)
    except OSError:  # not every file system has links
        shutil.copy2(place, kept)
    return kept


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # some file systems cannot sync a folder; the files themselves are synced
    with suppress(OSError):
        sync_directory(folder)


def _put_back(before: Mapping[Path, Path | None], staged: Mapping[Path, Path]) -> None:
    """Undo the moves made so far: a place whose staged file is gone was replaced."""
    for place, kept in before.items():
        if staged[place].exists():
            continue
        try:
            if kept is None:
                place.unlink(missing_ok=True)
            else:
                kept.replace(place)
        except OSError:
            _logger.exception("could not put %s back", place)


def _write_error(path: Path, error: OSError) -> MoedbError:
    kind = UsageError if error.errno in _REQUEST_ERRORS else MoedbError
    return kind(f"cannot write {path}: {error.strerror or error}")
