"""The parameters of whatever can be asked by a name, and values for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass

ParameterType = Literal["varchar", "integer", "double"]
Named = Literal[
    "split",
    "label",
    "example-label",
    "example-label-or-none",
    "cluster-label",
    "label-keys",
    "label-value",
    "layer",
    "layer-before-another",
    "expert",
    "most-used",
    "position",
    "condition",
    "intervention",
    "trial-setting",
    "probe",
    "probe-key",
    "effects",
]
"""What of a run the value of a parameter can name: see ``checks.parameter_values``.

``label`` is the key of a label, ``example-label`` that of a label of examples, and so is
``example-label-or-none``, but that a run without the default label is answered all the same.
``cluster-label``, and ``label-keys``, which are several, are looked up by the analyses. A
``trial-setting`` is the column of the view ``trials`` that is called as the parameter is. ``probe``
is what probes are called together, ``probe-key`` a key that some are for, and ``effects`` what
effects of labelled experts are called together.
"""

Value = str | int | float | None

_NAMED: Mapping[str, Named] = {
    "split": "split",
    "key": "label",
    "cluster": "cluster-label",
    "keys": "label-keys",
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
    def default_text(self) -> str:
        """Its default, as text: null without one, required where a value must be given."""
        if self.required:
            return "required"
        return "null" if self.default is None else str(self.default)

    @property
    def limits_text(self) -> str:
        """What values it may have, as text; empty where any of its type will do."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        least, most = self.range
        if least is None:
            return ""
        return f"{least} or more" if most is None else f"{least} to {most:,}"

    @property
    def named(self) -> Named | None:
        """What of a run its value names; None for a number or a choice."""
        return self.names or _NAMED.get(self.name)

    @property
    def range(self) -> tuple[int | None, int | None]:
        """The smallest and the largest number it may be."""
        return _LEAST.get(self.name) if self.least is None else self.least, self.most
