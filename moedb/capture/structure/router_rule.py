"""How a router's logits become weights."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch

Scoring = Literal["softmax", "sigmoid", "other", "none"]


@dataclass(frozen=True)
class RouterRule:
    """How a router's logits become weights.

    Attributes
    ----------
    scoring
        What is done to the logits; ``other`` where the weights follow no rule known here, and
        are stored as the router gives them; ``none`` where there is no router, and the one expert
        has the weight 1.
    norm_topk_prob
        Whether the chosen weights are divided by their sum, as a softmax over the chosen does.
    scale
        A constant factor on every weight.
    """

    scoring: Scoring
    norm_topk_prob: bool
    scale: float = 1.0

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The router's full distribution, (token, expert), summing to 1 over the experts.

        The softmax of the logits where the scoring is ``other``.
        """
        if self.scoring != "sigmoid":
            return logits.float().softmax(dim=-1)
        scores = logits.float().sigmoid()
        return scores / scores.sum(dim=-1, keepdim=True)

    def weights(self, logits: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        """The weights, (token, rank), that the rule gives the chosen ``experts``.

        Raises
        ------
        ValueError
            If the scoring is ``other``, which gives none.
        """
        if self.scoring == "other":
            raise ValueError("the scoring 'other' is no rule")
        if self.scoring == "none":
            return torch.ones(experts.shape, device=experts.device)
        scores = logits.float()
        scores = scores.softmax(dim=-1) if self.scoring == "softmax" else scores.sigmoid()
        chosen = scores.gather(-1, experts)
        if self.norm_topk_prob:
            chosen = chosen / chosen.sum(dim=-1, keepdim=True)
        return chosen if self.scale == 1 else chosen * self.scale

    def tolerance(self, *dtypes: torch.dtype) -> float:
        """How far rounding may move a weight from the rule, as a fraction of it.

        Some routers add up to 1e-6 to the sum that they divide by.
        """
        return max(4e-6, *(4 * torch.finfo(dtype).eps for dtype in dtypes))


RULES = (
    RouterRule("softmax", False),
    RouterRule("softmax", True),
    RouterRule("sigmoid", False),
    RouterRule("sigmoid", True),
)


def nearest(value: float, constants: Collection[float]) -> float:
    """The one of ``constants`` that a measured ``value`` stands for, else the value itself."""
    best = min(constants, key=lambda constant: abs(constant - value))
    return best if abs(best - value) <= 0.01 * abs(value) else value


def find_rule(
    logits: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    constants: Collection[float],
    dtype: torch.dtype,
) -> RouterRule:
    """Find the rule that turns these logits into these weights.

    Parameters
    ----------
    logits, experts, weights
        (token, expert), (token, rank), (token, rank).
    constants
        The factors that a scale may be: numbers that the block itself holds.
    dtype
        What the block computes in.

    Returns
    -------
    RouterRule
        Of those that rounding allows the closest; the scoring ``other`` where none fits.
    """
    fits = []
    for plain in RULES:
        expected = plain.weights(logits, experts).double()
        ratio = float((weights.double() / expected.clamp_min(1e-30)).median())
        for scale in sorted({1.0, nearest(ratio, constants)}, key=lambda scale: scale != 1):
            gap = float((weights.double() / (expected * scale).clamp_min(1e-30) - 1).abs().max())
            if gap <= plain.tolerance(weights.dtype, dtype):
                fits.append((gap, RouterRule(plain.scoring, plain.norm_topk_prob, scale)))
    if not fits:
        return RouterRule("other", False)
    best = min(gap for gap, _ in fits)
    # Where several fit alike, such as at top 1, the plainest is taken.
    return next(rule for gap, rule in fits if gap <= 2 * best + 1e-7)


def are_probabilities(scores: torch.Tensor) -> bool:
    """Whether every row is positive and sums to 1."""
    sums = scores.float().sum(dim=-1)
    return bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
