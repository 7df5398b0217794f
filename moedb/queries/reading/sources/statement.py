"""What a SQL statement calls by name: the macros of named queries, with their arguments.

Read from DuckDB's own parse of the statement, which it gives as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.queries.questions.catalog import catalog
from moedb.schemas.arrays import ARRAY_FUNCTIONS

if TYPE_CHECKING:
    import duckdb

    from moedb.queries.questions.query_file import NamedQuery

KEYS = frozenset({"run_id", "example_id", "token_idx"})
"""The columns by which rows of one run, or one example, are joined."""


@dataclass(frozen=True)
class MacroCall:
    """One use of a named query as a table macro.

    Attributes
    ----------
    query
        The named query.
    arguments
        The arguments that are written as constants, or as parameters of the statement.
    computed
        The names of the others: columns, subqueries, function calls.
    """

    query: NamedQuery
    arguments: Mapping[str, object]
    computed: frozenset[str]


@dataclass(frozen=True)
class Statement:
    """What was found in a statement.

    Attributes
    ----------
    calls
        The macros it calls, in the order of the text; None where DuckDB does not say.
    renames_keys
        Whether a column may be called as one of `KEYS` without being it, so that a join on that
        name says nothing.
    compared
        The columns of `KEYS` that are compared with a subquery, if that gives the same column.
    array_runs
        The runs that are written where rows of arrays are read.
    computes_array_runs
        Whether such a run is neither written there nor a column ``run_id``.
    """

    calls: tuple[MacroCall, ...] | None
    renames_keys: bool
    compared: frozenset[str]
    array_runs: frozenset[str] = frozenset()
    computes_array_runs: bool = False


def read_statement(
    connection: duckdb.DuckDBPyConnection, statement: str, parameters: Mapping[str, object]
) -> Statement:
    """Find the macros that one SQL statement calls.

    Parameters
    ----------
    connection
        Parses it; nothing is run.
    statement
        One statement that reads, without a leading ``explain``.
    parameters
        The values of its parameters.
    """
    ((text,),) = connection.execute(
        "select json_serialize_sql(cast(? as varchar))", [statement]
    ).fetchall()
    tree = json.loads(text)
    if tree.get("error", True):  # such as PIVOT
        return Statement(None, renames_keys=True, compared=frozenset())
    calls: list[MacroCall] = []
    renames = False
    compared: dict[str, set[str]] = {key: set() for key in KEYS}
    array_runs: set[str | None] = set()
    for node in _nodes(tree):
        call = _macro_call(node, parameters) if node.get("type") == "TABLE_FUNCTION" else None
        # a CTE stands twice in the trees of some versions of DuckDB
        if call is not None and call not in calls:
            calls.append(call)
        array_runs.update(_array_runs(node, parameters))
        renames = renames or _renames_a_key(node)
        for column, given in _compared_with_subqueries(node):
            compared.setdefault(column, set()).add(given)
    alike = frozenset(key for key in KEYS if compared[key] == {key})
    return Statement(
        *(tuple(calls), renames, alike),
        array_runs=frozenset(run for run in array_runs if run is not None),
        computes_array_runs=None in array_runs,
    )


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _macro_call(node: Mapping[str, Any], parameters: Mapping[str, object]) -> MacroCall | None:
    function = node["function"]
    name = str(function["function_name"]).lower()
    query = catalog().get(name.replace("_", "-"))
    if query is None or query.macro_name != name:
        return None
    positional = iter(query.positional)
    arguments: dict[str, object] = {}
    computed = set()
    for argument in _arguments(function):
        key = argument["name"].lower() or next(positional, "")
        try:
            arguments[key] = _constant(argument["expression"], parameters)
        except ValueError:
            computed.add(key)
    return MacroCall(query, arguments, frozenset(computed))


def _array_runs(node: Mapping[str, Any], parameters: Mapping[str, object]) -> Iterator[str | None]:
    """The run of which a node reads rows of an array; None where it computes which."""
    if node.get("type") != "FUNCTION":
        return
    if str(node.get("function_name")).lower() not in ARRAY_FUNCTIONS:
        return
    given = _arguments(node)
    expression = given[0]["expression"] if given else {}
    if expression and _column_name(expression) == "run_id":
        return  # of a table that the statement reads
    try:
        run = _constant(expression, parameters)
    except (ValueError, KeyError):
        yield None
    else:
        if run is not None:
            yield str(run)


def _arguments(function: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "arguments" in function:
        return list(function["arguments"])
    # until DuckDB 1.5 the name stands on the expression
    return [
        {"name": expression["alias"], "expression": expression}
        for expression in function["children"]
    ]


def _constant(expression: Mapping[str, Any], parameters: Mapping[str, object]) -> object:
    """The value of a constant, or of a parameter of the statement.

    Raises
    ------
    ValueError
        If the expression is neither.
    """
    match expression["type"]:
        case "OPERATOR_CAST":
            return _constant(expression["child"], parameters)
        case "VALUE_PARAMETER" if expression["identifier"] in parameters:
            return parameters[expression["identifier"]]
        case "VALUE_CONSTANT" if "literal" in expression:
            kind, text = expression["literal"]["kind"], expression["literal"]["text"]
            match kind:
                case "NULL_LITERAL":
                    return None
                case "INTEGER":
                    return int(text)
                case "NUMERIC":
                    return float(text)
                case _:
                    return str(text)
        case "VALUE_CONSTANT":  # until DuckDB 1.5
            value = expression["value"]
            if value["is_null"]:
                return None
            if value["type"]["id"] == "DECIMAL":
                return float(value["value"] / 10 ** value["type"]["type_info"]["scale"])
            if isinstance(value["value"], str | int | float):
                return value["value"]
    raise ValueError(expression["type"])


def _renames_a_key(node: Mapping[str, Any]) -> bool:
    """Whether a node of the tree may give a column the name of another."""
    if node.get("type") == "SET_OPERATION_NODE":  # columns are matched by place
        return True
    given = [*(node.get("column_name_alias") or ()), *(node.get("aliases") or ())]
    if KEYS.intersection(str(name).lower() for name in given):
        return True
    if node.get("class") == "STAR":  # select * replace, rename
        return bool(node.get("replace_list") or node.get("rename_list"))
    alias = str(node.get("alias") or "").lower()
    if alias not in KEYS or "class" not in node:
        return False
    return node["class"] != "COLUMN_REF" or str(node["column_names"][-1]).lower() != alias


def _compared_with_subqueries(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The columns that a node compares with a subquery's, each with the name of that one."""
    pairs = [(node.get("left"), node.get("right")), (node.get("right"), node.get("left"))]
    if node.get("class") == "SUBQUERY":  # column in (select ...)
        pairs = [(node.get("child"), node)]
    for one, other in pairs:
        if isinstance(one, dict) and isinstance(other, dict) and other.get("class") == "SUBQUERY":
            chosen = other["subquery"]["node"].get("select_list") or []
            yield _column_name(one), _column_name(chosen[0]) if len(chosen) == 1 else ""


def _column_name(expression: Mapping[str, Any]) -> str:
    """The name of a column, without its table; empty for another expression."""
    names = expression.get("column_names") or [""]
    return str(names[-1]).lower()
