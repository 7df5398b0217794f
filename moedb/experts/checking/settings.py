"""What is asked of a check of labels, and which of it makes its rows what they are."""

import json
from dataclasses import dataclass
from typing import Literal, get_args

from moedb.errors import UsageError, did_you_mean
from moedb.schemas.additions import Addition, check_addition_name

KIND = "label-effects"
"""The kind of additions that are checks of labels."""

VerdictKind = Literal["fuzzing", "detection"]
VERDICT_KINDS: tuple[VerdictKind, ...] = get_args(VerdictKind)


@dataclass(frozen=True)
class CheckSettings:
    """What is asked of a check of labels.

    Attributes
    ----------
    run
        The run, or an unambiguous beginning of its name.
    labels
        The labels, by what they are called together.
    name
        What the effects are called together; None for the labels' name with ``-effects``.
    kind
        The verdicts that say where a label fits, and whose tokens are taken: ``fuzzing``, of one
        token each, or ``detection``, of the text around it.
    follow
        Tokens after each token whose log-probabilities are looked at.
    controls
        Other experts of the layer, those chosen about as often, that are ablated besides.
    quantiles
        Groups by score that a control's own tokens are drawn from.
    seed
        Seed of what is drawn.
    layers, experts
        Those that are checked; None for all that have a label.
    limit
        Experts at most, of those that are not checked by now; None for all.
    """

    run: str
    labels: str
    name: str | None = None
    kind: VerdictKind = "fuzzing"
    follow: int = 5
    controls: int = 2
    quantiles: int = 5
    seed: int = 0
    layers: tuple[int, ...] | None = None
    experts: tuple[int, ...] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise UsageError(
                "which labels are to be checked?", "moedb check-labels RUN --labels NAME"
            )
        check_addition_name(self.called)
        if self.kind not in VERDICT_KINDS:
            raise UsageError(
                f"no verdicts of kind {self.kind!r}; {did_you_mean(self.kind, VERDICT_KINDS)}"
            )
        least = {"follow": 1, "controls": 0, "quantiles": 1, "seed": 0, "limit": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UsageError(f"{name} is {value}; it is {smallest} or more")

    @property
    def called(self) -> str:
        """What the effects are called together."""
        return self.name or f"{self.labels}-effects"

    def addition(self, labelled_at: str) -> Addition:
        """What the effects become.

        Parameters
        ----------
        labelled_at
            When the labels were begun: others of the same name are other labels.
        """
        names = ("labels", "kind", "follow", "controls", "quantiles", "seed")
        content = {name: getattr(self, name) for name in names} | {"labelled_at": labelled_at}
        return Addition(self.called, KIND, json.dumps(content, sort_keys=True))
