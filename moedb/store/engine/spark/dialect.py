"""DuckDB's SQL as Spark's."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.dialects.spark import Spark
from sqlglot.errors import SqlglotError

from moedb.errors import SqlError, SqlRefusedError
from moedb.store.engine.spark.functions import check_functions
from moedb.store.engine.spark.macros import Call, arguments_of, calls_of, query_of
from moedb.store.engine.spark.meaning import as_duckdb_means


class _Nesting(Spark):
    """Spark's SQL with each WITH where it stands: moved up, it would hide what has its names."""

    class Generator(Spark.Generator):  # type: ignore[misc, valid-type]
        EXPRESSIONS_WITHOUT_NESTED_CTES: ClassVar[set[type[exp.Expr]]] = set()


def spark_sql(
    statement: str,
    relations: Collection[str] | None = None,
    calls: Sequence[Call] = (),
    parameters: Mapping[str, object] | None = None,
    *,
    pretty: bool = False,
) -> str:
    """Return a statement of DuckDB's SQL as Spark runs it; ``$name`` becomes ``:name``.

    Parameters
    ----------
    statement
        One statement that reads.
    relations
        What it may name; None for anything.
    calls
        The macros that it calls.
    parameters
        The values of its parameters, which calls may have as arguments; the names in lower case.
    pretty
        Whether it is laid out over lines, to be read.

    Raises
    ------
    SqlError
        If it cannot be said in Spark's SQL.
    SqlRefusedError
        If it names something else.

    Examples
    --------
    >>> spark_sql("select a // 2 as half from t where b = $b order by half")
    'SELECT `a` DIV 2 AS `half` FROM `t` WHERE `b` = :b ORDER BY `half` NULLS LAST'
    """
    tree = _parsed(statement).copy()
    if relations is not None:
        check_functions(tree)
    if calls:
        _put_in(tree, calls, parameters or {})
    if relations is not None:
        _check_names(tree, frozenset(relations))
    return _said(tree, pretty)


def in_steps(definition: str, prefix: str) -> list[tuple[str, str]]:
    """Return the SQL of a view's parts that are read more than once, each with a name; the view.

    Examples
    --------
    >>> twice = "with a as (select 1 as x) select x from a union all select x from a"
    >>> in_steps(twice, "v")  # doctest: +NORMALIZE_WHITESPACE
    [('v_a', 'SELECT 1 AS `x`'),
     ('v', 'SELECT `x` FROM `v_a` AS `a` UNION ALL SELECT `x` FROM `v_a` AS `a`')]
    """
    tree = _parsed(definition).copy()
    parts = {cte.alias: cte for cte in tree.ctes}
    reads = Counter(table.name for table in tree.find_all(exp.Table))
    steps = [name for name in parts if reads[name] > 1]
    for table in list(tree.find_all(exp.Table)):
        if table.name in steps:
            named = exp.alias_(exp.to_table(f"{prefix}_{table.name}"), table.alias_or_name)
            table.replace(named)
    found = []
    for name in steps:
        body = parts[name].this.copy()
        found.append((f"{prefix}_{name}", _said(_with(body, parts))))
    main = tree.copy()
    main.set("with_", None)
    return [*found, (prefix, _said(_with(main, parts)))]


def _with(body: exp.Query, parts: Mapping[str, exp.CTE]) -> exp.Query:
    """Put before a query those of the parts that it names, and those that they name."""
    needed: set[str] = set()
    left = [body]
    while left:
        names = {table.name for table in left.pop().find_all(exp.Table)} & parts.keys() - needed
        needed |= names
        left.extend(parts[name].this for name in names)
    for name, part in parts.items():
        if name in needed:
            body = body.with_(name, part.this.copy())
    return body


def _said(tree: exp.Expr, pretty: bool = False) -> str:
    try:
        return as_duckdb_means(tree).sql(
            _Nesting,
            identify=True,
            pretty=pretty,
            comments=pretty,
            unsupported_level=sqlglot.ErrorLevel.RAISE,
        )
    except SqlglotError as error:
        raise _not_sayable(error) from error


def parameters_of(statement: str) -> frozenset[str]:
    """Return the names of a statement's parameters."""
    tree = _parsed(statement)
    return frozenset(mark.name for mark in tree.find_all(exp.Parameter, exp.Placeholder))


@lru_cache(maxsize=256)
def _parsed(statement: str) -> exp.Query:
    try:
        if any(
            token.token_type is TokenType.TILDE
            for token in sqlglot.tokenize(statement, read="duckdb")
        ):
            raise SqlRefusedError(
                "~ is not known to mean the same in Spark's SQL", "write regexp_matches(...)"
            )
        trees = [tree for tree in sqlglot.parse(statement, read="duckdb") if tree is not None]
    except SqlglotError as error:
        raise _not_sayable(error) from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise SqlRefusedError(
            "on Spark the SQL is one select: no describe, summarize, show, explain, pivot"
        )
    return trees[0]


def _put_in(tree: exp.Expr, calls: Sequence[Call], parameters: Mapping[str, object]) -> None:
    """Put the SQL of named queries where a statement calls them as macros."""
    for table in calls_of(tree):
        name = table.this.name.lower()
        for call in (call for call in calls if call.name == name):
            if arguments_of(table, call.positional, parameters) == call.arguments:
                alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name))
                body = query_of(call, _parsed(call.sql))
                table.replace(exp.Subquery(this=body, alias=alias.copy()))
                break


def _check_names(tree: exp.Expr, relations: frozenset[str]) -> None:
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
