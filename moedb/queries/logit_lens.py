"""What the model would answer at each layer: the table ``logit_lens``, averaged over prompts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moedb.queries.bootstrap import bootstrap, bootstrap_settings, number_or_none, warn_of_few
from moedb.queries.clusters import clusters_of
from moedb.queries.result import Computed

if TYPE_CHECKING:
    from moedb.queries.database import Database
    from moedb.queries.parameters import Value

_NAME = "logit-lens"
_PLACES = ("pre", "mid", "post")

_READINGS = """
-- what a condition leaves as it was is stored once, under condition 0
select
    logit_lens.layer,
    logit_lens.place,
    logit_lens.example_id,
    cast(logit_lens.logit_diff as double) as logit_diff,
    cast(logit_lens.logprob as double) as logprob,
    logit_lens.rank
from logit_lens
join examples using (run_id, example_id)
where logit_lens.run_id = cast($run as varchar)
    and logit_lens.condition_id in (0, cast($condition as integer))
    and logit_lens.candidate = cast($candidate as varchar)
    and logit_lens.position = coalesce(cast($position as integer), examples.n_tokens - 1)
    and case
        when cast($split as varchar) is null then examples.split <> 'corrupted'
        when cast($split as varchar) = 'all' then true
        else examples.split = cast($split as varchar)
    end
qualify
    max(logit_lens.condition_id) over (partition by logit_lens.example_id)
    = cast($condition as integer)
    and row_number() over (
        partition by logit_lens.example_id, logit_lens.layer, logit_lens.place
        order by logit_lens.condition_id desc
    ) = 1
order by logit_lens.layer, logit_lens.place, logit_lens.example_id
""".strip()


def logit_lens(database: "Database", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``logit-lens``.

    Parameters
    ----------
    database
        The store.
    parameters
        run, split, candidate, condition, position, cluster, samples and seed.

    Raises
    ------
    ParameterError
        If the seed or the number of samples is negative, or no example has the label that is to
        tell the clusters.
    """
    samples, seed = bootstrap_settings(_NAME, parameters)
    run = str(parameters["run"])
    asked = {name: parameters[name] for name in ("split", "candidate", "condition", "position")} | {
        "run": run
    }
    clusters = clusters_of(database, run, _NAME, parameters["cluster"])
    readings = database.sql(_READINGS, asked).df()
    differences = readings.pivot(
        index="example_id", columns=["layer", "place"], values="logit_diff"
    )
    resampled = bootstrap(
        differences.to_numpy(float), samples, seed, clusters.of(differences.index.to_numpy())
    )
    if samples:
        warn_of_few(_NAME, resampled.n_clusters.tolist(), clusters.key)
    bounds = resampled.intervals()
    points: list[Any] = list(differences.columns)
    interval = dict(zip(points, bounds.T, strict=True))
    found: list[tuple[Any, ...]] = []
    for layer, place in sorted(points, key=lambda key: (key[0], _PLACES.index(key[1]))):
        rows = readings[(readings["layer"] == layer) & (readings["place"] == place)]
        n_prompts, difference = len(rows), rows["logit_diff"]
        n_ahead = int((difference > 0).sum())
        low, high = interval[layer, place]
        found.append(
            (
                int(layer),
                place,
                n_prompts,
                float(difference.mean()),
                number_or_none(difference.std(ddof=1)),
                number_or_none(low),
                number_or_none(high),
                n_ahead,
                n_ahead / n_prompts,
                float(rows["logprob"].mean()),
                float(rows["rank"].mean()),
                float(rows["rank"].median()),
                int((rows["rank"] == 0).sum()),
            )
        )
    return Computed(found, _READINGS, (run,))
