"""For each labelled expert what its ablation changes where its label fits, and elsewhere."""

from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.queries.analyses.analysis import RUN, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.label_effects.groups import (
    COMPARISONS,
    EFFECTS,
    GROUPS,
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
    warn_of_few,
)
from moedb.queries.questions.parameters import Parameter
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "label-effects"
_LABELS = """
select expert_labels.label_set, expert_labels.layer, expert_labels.expert, expert_labels.label
from expert_labels
where expert_labels.run_id = cast($run as varchar)
order by expert_labels.label_set, expert_labels.layer, expert_labels.expert
""".strip()


class LabelEffectsRow(NamedTuple):
    """A row of the analysis ``label-effects``."""

    effect_set: str
    label_set: str
    kind: str
    layer: int
    expert: int
    label: str | None
    fits: float | None
    fits_low: float | None
    fits_high: float | None
    n_fits: int
    other: float | None
    other_low: float | None
    other_high: float | None
    n_other: int
    unrouted_fits: float | None
    n_unrouted_fits: int
    unrouted_other: float | None
    n_unrouted_other: int
    control: float | None
    n_control: int
    control_own: float | None
    control_own_low: float | None
    control_own_high: float | None
    n_control_own: int
    fits_less_other: float | None
    fits_less_other_low: float | None
    fits_less_other_high: float | None
    fits_less_control: float | None
    fits_less_control_low: float | None
    fits_less_control_high: float | None
    fits_less_control_own: float | None
    fits_less_control_own_low: float | None
    fits_less_control_own_high: float | None
    rank: float | None
    n_ranked: int
    control_rank: float | None
    n_documents: int
    reason: str | None


_WITH_INTERVAL = ("fits", "other", "control_own")


def label_effects(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``label-effects``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, effects, layer, expert, measure, samples and seed.
    """
    samples, seed = bootstrap_settings(_NAME, parameters)
    run = reader.snapshot.run(str(parameters["run"])).run_id
    effects = read_effects(reader, run, parameters)
    if parameters["expert"] is not None:
        effects = effects[effects["expert"] == int(parameters["expert"])]
    labels = {
        (name, layer, expert): label
        for name, layer, expert, label in reader.sql(_LABELS, {"run": run}).fetchall()
    }
    rows, n_clusters = [], []
    for _, own in effects.groupby(["effect_set", "layer", "expert"]):
        first = own.iloc[0]
        label_set, layer, expert = (
            str(first["label_set"]),
            int(first["layer"]),
            int(first["expert"]),
        )
        row = _row(own, samples, seed)
        n_clusters.append(row["n_documents"])
        rows.append(
            LabelEffectsRow(
                effect_set=str(first["effect_set"]),
                label_set=label_set,
                kind=str(first["kind"]),
                layer=layer,
                expert=expert,
                label=labels.get((label_set, layer, expert)),
                **row,
            )
        )
    if samples:
        warn_of_few(_NAME, n_clusters, None)
    return Computed(rows, EFFECTS, (run,))


def _row(effects: "pd.DataFrame", samples: int, seed: int) -> "dict[str, Any]":
    """The numbers of one expert."""
    sums = Sums.of(effects)
    found: dict[str, Any] = {}
    for group in GROUPS:
        drawn = sums.drawn((group,), samples if group in _WITH_INTERVAL else 0, seed)
        found[group] = number_or_none(drawn.estimates[0])
        found[f"n_{group}"] = sums.size(group)
        if group in _WITH_INTERVAL:
            found[f"{group}_low"], found[f"{group}_high"] = drawn.interval()
    for name, groups in COMPARISONS.items():
        compared = Difference.of(sums, groups, samples, seed)
        found[name], found[f"{name}_low"], found[f"{name}_high"] = compared
    ranks = effects[effects["attribution_rank"].notna()]
    own, control = (
        ranks[ranks["group"].isin(groups)]["attribution_rank"]
        for groups in (("fits", "other"), ("control_own",))
    )
    lacking = [GROUPS[group] for group in ("fits", "other", "control_own") if not sums.size(group)]
    return {
        **found,
        "rank": float(own.mean()) if len(own) else None,
        "n_ranked": len(own),
        "control_rank": float(control.mean()) if len(control) else None,
        "n_documents": effects["cluster"].nunique(),
        "reason": "none of: " + "; ".join(lacking) if lacking else None,
    }


_DOUBLES = {
    **{
        name: f"mean change (nats) of the log-probability over {what}; below 0 where the ablation "
        "hurts"
        for name, what in GROUPS.items()
    },
    "fits_less_other": "fits less other: below 0 where the expert matters more where its label "
    "fits than where it is chosen otherwise",
    "fits_less_control": "fits less control: below 0 where it matters more than one about as often "
    "chosen would on the same tokens",
    "fits_less_control_own": "fits less control_own: below 0 where it matters more than those do "
    "on tokens of their own",
    "rank": "mean place of the expert, from 1, by direct attribution to the next token among all "
    "that chose it with the token, where the token chose it and its label was judged",
    "control_rank": "the same of the controls on their own tokens",
}


def _column(name: str) -> AnalysisColumn:
    texts = {
        "effect_set": "what the effects are called together",
        "label_set": "what the labels are called together",
        "kind": "the verdicts that say where a label fits",
        "label": "the label",
        "reason": "which groups have no tokens, so that numbers are null",
    }
    if name in texts:
        return AnalysisColumn(name, texts[name], "VARCHAR")
    if name in ("layer", "expert"):
        return AnalysisColumn(name, f"the {name.replace('layer', 'MoE layer')}", "INTEGER")
    if name == "n_documents":
        return AnalysisColumn(name, "documents that all these tokens are of", "BIGINT")
    if name == "n_ranked":
        return AnalysisColumn(name, "tokens behind rank", "BIGINT")
    if name.startswith("n_"):
        about = name.removeprefix("n_")
        times = ", times the controls" if about.startswith("control") else ""
        return AnalysisColumn(name, f"tokens behind {about}{times}", "BIGINT")
    for ending, which in (("_low", "lower end"), ("_high", "upper end")):
        if name.endswith(ending):
            about = name.removesuffix(ending)
            few = f", and where a group is of fewer than {LEAST_DOCUMENTS} documents"
            text = f"of {about}: {which} {INTERVAL}" + (few if "_less_" in name else "")
            return AnalysisColumn(name, text, "DOUBLE")
    return AnalysisColumn(name, _DOUBLES[name], "DOUBLE")


LABEL_EFFECTS = Analysis(
    name=_NAME,
    title="Effects of labelled experts",
    answers="What does taking a labelled expert out do to the tokens that follow: where its label "
    "fits, where it is chosen otherwise, and beside experts about as often chosen?",
    subject="experts",
    parameters=(
        RUN,
        *RUN_EFFECTS,
        Parameter("expert", "integer", None, False, "the expert; all when null"),
        SAMPLES,
        SEED,
    ),
    columns=tuple(map(_column, LabelEffectsRow._fields)),
    source="moedb; direct attribution after Elhage et al. 2021",
    function=label_effects,
    row=LabelEffectsRow,
    needs=("label_effects",),
)
