"""DuckDB's SQL as Spark's."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from moedb.errors import SqlError, SqlRefusedError

Call = tuple[str, str, Mapping[str, object]]
"""A named query as a table macro: the macro's name, its SQL and the values of its parameters."""


def spark_sql(
    statement: str, relations: Collection[str] | None = None, calls: Sequence[Call] = ()
) -> str:
    """Return a statement of DuckDB's SQL as Spark runs it; ``$name`` becomes ``:name``.

    Parameters
    ----------
    statement
        One statement that reads.
    relations
        What it may name; None for anything.
    calls
        The macros that it calls, in the order of the text.

    Raises
    ------
    SqlError
        If it cannot be said in Spark's SQL.
    SqlRefusedError
        If it names something else.

    Examples
    --------
    >>> spark_sql("select a // 2 as half from t where b = $b order by half")
    'SELECT a DIV 2 AS half FROM t WHERE b = :b ORDER BY half NULLS LAST'
    """
    tree = _parsed(statement).copy()
    if calls:
        _put_in(tree, calls)
    if relations is not None:
        _check_names(tree, frozenset(relations))
    try:
        text: str = tree.sql("spark", unsupported_level=sqlglot.ErrorLevel.RAISE)
    except SqlglotError as error:
        raise _not_sayable(error) from error
    return text


@lru_cache(maxsize=256)
def _parsed(statement: str) -> exp.Expression:
    try:
        trees = [tree for tree in sqlglot.parse(statement, read="duckdb") if tree is not None]
    except SqlglotError as error:
        raise _not_sayable(error) from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise SqlRefusedError(
            "on Spark the SQL is one select: no describe, summarize, show, explain, pivot"
        )
    return trees[0]


def _put_in(tree: exp.Expression, calls: Sequence[Call]) -> None:
    """Put the SQL of named queries where a statement calls them as macros."""
    left = list(calls)
    for table in list(tree.find_all(exp.Table)):
        name = table.this.name.lower() if isinstance(table.this, exp.Anonymous) else None
        place = next((i for i, (macro, *_) in enumerate(left) if macro == name), None)
        if place is None:
            continue
        macro, sql, values = left.pop(place)
        body = _parsed(sql).copy()
        for mark in list(body.find_all(exp.Parameter, exp.Placeholder)):
            mark.replace(exp.convert(values[mark.name]))
        alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(macro))
        table.replace(exp.Subquery(this=body, alias=alias.copy()))


def _check_names(tree: exp.Expression, relations: frozenset[str]) -> None:
    """Refuse what is no relation of the store: a path, a table of the cluster."""
    own = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        name = table.name.lower()
        if table.args.get("db") or name not in relations | own:
            raise SqlRefusedError(
                f"the SQL reads {table.sql('duckdb')}, which is no table or view of the store; on "
                "Spark nothing else is read",
                "moedb schema",
            )


def _not_sayable(error: Exception) -> SqlError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return SqlError(
        f"the SQL cannot be said in Spark's: {lines[0]}",
        "write it with plainer functions, or leave --engine spark out",
    )
