"""How well a probe tells a concept, and how sure that is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Score(NamedTuple):
    """Scores on some tokens.

    Attributes
    ----------
    f1, precision, recall, balanced_accuracy, average_precision
        What their names say; a precision without a yes is 0.
    f1_always_yes
        F1 of always saying yes.
    """

    f1: float
    precision: float
    recall: float
    balanced_accuracy: float
    average_precision: float
    f1_always_yes: float


def f1_of(right: float, wrong: float, missed: float) -> float:
    """F1 of so many right yes, wrong yes and missed ones; 0 where there is nothing to find.

    Examples
    --------
    >>> f1_of(2, 1, 1), f1_of(0, 0, 0)
    (0.6666666666666666, 0.0)
    """
    counted = 2 * right + wrong + missed
    return 2 * right / counted if counted else 0.0


def counts(
    says_yes: NDArray[np.bool_], is_yes: NDArray[np.bool_], documents: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Count right yes, wrong yes and missed ones, (document, 3)."""
    _, number = np.unique(documents, return_inverse=True)
    kinds = (says_yes & is_yes, says_yes & ~is_yes, ~says_yes & is_yes)
    return np.stack([np.bincount(number, weights=kind) for kind in kinds], axis=1)


def score(decisions: NDArray[np.float64], is_yes: NDArray[np.bool_]) -> Score:
    """Score a probe.

    Parameters
    ----------
    decisions
        (token,): above 0 where it says yes.
    is_yes
        (token,): what is right, of both classes.
    """
    from sklearn.metrics import average_precision_score

    says_yes = decisions > 0
    n, n_yes = len(is_yes), int(is_yes.sum())
    right, said = int((says_yes & is_yes).sum()), int(says_yes.sum())
    recall, of_no = right / n_yes, (n - n_yes - (said - right)) / (n - n_yes)
    return Score(
        f1=f1_of(right, said - right, n_yes - right),
        precision=right / said if said else 0.0,
        recall=recall,
        balanced_accuracy=(recall + of_no) / 2,
        average_precision=float(average_precision_score(is_yes, decisions)),
        f1_always_yes=f1_of(n_yes, n - n_yes, 0),
    )


class Resampler:
    """Draws documents with replacement, the same ones whatever the probe.

    Parameters
    ----------
    resamples
        How many samples; with fewer than 2 there are no intervals.
    seed
        The seed.
    """

    def __init__(self, resamples: int, seed: int) -> None:
        self._resamples, self._seed = resamples, seed
        self._drawn: dict[int, NDArray[np.float64]] = {}

    def interval(self, counted: NDArray[np.float64]) -> tuple[float | None, float | None]:
        """Return the percentile 95 % interval of F1 over documents.

        Parameters
        ----------
        counted
            (document, 3): what :func:`counts` returns.
        """
        n = len(counted)
        if n < 2 or self._resamples < 2:
            return None, None
        if n not in self._drawn:
            random = np.random.default_rng([self._seed, n])
            drawn = random.multinomial(n, np.full(n, 1 / n), self._resamples)
            self._drawn[n] = drawn.astype(np.float64)
        right, wrong, missed = (self._drawn[n] @ counted).T
        total = 2 * right + wrong + missed
        scores = np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)
        low, high = np.percentile(scores, [2.5, 97.5])
        return float(low), float(high)
