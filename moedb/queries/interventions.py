"""What interventions change in a model's answers, against the untouched model."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import RunNotFoundError
from moedb.queries.bootstrap import (
    Bootstrap,
    bootstrap,
    bootstrap_settings,
    means,
    number_or_none,
    warn_of_few,
)
from moedb.queries.clusters import Clusters, clusters_of
from moedb.queries.reader import Reader
from moedb.queries.result import Computed
from moedb.queries.shares import change_of_share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.database import Database
    from moedb.queries.parameters import Value
    from moedb.store.snapshot import RunSnapshot

_NAME = "intervention-effect"
_DRAW = ("seed", "draw")
_TWINS = ("patch", "swap-routing")
"""The kinds that put values of an example's twin into the example."""

MEASURES = ("logit_diff", "probability", "accuracy", "top1_accuracy")
"""What is compared with the untouched model."""

_SHARES = ("accuracy", "top1_accuracy")
"""Those of them that are shares of prompts."""

_CONDITIONS = """
select count(*) as n_conditions
from conditions
where conditions.run_id = cast($run as varchar)
    and conditions.kind <> 'none'
""".strip()
_CHILDREN = """
select runs.run_id
from runs
where runs.parent_run_id = cast($run as varchar)
    and runs.status = 'complete'
order by runs.created_at desc, runs.run_id desc
""".strip()
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
join untouched using (example_id)
left join twin_differences using (example_id)
where predictions.run_id = cast($run as varchar)
    and conditions.kind <> 'none'
    and predictions.logit_diff is not null
    and untouched.logit_diff is not null
    and case
        when cast($split as varchar) is null
            then examples.split <> 'corrupted' or conditions.kind in ('patch', 'swap-routing')
        when cast($split as varchar) = 'all' then true
        else examples.split = cast($split as varchar)
    end
order by predictions.condition_id, predictions.example_id
""".strip()


def find_interventions(
    database: "Database", run: str, given: str | None = None, options: str = ""
) -> "list[RunSnapshot]":
    """Return the runs that hold the interventions on a run, the newest first.

    Parameters
    ----------
    database
        The store.
    run
        A captured run, or one with interventions, which is returned itself.
    given
        The run with the interventions; every complete one that continues ``run`` unless given.
    options
        What else ``moedb intervene`` needs to be told for the question at hand.

    Raises
    ------
    RunNotFoundError
        If there is none, or the one given continues another run.
    """
    own = database.snapshot.run(run)
    if given is not None:
        found = database.snapshot.run(given)
        parent = found.row["parent_run_id"]
        if found.run_id != own.run_id and parent != own.run_id:
            raise RunNotFoundError(
                f"run {found.run_id} holds no interventions on {own.run_id}: it continues "
                f"{parent or 'no run'}"
            )
        return [found]
    if database.sql(_CONDITIONS, {"run": own.run_id}).fetchall() != [(0,)]:
        return [own]
    children = database.sql(_CHILDREN, {"run": own.run_id}).fetchall()
    if not children:
        raise RunNotFoundError(
            f"no complete run in {database.snapshot.store} has interventions on {own.run_id}"
            f"{incomplete_interventions(database, own.run_id)}",
            f"moedb intervene --run {own.run_id} --kind random-routing {options}".rstrip(),
        )
    return [database.snapshot.run(child) for (child,) in children]


def incomplete_interventions(database: Reader, run: str) -> str:
    """Name the runs of interventions on ``run`` that are passed over, to end a sentence with."""
    found = [
        f"{each.run_id} is incomplete ({len(each.missing_units)} of {len(each.manifest.units)} "
        "units are missing) and not read; its moedb intervene command, typed again, resumes it"
        for each in database.snapshot.runs.values()
        if each.row["parent_run_id"] == run and not each.is_complete
    ]
    return "".join(f"; {sentence}" for sentence in sorted(found))


def captured_run(database: Reader, run: str) -> "RunSnapshot":
    """Return the run that a run of interventions continues; a captured run is returned itself."""
    own = database.snapshot.run(run)
    parent = own.row["parent_run_id"]
    there = {**database.snapshot.runs, **database.snapshot.damaged}
    return database.snapshot.run(parent) if parent in there else own


def intervention_effect(database: "Database", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``intervention-effect``.

    Parameters
    ----------
    database
        The store.
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
    runs = find_interventions(database, str(parameters["run"]))
    split, kinds, key = parameters["split"], parameters["kind"], parameters["cluster"]
    clusters = clusters_of(database, captured_run(database, runs[0].run_id).run_id, _NAME, key)

    def compute() -> Computed:
        answers = answers_of(database, runs, split)
        if kinds is not None:
            named = [kind.strip() for kind in str(kinds).split(",")]
            answers = answers[answers["kind"].isin(named)]
        effects = tuple(effects_of(answers, clusters, samples, seed))
        splits = tuple(sorted(answers["split"].unique()))
        return Computed(effects, _ANSWERS, run_ids_of(answers, runs), splits or None)

    return database.memo.of_runs(runs, (_NAME, split, kinds, key, samples, seed), compute)


def run_ids_of(answers: "pd.DataFrame", runs: "Sequence[RunSnapshot]") -> tuple[str, ...]:
    """The runs that answers are from; all that were read where there are no answers."""
    return tuple(answers["run_id"].unique()) or tuple(run.run_id for run in runs)


def answers_of(
    database: "Database", runs: "Sequence[RunSnapshot]", split: "Value"
) -> "pd.DataFrame":
    """One row for each example under each condition, beside the untouched model's answer.

    They are put together by :func:`grouped`.
    """
    import numpy as np
    import pandas as pd

    answers = pd.concat(
        [database.sql(_ANSWERS, {"run": run.run_id, "split": split}).df() for run in runs],
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


def grouped(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Put together what belongs together of the rows that conditions gave.

    The column ``group`` numbers it: draws of one condition, and of these the examples of one split.
    Of a condition that several runs have, the first run's rows are kept.

    Parameters
    ----------
    rows
        With the columns run_id, kind, layer, expert, params and split; the newest run's first.
    """
    params = {text: _without_draw(text) for text in rows["params"].unique()}
    rows = rows.assign(params=rows["params"].map(params))
    keys = ["kind", "layer", "expert", "params", "split"]
    rows["group"] = rows.groupby(keys, sort=False, dropna=False).ngroup()
    if rows.empty:
        return rows
    return rows[rows["run_id"] == rows.groupby("group")["run_id"].transform("first")]


