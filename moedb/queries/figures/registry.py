"""The figures of the named analyses: which question has which.

Each is described beside its drawing. Everything is set by ``moedb.mplstyle`` for one column of a
paper; a figure with hundreds of experts side by side is as wide as two.
"""

from collections.abc import Mapping

from moedb.queries.figures.classes.concepts import POLYSEMANTICITY, PROBE_BEST
from moedb.queries.figures.classes.confidence import ROUTER_CONFIDENCE
from moedb.queries.figures.classes.information import LABEL_INFORMATION
from moedb.queries.figures.classes.matrices import ROUTING_BY_CLASS
from moedb.queries.figures.classes.overlap import OVERLAP
from moedb.queries.figures.classes.panels import (
    CLASS_CONSISTENCY,
    CLASS_CORRELATION,
    CLASS_COVARIANCE,
    EXPERT_ACCURACY,
    ROUTING_BY_CLASS_OVER_TRIALS,
)
from moedb.queries.figures.classes.probes import PROBE_CURVES
from moedb.queries.figures.examples import ROUTING_BY_EXAMPLE
from moedb.queries.figures.experts.concentration import CONCENTRATION
from moedb.queries.figures.experts.label_effects import LABEL_EFFECTS
from moedb.queries.figures.experts.labels import LABELLED_EXPERTS
from moedb.queries.figures.experts.load_balance import LOAD_BALANCE
from moedb.queries.figures.experts.saturation import SATURATION
from moedb.queries.figures.experts.state_and_function import STATE_AND_FUNCTION
from moedb.queries.figures.experts.use import EXPERT_FREQUENCY
from moedb.queries.figures.pairs.co_activation import CO_ACTIVATION
from moedb.queries.figures.pairs.cross_layer import CROSS_LAYER
from moedb.queries.figures.pairs.expert_similarity import EXPERT_SIMILARITY
from moedb.queries.figures.pairs.output_overlap import OUTPUT_OVERLAP
from moedb.queries.figures.parts.figure import Plot
from moedb.queries.figures.predictions.experts import EXPERT_ATTRIBUTION, EXPERT_EFFECT
from moedb.queries.figures.predictions.interventions import INTERVENTION_EFFECT
from moedb.queries.figures.predictions.lens import LENS_EFFECT, LOGIT_LENS
from moedb.queries.figures.router_ablation import ROUTER_ABLATION
from moedb.queries.results.result import Result
from moedb.queries.results.rows.given import result_of_rows

PLOTS: Mapping[str, Plot] = {
    "expert-frequency": EXPERT_FREQUENCY,
    "concentration": CONCENTRATION,
    "load-balance": LOAD_BALANCE,
    "co-activation": CO_ACTIVATION,
    "cross-layer": CROSS_LAYER,
    "expert-similarity": EXPERT_SIMILARITY,
    "output-overlap": OUTPUT_OVERLAP,
    "overlap": OVERLAP,
    "router-confidence": ROUTER_CONFIDENCE,
    "label-effects": LABEL_EFFECTS,
    "label-information": LABEL_INFORMATION,
    "class-consistency": CLASS_CONSISTENCY,
    "class-correlation": CLASS_CORRELATION,
    "class-covariance": CLASS_COVARIANCE,
    "expert-accuracy": EXPERT_ACCURACY,
    "expert-attribution": EXPERT_ATTRIBUTION,
    "expert-effect": EXPERT_EFFECT,
    "intervention-effect": INTERVENTION_EFFECT,
    "labelled-experts": LABELLED_EXPERTS,
    "lens-effect": LENS_EFFECT,
    "logit-lens": LOGIT_LENS,
    "polysemanticity": POLYSEMANTICITY,
    "probe-best": PROBE_BEST,
    "probe-curves": PROBE_CURVES,
    "router-ablation": ROUTER_ABLATION,
    "routing-by-class": ROUTING_BY_CLASS,
    "routing-by-example": ROUTING_BY_EXAMPLE,
    "routing-by-class-over-trials": ROUTING_BY_CLASS_OVER_TRIALS,
    "saturation": SATURATION,
    "state-and-function": STATE_AND_FUNCTION,
}


def figure_list() -> Result:
    """One row for each figure, named as the query whose rows it draws."""
    rows = sorted((name, plot.title) for name, plot in PLOTS.items())
    return result_of_rows({"name": "VARCHAR", "draws": "VARCHAR"}, rows)
