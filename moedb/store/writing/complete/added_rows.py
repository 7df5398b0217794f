"""Writing the rows of an addition: checked against the run, sorted, a stretch at a time."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moedb.errors import UsageError
from moedb.schemas.manifests import TableEntry
from moedb.schemas.tables import TOKEN_LABELS, Table, table
from moedb.store.files import sync_file
from moedb.store.reading.additions import additions_of, only_addition
from moedb.store.reading.memory import connect_in_memory
from moedb.store.reading.snapshot import RunSnapshot, check_table
from moedb.store.writing.open_run import file_entry
from moedb.store.writing.tables.parquet import arrow_schema, in_order, write_stretches

FILE_ROWS = 16_000_000
"""Rows of a file, at most."""

STRETCH_ROWS = 1_000_000
"""Rows that are sorted and written at once; as many are held in memory."""


def write_added(
    run: RunSnapshot, tables: Mapping[str, Iterable[Any]], folder: Path, unit: str
) -> tuple[dict[str, tuple[TableEntry, ...]], frozenset[str]]:
    """Write the rows of an addition into files of its own.

    Parameters
    ----------
    run
        The run.
    tables
        For each table its rows, in pieces.
    folder
        Where the files are put, each at its path within the run.
    unit
        The segment's name.

    Returns
    -------
    tuple
        For each table its files; and the keys of the labels of tokens.

    Raises
    ------
    ValueError
        If the rows are not such as their table has, or of no token, example, layer or expert of
        the run.
    """
    checks = _Checks(run)
    written: dict[str, tuple[TableEntry, ...]] = {}
    for name, pieces in tables.items():
        of = table(name)
        stretches = _stretches(checks.checked(of, piece) for piece in pieces)
        entries = tuple(_written(of, stretches, folder, unit))
        if entries:
            written[name] = entries
    return written, frozenset(checks.keys)


def expect_other_keys(run: RunSnapshot, keys: Iterable[str]) -> None:
    """Check that a run has no labels of tokens with some keys.

    Raises
    ------
    UsageError
        If it does.
    """
    wanted = set(keys)
    if not wanted or wanted.isdisjoint(label_keys(run)):
        return
    for name in (None, *additions_of(run)):
        taken = sorted(wanted & label_keys(only_addition(run, name)))
        if taken:
            whose = "of its own" if name is None else f"of the addition {name!r}"
            hint = "" if name is None else f", or replace those: --name {name} --replace"
            raise UsageError(
                f"run {run.title} has labels of tokens {whose} with the key "
                f"{', '.join(map(repr, taken))} already",
                f"choose other keys{hint}",
            )


def label_keys(run: RunSnapshot) -> set[str]:
    """The keys of the labels of a run's tokens."""
    files = run.file_names(TOKEN_LABELS.name)
    if not files:
        return set()
    check_table(run, TOKEN_LABELS.name)
    with connect_in_memory() as connection:
        found = connection.execute(
            "select distinct key from read_parquet($files)", {"files": files}
        )
        return {str(key) for (key,) in found.fetchall()}


class _Checks:
    """Whether rows can be rows of a run."""

    def __init__(self, run: RunSnapshot) -> None:
        self._run_id = run.run_id
        row = run.manifest.row
        self._numbers = {"token_idx": row["n_tokens"], "example_id": row["n_examples"]}
        self._experts = {layer["layer"]: layer["n_experts"] for layer in run.manifest.layers}
        self.keys: set[str] = set()

    def checked(self, of: Table, piece: pa.Table | pa.RecordBatch) -> pa.Table:
        """Rows with all columns of their table, in its types."""
        schema = arrow_schema(of)
        given, expected = set(piece.schema.names), set(of.column_names) - {"run_id"}
        if given != expected:
            raise ValueError(f"{of.name}: expected columns {sorted(expected)}, got {sorted(given)}")
        run_ids = pa.repeat(pa.scalar(self._run_id), len(piece))
        arrays = [
            run_ids if field.name == "run_id" else piece[field.name].cast(field.type)
            for field in schema
        ]
        rows = pa.Table.from_arrays(arrays, names=schema.names)
        for field in schema:
            if rows[field.name].null_count and not field.nullable:
                raise ValueError(f"{of.name}.{field.name}: null where none is allowed")
        self._expect_in_run(of, rows)
        if of is TOKEN_LABELS:
            self.keys.update(pc.unique(rows["key"]).to_pylist())
        return rows.cast(schema)

    def _expect_in_run(self, of: Table, rows: pa.Table) -> None:
        for name, n in self._numbers.items():
            if name in rows.schema.names and len(rows):
                _expect_range(of, name, rows[name], n)
        if "layer" not in rows.schema.names:
            return
        for layer in pc.unique(rows["layer"]).drop_null().to_pylist():
            if layer not in self._experts:
                known = ", ".join(map(str, self._experts))
                raise ValueError(f"{of.name}.layer: expected one of {known}, got {layer}")
            if "expert" in rows.schema.names:
                experts = rows.filter(pc.equal(rows["layer"], layer))["expert"]
                _expect_range(of, "expert", experts, self._experts[layer])


def _expect_range(of: Table, name: str, values: pa.ChunkedArray, n: int) -> None:
    extremes = pc.min_max(values).as_py()
    if extremes["min"] is not None and not 0 <= extremes["min"] <= extremes["max"] < n:
        worst = extremes["min"] if extremes["min"] < 0 else extremes["max"]
        raise ValueError(f"{of.name}.{name}: expected 0 to {n - 1}, got {worst}")


def _stretches(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Rows in stretches of so many, the last one with fewer; none where there are no rows."""
    held: list[pa.Table] = []
    n_rows = 0
    for piece in pieces:
        first = 0
        while first < len(piece):
            part = piece.slice(first, STRETCH_ROWS - n_rows)
            held.append(part)
            first += len(part)
            n_rows += len(part)
            if n_rows == STRETCH_ROWS:
                yield pa.concat_tables(held)
                held, n_rows = [], 0
    if held:
        yield pa.concat_tables(held)


def _written(
    of: Table, stretches: Iterator[pa.Table], folder: Path, unit: str
) -> Iterator[TableEntry]:
    """Write stretches into files as they come."""
    following = next(stretches, None)
    index = 0
    while following is not None:
        relative = f"tables/{of.name}/{unit}-{index:04d}.parquet"
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        n_rows = write_stretches(path, of, _of_one_file(of, following, stretches))
        sync_file(path)
        yield TableEntry(*file_entry(folder, relative), n_rows)
        following = next(stretches, None)
        index += 1


def _of_one_file(of: Table, first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield in_order(first, of)
    n_rows = len(first)
    while n_rows + STRETCH_ROWS <= FILE_ROWS and (stretch := next(rest, None)) is not None:
        n_rows += len(stretch)
        yield in_order(stretch, of)
