"""Which rows of a result are asked for, in which order, and which columns of them.

What is asked for is typed by a stranger as far as this goes: names are names of the result's
columns, and a condition is one expression over them, without a query in it. DuckDB's own parser
says what it is.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from moedb.errors import SqlError, SqlRefusedError, UsageError, did_you_mean
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.sheets import columns_of, position_of
from moedb.store.engine.quoting import quoted

if TYPE_CHECKING:
    import duckdb

_COLUMN = r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^",]*?))'
_WAY = r"(?:\s+(?P<way>asc|desc))?(?:\s+nulls\s+(?P<nulls>first|last))?"
_NAME = re.compile(_COLUMN + r"\s*(?P<end>,|$)")
_ORDER = re.compile(_COLUMN + _WAY + r"\s*(?P<end>,|$)", re.IGNORECASE)
_REFUSED = frozenset({"SUBQUERY", "PARAMETER"})
"""What an expression may not hold: queries, and parameters that nobody gives a value."""


@dataclass(frozen=True)
class Refinement:
    """What of a result is asked for.

    Attributes
    ----------
    where
        A condition over its columns, in SQL; None for all rows.
    order_by
        The columns that the rows are put in order by, such as ``lift desc, layer``; None for the
        result's own order, which also decides between rows that are alike.
    """

    where: str | None = None
    order_by: str | None = None


def refined(result: Result, refinement: Refinement) -> Result:
    """Return the rows of a result that are asked for, in the order that is asked for.

    Raises
    ------
    UsageError
        If a column is unknown.
    SqlError
        If the condition is not one expression over the columns, or DuckDB cannot compute it.
    """
    if refinement == Refinement():
        return result
    explain = result.why_empty
    found = result
    if refinement.where is not None:
        found = _filtered(found, refinement.where)
        explain = partial(_why_none_fits, result, refinement.where)
    if refinement.order_by is not None:
        found = _ordered(found, refinement.order_by)

    def provenance() -> Provenance:
        return replace(result.provenance, where=refinement.where, order_by=refinement.order_by)

    return replace(found, find_provenance=provenance, explain=explain)


def picked(result: Result, names: Sequence[str] | None) -> Result:
    """Return a result with some of its columns, in the order given; None for all of them.

    Raises
    ------
    UsageError
        If there is no such column, or more than one.
    """
    if names is None:
        return result
    columns = columns_of(result)
    places = [position_of(columns, name, "columns") for name in names]
    return result.project(_by_place(places, names))


def column_names(text: str) -> tuple[str, ...]:
    """Read names of columns with commas between; one with a comma in it stands in quotes.

    Raises
    ------
    UsageError
        If a quote is not closed, or a name is empty.

    Examples
    --------
    >>> column_names('layer, "a, b"')
    ('layer', 'a, b')
    """
    return tuple(_name(item) for item in _items(_NAME, text, "columns", "layer,expert"))


def _filtered(result: Result, where: str) -> Result:
    _check_condition(result, where)
    # DuckDB tells columns of one name apart by other names
    kept = _by_place(range(len(result.columns)), result.columns)
    return _bound(result, lambda: result.relation.filter(f"({where}\n)").project(kept))


def _ordered(result: Result, order_by: str) -> Result:
    columns = columns_of(result)
    keys = []
    for item in _items(_ORDER, order_by, "order by", "lift desc,layer"):
        place = position_of(columns, _name(item), "order by")
        nulls = f" nulls {item['nulls']}" if item["nulls"] else ""
        keys.append(f"{quoted(f'key_{place}')} {item['way'] or 'asc'}{nulls}")
    # rows that are alike stay in the order in which they were
    places = range(len(columns))
    renamed = _by_place(places, [f"key_{place}" for place in places])
    numbered = f"{renamed}, row_number() over () as place"
    return _bound(
        result,
        lambda: (
            result.relation.project(numbered)
            .order(", ".join([*keys, "place"]))
            .project(_by_place(places, result.columns))
        ),
    )


def _by_place(places: Sequence[int], names: Sequence[str]) -> str:
    return ", ".join(
        f"#{place + 1} as {quoted(name)}" for place, name in zip(places, names, strict=True)
    )


def _bound(result: Result, build: "Callable[[], duckdb.DuckDBPyRelation]") -> Result:
    """The result with another relation, which DuckDB may refuse."""
    import duckdb

    try:
        return replace(result, relation=build(), find_provenance=lambda: result.provenance)
    except duckdb.Error as error:
        raise SqlError(str(error)) from error


def _why_none_fits(result: Result, where: str) -> str:
    ((n_rows,),) = result.aggregate("count(*)").fetchall()
    if not n_rows:
        return result.why_empty()
    counted = "the one row" if n_rows == 1 else f"any of the {n_rows:,} rows"
    return f"the condition {where} does not hold for {counted} of the result"


def _items(pattern: re.Pattern[str], text: str, what: str, example: str) -> list[re.Match[str]]:
    """Read a list with commas between."""
    found: list[re.Match[str]] = []
    is_open = True
    while is_open:
        item = pattern.match(text, found[-1].end() if found else 0)
        if item is None or not _name(item):
            raise UsageError(
                f"{what}: {text!r} is no list of columns with commas between",
                f"such as {example}; a name with a comma in it stands in double quotes",
            )
        found.append(item)
        is_open = item["end"] == ","
    return found


def _name(item: re.Match[str]) -> str:
    return item["bare"] if item["quoted"] is None else item["quoted"].replace('""', '"')


def _check_condition(result: Result, where: str) -> None:
    """Refuse what is not one expression over the columns of a result.

    Raises
    ------
    SqlError
        If DuckDB cannot parse it.
    SqlRefusedError
        If it is more than one expression, or holds a query.
    UsageError
        If it names a column that is not there.
    """
    import duckdb

    wrong = SqlRefusedError(
        f"where: {where!r} is not one condition over the columns of the result",
        'such as "layer = 3 and lift > 5"; whole queries are asked with: moedb sql',
    )
    try:
        statements = result.connection.extract_statements(f"select {where}\n")
        trees = [_parsed(result, f"select {text}") for text in (f"{where}\n", "true")]
    except duckdb.Error as error:
        raise SqlError(f"where: {error}") from error
    if len(statements) != 1 or None in trees:
        raise wrong
    (asked, columns), (plain, _) = [_taken_apart(tree) for tree in trees if tree is not None]
    nodes = list(_nodes(columns))
    classes = {str(node.get("class")) for node in nodes}
    if asked != plain or len(columns) != 1 or columns[0].get("alias"):
        raise wrong
    if not classes.isdisjoint(_REFUSED):
        raise wrong
    names = [name.lower() for name in result.columns]
    own = {
        str(node["lhs"]["column_names"][0]).lower()
        for node in nodes
        if node.get("class") == "LAMBDA" and "column_names" in node["lhs"]
    }
    for node in nodes:
        if node.get("class") != "COLUMN_REF":
            continue
        name = str(node["column_names"][0])
        n_columns = names.count(name.lower())
        if n_columns > 1:
            raise UsageError(
                f"where: {n_columns} columns are named {name!r}", "give one another name: as"
            )
        if not n_columns and name.lower() not in own:
            raise UsageError(
                f"where: the result has no column {name!r}",
                f"{did_you_mean(name, result.columns)}; a text stands in single quotes",
            )


def _parsed(result: Result, statement: str) -> dict[str, Any] | None:
    """The tree of a statement; None where there is none, or several."""
    ((text,),) = result.connection.execute(
        "select json_serialize_sql(cast(? as varchar))", [statement]
    ).fetchall()
    tree = json.loads(text)
    statements = tree.get("statements", [])
    return statements[0] if len(statements) == 1 and not tree.get("error") else None


def _taken_apart(tree: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The tree of a statement without what it selects, and that."""
    node = dict(tree["node"])
    columns = node.pop("select_list", [])
    return node, columns


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for value in inner:
        yield from _nodes(value)
