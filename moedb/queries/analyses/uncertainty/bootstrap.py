"""Bootstrap over examples, or over clusters of them: intervals of means, and of what means make."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.errors import ParameterError
from moedb.queries.analyses.uncertainty.clusters import TWIN
from moedb.queries.questions.parameters import Parameter
from moedb.store.engine.execution import stop_if_asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value

logger = logging.getLogger(__name__)

FEW = 30
"""Fewer prompts, or clusters of them, than this are too few to rely on an interval."""

SAMPLES = Parameter(
    "samples",
    "integer",
    1000,
    False,
    "how often the prompts are drawn for the intervals; 0 for none",
    least=0,
    most=100_000,
)
SEED = Parameter("seed", "integer", 0, False, "the seed of the drawing")
INTERVAL = (
    "of its 95 % interval: BCa bootstrap over prompts, or clusters of them; null for a single one"
)
"""What a column says that holds an end of such an interval."""

TAIL = 0.025
"""What an interval leaves out at either end."""

_DRAWN_AT_ONCE = 2_000_000
_TIE = 1e-9


def bootstrap_settings(name: str, parameters: "Mapping[str, Value]") -> tuple[int, int]:
    """Return the parameters samples and seed of an analysis.

    Raises
    ------
    ParameterError
        If one of them is negative.
    """
    samples, seed = int(parameters["samples"] or 0), int(parameters["seed"] or 0)
    for parameter, given in (("samples", samples), ("seed", seed)):
        if given < 0:
            raise ParameterError(f"{name}: {parameter} is {given}, not 0 or more")
    return samples, seed


def means(values: "NDArray[np.floating[Any]]") -> "NDArray[np.float64]":
    """Return the mean of each column over the rows that have a value.

    Parameters
    ----------
    values
        (row, column); NaN where there is no value.

    Returns
    -------
    NDArray
        (column,); NaN for a column without any value.
    """
    import numpy as np

    held = np.isfinite(values)
    counts = held.sum(axis=0)
    totals = np.where(held, values, 0.0).sum(axis=0)
    found: NDArray[np.float64] = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return found


@dataclass(frozen=True)
class Bootstrap:
    """Estimates, and the same of samples that were drawn again.

    Attributes
    ----------
    estimates
        (column,): of all rows.
    drawn
        (sample, column): of the rows drawn; NaN for a column with fewer than two clusters.
    left_out
        (cluster, column): of all rows but those of one cluster; NaN where a column has none of
        them.
    """

    estimates: "NDArray[np.float64]"
    drawn: "NDArray[np.float64]"
    left_out: "NDArray[np.float64]"

    def columns(self, places: "Sequence[int]") -> "Bootstrap":
        """Return some of the columns."""
        chosen = list(places)
        return Bootstrap(self.estimates[chosen], self.drawn[:, chosen], self.left_out[:, chosen])

    def combined(
        self, function: "Callable[[NDArray[np.float64]], NDArray[np.float64]]"
    ) -> "Bootstrap":
        """Return one column, made of all of them.

        Parameters
        ----------
        function
            From (row, column) to (row,), such as the quotient of two means.
        """
        return Bootstrap(
            function(self.estimates[None]),
            function(self.drawn)[:, None],
            function(self.left_out)[:, None],
        )

    @property
    def n_clusters(self) -> "NDArray[np.int64]":
        """(column,): clusters behind each."""
        import numpy as np

        found: NDArray[np.int64] = np.isfinite(self.left_out).sum(axis=0)
        return found

    def intervals(self) -> "NDArray[np.float64]":
        """Return the 95 % interval of each column: bias-corrected and accelerated, widened.

        BCa takes the quantiles of the draws that correct for their bias and their skew. For few
        clusters they lie too close together, as the draws vary by (n - 1) / n of the variance and
        the normal distribution is no t: the quantiles are those of Hesterberg 2015, section 5.3,
        which are the usual ones for many.

        Returns
        -------
        NDArray
            (2, column); NaN without draws, and for a column with fewer than two clusters.

        References
        ----------
        Efron 1987, "Better bootstrap confidence intervals"; Hesterberg 2015, "What teachers should
        know about the bootstrap", The American Statistician 69.
        """
        import numpy as np

        bounds = np.full((2, len(self.estimates)), np.nan)
        if len(self.drawn):
            for column, n_clusters in enumerate(self.n_clusters.tolist()):
                if n_clusters > 1:
                    bounds[:, column] = self._interval(column, n_clusters)
        return bounds

    def interval(self) -> tuple[float | None, float | None]:
        """Return the interval of the one column that there is; None where it has none."""
        [low], [high] = self.intervals()
        return number_or_none(low), number_or_none(high)

    def _interval(self, column: int, n_clusters: int) -> "NDArray[np.float64]":
        import numpy as np
        from scipy.special import ndtr, ndtri

        drawn, estimate = self.drawn[:, column], self.estimates[column]
        left_out = self.left_out[:, column]
        # draws of values that are alike differ by rounding: those are ties, on any machine
        tie = _TIE * np.ptp(drawn)
        below = np.mean(drawn < estimate - tie) + np.mean(np.abs(drawn - estimate) <= tie) / 2
        least = 0.5 / len(drawn)
        bias = ndtri(np.clip(below, least, 1 - least))
        influence = left_out[np.isfinite(left_out)]
        influence = influence.mean() - influence
        places = bca_places(np.array([bias]), influence[:, None], np.array([n_clusters - 1.0]))
        return np.asarray(np.quantile(drawn, ndtr(places[:, 0])), dtype=np.float64)


def bca_places(
    bias: "NDArray[np.float64]",
    influence: "NDArray[np.float64]",
    degrees: "NDArray[np.float64]",
) -> "NDArray[np.float64]":
    """Return where among their draws the ends of intervals lie, as standard normal quantiles.

    Parameters
    ----------
    bias
        (column,): the share of the draws below the estimate, as such a quantile.
    influence
        (cluster, column): what leaving out a cluster takes from the estimate.
    degrees
        (column,): degrees of freedom, the clusters behind a column less one.

    Returns
    -------
    NDArray
        (2, column).
    """
    import numpy as np
    from scipy.special import stdtrit

    spread = (influence**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # numpy takes ten times as long for a power of 3
        skewed = (influence**2 * influence).sum(axis=0) / (6 * spread**1.5)
    acceleration = np.where(spread > 0, skewed, 0.0)
    wide = np.sqrt((degrees + 1) / degrees) * stdtrit(degrees, 1 - TAIL)
    shifted = bias + np.stack([-wide, wide])
    # beyond the pole a quantile is the last draw
    found: NDArray[np.float64] = bias + shifted / np.maximum(1 - acceleration * shifted, 1e-12)
    return found


def bootstrap(
    values: "NDArray[np.floating[Any]]",
    samples: int,
    seed: int,
    clusters: "NDArray[np.int64] | None" = None,
) -> Bootstrap:
    """Draw clusters of rows again, with replacement, and take the means of each draw.

    Columns that have values in the same rows share their draws, so that differences and quotients
    of them may be taken draw by draw. The draws start from the seed for each such set of rows.

    Parameters
    ----------
    values
        (row, column): a row is an example; NaN where there is no value.
    samples
        How often the clusters are drawn.
    seed
        The seed of the drawing.
    clusters
        (row,): the cluster of each row, numbered from 0; each row is one of its own when None.
    """
    import numpy as np

    n_rows, n_columns = values.shape
    if clusters is None:
        clusters = np.arange(n_rows)
    n_all = int(clusters.max()) + 1 if n_rows else 0
    drawn = np.full((samples, n_columns), np.nan)
    left_out = np.full((n_all, n_columns), np.nan)
    if not values.size:
        return Bootstrap(means(values), drawn, left_out)
    patterns, of_column = np.unique(np.isfinite(values), axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(of_column.ravel() == number)
        rows = patterns[:, number]
        held = np.asarray(values[rows][:, columns], dtype=np.float64)
        own, at = np.unique(clusters[rows], return_inverse=True)
        n_clusters = len(own)
        if n_clusters < 2:
            continue
        # a cluster is drawn with all its rows: their sums and their number are enough
        sizes = np.bincount(at).astype(np.float64)
        sums = np.zeros((n_clusters, len(columns)))
        np.add.at(sums, at, held)
        left_out[np.ix_(own, columns)] = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes[:, None])
        rng = np.random.default_rng(seed)
        step = max(1, _DRAWN_AT_ONCE // n_clusters)
        for start in range(0, samples, step):
            stop_if_asked()
            n_draws = min(step, samples - start)
            picked = rng.integers(n_clusters, size=(n_draws, n_clusters))
            cells = picked + n_clusters * np.arange(n_draws)[:, None]
            times = np.bincount(cells.ravel(), minlength=n_draws * n_clusters)
            weights = times.reshape(n_draws, n_clusters).astype(np.float64)
            drawn[start : start + n_draws, columns] = (weights @ sums) / (weights @ sizes)[:, None]
    return Bootstrap(means(values), drawn, left_out)


def warn_of_few(name: str, n_clusters: "Sequence[int]", key: str | None) -> None:
    """Say, once for an answer, that some of its intervals come from few prompts or clusters.

    Parameters
    ----------
    name
        The analysis.
    n_clusters
        For each interval the clusters behind it.
    key
        What tells them; None where each prompt is one.
    """
    few = [number for number in n_clusters if 0 < number < FEW]
    if few:
        by = "" if key in (None, TWIN) else f" (clusters by {key})"
        logger.warning(
            "%s: %s of %s intervals come from fewer than %s independent prompts%s, the fewest from "
            "%s: they hold the true value less often than 95 %% of the time",
            *(name, len(few), len(n_clusters), FEW, by, min(few)),
        )


def number_or_none(value: float) -> float | None:
    """Return a number, or None in place of one that is not finite."""
    import math

    return float(value) if math.isfinite(value) else None
