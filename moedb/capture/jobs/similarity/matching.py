"""Neurons of two experts, each beside the one of the other expert that is likest it.

The order of an expert's neurons means nothing: two experts may do the same with it changed. So each
neuron, its row of the gate and the up projection and its column of the down projection as one
vector, is compared with every neuron of the other expert.
"""

import math

import numpy as np
import torch

from moedb.capture.jobs.similarity.weights import ExpertWeights, Projection


def matched_cosines(weights: ExpertWeights) -> tuple[list[float], float] | None:
    """Match the neurons of every two experts.

    Parameters
    ----------
    weights
        The experts' weights.

    Returns
    -------
    tuple, or None
        For each pair of experts, in the order of ``numpy.triu_indices``, the mean over the neurons
        of both of the cosine with the likest of the other; and what that is on average between
        experts of random weights. None where projections are not told apart.
    """
    if weights.up is None or weights.down is None or weights.reason is not None:
        return None
    with torch.no_grad():
        neurons = _neurons(weights)
        found = []
        for first in range(len(neurons)):
            for second in range(first + 1, len(neurons)):
                cosines = neurons[first] @ neurons[second].T
                there, back = cosines.amax(dim=1).mean(), cosines.amax(dim=0).mean()
                found.append(min(float(there + back) / 2, 1.0))
    _, n_neurons, n_values = neurons.shape
    return found, expected_largest(n_neurons) / math.sqrt(n_values)


def _neurons(weights: ExpertWeights) -> torch.Tensor:
    """(expert, neuron, value): every neuron as a vector of length 1."""
    into = [_whole(each) for each in (weights.gate, weights.up) if each is not None]
    assert weights.down is not None  # noqa: S101
    parts = [*into, _whole(weights.down).transpose(1, 2)]
    vectors = torch.cat([part.float() for part in parts], dim=-1)
    return torch.nn.functional.normalize(vectors, dim=-1)


def _whole(projection: Projection) -> torch.Tensor:
    """(expert, output, input): the weights as linear layers have them."""
    rows = projection.rows(0, projection.n_rows)
    return rows.transpose(1, 2) if projection.is_by_input else rows


def expected_largest(n: int) -> float:
    """The expectation of the largest of ``n`` independent normal values.

    That is the integral of 1 - F^n over what is above 0, less that of F^n over what is below, with
    F the normal distribution.
    """
    from scipy.special import log_ndtr

    x = np.linspace(0.0, 12.0, 24_001)
    above = -np.expm1(n * log_ndtr(x))
    below = np.exp(n * log_ndtr(-x))
    return float(np.trapezoid(above - below, x))
