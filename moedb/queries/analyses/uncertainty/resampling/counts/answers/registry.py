"""The queries whose answers are worked out row by row."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.answers.active_experts import (
    active_experts,
)
from moedb.queries.analyses.uncertainty.resampling.counts.answers.class_pairs import (
    pair_specialization,
)
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.classes import (
    expert_specialization,
    routing_by_class,
)
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.pairs import (
    co_activation,
    co_activation_adjacent,
    cross_layer,
)
from moedb.queries.analyses.uncertainty.resampling.counts.answers.counted.usage import (
    concentration,
    expert_frequency,
    load_balance,
)
from moedb.queries.analyses.uncertainty.resampling.counts.answers.saturation import saturation
from moedb.queries.analyses.uncertainty.resampling.counts.answers.top_tokens import top_tokens
from moedb.queries.analyses.uncertainty.resampling.counts.answers.vocabulary import (
    vocabulary_specialization,
)

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answers
    from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
    from moedb.queries.questions.parameters import Value

ANSWERS: Mapping[str, "Callable[[OfRun, Mapping[str, Value]], Answers]"] = MappingProxyType(
    {
        "active-experts": active_experts,
        "co-activation": co_activation,
        "co-activation-adjacent": co_activation_adjacent,
        "concentration": concentration,
        "cross-layer": cross_layer,
        "expert-frequency": expert_frequency,
        "expert-specialization": expert_specialization,
        "load-balance": load_balance,
        "pair-specialization": pair_specialization,
        "routing-by-class": routing_by_class,
        "saturation": saturation,
        "top-tokens": top_tokens,
        "vocabulary-specialization": vocabulary_specialization,
    }
)
"""By the query's name what counts a run once and then answers layer by layer."""

LEFT_OUT_ALONE = frozenset({"vocabulary-specialization"})
"""Those whose clusters are left out and never drawn again.

A token id that is drawn with repeats is as if it were rarer, and its largest share larger: over a
whole vocabulary all draws lie far above the estimate.
"""
