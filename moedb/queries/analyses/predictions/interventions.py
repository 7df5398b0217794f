"""What interventions change in a model's answers, against the untouched model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.queries.analyses.analysis import LOGIT_DIFFERENCES, Analysis, AnalysisColumn
from moedb.queries.analyses.predictions.conditions import (
    CONDITION_COLUMNS,
    KIND,
    N_CONDITIONS,
    SPLIT_OF_TWINS,
    condition_of,
    grouped,
)
from moedb.queries.analyses.predictions.intervention_runs import (
    RUN_OF_INTERVENTIONS,
    captured_run,
    find_interventions,
    run_ids_of,
)
from moedb.queries.analyses.uncertainty.bootstrap import (
    INTERVAL,
    SAMPLES,
    SEED,
    Bootstrap,
    bootstrap,
    bootstrap_settings,
    means,
    number_or_none,
    warn_of_few,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, Clusters, clusters_of
from moedb.queries.analyses.uncertainty.shares import change_of_share
from moedb.queries.results.result import Computed
from moedb.schemas.interventions import PATCH, SWAP

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader
    from moedb.store.reading.snapshot import RunSnapshot

_NAME = "intervention-effect"
_TWINS = (PATCH, SWAP)
"""The kinds that put values of an example's twin into the example."""

MEASURES = ("logit_diff", "probability", "accuracy", "top1_accuracy")
"""What is compared with the untouched model."""

_SHARES = ("accuracy", "top1_accuracy")
"""Those of them that are shares of prompts."""

_ANSWERS = """
with untouched as (
    select
        predictions.example_id,
        predictions.logit_diff,
        predictions.target_logprob,
        predictions.correct
    from predictions
    where predictions.run_id = cast($run as varchar)
        and predictions.condition_id = 0
),

-- a twin that no condition is about may be missing from the run, and is in the one it continues
twin_differences as (
    select
        twins.example_id,
        coalesce(own.logit_diff, of_parent.logit_diff) as logit_diff
    from example_labels as twins
    join runs using (run_id)
    left join untouched as own
        on own.example_id = try_cast(twins.value as integer)
    left join predictions as of_parent
        on of_parent.run_id = runs.parent_run_id
        and of_parent.condition_id = 0
        and of_parent.example_id = try_cast(twins.value as integer)
    where twins.run_id = cast($run as varchar)
        and twins.key in ('twin', 'twin_of')
)

select
    predictions.run_id,
    predictions.condition_id,
    conditions.kind,
    conditions.layer,
    conditions.expert,
    conditions.params,
    predictions.example_id,
    examples.split,
    cast(predictions.logit_diff as double) as logit_diff,
    exp(cast(predictions.target_logprob as double)) as probability,
    predictions.correct as top1_accuracy,
    cast(untouched.logit_diff as double) as base_logit_diff,
    exp(cast(untouched.target_logprob as double)) as base_probability,
    untouched.correct as base_top1_accuracy,
    cast(twin_differences.logit_diff as double) as twin_logit_diff
from predictions
join conditions using (run_id, condition_id)
join examples using (run_id, example_id)
join selections
    on selections.run_id = predictions.run_id
    and selections.example_id = predictions.example_id
join untouched using (example_id)
left join twin_differences using (example_id)
where predictions.run_id = cast($run as varchar)
    and conditions.kind <> 'none'
    and predictions.logit_diff is not null
    and untouched.logit_diff is not null
    and selections.selection = coalesce(
        cast($split as varchar),
        case when conditions.kind in ('patch', 'swap-routing') then 'all' else 'default' end
    )
order by predictions.condition_id, predictions.example_id
""".strip()


class InterventionEffectRow(NamedTuple):
    """A row of the analysis ``intervention-effect``."""

    kind: str
    layer: int | None
    expert: int | None
    params: str
    split: str
    n_conditions: int
    n_prompts: int
    logit_diff: float
    change_logit_diff: float
    change_logit_diff_low: float | None
    change_logit_diff_high: float | None
    probability: float
    change_probability: float
    change_probability_low: float | None
    change_probability_high: float | None
    accuracy: float
    change_accuracy: float
    change_accuracy_low: float | None
    change_accuracy_high: float | None
    top1_accuracy: float
    change_top1_accuracy: float
    change_top1_accuracy_low: float | None
    change_top1_accuracy_high: float | None
    normalized: float | None
    normalized_low: float | None
    normalized_high: float | None


