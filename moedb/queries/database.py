"""The Python face of a store: SQL, named queries and arrays over one snapshot of it."""

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb

from moedb.errors import (
    ArrayNotFoundError,
    SqlError,
    UsageError,
)
from moedb.queries.counting.engine import Engine, errors_explained
from moedb.queries.counting.stand_ins import counts_of
from moedb.queries.guidance.default_run import (
    check_arrays,
    newest_with_array,
    of_newest_run,
    runs_of_macros,
)
from moedb.queries.guidance.many_runs import (
    expect_run_parameter,
    names_several,
    run_labels,
    several_runs,
)
from moedb.queries.questions.binding import bind
from moedb.queries.questions.macros import create_macros, queries_named_in
from moedb.queries.questions.parameters import RUN_PARAMETERS, Value
from moedb.queries.questions.query_file import NamedQuery
from moedb.queries.questions.question import Question
from moedb.queries.reading.arrays.expert_outputs import ExpertOutputs, read_expert_outputs
from moedb.queries.reading.memo import Memo
from moedb.queries.reading.read_only import check_read_only, explained
from moedb.queries.reading.references import SPLITS, SplitSize, SplitSizes, narrowed, references
from moedb.queries.reading.sources.plan_reading import names_a_relation
from moedb.queries.reading.sources.sql_sources import BoundCall, SourceFinder
from moedb.queries.reading.sources.statement import MacroCall, Statement, read_statement
from moedb.queries.results.result import DUCKDB, Computed, Provenance, Result, RunReference
from moedb.schemas.arrays import ARRAY_FUNCTIONS, array_spec
from moedb.schemas.version import __version__
from moedb.store.layout import is_url, store_path
from moedb.store.reading.places.remote_store import RemoteStore
from moedb.store.reading.snapshot import RunSnapshot, Snapshot, take_snapshot, warn_of_damage

if TYPE_CHECKING:
    import zarr

    from moedb.queries.analyses.analysis import Analysis
    from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling
    from moedb.store.arrays.stored import ArrayKey
    from moedb.store.engine.spark.settings import SparkSettings

logger = logging.getLogger(__name__)

_MOST_NARROWED = 4
"""Databases of a few runs that are kept for the next query; each has threads of its own."""

DEFAULT_STORE = "moedb-store"


def default_store() -> Path:
    """The folder that is used when none is named: ``MOEDB_STORE``, or ``./moedb-store``."""
    return store_path(_named_store())


def _named_store() -> str:
    return os.environ.get("MOEDB_STORE") or DEFAULT_STORE


def chosen_store(store: str | Path | None) -> Path:
    """Return the folder of a store as it is given; None for ``MOEDB_STORE``, or ``./moedb-store``.

    Raises
    ------
    UsageError
        If it is a URL.
    """
    return default_store() if store is None else store_path(store)


def chosen_snapshot(store: str | Path | None) -> Snapshot:
    """The runs of a store as it is given, in a folder or elsewhere; None as for the folder.

    Raises
    ------
    StoreError
        If the store is missing, damaged or newer than this moedb, or cannot be reached.
    UsageError
        If that is no address of a store.
    """
    named = _named_store() if store is None else store
    return take_snapshot(RemoteStore(str(named)) if is_url(named) else Path(named))


def open_database(
    store: str | Path | None = None, *, spark: "SparkSettings | None" = None
) -> "Database":
    """Open a store for reading, as it is now.

    Parameters
    ----------
    store
        The store's folder, or its address on object storage, such as ``s3://bucket/store``; None
        for ``MOEDB_STORE``, or ``./moedb-store``.
    spark
        The Spark that answers queries and SQL; None for DuckDB.

    Returns
    -------
    Database
        Sees what was committed when it was opened; open it again to see more.

    Raises
    ------
    StoreError
        If the store is missing, damaged or newer than this moedb, or cannot be reached. A run that
        is damaged is left out, with a warning.
    UsageError
        If that is no address of a store.

    Examples
    --------
    >>> db = open_database("moedb-store")  # doctest: +SKIP
    >>> db.query("expert-frequency").df()  # doctest: +SKIP
    """
    snapshot = chosen_snapshot(store)
    warn_of_damage(snapshot)
    return Database(snapshot, spark=spark)


