"""Whether the experts that are used or write much are those that are missed when ablated."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import ArrayNotFoundError
from moedb.queries.analyses.analysis import LOGIT_DIFFERENCES, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.predictions.expert_attribution import (
    ExpertAttributionRow,
    attribution_rows,
)
from moedb.queries.analyses.predictions.intervention_runs import (
    captured_run,
    find_interventions,
    run_ids_of,
)
from moedb.queries.analyses.predictions.interventions import (
    InterventionEffectRow,
    answers_of,
    effects_of,
)
from moedb.queries.analyses.uncertainty.bootstrap import (
    INTERVAL,
    SAMPLES,
    SEED,
    bootstrap_settings,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import named_query
from moedb.queries.questions.parameters import Parameter
from moedb.queries.results.result import Computed
from moedb.schemas.interventions import ABLATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "expert-effect"

logger = logging.getLogger(__name__)


def rank_correlation(
    a: "NDArray[np.floating[Any]]", b: "NDArray[np.floating[Any]]"
) -> float | None:
    """Return Spearman's rank correlation, ties given their mean rank.

    Pairs with a value that is not finite are left out; None where fewer than two are left, or
    one side has a single value.

    Examples
    --------
    >>> import numpy as np
    >>> round(rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([5.0, 6.0, 6.0])), 3)
    0.866
    """
    import numpy as np
    from scipy.stats import rankdata

    held = np.isfinite(a) & np.isfinite(b)
    if held.sum() < 2:
        return None
    ranks = rankdata(a[held]), rankdata(b[held])
    if min(np.ptp(own) for own in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


class ExpertEffectRow(NamedTuple):
    """A row of the analysis ``expert-effect``."""

    params: str
    split: str
    layer: int | None
    expert: int | None
    n_experts: int
    n_prompts: int
    frequency: float | None
    n_decisions: int | None
    attribution: float | None
    change_logit_diff: float | None
    change_logit_diff_low: float | None
    change_logit_diff_high: float | None
    spearman_frequency: float | None
    spearman_attribution: float | None


def expert_effect(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``expert-effect``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, interventions, split, level, cluster, samples and seed.

    Raises
    ------
    RunNotFoundError
        If no complete run has interventions on the run.
    ParameterError
        If the seed or the number of samples is negative, or no example has the label that is to
        tell the clusters.
    """
    samples, seed = bootstrap_settings(_NAME, parameters)
    captured = captured_run(reader, str(parameters["run"]))
    given = parameters["interventions"]
    runs = find_interventions(
        reader,
        str(parameters["run"]) if given is None else captured.run_id,
        None if given is None else str(given),
    )
    split, key = parameters["split"], parameters["cluster"]
    clusters = clusters_of(reader, captured.run_id, _NAME, key)

    def ablate() -> tuple[tuple[InterventionEffectRow, ...], tuple[str, ...]]:
        answers = answers_of(reader, runs, split)
        single = answers["layer"].notna() & answers["expert"].notna()
        answers = answers[(answers["kind"] == ABLATE) & single]
        effects = effects_of(answers, clusters, samples, seed, _NAME)
        return tuple(effects), run_ids_of(answers, runs)

    asked = _NAME, split, key, samples, seed
    effects, run_ids = reader.memo.of_runs(runs, asked, ablate)

    frequency = named_query("expert-frequency")
    of_experts = reader.sql(
        frequency.sql, bind(frequency, {"run": captured.run_id, "split": split})
    )
    used: dict[tuple[int | None, int | None], float] = {}
    for values in of_experts.fetchall():
        row = dict(zip(of_experts.columns, values, strict=True))
        used[row["layer"], row["expert"]] = row["frequency"]
    written: dict[tuple[int | None, int | None], ExpertAttributionRow] = {}
    asked_for = {"level": "experts", "top": None, "cluster": None, "samples": 0, "seed": 0}
    every = {"run": captured.run_id, "split": split, **asked_for}
    try:
        for part in attribution_rows(reader, every):
            if part.component == "expert":
                written[part.layer, part.expert] = part
    except ArrayNotFoundError as error:
        logger.warning("%s without attribution: %s", _NAME, error.message)

    rows = []
    for effect in effects:
        wrote = written.get((effect.layer, effect.expert))
        rows.append(
            ExpertEffectRow(
                params=effect.params,
                split=effect.split,
                layer=effect.layer,
                expert=effect.expert,
                n_experts=1,
                n_prompts=effect.n_prompts,
                frequency=used.get((effect.layer, effect.expert)),
                n_decisions=None if wrote is None else wrote.n_decisions,
                attribution=None if wrote is None else wrote.attribution,
                change_logit_diff=effect.change_logit_diff,
                change_logit_diff_low=effect.change_logit_diff_low,
                change_logit_diff_high=effect.change_logit_diff_high,
                spearman_frequency=None,
                spearman_attribution=None,
            )
        )
    if parameters["level"] == "layers":
        rows = _correlations(rows)
    return Computed(rows, frequency.sql, (captured.run_id, *run_ids))


