"""Whether the experts that are used or write much are those that are missed when ablated."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moedb.errors import ArrayNotFoundError
from moedb.queries.bootstrap import bootstrap_settings
from moedb.queries.catalog import named_query
from moedb.queries.clusters import clusters_of
from moedb.queries.interventions import (
    answers_of,
    captured_run,
    effects_of,
    find_interventions,
    run_ids_of,
)
from moedb.queries.parameters import bind
from moedb.queries.result import Computed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.database import Database
    from moedb.queries.parameters import Value

_NAME = "expert-effect"
_ABLATE = "ablate-experts"

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


def expert_effect(database: "Database", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``expert-effect``.

    Parameters
    ----------
    database
        The store.
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
    from moedb.queries.expert_attribution import expert_attribution

    samples, seed = bootstrap_settings(_NAME, parameters)
    captured = captured_run(database, str(parameters["run"]))
    given = parameters["interventions"]
    runs = find_interventions(
        database,
        str(parameters["run"]) if given is None else captured.run_id,
        None if given is None else str(given),
    )
    split, key = parameters["split"], parameters["cluster"]
    clusters = clusters_of(database, captured.run_id, _NAME, key)

    def ablate() -> tuple[tuple[tuple[Any, ...], ...], tuple[str, ...]]:
        answers = answers_of(database, runs, split)
        single = answers["layer"].notna() & answers["expert"].notna()
        answers = answers[(answers["kind"] == _ABLATE) & single]
        effects = effects_of(answers, clusters, samples, seed, _NAME)
        return tuple(effects), run_ids_of(answers, runs)

    asked = _NAME, split, key, samples, seed
    effects, run_ids = database.memo.of_runs(runs, asked, ablate)

    frequency = named_query("expert-frequency")
    used = {
        (layer, expert): share
        for layer, expert, _, _, share, *_ in database.sql(
            frequency.sql, bind(frequency, {"run": captured.run_id, "split": split})
        ).fetchall()
    }
    written: dict[tuple[int, int], tuple[int, float]] = {}
    every = {"run": captured.run_id, "split": split, "level": "experts", "top": None}
    try:
        for component, layer, expert, _, n_uses, part, *_ in expert_attribution(
            database, every
        ).rows:
            if component == "expert":
                written[layer, expert] = n_uses, part
    except ArrayNotFoundError as error:
        logger.warning("%s without attribution: %s", _NAME, error.message)

    rows = []
    for _, layer, expert, params, on, _, n_prompts, _, change, low, high, *_ in effects:
        n_uses, part = written.get((layer, expert), (None, None))
        rows.append(
            (
                params, on, layer, expert, 1, n_prompts, used.get((layer, expert)), n_uses, part,
                change, low, high, None, None,
            )
        )  # fmt: skip
    if parameters["level"] == "layers":
        rows = _correlations(rows)
    return Computed(rows, frequency.sql, (captured.run_id, *run_ids))


def describe(params: str) -> str:
    """Return the parameters of a condition as words.

    Examples
    --------
    >>> describe('{"form": "zero", "roles": ["end", "s2"]}')
    'zero end+s2'
    """
    values = json.loads(params or "{}")
    return " ".join(
        "+".join(map(str, value)) if isinstance(value, list) else str(value)
        for value in values.values()
    )


def _correlations(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """One row for each layer, and one over all of them, in place of those of the experts."""
    import pandas as pd

    names = ["params", "split", "layer", "n_prompts", "frequency", "attribution", "change"]
    frame = pd.DataFrame(
        [(row[0], row[1], row[2], row[5], row[6], row[8], row[9]) for row in rows], columns=names
    )
    found: list[tuple[Any, ...]] = []
    for (params, split), own in frame.groupby(["params", "split"], sort=False):
        for layer in [*sorted(own["layer"].unique().tolist()), None]:
            group = own if layer is None else own[own["layer"] == layer]
            values = group[["frequency", "attribution", "change"]].astype(float).to_numpy()
            by_use, by_part = correlations_of(*values.T)
            n_prompts = int(group["n_prompts"].max())
            found.append(
                (params, split, layer, None, len(group), n_prompts, *[None] * 6, by_use, by_part)
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
