"""What is asked: every named query, and the analyses that read routing."""

from dataclasses import dataclass, field
from typing import Any, Literal

from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.questions.catalog import catalog

Run = Literal["text", "ioi", "trials"]

DOMAIN = {"key": "domain"}
ON_EXAMPLES = {"key": "domain", "on": "examples"}
ON_TOKENS = {"key": "upos", "on": "tokens"}
GROUPS = {"value_a": "books", "value_b": "code"}


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes
    ----------
    query
        The query.
    note
        What tells this case from the query with its defaults.
    parameters
        Its parameters, but for runs.
    by_hand
        The function of ``by_hand`` that says the same; None without one.
    hand_parameters
        What that takes.
    run
        The run that is asked for; queries over trials read every trial.
    """

    query: str
    note: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    by_hand: str | None = None
    hand_parameters: dict[str, Any] = field(default_factory=dict)
    run: Run = "text"

    @property
    def name(self) -> str:
        """The query, and what tells this case."""
        return f"{self.query} ({self.note})" if self.note else self.query


def _alike(query: str, note: str = "", **parameters: Any) -> Case:
    """A case whose function by hand has the query's name and parameters."""
    return Case(query, note, parameters, query.replace("-", "_"), parameters)


def _of_label(query: str, **more: Any) -> list[Case]:
    """A case for a label of examples and one for a label of tokens."""
    return [
        Case(query, note, {"key": hand["key"], **more}, query.replace("-", "_"), {**hand, **more})
        for note, hand in (("domain", ON_EXAMPLES), ("upos", ON_TOKENS))
    ]


_BY_HAND = (
    _alike("expert-frequency"),
    Case("expert-frequency", "prompts", by_hand="expert_frequency", run="ioi"),
    _alike("concentration"),
    _alike("load-balance"),
    *_of_label("routing-by-class"),
    Case("overlap", "domain", DOMAIN | GROUPS, "overlap", ON_EXAMPLES | GROUPS),
    *_of_label("expert-specialization"),
    _alike("vocabulary-specialization"),
    _alike("top-tokens"),
    _alike("router-confidence"),
    Case("router-confidence", "upos", {"key": "upos"}, "router_confidence", ON_TOKENS),
    _alike("co-activation"),
    _alike("co-activation-adjacent"),
    _alike("cross-layer"),
    _alike("routing-by-example", "last tokens", **DOMAIN),
    Case(
        "routing-by-example",
        "all tokens of a layer",
        {**DOMAIN, "scope": "example", "layer": 0},
        "routing_by_example_at",
        {**DOMAIN, "layer": 0},
    ),
    _alike("active-experts"),
    Case("active-experts", "all tokens", {"scope": "example"}, "active_experts_in_examples"),
    Case("saturation", by_hand="saturation"),
    Case(
        "label-information",
        "domain, 200 permutations",
        {**DOMAIN, "permutations": 200},
        "label_information",
        {**ON_EXAMPLES, "permutations": 200},
    ),
    Case(
        "label-information",
        "upos, 20 permutations",
        {"key": "upos", "permutations": 20},
        "label_information",
        {**ON_TOKENS, "permutations": 20},
    ),
)
_OVER_TRIALS = (
    "class-consistency",
    "class-correlation",
    "class-covariance",
    "expert-accuracy",
    "load-balance-by-trial",
    "router-ablation",
    "routing-by-class-over-trials",
)
_ALONE = (
    Case("ioi-logit-diff", run="ioi"),
    *(Case(query, run="trials") for query in _OVER_TRIALS),
    Case("pair-specialization", "domain", DOMAIN),
    Case("pair-specialization", "upos", {"key": "upos"}),
)

CASES = (*_BY_HAND, *_ALONE)
"""Every case, those with a counterpart by hand first."""


def not_timed() -> list[str]:
    """The questions without a case: analyses of arrays and interventions, which the stores lack."""
    return sorted({*catalog(), *ANALYSES} - {case.query for case in CASES})
