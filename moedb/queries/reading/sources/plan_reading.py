"""Which runs and splits a SQL statement reads, by DuckDB's own plan of it.

The statement is planned, not run, over stand-ins: a small table for each table of each run, under
views that give ``run_id`` (and in ``examples`` the split) as constants. What DuckDB's optimizer
leaves of them is what the statement can read. An inner join on ``run_id``, and within a run on
``example_id`` or ``token_idx``, narrows either side to what the other has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from moedb.queries.reading.arrays.functions import functions_named_in
from moedb.queries.reading.sources.statement import KEYS, Statement
from moedb.schemas.arrays import ARRAY_FUNCTIONS
from moedb.schemas.tables import EXAMPLES, RUNS, TABLE_NAMES, TABLES, Column, Table
from moedb.store.engine.quoting import literal, quoted
from moedb.store.engine.views import Views, derived_view_names

_EXTREMES = {
    "INTEGER": ("'-2147483648'", "'2147483647'"),
    "BIGINT": ("'-9223372036854775808'", "'9223372036854775807'"),
    "FLOAT": ("'-inf'", "'inf'"),
    "DOUBLE": ("'-inf'", "'inf'"),
    "VARCHAR": ("''", "chr(1114111)"),
}
"""For each type, in SQL, values between which every other lies: the statistics of a stand-in must
not exclude any."""

UNKNOWN_SPLIT = ""
"""Stands for all examples of a run whose splits were not counted."""

_WORD = re.compile(r"\w+")
_READING_BY_TEXT = ("query", "query_table")
"""Functions of DuckDB that read what a text names."""

_EQUAL = re.compile(r"([#\w]+) (?:=|IS NOT DISTINCT FROM) ([#\w]+)")
_SUBQUERIES = frozenset({"SUBQUERY", "#0"})
"""How a plan writes what a subquery gives."""

_NARROWED = {
    "INNER": (True, True),
    "SEMI": (True, True),
    "LEFT": (False, True),
    "RIGHT": (True, False),
}
"""For each kind of join whether the rows of the left and of the right must have a partner."""


@dataclass(frozen=True)
class RunRead:
    """What is read of one run.

    Attributes
    ----------
    tables
        The tables.
    splits
        The splits of its examples; None where only rows about the run as a whole are read.
    """

    tables: frozenset[str]
    splits: frozenset[str] | None


@dataclass(frozen=True)
class Reads:
    """What a statement, or a part of its plan, can read.

    Attributes
    ----------
    runs
        For each run what of it.
    closed
        Whether rows come from nowhere else, so that its run_ids are these and no others.
    """

    runs: Mapping[str, RunRead] = field(default_factory=dict)
    closed: bool = False


def names_a_relation(sql: str) -> bool:
    """Whether a statement may read tables or views: their names are among its words."""
    names = {*TABLE_NAMES, *derived_view_names(), *_READING_BY_TEXT}
    return not names.isdisjoint(_WORD.findall(sql.lower()))


class Planner:
    """Plans statements over stand-ins of a snapshot's tables.

    Parameters
    ----------
    rows
        For each run its row of ``runs``.
    splits
        For each run its splits.
    latest
        The run that ``latest_run`` is; None where there is none.
    """

    def __init__(
        self,
        rows: Mapping[str, Mapping[str, object]],
        splits: Mapping[str, Iterable[str]],
        latest: str | None,
    ) -> None:
        self._rows = rows
        self._splits = {
            run_id: sorted(splits.get(run_id, ())) or [UNKNOWN_SPLIT] for run_id in rows
        }
        self._stand_ins: dict[str, tuple[str, str, str | None]] = {}
        self._connection = duckdb.connect(":memory:")
        # it knows how many rows there are, and leaves out of a plan what is only counted
        self._connection.execute("set disabled_optimizers = 'statistics_propagation'")
        for table in TABLES:
            self._create_view(table)
        self._views = Views(self._connection, latest_run=latest)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def define(self, macro: str, parameters: Sequence[str], columns: Mapping[str, str]) -> None:
        """Let ``macro`` stand for rows that say nothing of runs.

        Parameters
        ----------
        macro
            Its name.
        parameters
            Its parameters, all of which may be left out.
        columns
            For each column of its rows the SQL type.
        """
        signature = ", ".join(f"{quoted(name)} := null" for name in parameters)
        self._create_stand_in(f"moedb_rows_of_{macro}", columns)
        self._connection.execute(
            f"create or replace macro {quoted(macro)}({signature}) as table "
            f"from moedb_rows_of_{macro}"
        )

    def reads(
        self, sql: str, parameters: Mapping[str, object], statement: Statement
    ) -> Mapping[str, RunRead]:
        """Return what a statement can read of each run.

        Parameters
        ----------
        sql
            One statement that reads, without a leading ``explain``.
        parameters
            The values of its parameters.
        statement
            What was found in it.

        Raises
        ------
        duckdb.Error
            If DuckDB cannot plan it.
        """
        self._views.define(sql)
        for name in functions_named_in(sql):
            # of its arguments, or a condition on it would be one on a constant
            taken = ", ".join(f"argument_{n}" for n in range(len(ARRAY_FUNCTIONS[name].arguments)))
            self._connection.execute(
                f"create or replace macro {name}({taken}) as [cast(hash({taken}) as float)]"
            )
        explain = f"explain (format json) {sql}"
        given = dict(parameters)
        executed = (
            self._connection.execute(explain, given) if given else self._connection.execute(explain)
        )
        plan = json.loads(executed.fetchall()[0][1])
        return _PlanReader(self._stand_ins, self._splits, statement).read_all(plan).runs

    def _create_view(self, table: Table) -> None:
        branches = []
        for number, run_id in enumerate(self._rows):
            for place, split in enumerate(self._splits[run_id] if table is EXAMPLES else [None]):
                name = f"moedb_{table.name}_{number}_{place}"
                self._stand_ins[name] = (run_id, table.name, split)
                constants: dict[str, object] = {"run_id": run_id}
                if table is RUNS:
                    constants = dict(self._rows[run_id])
                elif split is not None and split != UNKNOWN_SPLIT:
                    constants["split"] = split
                branches.append(self._branch(name, table, constants))
        if not branches:
            nulls = ", ".join(f"cast(null as {c.sql_type}) as {c.name}" for c in table.columns)
            branches = [f"select {nulls} where false"]
        self._connection.execute(f"create view {table.name} as " + " union all ".join(branches))

    def _branch(self, name: str, table: Table, constants: Mapping[str, object]) -> str:
        self._create_stand_in(name, {column.name: column.sql_type for column in table.columns})
        chosen = ", ".join(_column(c, constants) for c in table.columns)
        return f"select {chosen} from {name}"  # noqa: S608

    def _create_stand_in(self, name: str, columns: Mapping[str, str]) -> None:
        extremes = [_EXTREMES.get(kind, ("null", "null")) for kind in columns.values()]
        rows = (*zip(*extremes, strict=True), ["null"] * len(columns))
        values = ", ".join(f"({', '.join(row)})" for row in rows)
        given = ", ".join(map(quoted, columns))
        typed = ", ".join(
            f"cast({quoted(column)} as {kind}) as {quoted(column)}"
            for column, kind in columns.items()
        )
        chosen = f"select {typed} from (values {values}) as given ({given})"  # noqa: S608
        self._connection.execute(f"create or replace table {name} as {chosen}")


class _PlanReader:
    """Reads one plan, from its leaves up."""

    def __init__(
        self,
        stand_ins: Mapping[str, tuple[str, str, str | None]],
        splits: Mapping[str, Sequence[str]],
        statement: Statement,
    ) -> None:
        self._stand_ins = stand_ins
        self._splits = splits
        self._statement = statement
        self._ctes: dict[str, Reads] = {}

    def read_all(self, nodes: Sequence[Mapping[str, Any]]) -> Reads:
        return _union([self._read(node) for node in nodes])

    def _read(self, node: Mapping[str, Any]) -> Reads:
        name, info = node["name"].strip(), node.get("extra_info", {})
        children = node.get("children", [])
        if name == "SEQ_SCAN":
            return self._scan(str(info.get("Table", "")).rsplit(".", 1)[-1])
        if name == "EMPTY_RESULT":
            return Reads(closed=True)
        if name == "CTE_SCAN":
            return self._ctes.get(str(info.get("CTE Index")), Reads())
        if name == "CTE" and len(children) == 2:
            self._ctes[str(info.get("Table Index", info.get("CTE Index")))] = self._read(
                children[0]
            )
            return self._read(children[1])
        parts = [self._read(child) for child in children]
        if name.endswith("JOIN") and len(parts) == 2 and not self._statement.renames_keys:
            kind, keys = str(info.get("Join Type")), set(self._keys(info.get("Conditions")))
            return _join(parts[0], parts[1], kind, keys)
        return _union(parts)

    def _scan(self, stand_in: str) -> Reads:
        if stand_in not in self._stand_ins:
            return Reads()
        run_id, table, split = self._stand_ins[stand_in]
        splits: frozenset[str] | None = None
        if split is not None:
            splits = frozenset({split})
        elif _is_of_examples(table):
            splits = frozenset(self._splits[run_id])
        return Reads({run_id: RunRead(frozenset({table}), splits)}, closed=True)

    def _keys(self, conditions: str | Sequence[str] | None) -> Iterator[str]:
        """The keys that a join's conditions hold equal."""
        for condition in [conditions] if isinstance(conditions, str) else conditions or ():
            equal = _EQUAL.fullmatch(condition)
            if equal is None:
                continue
            names = {equal[1], equal[2]}
            if len(names) == 1 and names <= KEYS:
                yield equal[1]
            elif names & _SUBQUERIES:
                yield from names & self._statement.compared


