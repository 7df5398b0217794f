"""A probe: logistic regression on the few neurons that differ most."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes
    ----------
    neurons
        (k,): its neurons, the one that differs most first.
    model
        The regression over them.
    """

    neurons: NDArray[np.int64]
    model: "LogisticRegression"

    def decide(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(token,): above 0 where it says yes; ``values`` is (token, neuron)."""
        decisions: NDArray[np.float64] = self.model.decision_function(values[:, self.neurons])
        return decisions


def ranked(values: NDArray[np.floating[Any]], is_yes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Order neurons by how far the means of the two classes lie apart; equal ones by number.

    Parameters
    ----------
    values
        (token, neuron).
    is_yes
        (token,).
    """
    apart = np.abs(
        values[is_yes].mean(0, dtype=np.float64) - values[~is_yes].mean(0, dtype=np.float64)
    )
    order: NDArray[np.int64] = np.argsort(-apart, kind="stable")
    return order


def fit(
    values: NDArray[np.floating[Any]], is_yes: NDArray[np.bool_], neurons: NDArray[np.int64]
) -> Probe:
    """Fit an L2 logistic regression, C = 1 and classes balanced, on some neurons.

    Parameters
    ----------
    values
        (token, neuron), as they are stored.
    is_yes
        (token,), of both classes.
    neurons
        (k,).
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, class_weight="balanced", solver="newton-cholesky")
    return Probe(neurons, model.fit(values[:, neurons].astype(np.float64), is_yes))


def thinned(is_yes: NDArray[np.bool_], most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most so many tokens of each class, ascending."""
    kept = [
        places if len(places) <= most else random.choice(places, most, replace=False)
        for places in (np.flatnonzero(is_yes), np.flatnonzero(~is_yes))
    ]
    return np.sort(np.concatenate(kept))
