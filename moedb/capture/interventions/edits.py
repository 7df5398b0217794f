"""What each kind of intervention does to a layer's values: functions of tensors, nothing else."""

from collections.abc import Sequence

import numpy as np
import torch

from moedb.capture.router import RouterRule


def without_experts(
    rule: RouterRule,
    logits: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    ablated: Sequence[int],
    routed_scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose again without some experts, and weigh by the router's rule.

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
        (row, position, rank). A token that goes to none of the ablated keeps both to the bit.
    """
    gone = torch.tensor(sorted(ablated), dtype=torch.long, device=logits.device)
    remaining = logits.float().index_fill(-1, gone, -torch.inf)
    chosen = remaining.topk(experts.shape[-1], dim=-1).indices
    found = rule.weights(logits, chosen) / routed_scale
    kept = ~torch.isin(experts, gone).any(dim=-1, keepdim=True)
    return torch.where(kept, experts, chosen), torch.where(kept, weights, found)


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


def is_top_k(logits: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """(row, position): whether no other expert's logit is above those of the chosen."""
    chosen = logits.gather(-1, experts).amin(dim=-1)
    return chosen >= logits.scatter(-1, experts, -torch.inf).amax(dim=-1)


def drawn_experts(
    seed: int, draw: int, layer: int, example_id: int, n_tokens: int, n_experts: int, top_k: int
) -> torch.Tensor:
    """Experts drawn uniformly, none twice for a token, (position, rank).

    They depend on these numbers alone, so not on which examples share a batch.
    """
    generator = np.random.default_rng([seed, draw, layer, example_id])
    keys = generator.random((n_tokens, n_experts))
    return torch.from_numpy(keys.argsort(axis=1)[:, :top_k].copy())
