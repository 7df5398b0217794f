"""What each kind of intervention does to a layer's values: functions of tensors, nothing else."""

from collections.abc import Sequence

import numpy as np
import torch

from moedb.capture.structure.router_rule import RouterRule


def without_experts(
    rule: RouterRule,
    logits: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    ablated: Sequence[int],
    routed_scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the next best in the place of some experts, and weigh by the router's rule.

    What the router chose of the others stays as it chose it: where two experts tie, the model's own
    choice decides, and no second top-k that may fall the other way.

    Parameters
    ----------
    rule
        How the router makes weights of logits.
    logits
        (row, position, expert).
    experts, weights
        (row, position, rank): what the router chose, and its weights.
    ablated
        The experts that leave.
    routed_scale
        What the block multiplies the sum by; the rule's weights include it, these do not.

    Returns
    -------
    experts, weights
        (row, position, rank). A token that goes to none of the ablated keeps both to the bit. Of
        two that are next best alike the one with the lower index comes first.
    """
    gone = torch.tensor(sorted(ablated), dtype=torch.long, device=logits.device)
    lost = torch.isin(experts, gone)
    free = logits.float().scatter(-1, experts, -torch.inf).index_fill(-1, gone, -torch.inf)
    next_best = free.sort(dim=-1, descending=True, stable=True).indices
    place = (lost.cumsum(dim=-1) - 1).clamp_min(0)
    chosen = torch.where(lost, next_best.gather(-1, place), experts)
    found = rule.weights(logits, chosen) / routed_scale
    return chosen, torch.where(lost.any(dim=-1, keepdim=True), found, weights)


def forced(experts: Sequence[int], top_k: int) -> tuple[list[int], list[float]]:
    """The experts of every slot, and a factor on each slot's weight: 0 where there are too few."""
    spare = top_k - len(experts)
    return [*experts, *[experts[0]] * spare], [1.0] * len(experts) + [0.0] * spare


def with_equal_weights(weights: torch.Tensor) -> torch.Tensor:
    """Weights of the same sum, all equal, (row, position, rank)."""
    return weights.mean(dim=-1, keepdim=True).expand_as(weights)


def contribution(
    experts: torch.Tensor, weights: torch.Tensor, outputs: torch.Tensor, wanted: Sequence[int]
) -> torch.Tensor:
    """What some experts add to the block's output, (row, position, d_model).

    Parameters
    ----------
    experts, weights
        (row, position, rank).
    outputs
        (row, position, rank, d_model), before the weights.
    wanted
        The experts; one that was not chosen adds nothing.
    """
    among = is_among(experts, wanted)
    return ((weights * among).unsqueeze(-1) * outputs).sum(dim=-2)


def is_among(experts: torch.Tensor, wanted: Sequence[int]) -> torch.Tensor:
    """Which of the chosen are among ``wanted``."""
    return torch.isin(experts, torch.tensor(wanted, dtype=torch.long, device=experts.device))


def is_top_k(rule: RouterRule, logits: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """Whether the chosen experts are those with the largest scores, up to rounding.

    A router makes scores of its logits, a softmax or sigmoids, and takes the largest. Two experts
    whose logits differ may get the same score, or even scores in the other order: what is chosen is
    then no sign of a bias. Each score is therefore known within bounds alone, and the choice passes
    if no other expert is certainly above one that was chosen.

    With e the distance of 1 to the next float32 (1.2e-7) and d that in the format of the logits,
    the relative error of a score is at most ::

        e * (3 + a) + d / 2

    Both scores are made of exponentials in float32, and a is how far from zero their arguments are:
    max(logits) - logit for a softmax, max(0, -logit) for a sigmoid. An argument is rounded, and
    again as it is put to the base 2: together e * a. The exponential itself is off by 2 units in
    the last place, division by 1/2, and a sigmoid's sum by no more: together 3 e. (The softmax's
    sum is the same for all, and orders none.) At last a router may round the score to the format
    of its logits: d / 2. What is below the smallest normal float32, or the smallest number of the
    logits' format, may become zero, and two such scores tie.

    Parameters
    ----------
    rule
        How the router makes scores; not the scoring ``other``.
    logits
        (..., expert), in the format in which the router gives them.
    experts
        (..., rank): what it chose.

    Returns
    -------
    torch.Tensor
        (...): bool. A bias or a grouping that never moves a choice further than rounding does is
        not seen.
    """
    exact, experts = logits.to("cpu", torch.float64), experts.cpu()  # not every device has float64
    if rule.scoring == "softmax":
        scores = exact.softmax(dim=-1)
        argument = exact.amax(dim=-1, keepdim=True) - exact
    else:
        scores = exact.sigmoid()
        argument = (-exact).clamp_min(0)
    single = torch.finfo(torch.float32)
    own = torch.finfo(logits.dtype)
    relative = single.eps * (3 + argument) + own.eps / 2
    error = scores * relative + max(single.tiny, own.tiny * own.eps)
    chosen = (scores + error).gather(-1, experts).amin(dim=-1)
    others = (scores - error).scatter(-1, experts, -torch.inf).amax(dim=-1)
    return chosen >= others


def drawn_experts(
    seed: int, draw: int, layer: int, example_id: int, n_tokens: int, n_experts: int, top_k: int
) -> torch.Tensor:
    """Experts drawn uniformly, none twice for a token, (position, rank).

    They depend on these numbers alone, so not on which examples share a batch.
    """
    generator = np.random.default_rng([seed, draw, layer, example_id])
    keys = generator.random((n_tokens, n_experts))
    return torch.from_numpy(keys.argsort(axis=1)[:, :top_k].copy())
