"""Named queries that a statement calls as table macros, put where they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from moedb.errors import SqlRefusedError


@dataclass(frozen=True)
class Call:
    """A call of a macro.

    Attributes
    ----------
    name
        The macro's name.
    sql
        Its SQL.
    values
        The value that each of its parameters has.
    arguments
        Those that were given, as they stand in the statement.
    positional
        The names of arguments without one, in order.
    """

    name: str
    sql: str
    values: Mapping[str, object]
    arguments: Mapping[str, object] = field(default_factory=dict)
    positional: Sequence[str] = ()


def calls_of(tree: exp.Expr) -> list[exp.Table]:
    """What stands in the place of a table and is called, as a function is."""
    return [table for table in tree.find_all(exp.Table) if isinstance(table.this, exp.Anonymous)]


def arguments_of(
    table: exp.Table, positional: Sequence[str], parameters: Mapping[str, object]
) -> dict[str, object]:
    """The arguments of a call, by their names.

    Raises
    ------
    SqlRefusedError
        If one is no constant.
    """
    places = iter(positional)
    found = {}
    for argument in table.this.expressions:
        if isinstance(argument, exp.PropertyEQ):
            found[argument.name.lower()] = _constant(argument.expression, parameters)
        else:
            found[next(places, "")] = _constant(argument, parameters)
    return found


def query_of(call: Call, query: exp.Query) -> exp.Query:
    """The query of a call, with its values in the place of its parameters."""
    body = query.copy()
    for mark in list(body.find_all(exp.Parameter, exp.Placeholder)):
        mark.replace(exp.convert(call.values[mark.name]))
    return body


def _constant(value: exp.Expr, parameters: Mapping[str, object]) -> object:
    match value:
        case exp.Cast():
            return _constant(value.this, parameters)
        case exp.Parameter() | exp.Placeholder():
            return parameters[value.name.lower()]
        case exp.Null():
            return None
        case exp.Neg(this=exp.Literal(is_string=False)):
            return -_number(value.this)
        case exp.Literal():
            return str(value.this) if value.is_string else _number(value)
    raise SqlRefusedError(
        f"on Spark the arguments of a named query are constants, not {value.sql('duckdb')}"
    )


def _number(literal: exp.Expr) -> int | float:
    return int(literal.this) if literal.is_int else float(literal.this)
