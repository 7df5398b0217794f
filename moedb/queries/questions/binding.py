"""Values for the parameters of a question."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping

from moedb.errors import ParameterError, did_you_mean
from moedb.queries.questions.parameters import Parameter, Value
from moedb.queries.questions.question import Question

_INTEGER_LIMIT = 2**31
_ARTICLES = {"varchar": "a text", "integer": "an integer", "double": "a number"}


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
        If a parameter is unknown, missing, of the wrong type or out of range.

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
            real = float(value)  # type: ignore[arg-type]
            if not math.isfinite(real):
                raise refuse(article)
            _check_range(query, parameter, real)
            return real
        number = int(value) if isinstance(value, str) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise refuse(article) from None
    if not -_INTEGER_LIMIT <= number < _INTEGER_LIMIT:
        raise refuse("an integer of 32 bits")
    _check_range(query, parameter, number)
    return number


def _check_range(query: Question, parameter: Parameter, number: float) -> None:
    least, most = parameter.range
    if (least is None or number >= least) and (most is None or number <= most):
        return
    if most is None:
        valid = f"{least} or more"
    else:
        valid = f"{most} or less" if least is None else f"{least} to {most}"
    raise ParameterError(
        f"{query.name}: {parameter.name} is {number}, not {valid} ({parameter.doc})",
        f"moedb query {query.name} -p {parameter.name} VALUE",
    )