class Database:
    """A snapshot of a store, to be asked in SQL. Made by :func:`open_database`.

    Parameters
    ----------
    snapshot
        What is read.
    hashed
        The runs of which a table's files are read against their hashes before the table is first
        read; None where that is not asked for. See :meth:`verified`.
    spark
        The Spark that answers queries and SQL; None for DuckDB.
    resampling, null
        How the intervals of named queries are found, and what chance gives; None for none. See
        :meth:`resampled`.

    Attributes
    ----------
    snapshot
        What is read.
    spark
        The Spark that answers; None for DuckDB.
    resampling, null
        How the intervals of named queries are found, and what chance gives; None for none.
    memo
        What analyses have computed of complete runs.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        hashed: Collection[str] | None = None,
        spark: "SparkSettings | None" = None,
        resampling: "Resampling | None" = None,
        null: "Null | None" = None,
    ) -> None:
        self.snapshot = snapshot
        self.spark = spark
        self.resampling = resampling
        self.null = null
        self.memo = Memo()
        self._hashed = None if hashed is None else frozenset(hashed)
        self._arrays_hashed: set[tuple[str, ArrayKey]] = set()
        self._is_closed = False
        self._checked: set[tuple[str, str]] = set()
        self._of_one_run: dict[str, Database] = {}
        self._of_few_runs: OrderedDict[frozenset[str], Database] = OrderedDict()
        self._opened: list[Database] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<moedb.Database {self.snapshot.title}: {len(self.snapshot.runs)} runs>"

    def _repr_html_(self) -> str:
        return self.runs()._repr_html_()

    def close(self) -> None:
        """Close the connection, and forget what was computed."""
        opened = [*self._of_one_run.values(), *self._of_few_runs.values(), *self._opened]
        if self.spark is not None and "_in_duckdb" in self.__dict__:
            opened.append(self._in_duckdb)
        for database in opened:
            database.close()
        self.memo.clear()
        if "_sources" in self.__dict__:
            self._sources.close()
        if "_engine" in self.__dict__:
            self._engine.close()
        self._is_closed = True

    def interrupt(self) -> None:
        """Stop what another thread runs on this database; where nothing runs, nothing happens.

        A statement that has not begun yet is not stopped: call it until the thread is done. What
        is computed in Python goes on up to its next statement.
        """
        for database in (*self._of_one_run.values(), *self._of_few_runs.values(), *self._opened):
            database.interrupt()
        if "_engine" in self.__dict__ and not self._is_closed:
            self._engine.connection.interrupt()

    def sql(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        *,
        run: str | None = None,
    ) -> Result:
        """Run one SQL statement that reads.

        Parameters
        ----------
        statement
            DuckDB SQL over the tables and views of the store, and the named queries as table
            macros. ``$name`` is taken from ``parameters``.
        parameters
            Values of the statement's parameters.
        run
            The run, or an unambiguous beginning of its name, whose rows alone all tables and views
            hold; it is also the value of ``$run``. None for all runs.

        Raises
        ------
        SqlRefusedError
            If it would write, or reach outside the store.
        SqlError
            If DuckDB cannot run it; the message is DuckDB's own.
        RunNotFoundError, ParameterError
            If a macro is called with a run that is not there, or with a wrong value.
        """
        given = dict(parameters or {})
        check_read_only(self._engine.connection, statement)
        if run is not None:
            return self.of_run(run).sql(statement, parameters)
        marks = self._engine.connection.extract_statements(statement)[0].named_parameters
        if self.snapshot.chosen is not None and "run" in marks:
            given.setdefault("run", self.snapshot.chosen)
        read = explained(statement)
        found = read_statement(self._engine.connection, read, given)
        calls = [self._bound_call(call) for call in found.calls or ()]
        default_runs = runs_of_macros(self.snapshot, calls)
        with errors_explained():
            for query in queries_named_in(statement):
                self._engine.views.define(query.sql)
            create_macros(self._engine.connection, statement, self._beginnings(found), default_runs)
        try:
            relation = self._engine.answer(
                statement, given, self._engine.counts_of(statement, given, calls), calls
            )
        except SqlError as error:
            if not isinstance(error.__cause__, duckdb.CatalogException):
                raise
            # With every macro there, DuckDB can say which name was meant.
            with errors_explained():
                self._engine.views.define_all()
                self._engine.functions.define(" ".join(ARRAY_FUNCTIONS))
                create_macros(self._engine.connection, default_runs=default_runs)
            relation = self._engine.run(statement, given)

        def find_provenance() -> Provenance:
            sources = self._sources.find(read, given, found, calls)
            return self._provenance(None, statement, given, sources.runs, sources.certain)

        result = Result(relation, find_provenance, self._engine.connection)
        return replace(result, explain=lambda: self._why_sql_is_empty(result, statement, calls))

    def of_run(self, run: str) -> "Database":
        """Return a database whose tables and views hold the rows of one run alone.

        Parameters
        ----------
        run
            The run, or an unambiguous beginning of its name. It is closed with this database.

        Raises
        ------
        RunNotFoundError
            If there is none, or the beginning fits several.
        """
        run_id = self.snapshot.run(run).run_id
        if self.snapshot.chosen == run_id:
            return self
        if run_id not in self._of_one_run:
            hashed = None if self._hashed is None else self._hashed & {run_id}
            self._of_one_run[run_id] = self._of(self.snapshot.only(run_id), hashed)
        return self._of_one_run[run_id]

    def verified(self, runs: Iterable[str] | None = None) -> "Database":
        """Return a database that reads every byte of a file against its hash before it is used.

        That is done for the files of a table, and of an array, when it is first read; of what no
        question reads nothing is read.

        Parameters
        ----------
        runs
            The runs whose tables are read so, by their whole names; None for every run.
            :meth:`query` adds those that it reads. It is closed with this database.
        """
        database = self._of(self.snapshot, self.snapshot.runs if runs is None else [*runs])
        self._opened.append(database)
        return database

    def resampled(
        self, resampling: "Resampling | None" = None, null: "Null | None" = None
    ) -> "Database":
        """Return a database whose named queries say how sure they are, and what chance gives.

        Behind a column such as ``share`` stand ``share_low`` and ``share_high``, the ends of its
        95 % interval: of clusters of examples that are drawn again. Behind one such as ``rate``
        stand ``rate_null``, the mean of what chance gives, ``rate_null_low`` and
        ``rate_null_high``, the ends of the middle 95 % of it, ``rate_p`` and ``rate_q``.

        Parameters
        ----------
        resampling
            How intervals are found; None for none, or for a BCa bootstrap of 1000 draws where
            ``null`` is not given either.
        null
            How what chance gives is found; None where that is not asked for.

        Returns
        -------
        Database
            Closed with this one.

        Raises
        ------
        UsageError
            If Spark answers: clusters are drawn on one machine.
        """
        from moedb.queries.analyses.uncertainty.resampling.settings import Resampling

        if self.spark is not None:
            raise UsageError(
                "intervals, and what chance gives, are found on one machine",
                "--ci and --null without --engine spark",
            )
        if resampling is None and null is None:
            resampling = Resampling()
        database = Database(self.snapshot, self._hashed, None, resampling, null)
        self._opened.append(database)
        return database

    def query(self, name: str, **parameters: object) -> Result:
        """Run a named query, or an analysis in Python.

        Parameters
        ----------
        name
            Its name, such as ``routing-by-class``.
        **parameters
            Its parameters. ``run`` is, unless given, the newest complete run that has what the
            query asks for; in a query over trials it is every trial. A list of runs, or a pattern
            over their names, is as in :meth:`query_runs`.

        Raises
        ------
        QueryNotFoundError, ParameterError, RunNotFoundError
            If there is no such query, parameter or run, or the run has no such label, layer,
            expert, split or condition as a parameter names.
        UsageError
            If the run holds nothing of what the query reads, or Spark was asked for what needs one
            machine.
        """
        # what SQL alone needs nothing of is imported where it is used
        from moedb.queries.analyses.analysis import Analysis
        from moedb.queries.analyses.registry import find_question, relation_of
        from moedb.queries.guidance.cautions import caution
        from moedb.queries.guidance.empty_results import why_empty

        if names_several(parameters.get("run")):
            return self.query_runs(name, parameters.pop("run"), **parameters)  # type: ignore[arg-type]
        question = find_question(name)
        if self.spark is not None and isinstance(question, Analysis) and question.needs_one_machine:
            raise _needs_one_machine(question)
        is_doubted = self.resampling is not None or self.null is not None
        if is_doubted:
            from moedb.queries.analyses.uncertainty.resampling.results import check_doubt

            check_doubt(question, self.resampling, self.null)
        bound = self._with_runs(question, bind(question, parameters))
        used = _runs_of(bound)
        if self._hashed is not None:
            is_over_trials = isinstance(question, NamedQuery) and question.reads_trials
            read = self._trials(bound) if is_over_trials and not used else used
            if not self._hashed.issuperset(read):
                return self.verified(self._hashed.union(read)).query(name, **parameters)
        for run_id in dict.fromkeys(used):
            self._warn_if_incomplete(self.snapshot.run(run_id))
        reader = self._check(question, bound)
        if isinstance(question, Analysis):
            computed = self._computed(question, bind(question, bound))
            if self._hashed is not None and not self._hashed.issuperset(computed.run_ids):
                more = self._hashed.union(computed.run_ids)
                return self.verified(more).query(name, **parameters)
            connection, relation = relation_of(question.columns, computed.rows)
            used = list(computed.run_ids)
            where = f"-- computed in Python by {question.function_name}, from the rows of:"
            statement = f"{where}\n{computed.sql}"
            splits_read = computed.splits_read
        else:
            splits_read = None
            relation = reader._engine.answer(question.sql, bound, counts_of(question, bound))
            connection, statement = reader._engine.connection, question.sql
            if not used and question.reads_trials:
                used = self._trials(bound)
        runs = reader._references(used)
        if "split" in bound:
            runs = tuple(narrowed(run, bound["split"], splits_read) for run in runs)
        provenance = self._provenance(question.name, statement, bound, runs)
        explain = partial(why_empty, reader._in_duckdb, question, bound)
        result = Result(
            relation,
            lambda: provenance,
            connection,
            explain,
            caution(question.name),
            question.view if isinstance(question, Analysis) else None,
        )
        if is_doubted:
            from moedb.queries.analyses.uncertainty.resampling.results import with_doubt

            return with_doubt(reader, question, bound, result, self.resampling, self.null)
        return result

    def compare(self, name: str, one: str, other: str, **parameters: object) -> Result:
        """Compare what a named query gives for two label values, layers, splits or runs.

        Parameters
        ----------
        name
            Its name.
        one, other
            The two sides: ``value=code`` and ``value=prose`` of a column that tells rows apart, or
            ``split=clean`` and ``split=held`` of a parameter.
        **parameters
            Its other parameters.

        Returns
        -------
        Result
            For each row of both sides, and each estimate X, ``X_a``, ``X_b`` and ``X_difference``,
            the first less the second, with the ends of its 95 % interval. Clusters of examples
            that both sides have are drawn together.

        Raises
        ------
        UsageError
            If a side cannot be read, or intervals cannot be asked for.
        QueryNotFoundError, ParameterError, RunNotFoundError
            As of :meth:`query`.
        """
        from moedb.queries.analyses.registry import find_question
        from moedb.queries.analyses.uncertainty.resampling.comparing.results import compared
        from moedb.queries.analyses.uncertainty.resampling.comparing.sides import read_sides
        from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
        from moedb.queries.analyses.uncertainty.without import no_intervals

        question = find_question(name)
        if not isinstance(question, NamedQuery) or not question.estimates:
            raise no_intervals(question)
        sides = read_sides(question, one, other)
        plain = self._of_plain_answers
        of_column = sides.key in question.row_columns
        given = [{}] if of_column else [{sides.key: sides.one}, {sides.key: sides.other}]
        asked = []
        for of_side in given:
            result = plain.query(name, **{**parameters, **of_side})
            bound = plain._with_runs(question, bind(question, {**parameters, **of_side}))
            asked.append((plain._over(_runs_of(bound)), bound, result))
        return compared(question, sides, asked, self.resampling or Resampling())

    def query_runs(
        self,
        name: str,
        runs: str | Iterable[str],
        label: str | None = None,
        /,
        **parameters: object,
    ) -> Result:
        """Run a named query over several runs, one after the other.

        Parameters
        ----------
        name
            Its name.
        runs
            The runs: names, beginnings of names, and patterns such as ``text-*`` over the names of
            complete runs; as a text with commas between them.
        label
            A label of runs, such as ``step``: its value is a column, and runs are put in order by
            it, as numbers where all are.
        **parameters
            Its other parameters.

        Returns
        -------
        Result
            The rows of all, with the run in the column ``run`` before them.

        Raises
        ------
        QueryNotFoundError, ParameterError, RunNotFoundError, UsageError
            As of :meth:`query`, at the first run that cannot answer; and if one lacks the
            label.
        """
        from moedb.queries.analyses.registry import find_question
        from moedb.queries.results.rows.side_by_side import OfRun, side_by_side

        expect_run_parameter(find_question(name))
        run_ids = several_runs(self.snapshot, runs)
        labels = dict.fromkeys(run_ids) if label is None else run_labels(self, run_ids, label)
        found = [
            OfRun(self.snapshot.called(run_id), labels[run_id], self.query(name, **asked))
            for run_id in run_ids
            for asked in [{**parameters, "run": run_id}]
        ]
        by = {} if label is None else {"by_label": label}
        return side_by_side(found, label, {**parameters, **by, "run": run_ids})

    def runs(self) -> Result:
        """List the runs, the oldest first; damaged ones last."""
        from moedb.queries.guidance.overview import run_list

        return run_list(self)

    def queries(self) -> Result:
        """List the named queries and the analyses, by subject."""
        from moedb.queries.guidance.overview import query_list

        return query_list()

    def tables(self) -> Result:
        """List what SQL can name: tables, views, macros, and the arrays beside them."""
        from moedb.queries.guidance.schema import schema_list

        return schema_list()

    def array(self, run: str | None, name: str, layer: int) -> "zarr.Array[Any]":
        """Open one array of a run; its rows are ``tokens.array_row``.

        Parameters
        ----------
        run
            The run, or an unambiguous beginning of its name; None for the newest complete one that
            keeps the array.
        name
            Such as ``expert_outputs``; ``moedb schema`` lists them with their shapes.
        layer
            The layer.

        Raises
        ------
        ArrayNotFoundError
            If the run holds no such array; the message says which layers it holds.
        StoreDamagedError
            If what is stored is not the array that the run says it holds.
        """
        from moedb.store.arrays.stored import ArrayKey, check_shards, open_array

        spec = array_spec(name)
        found = self._with_array(run, name, layer)
        kept = found.manifest.arrays.get(name, ())
        if layer not in kept:
            have = f"kept are layers {list(kept)}" if kept else "it keeps none of that name"
            names = ", ".join(sorted(found.manifest.arrays)) or "no arrays"
            of_layer = "" if spec.has_one_layer and not kept else f" of layer {layer}"
            raise ArrayNotFoundError(
                f"run {found.run_id} has no {name}{of_layer}: {have}; it has {names}",
                f"capture again with --arrays {name}" + ("" if spec.has_one_layer else f"@{layer}"),
            )
        key = ArrayKey(name, layer)
        opened = open_array(found, key)
        if self._hashed is not None and (found.run_id, key) not in self._arrays_hashed:
            check_shards(found, key)
            self._arrays_hashed.add((found.run_id, key))
        return opened

    def _array_of_sql(self, run: str, name: str, layer: int | None) -> "zarr.Array[Any]":
        """Open an array that SQL reads a row of; of those at the model's end the layer is known."""
        if layer is None:
            layer = max(self.snapshot.run(run).manifest.arrays.get(name, ()), default=0)
        return self.array(run, name, layer)

    def expert_outputs(
        self, run: str | None = None, *, layer: int, where: str = "true"
    ) -> ExpertOutputs:
        """Read the expert outputs of the tokens that a SQL condition picks.

        Parameters
        ----------
        run
            The run; None for the newest complete one that keeps them.
        layer
            The layer.
        where
            A condition over the columns of ``tokens`` and ``examples``; labels by a subquery, such
            as ``token_idx in (select token_idx from labels where value = 'io')``. All tables and
            views stand for the rows of this run alone.

        Returns
        -------
        ExpertOutputs
            ``values`` has the shape (token, rank, d_model), tokens in the order of ``token_idx``.

        Raises
        ------
        ArrayNotFoundError, SqlError
            If the run does not keep the layer's outputs, or the condition is not valid SQL.
        """
        found = self._with_array(run, "expert_outputs", layer)
        return read_expert_outputs(self, found.run_id, layer, where)

    @cached_property
    def split_sizes(self) -> SplitSizes:
        """The sizes of the splits of each run."""
        sizes: dict[str, dict[str, SplitSize]] = {}
        for run_id, split, *size in self._engine.run(SPLITS, {}).fetchall():
            sizes.setdefault(run_id, {})[split] = SplitSize(*size)
        return sizes

    @cached_property
    def _engine(self) -> Engine:
        if self._is_closed:
            raise SqlError(f"{self!r} is closed", "open it again: moedb.open(...)")
        hashed = self._hashed or ()
        # DuckDB holds what opens arrays, and would hold this database for as long as itself
        weak = weakref.WeakMethod(self._array_of_sql)

        def open_array(run: str, name: str, layer: int | None) -> "zarr.Array[Any]":
            method = weak()
            if method is None:
                raise SqlError("the database is closed", "open it again: moedb.open(...)")
            return method(run, name, layer)

        return Engine(
            *(self.snapshot, self.memo, hashed, lambda: self.split_sizes, open_array), self.spark
        )

    @cached_property
    def _sources(self) -> SourceFinder:
        return SourceFinder(self.snapshot, self._engine.connection, lambda: self.split_sizes)

    def _of(self, snapshot: Snapshot, hashed: Collection[str] | None) -> "Database":
        """A database over another part of the store, on the same engine."""
        return Database(snapshot, hashed, self.spark, self.resampling, self.null)

    @cached_property
    def _of_plain_answers(self) -> "Database":
        """The same without intervals."""
        if self.resampling is None and self.null is None:
            return self
        plain = Database(self.snapshot, self._hashed)
        self._opened.append(plain)
        return plain

    @cached_property
    def _in_duckdb(self) -> "Database":
        """The same rows in DuckDB, for the small questions that guidance has."""
        return self if self.spark is None else Database(self.snapshot, self._hashed)

    def _over(self, run_ids: Collection[str]) -> "Database":
        """A database of a few runs, or this one where they are all of them, or none is named."""
        key = frozenset(run_ids)
        if not key or key == set(self.snapshot.runs):
            return self
        if key not in self._of_few_runs:
            hashed = None if self._hashed is None else self._hashed & key
            few = self._of(self.snapshot.only(*dict.fromkeys(run_ids)), hashed)
            self._of_few_runs[key] = few
            if len(self._of_few_runs) > _MOST_NARROWED:
                # what was asked of it before keeps it open
                self._of_few_runs.popitem(last=False)
        self._of_few_runs.move_to_end(key)
        return self._of_few_runs[key]

    def _trials(self, bound: Mapping[str, object]) -> list[str]:
        """The runs that a query over trials reads."""
        from moedb.queries.analyses.routing_over_trials import TRAINING

        chosen = {key: bound[key] for key in TRAINING if bound.get(key) is not None}
        where = " and ".join(f"{key} = ${key}" for key in chosen) or "true"
        order = ", ".join((*TRAINING, "trial"))
        statement = f"select run_id from trials where {where} order by {order}"  # noqa: S608
        rows = self._engine.run(statement, chosen).fetchall()
        return [run_id for (run_id,) in rows]

    def _why_sql_is_empty(self, result: Result, statement: str, calls: Iterable[BoundCall]) -> str:
        """Why a statement selects nothing: a macro of it gives no rows, or no run is left."""
        from moedb.queries.guidance.empty_results import why_empty

        for call in calls:
            if len(call.values) == len(call.query.parameters):
                counts = counts_of(call.query, call.values)
                answer = self._engine.answer(call.query.sql, call.values, counts)
                if not answer.limit(1).fetchall():
                    reason = why_empty(self._in_duckdb, call.query, call.values)
                    return f"{call.query.macro_name} gives none: {reason}"
        runs = ", ".join(sorted(self.snapshot.runs)) or "none"
        if not result.provenance.runs and names_a_relation(statement):
            return f"the SQL's conditions leave no run of the store, which has {runs}"
        return "the SQL selects nothing"

    def _bound_call(self, call: MacroCall) -> BoundCall:
        """The values that a macro's query runs with, and the runs that it reads."""
        from moedb.queries.analyses.routing_over_trials import TRAINING

        given = bind(call.query, call.arguments, call.computed)
        run_parameters = call.computed & set(RUN_PARAMETERS)
        values = self._with_runs(call.query, given, call.computed)
        if call.query.reads_trials:
            runs = None if call.computed & set(TRAINING) else self._trials(values)
        else:
            named = (values.get(key) for key in RUN_PARAMETERS)
            runs = None if run_parameters else [str(run) for run in named if run is not None]
        for run_id in dict.fromkeys(runs or ()):
            self._warn_if_incomplete(self.snapshot.run(run_id))
        self._check(call.query, values)
        default = None if given.get("run") is not None else values.get("run")
        default = None if default is None else str(default)
        return BoundCall(call.query, values, runs, default, call.arguments)

    def _beginnings(self, statement: Statement) -> dict[str, str]:
        """The beginnings of runs' names that the macros of a statement are called with."""
        given = {
            str(call.arguments[key])
            for call in statement.calls or ()
            for key in RUN_PARAMETERS
            if call.arguments.get(key) is not None
        }
        return {begun: self.snapshot.run(begun).run_id for begun in given - set(self.snapshot.runs)}

    def _with_runs(
        self, question: Question, bound: Mapping[str, Value], computed: Collection[str] = ()
    ) -> dict[str, Value]:
        """The values with runs by their whole names, and with one where none is named."""
        names = {parameter.name for parameter in question.parameters} - set(computed)
        if isinstance(question, NamedQuery) and question.reads_trials:
            names.discard("run")
        resolved = dict(bound)
        for key in RUN_PARAMETERS:
            given = bound.get(key)
            if given is not None:
                resolved[key] = self.snapshot.run(str(given)).run_id
        if "run" in names and resolved.get("run") is None:

            def ask(run: RunSnapshot) -> None:
                values = {**resolved, "run": run.run_id}
                hashed = None if self._hashed is None else self._hashed.union(_runs_of(values))
                reader = self if hashed is None else self.verified(hashed)
                reader._check(question, values)
                check_arrays(question, run)

            other = next(iter(_runs_of(resolved)), None)
            run = of_newest_run(self.snapshot, question.name, ask, other)
            resolved["run"] = run.run_id
        return resolved

    def _check(self, question: Question, bound: Mapping[str, Value]) -> "Database":
        """Check that what is asked is there; return what reads it."""
        from moedb.queries.guidance.parameter_values import check_values

        # the files of other runs are not looked into
        reader = self._over(_runs_of(bound)) if isinstance(question, NamedQuery) else self
        key = question.name, repr(sorted(bound.items()))
        if key not in self._checked:
            check_values(reader._in_duckdb, question, bound, self.null is not None)
            self._checked.add(key)
        return reader

    def _computed(self, analysis: "Analysis", values: Mapping[str, Value]) -> Computed:
        from moedb.queries.analyses.waiting.kept import answer_or_compute

        compute = partial(analysis.function, self, values)
        # who asks that what is read be verified asks that it be read
        if self._hashed is not None:
            return compute()
        return answer_or_compute(analysis, self.snapshot, values, compute)

    def _with_array(self, run: str | None, name: str, layer: int) -> RunSnapshot:
        if run is not None:
            return self.snapshot.run(run)
        return newest_with_array(self.snapshot, name, layer)

    def _warn_if_incomplete(self, run: RunSnapshot) -> None:
        if not run.is_complete:
            logger.warning(
                "run %s is incomplete: %d of %d units are missing",
                run.run_id,
                len(run.missing_units),
                len(run.manifest.units),
            )

    def _references(self, run_ids: Iterable[str]) -> tuple[RunReference, ...]:
        return references(self.snapshot, run_ids, lambda: self.split_sizes)

    def _provenance(
        self,
        name: str | None,
        statement: str,
        parameters: Mapping[str, object],
        runs: tuple[RunReference, ...],
        certain: bool = True,
    ) -> Provenance:
        return Provenance(
            name=name,
            sql=statement,
            parameters=parameters,
            runs=runs,
            snapshot=self.snapshot.sha256,
            moedb_version=__version__,
            engine=DUCKDB if self.spark is None else f"Spark ({self.spark.title})",
            certain=certain,
        )


def _needs_one_machine(analysis: "Analysis") -> UsageError:
    read = " or ".join(analysis.needs_arrays) or "the decisions of single tokens"
    return UsageError(
        f"{analysis.name} reads {read} and is computed on one machine, not by Spark",
        f"moedb query {analysis.name}, without --engine spark; in Python, without spark=",
    )


def _runs_of(bound: Mapping[str, Value]) -> list[str]:
    """The runs that a question names."""
    return [str(bound[key]) for key in RUN_PARAMETERS if bound.get(key) is not None]