def intervention_effect(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``intervention-effect``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, kind, cluster, samples and seed.

    Raises
    ------
    RunNotFoundError
        If no complete run has interventions on the run.
    ParameterError
        If the seed or the number of samples is negative, or no example has the label that is to
        tell the clusters.
    """
    samples, seed = bootstrap_settings(_NAME, parameters)
    runs = find_interventions(reader, str(parameters["run"]))
    split, kinds, key = parameters["split"], parameters["kind"], parameters["cluster"]
    clusters = clusters_of(reader, captured_run(reader, runs[0].run_id).run_id, _NAME, key)

    def compute() -> Computed:
        answers = answers_of(reader, runs, split)
        if kinds is not None:
            named = [kind.strip() for kind in str(kinds).split(",")]
            answers = answers[answers["kind"].isin(named)]
        effects = tuple(effects_of(answers, clusters, samples, seed))
        splits = tuple(sorted(answers["split"].unique()))
        return Computed(effects, _ANSWERS, run_ids_of(answers, runs), splits or None)

    return reader.memo.of_runs(runs, (_NAME, split, kinds, key, samples, seed), compute)


def answers_of(
    reader: "SnapshotReader", runs: "Sequence[RunSnapshot]", split: "Value"
) -> "pd.DataFrame":
    """One row for each example under each condition, beside the untouched model's answer.

    They are put together by :func:`grouped`.
    """
    import numpy as np
    import pandas as pd

    answers = pd.concat(
        [reader.sql(_ANSWERS, {"run": run.run_id, "split": split}).df() for run in runs],
        ignore_index=True,
    )
    answers["accuracy"] = (answers["logit_diff"] > 0).astype(float)
    answers["base_accuracy"] = (answers["base_logit_diff"] > 0).astype(float)
    # of a pair of twins the prompt that is not corrupted is the clean one
    corrupted = (answers["split"] == "corrupted").to_numpy()
    own, twin = answers["base_logit_diff"], answers["twin_logit_diff"]
    twin = twin.where(answers["kind"].isin(_TWINS))
    answers["clean"] = np.where(corrupted, twin, own.where(twin.notna()))
    answers["corrupt"] = np.where(corrupted, own.where(twin.notna()), twin)
    answers["with_twin"] = answers["logit_diff"].where(twin.notna())
    return grouped(answers)


def effects_of(
    answers: "pd.DataFrame", clusters: Clusters, samples: int, seed: int, name: str = _NAME
) -> list[InterventionEffectRow]:
    """The rows of ``intervention-effect``; those about single experts come last.

    ``name`` is the analysis that asks for them.
    """
    if answers.empty:
        return []
    columns = [*MEASURES, *(f"base_{name}" for name in MEASURES), "with_twin", "clean", "corrupt"]
    # the draws of a condition first: what is drawn again are the examples
    by_example = answers.groupby(["group", "example_id"], sort=True)[columns].mean()
    for measure in MEASURES:
        by_example[f"change_{measure}"] = by_example[measure] - by_example[f"base_{measure}"]
    drawn_columns = [f"change_{measure}" for measure in MEASURES if measure not in _SHARES]
    drawn_columns += ["with_twin", "clean", "corrupt"]
    # columns of the same examples share the draws, so all conditions are drawn at once
    wide = by_example[drawn_columns].unstack("group")
    of_all = bootstrap(wide.to_numpy(float), samples, seed, clusters.of(wide.index.to_numpy()))
    places = {column: at for at, column in enumerate(wide.columns)}
    rows: list[InterventionEffectRow] = []
    n_clusters: list[int] = []
    for group, own in answers.groupby("group", sort=True):
        held = by_example.loc[group]
        resampled = of_all.columns([places[column, group] for column in drawn_columns])
        n_clusters.append(int(resampled.n_clusters[0]))
        bounds = dict(zip(drawn_columns, resampled.intervals().T, strict=True))
        average = dict(zip(held.columns, means(held.to_numpy(float)), strict=True))
        measured: dict[str, Any] = {}
        for measure in MEASURES:
            change = f"change_{measure}"
            interval: Any = bounds.get(change, (float("nan"), float("nan")))
            if measure in _SHARES and samples:
                interval = change_of_share(
                    held[measure].to_numpy(float),
                    held[f"base_{measure}"].to_numpy(float),
                    clusters.of(held.index.to_numpy()),
                )
            low, high = map(number_or_none, interval)
            measured |= {measure: average[measure], change: average[change]}
            measured |= {f"{change}_low": low, f"{change}_high": high}
        ratio = _restored(resampled)
        low, high = ratio.interval()
        rows.append(
            InterventionEffectRow(
                **condition_of(own)._asdict(),
                n_conditions=int(own["condition_id"].nunique()),
                n_prompts=len(held),
                **measured,
                normalized=number_or_none(ratio.estimates[0]),
                normalized_low=low,
                normalized_high=high,
            )
        )
    if samples:
        warn_of_few(name, n_clusters, clusters.key)
    return sorted(rows, key=lambda row: row.expert is not None)


def _restored(resampled: Bootstrap) -> Bootstrap:
    """Where the patched difference lies between those of the twins, with its draws."""
    return resampled.columns([-3, -2, -1]).combined(_normalized)


def _normalized(mean_differences: "NDArray[np.floating[Any]]") -> "NDArray[np.float64]":
    """(sample,): where the patched difference lies between that of the corrupted and the clean.

    Parameters
    ----------
    mean_differences
        (sample, 3): mean logit differences, patched, clean, corrupted.
    """
    import numpy as np

    patched, clean, corrupt = mean_differences.T
    span = np.where(clean == corrupt, np.nan, clean - corrupt)
    found: NDArray[np.float64] = (patched - corrupt) / span
    return found


_SHARE_INTERVAL = (
    "of its 95 % interval: Wilson's of both shares, put together as Newcombe does for pairs; null "
    "for a single prompt or cluster, and without samples"
)
_CHANGES = (
    ("logit_diff", "logit difference", "mean logit of the target less that of its foil", INTERVAL),
    (
        "probability",
        "probability",
        "mean probability of the target (IOI: the indirect object)",
        INTERVAL,
    ),
    ("accuracy", "accuracy", "share of prompts whose logit difference is above 0", _SHARE_INTERVAL),
    (
        "top1_accuracy",
        "top-1 accuracy",
        "share of prompts whose most likely token is the target",
        _SHARE_INTERVAL,
    ),
)


def _change_columns() -> tuple[AnalysisColumn, ...]:
    columns = []
    for name, words, doc, interval in _CHANGES:
        columns += [
            AnalysisColumn(name, f"{doc}, under the condition", "DOUBLE"),
            AnalysisColumn(
                f"change_{name}", f"that less the same of condition 0: change of {words}", "DOUBLE"
            ),
            AnalysisColumn(f"change_{name}_low", f"the lower end {interval}", "DOUBLE"),
            AnalysisColumn(f"change_{name}_high", "the upper end", "DOUBLE"),
        ]
    return tuple(columns)


INTERVENTION_EFFECT = Analysis(
    name=_NAME,
    title="Effect of interventions",
    answers="What does each intervention change in the model's answers?",
    subject="predictions",
    parameters=(
        RUN_OF_INTERVENTIONS,
        SPLIT_OF_TWINS,
        KIND,
        CLUSTER,
        SAMPLES,
        SEED,
    ),
    columns=(
        *CONDITION_COLUMNS,
        N_CONDITIONS,
        AnalysisColumn(
            "n_prompts",
            "prompts with a logit difference under the condition and condition 0",
            "BIGINT",
        ),
        *_change_columns(),
        AnalysisColumn(
            "normalized",
            "patch and swap-routing, where the twin's values were put in: (LD - LD_corrupted) "
            "/ (LD_clean - LD_corrupted) of mean logit differences over the pairs of twins, "
            "LD under the condition, the others untouched; 0 is the corrupted prompt, 1 the "
            "clean one",
            "DOUBLE",
        ),
        AnalysisColumn("normalized_low", f"the lower end {INTERVAL}", "DOUBLE"),
        AnalysisColumn("normalized_high", "the upper end", "DOUBLE"),
    ),
    source="Divák & Velja; normalized effect after Heimersheim & Nanda 2024",
    function=intervention_effect,
    row=InterventionEffectRow,
    needs=LOGIT_DIFFERENCES,
)