def effects_of(
    answers: "pd.DataFrame", clusters: Clusters, samples: int, seed: int, name: str = _NAME
) -> list[tuple[Any, ...]]:
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
    rows: list[tuple[Any, ...]] = []
    n_clusters: list[int] = []
    for group, own in answers.groupby("group", sort=True):
        held = by_example.loc[group]
        first = own.iloc[0]
        resampled = of_all.columns([places[column, group] for column in drawn_columns])
        n_clusters.append(int(resampled.n_clusters[0]))
        bounds = dict(zip(drawn_columns, resampled.intervals().T, strict=True))
        average = dict(zip(held.columns, means(held.to_numpy(float)), strict=True))
        row: list[Any] = [
            str(first["kind"]),
            whole(first["layer"]),
            whole(first["expert"]),
            str(first["params"]),
            str(first["split"]),
            int(own["condition_id"].nunique()),
            len(held),
        ]
        for measure in MEASURES:
            change = f"change_{measure}"
            interval: Any = bounds.get(change, (float("nan"), float("nan")))
            if measure in _SHARES and samples:
                interval = change_of_share(
                    held[measure].to_numpy(float),
                    held[f"base_{measure}"].to_numpy(float),
                    clusters.of(held.index.to_numpy()),
                )
            row += [average[measure], average[change], *map(number_or_none, interval)]
        ratio = _restored(resampled)
        interval = ratio.intervals()[:, 0]
        row += [number_or_none(ratio.estimates[0]), *map(number_or_none, interval)]
        rows.append(tuple(row))
    if samples:
        warn_of_few(name, n_clusters, clusters.key)
    expert = 2
    return sorted(rows, key=lambda row: row[expert] is not None)


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


def _without_draw(text: str) -> str:
    params = json.loads(text or "{}")
    return json.dumps({k: v for k, v in params.items() if k not in _DRAW}, sort_keys=True)


def whole(value: Any) -> int | None:
    """Return a number of a frame's nullable column of whole numbers."""
    import pandas as pd

    return None if pd.isna(value) else int(value)
