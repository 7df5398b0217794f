"""What the model would answer at each layer: the table ``logit_lens``, averaged over prompts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.uncertainty.bootstrap import (
    INTERVAL,
    SAMPLES,
    SEED,
    bootstrap,
    bootstrap_settings,
    number_or_none,
    warn_of_few,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.selection import SELECTED_EXAMPLES
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "logit-lens"
PLACES = ("pre", "mid", "post")
"""Where in a layer the stream is read, in the order in which it goes there."""

_READINGS = f"""
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
    and examples.example_id in {SELECTED_EXAMPLES}
qualify
    max(logit_lens.condition_id) over (partition by logit_lens.example_id)
    = cast($condition as integer)
    and row_number() over (
        partition by logit_lens.example_id, logit_lens.layer, logit_lens.place
        order by logit_lens.condition_id desc
    ) = 1
order by logit_lens.layer, logit_lens.place, logit_lens.example_id
""".strip()  # noqa: S608


class LogitLensRow(NamedTuple):
    """A row of the analysis ``logit-lens``."""

    layer: int
    place: str
    n_prompts: int
    mean_logit_diff: float
    sd_logit_diff: float | None
    mean_logit_diff_low: float | None
    mean_logit_diff_high: float | None
    n_ahead: int
    share_ahead: float
    mean_logprob: float
    mean_rank: float
    median_rank: float
    n_first: int


def logit_lens(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``logit-lens``.

    Parameters
    ----------
    reader
        Reads the store.
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
    clusters = clusters_of(reader, run, _NAME, parameters["cluster"])
    readings = reader.sql(_READINGS, asked).df()
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
    found: list[LogitLensRow] = []
    for layer, place in sorted(points, key=lambda key: (key[0], PLACES.index(key[1]))):
        rows = readings[(readings["layer"] == layer) & (readings["place"] == place)]
        n_prompts, difference = len(rows), rows["logit_diff"]
        n_ahead = int((difference > 0).sum())
        low, high = interval[layer, place]
        found.append(
            LogitLensRow(
                layer=int(layer),
                place=place,
                n_prompts=n_prompts,
                mean_logit_diff=float(difference.mean()),
                sd_logit_diff=number_or_none(difference.std(ddof=1)),
                mean_logit_diff_low=number_or_none(low),
                mean_logit_diff_high=number_or_none(high),
                n_ahead=n_ahead,
                share_ahead=n_ahead / n_prompts,
                mean_logprob=float(rows["logprob"].mean()),
                mean_rank=float(rows["rank"].mean()),
                median_rank=float(rows["rank"].median()),
                n_first=int((rows["rank"] == 0).sum()),
            )
        )
    return Computed(found, _READINGS, (run,))


LOGIT_LENS = Analysis(
    name=_NAME,
    title="Logit lens",
    answers="From which layer on does the residual stream tell the right answer from its foil?",
    subject="predictions",
    parameters=(
        RUN,
        SPLIT,
        Parameter(
            "candidate",
            "varchar",
            "target",
            False,
            "whose logit is read: that of the target (IOI: the indirect object) or of the foil",
            ("target", "foil"),
        ),
        Parameter(
            "condition",
            "integer",
            0,
            False,
            "the condition; 0 is the untouched model, which also says what another one left "
            "as it was",
        ),
        Parameter("position", "integer", None, False, "position of the token; the last when null"),
        CLUSTER,
        SAMPLES,
        SEED,
    ),
    columns=(
        AnalysisColumn("layer", "the layer", "INTEGER"),
        AnalysisColumn(
            "place",
            "where in the layer: mid (after attention, before the MoE block), post (after "
            "the layer), or pre (before it; the first layer alone)",
            "VARCHAR",
        ),
        AnalysisColumn("n_prompts", "prompts read", "BIGINT"),
        AnalysisColumn(
            "mean_logit_diff",
            "mean logit of the candidate less that of the other one",
            "DOUBLE",
        ),
        AnalysisColumn(
            "sd_logit_diff", "its sample standard deviation; null for a single prompt", "DOUBLE"
        ),
        AnalysisColumn("mean_logit_diff_low", f"the lower end {INTERVAL}", "DOUBLE"),
        AnalysisColumn("mean_logit_diff_high", "the upper end", "DOUBLE"),
        AnalysisColumn("n_ahead", "prompts whose candidate has the larger logit", "BIGINT"),
        AnalysisColumn("share_ahead", "n_ahead / n_prompts", "DOUBLE"),
        AnalysisColumn("mean_logprob", "mean log-probability (nats) of the candidate", "DOUBLE"),
        AnalysisColumn("mean_rank", "mean number of tokens with a larger logit", "DOUBLE"),
        AnalysisColumn("median_rank", "median number of tokens with a larger logit", "DOUBLE"),
        AnalysisColumn("n_first", "prompts whose candidate has the largest logit", "BIGINT"),
    ),
    source="nostalgebraist 2020; logit difference after Wang et al. 2022",
    function=logit_lens,
    row=LogitLensRow,
    needs=("logit_lens",),
)
