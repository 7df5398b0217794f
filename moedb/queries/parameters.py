"""The parameters of whatever can be asked by a name, and values for them."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from moedb.errors import ParameterError, did_you_mean

if TYPE_CHECKING:
    from moedb.queries.question import Question

ParameterType = Literal["varchar", "integer", "double"]
Value = str | int | float | None

RUN_PARAMETERS = ("run", "run_b", "interventions")
"""The parameters that hold a run's name."""

_INTEGER_LIMIT = 2**31
_ARTICLES = {"varchar": "a text", "integer": "an integer", "double": "a number"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a named query.

    Attributes
    ----------
    name
        What stands after the ``$`` in the SQL and after ``-p`` on the command line.
    type
        Its SQL type.
    default
        Its value where none is given, or where null is.
    required
        Whether a value must be given.
    doc
        What it is.
    choices
        The values it may have; empty where any will do.
    """

    name: str
    type: ParameterType
    default: Value
    required: bool
    doc: str
    choices: tuple[str, ...] = ()


def bind(
    query: Question, given: Mapping[str, object], computed: Collection[str] = ()
) -> dict[str, Value]:
    """Return a value for each parameter of ``query``, as DuckDB wants them.

    Parameters
    ----------
    query
        The query, or the analysis.
    given
        Values by name; strings from a command line are converted. None asks for the default.
    computed
        Parameters whose values are not known yet: left out.

    Raises
    ------
    ParameterError
        If a parameter is unknown, missing, or of the wrong type.

    Examples
    --------
    >>> bind(named_query("co-activation"), {"layer": "3"})
    {'run': None, 'split': None, 'layer': 3}
    """
    by_name = {parameter.name: parameter for parameter in query.parameters}
    for name in given:
        if name not in by_name:
            raise ParameterError(
                f"{query.name} has no parameter {name!r}; {did_you_mean(name, by_name)}",
                f"moedb query {query.name} -p NAME VALUE",
            )
    values: dict[str, Value] = {}
    for name, parameter in by_name.items():
        value = given.get(name)
        if name in computed:
            continue
        if value is not None:
            values[name] = _convert(query, parameter, value)
        elif parameter.required:
            raise ParameterError(
                f"{query.name} needs the parameter {name!r}: {parameter.doc}",
                f"moedb query {query.name} -p {name} VALUE",
            )
        else:
            values[name] = parameter.default
    return values


def _convert(query: Question, parameter: Parameter, value: object) -> Value:
    def refuse(expected: str) -> ParameterError:
        return ParameterError(
            f"{query.name}: {parameter.name} is {expected}, not {value!r} ({parameter.doc})",
            f"moedb query {query.name} -p {parameter.name} VALUE",
        )

    article = _ARTICLES[parameter.type]
    if isinstance(value, bool):
        raise refuse(article)
    if parameter.type == "varchar":
        text = str(value)
        if parameter.choices and text not in parameter.choices:
            raise refuse(f"one of {', '.join(parameter.choices)}")
        return text
    try:
        if parameter.type == "double":
            return float(value)  # type: ignore[arg-type]
        number = int(value) if isinstance(value, str) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise refuse(article) from None
    if not -_INTEGER_LIMIT <= number < _INTEGER_LIMIT:
        raise refuse("an integer of 32 bits")
    return number