def _correlations(rows: list[ExpertEffectRow]) -> list[ExpertEffectRow]:
    """One row for each layer, and one over all of them, in place of those of the experts."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(ExpertEffectRow._fields))
    compared = ["frequency", "attribution", "change_logit_diff"]
    found: list[ExpertEffectRow] = []
    for (params, split), own in frame.groupby(["params", "split"], sort=False):
        for layer in [*sorted(own["layer"].unique().tolist()), None]:
            group = own if layer is None else own[own["layer"] == layer]
            values = group[compared].astype(float).to_numpy()
            by_use, by_part = correlations_of(*values.T)
            found.append(
                ExpertEffectRow(
                    params=str(params),
                    split=str(split),
                    layer=layer,
                    expert=None,
                    n_experts=len(group),
                    n_prompts=int(group["n_prompts"].max()),
                    frequency=None,
                    n_decisions=None,
                    attribution=None,
                    change_logit_diff=None,
                    change_logit_diff_low=None,
                    change_logit_diff_high=None,
                    spearman_frequency=by_use,
                    spearman_attribution=by_part,
                )
            )
    return found


def correlations_of(
    frequency: "NDArray[np.floating[Any]]",
    attribution: "NDArray[np.floating[Any]]",
    change: "NDArray[np.floating[Any]]",
) -> tuple[float | None, float | None]:
    """Spearman's correlation of frequency with the size of the change, of attribution with loss.

    Parameters
    ----------
    frequency, attribution, change
        (expert,): ``change`` is that of the logit difference when the expert is ablated.
    """
    import numpy as np

    return rank_correlation(frequency, np.abs(change)), rank_correlation(attribution, -change)


EXPERT_EFFECT = Analysis(
    name=_NAME,
    title="Use and effect of experts",
    answers="Are the experts that are used much, or write much, those that are missed when "
    "ablated?",
    subject="predictions",
    parameters=(
        Parameter(
            "run",
            "varchar",
            None,
            False,
            "the captured run, or one with interventions on it; the newest complete run when null",
        ),
        Parameter(
            "interventions",
            "varchar",
            None,
            False,
            "the run with the interventions; every complete one on the run when null, of the "
            "same ablation the newest",
        ),
        SPLIT,
        Parameter(
            "level",
            "varchar",
            "experts",
            False,
            "one row for each expert that was ablated alone, or rank correlations: one row "
            "for each layer, then one over all of them",
            ("experts", "layers"),
        ),
        CLUSTER,
        SAMPLES,
        SEED,
    ),
    columns=(
        AnalysisColumn(
            "params", "further parameters of the ablation, as JSON, such as its form", "VARCHAR"
        ),
        AnalysisColumn("split", "the split of the examples", "VARCHAR"),
        AnalysisColumn("layer", "the layer; null for the row over all of them", "INTEGER"),
        AnalysisColumn("expert", "the expert; null at level layers", "INTEGER"),
        AnalysisColumn("n_experts", "experts behind the row", "BIGINT"),
        AnalysisColumn("n_prompts", "prompts under the ablation", "BIGINT"),
        AnalysisColumn(
            "frequency",
            "share of all tokens that chose the expert, untouched; null at level layers, as "
            "are the next five",
            "DOUBLE",
        ),
        AnalysisColumn(
            "n_decisions",
            "prompts whose last token chose it; null too where the captured run lacks the "
            "arrays of expert-attribution",
            "BIGINT",
        ),
        AnalysisColumn(
            "attribution",
            "what it writes into the logit difference, mean over all prompts; null likewise",
            "DOUBLE",
        ),
        AnalysisColumn(
            "change_logit_diff",
            "mean logit difference with the expert ablated less that of condition 0",
            "DOUBLE",
        ),
        AnalysisColumn("change_logit_diff_low", f"the lower end {INTERVAL}", "DOUBLE"),
        AnalysisColumn("change_logit_diff_high", "the upper end", "DOUBLE"),
        AnalysisColumn(
            "spearman_frequency",
            "rank correlation (Spearman) over the experts of frequency and the size of "
            "change_logit_diff; null at level experts, for fewer than two experts, and where "
            "one side has a single value",
            "DOUBLE",
        ),
        AnalysisColumn(
            "spearman_attribution",
            "that of attribution and -change_logit_diff, what the ablation takes away; null "
            "likewise",
            "DOUBLE",
        ),
    ),
    source="moedb",
    function=expert_effect,
    row=ExpertEffectRow,
    needs=LOGIT_DIFFERENCES,
)
