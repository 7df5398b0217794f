"""The parameters of whatever can be asked by a name, and values for them."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from moedb.errors import ParameterError, did_you_mean

if TYPE_CHECKING:
    from moedb.queries.question import Question

ParameterType = Literal["varchar", "integer", "double"]
Named = Literal[
    "split",
    "label",
    "example-label",
    "example-label-or-none",
    "cluster-label",
    "label-value",
    "layer",
    "layer-before-another",
    "expert",
    "most-used",
    "position",
    "condition",
    "intervention",
    "trial-setting",
]
"""What of a run the value of a parameter can name: see :mod:`~.parameter_values`.

``label`` is the key of a label, ``example-label`` that of a label of examples, and so is
``example-label-or-none``, but that a run without the default label is answered all the same.
``cluster-label`` is looked up by :mod:`~.clusters`. A ``trial-setting`` is the column of the view
``trials`` that is called as the parameter is.
"""

Value = str | int | float | None

_NAMED: Mapping[str, Named] = {
    "split": "split",
    "key": "label",
    "cluster": "cluster-label",
    "value_a": "label-value",
    "value_b": "label-value",
    "layer": "layer",
    "expert": "expert",
    "m": "most-used",
    "position": "position",
    "condition": "condition",
    "kind": "intervention",
    "variant": "trial-setting",
    "experts": "trial-setting",
    "gate": "trial-setting",
    "balance": "trial-setting",
    "aux_coefficient": "trial-setting",
}
_LEAST = {"position": 0, "seed": 0, "m": 1}
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
    least, most
        The smallest and the largest number it may be; None where there is no such limit.
    names
        What of a run its value names, where its own name does not say that: ``key`` is the key of
        a label, ``layer`` a layer, and so on.
    """

    name: str
    type: ParameterType
    default: Value
    required: bool
    doc: str
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    names: Named | None = None

    @property
    def named(self) -> Named | None:
        """What of a run its value names; None for a number or a choice."""
        return self.names or _NAMED.get(self.name)

    @property
    def range(self) -> tuple[int | None, int | None]:
        """The smallest and the largest number it may be."""
        return _LEAST.get(self.name) if self.least is None else self.least, self.most


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
