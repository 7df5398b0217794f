"""What a query returns: its rows, and where they come from.

Importing this module costs nothing: pandas and pyarrow are imported by the methods that need them.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from moedb.errors import MoedbError, SqlError, UsageError
from moedb.queries.results.cells import (
    Kind,
    html_table,
    json_value,
    kind_of,
    plain_table,
    shown_text,
)
from moedb.queries.results.values.conversions import NOT_IN_FRAMES, NOT_IN_PYTHON, as_text
from moedb.queries.results.values.intervals import Fold, estimates_with_ends
from moedb.queries.results.visible import visible
from moedb.schemas.run_names import title_of
from moedb.store.engine.batches import arrow_batches, row_batches

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")

View = Callable[[Iterable[Mapping[str, Any]], int], Iterator[str]]
"""Gives the lines that show rows, each by column, on a terminal of so many cells a line."""

Table = Callable[[Sequence[str], Sequence[Kind], Sequence[Sequence[str]]], str]

RUNS_NAMED = 4
"""A footer names up to this many runs one by one, and counts more."""

DUCKDB = "DuckDB"
"""The engine where none is named."""

CORRUPTED = "corrupted"
"""The split of the corrupted twins."""

_ROWS_SHOWN = 20
_BATCH = 10_000


@dataclass(frozen=True)
class RunReference:
    """A run that a result was computed from, as a table or a figure names it.

    Attributes
    ----------
    run_id, job, model, model_sha256, dataset, n_examples, status
        As in the table ``runs``.
    splits
        How many examples of each split are committed; None where they were not counted.
    splits_read
        The splits that were read; None for all of them.
    name
        What its user calls it.
    """

    run_id: str
    job: str
    model: str
    model_sha256: str
    dataset: str
    n_examples: int
    status: str
    splits: Mapping[str, int] | None = None
    splits_read: tuple[str, ...] | None = None
    name: str | None = None

    @property
    def title(self) -> str:
        """What it is called and what it is stored as."""
        return title_of(self.run_id, self.name)

    @property
    def model_line(self) -> str:
        """The model and the start of its hash; of a folder's path only the last part."""
        name = PurePath(self.model).name if PurePath(self.model).is_absolute() else self.model
        return f"model {name or self.model} (sha256 {self.model_sha256[:8]})"

    @property
    def run_line(self) -> str:
        """The run and what was read of it, and its status unless it is complete."""
        status = "" if self.status == "complete" else f" ({self.status})"
        return f"run {self.title}{status}, {self.examples_line}"

    @property
    def examples_line(self) -> str:
        """How many examples were read, and whether their corrupted twins were.

        Examples
        --------
        >>> splits = {"clean": 300, "corrupted": 300}
        >>> given = ("ioi-9f8e7d", "qwen-ioi", "m", "1a2b", "ioi", 600, "complete", splits)
        >>> RunReference(*given).examples_line
        '300 examples and their 300 corrupted twins'
        >>> RunReference(*given, ("clean",)).examples_line
        '300 examples without their 300 corrupted twins'
        >>> RunReference(*given, ("corrupted",)).examples_line
        '300 of 600 examples (split corrupted)'
        """
        if self.splits is None:
            return _counted(self.n_examples, "example")
        total, n_twins = sum(self.splits.values()), self.splits.get(CORRUPTED, 0)
        every = {split for split, n in self.splits.items() if n}
        read = every if self.splits_read is None else set(self.splits_read)
        plain = _counted(total - n_twins, "example")
        twins = f"their {_counted(n_twins, 'corrupted twin')}"
        if read >= every:
            return (
                f"{plain} and {twins}"
                if n_twins and n_twins < total
                else _counted(total, "example")
            )
        if read >= every - {CORRUPTED} and CORRUPTED not in read:
            return f"{plain} without {twins}"
        n_read = sum(n for split, n in self.splits.items() if split in read)
        return f"{n_read} of {_counted(total, 'example')} (split {', '.join(sorted(read))})"


