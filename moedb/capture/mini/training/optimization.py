"""What training starts from and descends: the untrained model, its losses, its optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.corpus import TrainingBatch
from moedb.capture.mini.evaluation import routing_wanted

MiniModel: TypeAlias = Qwen2MoeForCausalLM | Qwen2ForCausalLM
"""The mixture, or a dense twin of it."""


def build_model(config: MiniTrainingConfig, tokenizer: Any) -> MiniModel:
    """Return the untrained model of a configuration, seeded."""
    torch.manual_seed(config.seed)
    settings = {
        **config.model_shape(),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "use_cache": False,
    }
    if config.d_dense is not None:
        return Qwen2ForCausalLM(Qwen2Config(**settings)).float().train()
    model = Qwen2MoeForCausalLM(Qwen2MoeConfig(**settings)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("experts.down_proj"):
                parameter.normal_(0.0, config.expert_down_init_std)
    model.set_experts_implementation("grouped_mm")
    return model.train()


def build_optimizer(
    config: MiniTrainingConfig, parameters: Mapping[str, torch.nn.Parameter]
) -> torch.optim.AdamW:
    """Return the optimizer of a configuration; the weights of matrices alone decay."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    vectors = [p for p in parameters.values() if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def learning_rate(config: MiniTrainingConfig, step: int) -> float:
    """Return the learning rate of a step: linear warmup, then a cosine down to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + 0.5 * span * (1 + math.cos(math.pi * min(1.0, done)))


def batch_losses(
    model: MiniModel, batch: TrainingBatch
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Return the weighted loss, the loss on the answers and the scores of each layer's router."""
    ids = torch.from_numpy(batch.input_ids)
    mask = torch.from_numpy(batch.mask)
    weights = torch.from_numpy(batch.weights)[:, 1:]
    outputs = model.model(input_ids=ids, **routing_wanted(model))
    kept = mask[:, 1:]
    logits = model.lm_head(outputs.last_hidden_state[:, :-1][kept]).float()
    losses = functional.cross_entropy(logits, ids[:, 1:][kept], reduction="none")
    loss = (losses * weights[kept]).sum() / weights[kept].sum()
    answers = torch.from_numpy(batch.answers)[:, 1:][kept]
    answer_loss = losses.detach()[answers].mean()
    flat = mask.flatten()
    scores = getattr(outputs, "router_logits", ())
    return loss, answer_loss, [layer[flat] for layer in scores]


def load_balancing_loss(router_logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """Load balancing loss of Fedus et al. 2022 (Switch Transformer) for one layer.

    ``E * sum_e f_e P_e`` with f_e the share of the routing decisions that chose expert e and P_e
    its mean probability. 1 when both are even, at most E / top_k.

    Parameters
    ----------
    router_logits : Float[Tensor, "token expert"]
        Scores before the softmax, padding left out.
    top_k : int
        Experts chosen for a token.

    Returns
    -------
    Float[Tensor, ""]
    """
    n_tokens, n_experts = router_logits.shape
    probabilities = router_logits.float().softmax(dim=-1)
    chosen = probabilities.detach().topk(top_k, dim=-1).indices
    share = torch.bincount(chosen.flatten(), minlength=n_experts).float() / (n_tokens * top_k)
    return n_experts * (share * probabilities.mean(dim=0)).sum()
