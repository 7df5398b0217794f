"""How well a probe tells a concept, and how sure that is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.experts.agreement import f1
from moedb.queries.analyses.uncertainty.bootstrap import bootstrap


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


def counts(
    says_yes: NDArray[np.bool_], is_yes: NDArray[np.bool_], documents: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Count right yes, wrong yes and missed ones, (document, 3)."""
    _, number = np.unique(documents, return_inverse=True)
    kinds = (says_yes & is_yes, says_yes & ~is_yes, ~says_yes & is_yes)
    return np.stack([np.bincount(number, weights=kind) for kind in kinds], axis=1)


def f1_of(says_yes: NDArray[np.bool_], is_yes: NDArray[np.bool_]) -> float:
    """F1 of what is said of each token."""
    return float(f1(counts(says_yes, is_yes, np.zeros(len(is_yes), np.int64)))[0])


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
        f1=f1_of(says_yes, is_yes),
        precision=right / said if said else 0.0,
        recall=recall,
        balanced_accuracy=(recall + of_no) / 2,
        average_precision=float(average_precision_score(is_yes, decisions)),
        f1_always_yes=f1_of(np.ones_like(is_yes), is_yes),
    )


def interval(
    counted: NDArray[np.float64], samples: int, seed: int
) -> tuple[float | None, float | None]:
    """Return the 95 % interval of F1: BCa bootstrap over documents; null for a single one.

    Parameters
    ----------
    counted
        (document, 3): what :func:`counts` returns.
    samples, seed
        Draws of the bootstrap, 0 for none, and their seed.
    """
    return bootstrap(counted, samples, seed).combined(f1).interval()