def _is_of_examples(table: str) -> bool:
    columns = {column for one in TABLES if one.name == table for column in one.column_names}
    return bool(columns & {"example_id", "token_idx"})


def _union(parts: Iterable[Reads]) -> Reads:
    given = list(parts)
    runs: dict[str, RunRead] = {}
    for part in given:
        for run_id, read in part.runs.items():
            runs[run_id] = _either(runs[run_id], read) if run_id in runs else read
    return Reads(runs, closed=bool(given) and all(part.closed for part in given))


def _either(one: RunRead, other: RunRead) -> RunRead:
    if one.splits is None or other.splits is None:
        splits = other.splits if one.splits is None else one.splits
    else:
        splits = one.splits | other.splits
    return RunRead(one.tables | other.tables, splits)


def _join(left: Reads, right: Reads, kind: str, keys: set[str]) -> Reads:
    """What a join reads, its sides narrowed to each other where it allows that."""
    narrows_left, narrows_right = _NARROWED.get(kind, (False, False))
    by_run, by_example = "run_id" in keys, bool(keys - {"run_id"})
    if not by_run and len({*left.runs, *right.runs}) > 1:
        return _union([left, right])
    return _union(
        [
            _narrowed(left, right, by_run, by_example) if narrows_left else left,
            _narrowed(right, left, by_run, by_example) if narrows_right else right,
        ]
    )


def _narrowed(reads: Reads, by: Reads, by_run: bool, by_example: bool) -> Reads:
    if not by.closed or not by.runs:
        return reads
    runs = {}
    for run_id, read in reads.runs.items():
        partner = by.runs.get(run_id)
        if partner is None:
            if not by_run:
                runs[run_id] = read
            continue
        splits = read.splits
        if by_example and splits is not None and partner.splits is not None:
            splits = splits & partner.splits or splits
        runs[run_id] = RunRead(read.tables, splits)
    return Reads(runs, reads.closed)


def _column(column: Column, constants: Mapping[str, object]) -> str:
    if column.name not in constants:
        return column.name
    return f"cast({literal(constants[column.name])} as {column.sql_type}) as {column.name}"
