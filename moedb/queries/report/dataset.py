"""Runs as a data set that anybody can read: plain Parquet, a folder for each table, and a card."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import StoreError, UsageError
from moedb.queries.database import Database
from moedb.queries.report.dataset_card import CardOfRuns, PublishedTable, card_of
from moedb.schemas.tables import TABLES, Table
from moedb.store.copying.contents import contents_of
from moedb.store.files import sync_directory, sync_tree
from moedb.store.reading.snapshot import RunSnapshot

if TYPE_CHECKING:
    from moedb.queries.results.result import Result

TEXTS: Mapping[str, tuple[str, ...]] = {
    "examples": ("text",),
    "tokens": ("token",),
    "label_requests": ("prompt", "answer"),
}
"""Columns that hold texts, or parts of them."""

_ROWS = 1 << 18


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes
    ----------
    folder
        Where.
    runs
        The runs.
    n_files, n_bytes
        How many files, and their bytes.
    """

    folder: Path
    runs: tuple[str, ...]
    n_files: int
    n_bytes: int


def write_dataset(
    database: Database,
    runs: Sequence[str],
    folder: Path,
    *,
    with_texts: bool = False,
    with_arrays: bool = False,
    license: str | None = None,
    place: str | None = None,
) -> Published:
    """Write runs into a new folder, which is there when all of it is.

    Parameters
    ----------
    database
        The store.
    runs
        The runs; complete ones.
    folder
        The folder; it may be there, if it is empty.
    with_texts
        Whether the columns that hold texts are written; null otherwise.
    with_arrays
        Whether the arrays are.
    license
        What the card says of the licence.
    place
        Where the card says that the data are; None for the folder.

    Raises
    ------
    UsageError
        If the folder holds something, or a run is incomplete.
    StoreError
        If a file of a run is not what was committed, or the folder cannot be written.
    """
    chosen = [database.snapshot.run(run) for run in dict.fromkeys(runs)]
    for run in chosen:
        if not run.is_complete:
            raise UsageError(
                f"run {run.title} is incomplete; only complete runs are published",
                "finish it first: the command that began it goes on with it",
            )
    _expect_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
            written = Path(made) / "made"
            written.mkdir()
            tables = _write_tables(database, chosen, written, with_texts)
            if with_arrays:
                for run in chosen:
                    _write_arrays(run, written)
            about = CardOfRuns(chosen, tables, with_texts, with_arrays, license, place)
            (written / "README.md").write_text(card_of(about), encoding="utf-8")
            sync_tree(written)
            files = [path for path in written.rglob("*") if path.is_file()]
            n_bytes = sum(path.stat().st_size for path in files)
            if folder.exists():
                folder.rmdir()
            written.rename(folder)
        sync_directory(folder.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {error.filename or folder}: {error.strerror}", "name another folder"
        ) from error
    return Published(folder, tuple(run.run_id for run in chosen), len(files), n_bytes)


def _expect_free(folder: Path) -> None:
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is no empty folder", "name one that is new, or empty")


def _write_tables(
    database: Database, runs: Sequence[RunSnapshot], folder: Path, with_texts: bool
) -> list[PublishedTable]:
    n_rows: dict[str, int] = {}
    for run in runs:
        with Database(database.snapshot.only(run.run_id)).verified() as one:
            for table in TABLES:
                found = _write_table(one, table, run, folder, with_texts)
                if found:
                    n_rows[table.name] = n_rows.get(table.name, 0) + found
    return [
        PublishedTable(table, n_rows[table.name], () if with_texts else TEXTS.get(table.name, ()))
        for table in TABLES
        if table.name in n_rows
    ]


def _write_table(
    database: Database, table: Table, run: RunSnapshot, folder: Path, with_texts: bool
) -> int:
    """Write the rows of a table of one run; none leave no file."""
    withheld = () if with_texts else TEXTS.get(table.name, ())
    columns = ", ".join(
        f"cast(null as varchar) as {column.name}" if column.name in withheld else f'"{column.name}"'
        for column in table.columns
    )
    order = ", ".join(f'"{name}"' for name in table.sort_by)
    rows = database.sql(f"select {columns} from {table.name} order by {order}")  # noqa: S608
    place = folder / "data" / table.name / f"{run.run_id}.parquet"
    return _write_rows(rows, place)


def _write_rows(rows: "Result", place: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_rows, writer = 0, None
    try:
        for batch in rows.arrow_batches(_ROWS):
            if not batch.num_rows:
                continue
            if writer is None:
                place.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(
                    place, batch.schema, compression="zstd", write_page_index=True
                )
            writer.write_table(pa.Table.from_batches([batch]))
            n_rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    return n_rows


def _write_arrays(run: RunSnapshot, folder: Path) -> None:
    contents = contents_of(run)
    root = folder / "arrays" / run.run_id
    for path, text in contents.metadata.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())
    for entry in run.shards():
        place = root / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as stream:
            for block in contents.blocks(entry):
                stream.write(block)