@dataclass(frozen=True)
class Resampled:
    """How something was found by drawing at random.

    Attributes
    ----------
    title
        In words.
    settings
        What was asked for, by which they can be found again.
    """

    title: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from, enough to compute it again.

    Attributes
    ----------
    name
        The named query, or None for SQL that was typed.
    sql
        The SQL as it was run. For an analysis in Python a comment that names the function, and the
        SQL that fetched what it read.
    parameters
        The values of its parameters.
    runs
        The runs it read.
    snapshot
        Hash of the snapshot of the store that it read.
    moedb_version
        The version of moedb that ran it.
    certain
        Whether all of ``runs`` were read. False where any of them may have been: SQL that was
        typed over the tables of several runs.
    where, order_by
        The condition that left rows of the SQL out, and what put them in another order; None
        where nothing did.
    engine
        What ran the SQL.
    intervals, chance
        How the intervals beside its estimates were found, and what chance gives in their place;
        None without any.
    """

    name: str | None
    sql: str
    parameters: Mapping[str, object]
    runs: tuple[RunReference, ...]
    snapshot: str
    moedb_version: str
    certain: bool = True
    where: str | None = None
    order_by: str | None = None
    engine: str = DUCKDB
    intervals: Resampled | None = None
    chance: Resampled | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON can hold."""
        return {
            "name": self.name,
            "sql": self.sql,
            "parameters": json_value(self.parameters),
            "runs": [_given(asdict(run)) for run in self.runs],
            **({} if self.certain else {"certain": False}),
            **({} if self.where is None else {"where": self.where}),
            **({} if self.order_by is None else {"order_by": self.order_by}),
            "snapshot": self.snapshot,
            "moedb_version": self.moedb_version,
            **({} if self.engine == DUCKDB else {"engine": self.engine}),
            **({} if self.intervals is None else {"intervals": asdict(self.intervals)}),
            **({} if self.chance is None else {"chance": asdict(self.chance)}),
        }

    def footer(self) -> str:
        """Return one line that names models, runs and version.

        Examples
        --------
        >>> run = RunReference("text-9f8e7d", "text", "m", "1a2b3c4d5e", "pile", 200, "complete")
        >>> Provenance(None, "select 1", {}, (run,), "c0ffee", "0.1.0").footer()
        'model m (sha256 1a2b3c4d), run text-9f8e7d, 200 examples; moedb 0.1.0'
        >>> Provenance(None, "select 1", {}, (), "c0ffee", "0.1.0").footer()
        'from no run; moedb 0.1.0'
        >>> both = Provenance(None, "from tokens", {}, (run, run), "c0ffee", "0.1.0", False)
        >>> both.footer()[:25]
        'any of these 2 runs: mode'
        """
        if not self.runs:
            parts = ["from no run"]
        elif len(self.runs) <= RUNS_NAMED:
            parts = [f"{run.model_line}, {run.run_line}" for run in self.runs]
            if not self.certain:
                parts[0] = f"any of these {len(self.runs)} runs: {parts[0]}"
        else:
            models = list(dict.fromkeys(run.model_line for run in self.runs))
            incomplete = sum(run.status != "complete" for run in self.runs)
            counted = f"{len(self.runs)} runs" + (
                f" ({incomplete} incomplete)" if incomplete else ""
            )
            more = [f"{len(models) - RUNS_NAMED} more models"] if len(models) > RUNS_NAMED else []
            which = "" if self.certain else "any of "
            parts = [f"{which}{counted} of " + ", ".join(models[:RUNS_NAMED] + more)]
        if self.where is not None:
            parts.append(f"rows where {self.where}")
        if self.order_by is not None:
            parts.append(f"ordered by {self.order_by}")
        if self.engine != DUCKDB:
            parts.append(f"on {self.engine}")
        parts += [how.title for how in (self.intervals, self.chance) if how is not None]
        return " ".join("; ".join([*parts, f"moedb {self.moedb_version}"]).split())


