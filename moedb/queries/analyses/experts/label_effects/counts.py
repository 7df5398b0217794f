"""For how many labelled experts the ablation hurts more where the label fits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.analyses.analysis import RUN, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.label_effects.groups import (
    COMPARISONS,
    EFFECTS,
    LEAST_DOCUMENTS,
    RUN_EFFECTS,
    Difference,
    Sums,
    read_effects,
)
from moedb.queries.analyses.uncertainty.bootstrap import (
    INTERVAL,
    SAMPLES,
    SEED,
    bootstrap_settings,
    number_or_none,
)
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "label-effect-counts"


class LabelEffectCountsRow(NamedTuple):
    """A row of the analysis ``label-effect-counts``."""

    effect_set: str
    layer: int | None
    comparison: str
    n_experts: int
    n_compared: int
    n_below: int
    n_intervals: int
    n_surely_below: int
    n_surely_above: int
    mean: float | None
    mean_low: float | None
    mean_high: float | None


def label_effect_counts(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``label-effect-counts``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, effects, layer, measure, samples and seed.
    """
    samples, seed = bootstrap_settings(_NAME, parameters)
    run = reader.snapshot.run(str(parameters["run"])).run_id
    effects = read_effects(reader, run, parameters)
    rows: list[LabelEffectCountsRow] = []
    for effect_set, of_set in effects.groupby("effect_set"):
        layers: list[int | None] = [*sorted({int(layer) for layer in of_set["layer"]})]
        if len(layers) > 1:
            layers.append(None)
        for layer in layers:
            own = of_set if layer is None else of_set[of_set["layer"] == layer]
            rows += _rows(str(effect_set), layer, own, samples, seed)
    return Computed(rows, EFFECTS, (run,))


def _rows(
    effect_set: str, layer: int | None, effects: "pd.DataFrame", samples: int, seed: int
) -> "Iterator[LabelEffectCountsRow]":
    experts = [Sums.of(own) for _, own in effects.groupby(["layer", "expert"])]
    together = Sums.of(effects)
    for name, groups in COMPARISONS.items():
        found = [Difference.of(sums, groups, samples, seed) for sums in experts]
        compared = [each for each in found if each.estimate is not None]
        drawn = together.drawn(groups, samples if compared else 0, seed)
        low, high = drawn.interval()
        yield LabelEffectCountsRow(
            effect_set=effect_set,
            layer=layer,
            comparison=name,
            n_experts=len(experts),
            n_compared=len(compared),
            n_below=sum(each.estimate < 0 for each in compared if each.estimate is not None),
            n_intervals=sum(each.high is not None for each in found),
            n_surely_below=sum(each.high < 0 for each in found if each.high is not None),
            n_surely_above=sum(each.low > 0 for each in found if each.low is not None),
            mean=number_or_none(drawn.estimates[0]),
            mean_low=low,
            mean_high=high,
        )


LABEL_EFFECT_COUNTS = Analysis(
    name=_NAME,
    title="Labels that are true",
    answers="For how many labelled experts does the ablation hurt more where the label fits?",
    subject="experts",
    parameters=(RUN, *RUN_EFFECTS, SAMPLES, SEED),
    columns=(
        AnalysisColumn("effect_set", "what the effects are called together", "VARCHAR"),
        AnalysisColumn("layer", "the MoE layer; null for all together", "INTEGER"),
        AnalysisColumn(
            "comparison",
            "fits_less_other, fits_less_control or fits_less_control_own: as in label-effects",
            "VARCHAR",
        ),
        AnalysisColumn("n_experts", "labelled experts that were ablated", "BIGINT"),
        AnalysisColumn("n_compared", "those with tokens of both groups", "BIGINT"),
        AnalysisColumn("n_below", "those whose difference is below 0: it hurts more", "BIGINT"),
        AnalysisColumn(
            "n_intervals",
            f"those with an interval: tokens of both groups are of {LEAST_DOCUMENTS} documents or "
            "more",
            "BIGINT",
        ),
        AnalysisColumn(
            "n_surely_below", "those of which the whole 95 % interval is below 0", "BIGINT"
        ),
        AnalysisColumn("n_surely_above", "those of which it is above 0", "BIGINT"),
        AnalysisColumn("mean", "mean difference (nats), each expert counted alike", "DOUBLE"),
        AnalysisColumn(
            "mean_low", f"lower end {INTERVAL}, drawn for all experts at once", "DOUBLE"
        ),
        AnalysisColumn("mean_high", "upper end", "DOUBLE"),
    ),
    source="moedb",
    function=label_effect_counts,
    row=LabelEffectCountsRow,
    needs=("label_effects",),
)
