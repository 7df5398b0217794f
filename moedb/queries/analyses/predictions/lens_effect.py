"""What interventions change along the residual stream, read through the logit lens."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import RunNotFoundError
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
from moedb.queries.analyses.predictions.logit_lens import PLACES
from moedb.queries.analyses.uncertainty.bootstrap import (
    INTERVAL,
    SAMPLES,
    SEED,
    bootstrap,
    bootstrap_settings,
    number_or_none,
    warn_of_few,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, Clusters, clusters_of
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    import pandas as pd

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "lens-effect"

_READINGS = """
with readings as (
    select
        logit_lens.condition_id,
        logit_lens.example_id,
        logit_lens.layer,
        logit_lens.place,
        cast(logit_lens.logit_diff as double) as logit_diff
    from logit_lens
    join examples using (run_id, example_id)
    where logit_lens.run_id = cast($run as varchar)
        and logit_lens.candidate = 'target'
        and logit_lens.position = examples.n_tokens - 1
)

select
    conditions.run_id,
    readings.condition_id,
    conditions.kind,
    conditions.layer,
    conditions.expert,
    conditions.params,
    examples.split,
    readings.example_id,
    readings.layer as read_layer,
    readings.place,
    readings.logit_diff,
    readings.logit_diff - untouched.logit_diff as change
from readings
join conditions
    on conditions.run_id = cast($run as varchar)
    and conditions.condition_id = readings.condition_id
join examples
    on examples.run_id = conditions.run_id
    and examples.example_id = readings.example_id
join selections
    on selections.run_id = conditions.run_id
    and selections.example_id = readings.example_id
join readings as untouched
    on untouched.condition_id = 0
    and untouched.example_id = readings.example_id
    and untouched.layer = readings.layer
    and untouched.place = readings.place
where conditions.kind <> 'none'
    and (
        cast($kind as varchar) is null
        or contains(
            concat(',', replace(cast($kind as varchar), ' ', ''), ','),
            concat(',', conditions.kind, ',')
        )
    )
    and selections.selection = coalesce(
        cast($split as varchar),
        case when conditions.kind in ('patch', 'swap-routing') then 'all' else 'default' end
    )
order by readings.condition_id, readings.example_id, readings.layer, readings.place
""".strip()


class LensEffectRow(NamedTuple):
    """A row of the analysis ``lens-effect``."""

    kind: str
    layer: int | None
    expert: int | None
    params: str
    split: str
    read_layer: int
    place: str
    n_conditions: int
    n_prompts: int
    mean_logit_diff: float
    change_logit_diff: float
    change_logit_diff_low: float | None
    change_logit_diff_high: float | None


def lens_effect(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``lens-effect``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, kind, cluster, samples and seed.

    Raises
    ------
    RunNotFoundError
        If no complete run has interventions on the run, or none was read through the lens.
    ParameterError
        If the seed or the number of samples is negative, or no example has the label that is to
        tell the clusters.
    """
    import pandas as pd

    samples, seed = bootstrap_settings(_NAME, parameters)
    runs = find_interventions(reader, str(parameters["run"]), options="--lens")
    captured = captured_run(reader, runs[0].run_id)
    clusters = clusters_of(reader, captured.run_id, _NAME, parameters["cluster"])
    asked = {name: parameters[name] for name in ("split", "kind")}
    readings = pd.concat(
        [reader.sql(_READINGS, asked | {"run": run.run_id}).df() for run in runs],
        ignore_index=True,
    )
    if readings.empty:
        of = "".join(f", {name} {value}," for name, value in asked.items() if value is not None)
        raise RunNotFoundError(
            f"no readings of the logit lens{of} in {', '.join(run.run_id for run in runs)}",
            "intervene again, with --lens",
        )
    readings = grouped(readings)
    rows = _rows(readings, clusters, samples, seed)
    return Computed(rows, _READINGS, run_ids_of(readings, runs))


def _rows(
    readings: "pd.DataFrame", clusters: Clusters, samples: int, seed: int
) -> list[LensEffectRow]:
    # the draws of a condition first: what is drawn again are the examples
    points = ["group", "read_layer", "place"]
    by_example = readings.groupby([*points, "example_id"])[["logit_diff", "change"]].mean()
    wide = by_example["change"].unstack(points)
    resampled = bootstrap(wide.to_numpy(float), samples, seed, clusters.of(wide.index.to_numpy()))
    if samples:
        warn_of_few(_NAME, resampled.n_clusters.tolist(), clusters.key)
    interval: dict[Any, Any] = dict(zip(wide.columns, resampled.intervals().T, strict=True))
    of_group = dict(iter(readings.groupby("group")))
    about = {group: condition_of(own) for group, own in of_group.items()}
    n_conditions = {group: own["condition_id"].nunique() for group, own in of_group.items()}
    found: dict[Any, pd.DataFrame] = dict(iter(by_example.groupby(level=points)))
    rows: list[LensEffectRow] = []
    for key in sorted(found, key=lambda key: (key[0], key[1], PLACES.index(key[2]))):
        group, layer, place = key
        own = found[key]
        low, high = interval[key]
        rows.append(
            LensEffectRow(
                **about[group]._asdict(),
                read_layer=int(layer),
                place=str(place),
                n_conditions=int(n_conditions[group]),
                n_prompts=len(own),
                mean_logit_diff=float(own["logit_diff"].mean()),
                change_logit_diff=float(own["change"].mean()),
                change_logit_diff_low=number_or_none(low),
                change_logit_diff_high=number_or_none(high),
            )
        )
    return rows


LENS_EFFECT = Analysis(
    name=_NAME,
    title="Interventions along the stream",
    answers="At which layer does what an intervention changes show in the answer?",
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
        AnalysisColumn("read_layer", "the layer that is read through the lens", "INTEGER"),
        AnalysisColumn(
            "place",
            "where in it: mid (after attention, before the MoE block) or post (after the "
            "layer); before the first changed layer nothing changes, and there are no rows",
            "VARCHAR",
        ),
        N_CONDITIONS,
        AnalysisColumn("n_prompts", "prompts read", "BIGINT"),
        AnalysisColumn(
            "mean_logit_diff",
            "mean logit of the target less that of its foil, under the condition",
            "DOUBLE",
        ),
        AnalysisColumn(
            "change_logit_diff", "that less the same of condition 0 at the same place", "DOUBLE"
        ),
        AnalysisColumn("change_logit_diff_low", f"the lower end {INTERVAL}", "DOUBLE"),
        AnalysisColumn("change_logit_diff_high", "the upper end", "DOUBLE"),
    ),
    source="nostalgebraist 2020; Divák & Velja",
    function=lens_effect,
    row=LensEffectRow,
    needs=LOGIT_DIFFERENCES,
)