@dataclass(frozen=True)
class Computed:
    """What an analysis in Python found, before it becomes a :class:`Result`.

    Attributes
    ----------
    rows
        The rows, with a value for each column of the analysis; None is null.
    sql
        The SQL that fetched what they were computed from.
    run_ids
        The runs that were read.
    splits_read
        The splits of the examples that were read, where the parameter ``split`` does not say.
    """

    rows: Sequence[tuple[Any, ...]]
    sql: str
    run_ids: tuple[str, ...]
    splits_read: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The rows of a query, and their provenance.

    Nothing is computed before the rows are asked for, and each way of asking runs the query anew
    over the same snapshot: the values are the same every time. Only an analysis in Python is
    computed when the result is made.

    Attributes
    ----------
    relation
        The DuckDB relation, to build on.
    find_provenance
        Finds where the rows come from; called once, when it is asked for.
    connection
        What runs the query, and is open as long as the result is there.
    explain
        Says why there are no rows, asked of a result without any; None where nothing is known.
    find_caution
        Finds what a reader has to know of the rows of a result, if anything; called once.
    view
        Shows the rows on a terminal, where that is not a table.
    """

    relation: "duckdb.DuckDBPyRelation"
    find_provenance: Callable[[], Provenance]
    connection: "duckdb.DuckDBPyConnection"
    explain: Callable[[], str] | None = None
    find_caution: "Callable[[Result], str | None] | None" = None
    view: View | None = None

    @cached_property
    def provenance(self) -> Provenance:
        """Where the rows come from."""
        return self.find_provenance()

    @cached_property
    def caution(self) -> str | None:
        """What a reader has to know of the rows, such as that a value is so by necessity."""
        return None if self.find_caution is None else self.find_caution(self)

    @property
    def footer(self) -> str:
        """The line below a table or a figure: where the rows come from, and the caution."""
        line = self.provenance.footer()
        return line if self.caution is None else f"{line}; {self.caution}"

    @property
    def tells_doubt(self) -> bool:
        """Whether intervals, or what chance gives, were asked for beside the estimates."""
        found = self.provenance
        return found.intervals is not None or found.chance is not None

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.relation.columns)

    @property
    def types(self) -> list[str]:
        """The SQL types of the columns, in order."""
        return [str(sql_type) for sql_type in self.relation.types]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return self._run(lambda: self.relation.fetchall())

    def batches(self, size: int = _BATCH) -> Generator[list[tuple[Any, ...]], None, None]:
        """Return the rows some at a time, so that they need not all be in memory.

        Until the last is taken, or the iterator is closed, the connection does nothing else.

        Parameters
        ----------
        size
            Rows of a batch at most.
        """
        yield from self._streamed(row_batches(self.relation, self.connection, size))

    def arrow_batches(self, size: int = _BATCH) -> "Generator[pa.RecordBatch, None, None]":
        """Return the rows as Arrow some at a time; see :meth:`batches` and :meth:`arrow`."""
        readable = as_text(self.relation, NOT_IN_FRAMES)
        yield from self._streamed(arrow_batches(readable, size))

    def fetchmany(self, n: int) -> list[tuple[Any, ...]]:
        """Return the first ``n`` rows; the same ones at every call."""
        return self.limit(n).fetchall()

    def df(self) -> "pd.DataFrame":
        """Return the rows as a pandas frame; what pandas has no type for comes as text."""
        readable = as_text(self.relation, NOT_IN_FRAMES)
        frame: pd.DataFrame = self._run(lambda: readable.df())
        return frame

    def arrow(self) -> "pa.Table":
        """Return the rows as an Arrow table; what Arrow has no type for comes as text."""
        readable = as_text(self.relation, NOT_IN_FRAMES)
        return self._run(lambda: readable.to_arrow_table())

    def pl(self) -> Any:
        """Return the rows as a polars frame; what Arrow has no type for comes as text.

        Raises
        ------
        UsageError
            If polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise UsageError("polars is not installed", "pip install polars") from error
        return polars.from_arrow(self.arrow())

    def as_text(self, types: Set[str]) -> "Result":
        """Return the result with the values of some types as text.

        Parameters
        ----------
        types
            Such as :data:`moedb.queries.results.values.conversions.NOT_IN_PYTHON`.
        """
        return self._with(as_text(self.relation, types))

    def limit(self, n: int) -> "Result":
        """Return the result cut to its first ``n`` rows."""
        explain = self.explain if n else lambda: "it is cut to its first 0 rows"
        return replace(self._with(self.relation.limit(n)), explain=explain)

    def project(self, columns: str) -> "Result":
        """Return the result with other columns, given as SQL over its own."""
        return self._with(self.relation.project(columns))

    def of(self, relation: "duckdb.DuckDBPyRelation") -> "Result":
        """Return what was made of the relation as a result from the same place."""
        return self._with(relation)

    def aggregate(self, values: str) -> "Result":
        """Return one row of aggregates, given as SQL over the result's columns."""
        return self._with(self.relation.aggregate(values))

    def count_within(self, seconds: float) -> int | None:
        """Return how many rows there are; None where counting them takes longer than that."""
        import duckdb

        timer = threading.Timer(seconds, self.connection.interrupt)
        timer.start()
        try:
            ((n_rows,),) = self.aggregate("count(*)").fetchall()
        except SqlError as error:
            if isinstance(error.__cause__, duckdb.InterruptException):
                return None
            raise
        finally:
            timer.cancel()
        return int(n_rows)

    def why_empty(self) -> str:
        """Say why a result without rows has none."""
        if self.explain is not None:
            return self.explain()
        return "the SQL selects nothing"

    def _with(self, relation: "duckdb.DuckDBPyRelation") -> "Result":
        return replace(self, relation=relation, find_provenance=lambda: self.provenance)

    def _streamed(self, opened: "Generator[T, None, None]") -> "Iterator[T]":
        """Take what a generator gives, each time as :meth:`_run` does."""
        try:
            while True:
                found = self._run(lambda: next(opened, None))
                if found is None:
                    return
                yield found
        finally:
            with suppress(ValueError):  # it still runs where an interrupted query did not end
                self._run(opened.close)

    def _run(self, work: "Callable[[], T]") -> "T":
        """Compute rows; turn what DuckDB raises meanwhile into :class:`SqlError`."""
        import duckdb

        from moedb.store.engine.duckdb_errors import explain_error
        from moedb.store.engine.execution import run_interruptibly

        try:
            return run_interruptibly(self.connection, work)
        except duckdb.Error as error:
            raise explain_error(error) or SqlError(str(error)) from error

    def _glimpse(self, table: "Table") -> tuple[str, str]:
        """The first rows as a table, and the line below it."""
        rows = self.as_text(NOT_IN_PYTHON).fetchmany(_ROWS_SHOWN + 1)
        names, kinds = self.columns, [kind_of(each) for each in self.types]
        fold = Fold(estimates_with_ends(names, kinds) if self.tells_doubt else {})
        places = fold.places(names)
        cells = [fold.row(row, places) for row in rows[:_ROWS_SHOWN]]
        shown = [[shown_text(value) for value in row] for row in cells]
        heads = [(names[place], kinds[place]) for place, *_ in places]
        drawn = table([name for name, _ in heads], [kind for _, kind in heads], shown)
        more = f"first {_ROWS_SHOWN} rows; " if len(rows) > _ROWS_SHOWN else ""
        if not rows:
            more = f"no rows: {self.why_empty()}\n"
        return drawn, "\n".join(visible(line) for line in f"{more}{self.footer}".split("\n"))

    def _repr_html_(self) -> str:
        try:
            table, below = self._glimpse(html_table)
        except MoedbError as error:
            return f"<p>{escape(visible(error.message))}</p>"
        return f"{table}<small>{escape(below)}</small>"

    def __repr__(self) -> str:
        try:
            table, below = self._glimpse(plain_table)
        except MoedbError as error:
            return f"<Result: {visible(error.message)}>"
        return f"{table.rstrip()}\n{below}"


def _given(run: dict[str, Any]) -> dict[str, Any]:
    """A run without the name that nobody gave it."""
    return {key: value for key, value in run.items() if key != "name" or value is not None}


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
