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
        "pair-specialization": pair_specialization,
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
