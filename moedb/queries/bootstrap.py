"""Bootstrap over examples: percentile intervals of means, and of what is made of means."""

from typing import TYPE_CHECKING, Any

from moedb.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.parameters import Value

_PERCENT = (2.5, 97.5)
_DRAWN_AT_ONCE = 2_000_000


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


def bootstrap_means(
    values: "NDArray[np.floating[Any]]", samples: int, seed: int
) -> "NDArray[np.float64]":
    """Draw the rows again, with replacement, and return the means of each draw.

    Columns that have values in the same rows share their draws, so that differences and quotients
    of them may be taken draw by draw. The draws start from the seed for each such set of rows.

    Parameters
    ----------
    values
        (row, column): a row is an example; NaN where there is no value.
    samples
        How often the rows are drawn.
    seed
        The seed of the drawing.

    Returns
    -------
    NDArray
        (sample, column); NaN for a column with fewer than two values.
    """
    import numpy as np

    drawn = np.full((samples, values.shape[1]), np.nan)
    if not values.size:
        return drawn
    patterns, of_column = np.unique(np.isfinite(values), axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(of_column.ravel() == number)
        held = np.asarray(values[patterns[:, number]][:, columns], dtype=np.float64)
        n_rows = len(held)
        if n_rows < 2:
            continue
        rng = np.random.default_rng(seed)
        step = max(1, _DRAWN_AT_ONCE // n_rows)
        for start in range(0, samples, step):
            n_draws = min(step, samples - start)
            rows = rng.integers(n_rows, size=(n_draws, n_rows))
            cells = rows + n_rows * np.arange(n_draws)[:, None]
            counts = np.bincount(cells.ravel(), minlength=n_draws * n_rows)
            drawn[start : start + n_draws, columns] = (
                counts.reshape(n_draws, n_rows).astype(np.float64) @ held / n_rows
            )
    return drawn


def percentile_interval(drawn: "NDArray[np.floating[Any]]") -> "NDArray[np.float64]":
    """Return the 2.5th and the 97.5th percentile of each column over the draws.

    Parameters
    ----------
    drawn
        (sample, column), as :func:`bootstrap_means` gives it.

    Returns
    -------
    NDArray
        (2, column); NaN without draws.
    """
    import numpy as np

    if not len(drawn):
        return np.full((2, drawn.shape[1]), np.nan)
    return np.asarray(np.percentile(drawn, _PERCENT, axis=0), dtype=np.float64)


def number_or_none(value: float) -> float | None:
    """Return a number, or None in place of one that is not finite."""
    import math

    return float(value) if math.isfinite(value) else None
