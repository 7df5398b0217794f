"""Every MoE causal language model that transformers has, tiny and random.

What a family is expected to do was read off its source; nothing in moedb knows these names.
``docs/models.md`` is made of this table by ``python docs/models.py``.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from moedb.capture.examples import Dataset, Example
from moedb.capture.structure.router_rule import Scoring
from moedb.capture.structure.wiring import Wiring

Shared = Literal["", "plain", "gated", "beside the block"]


@dataclass(frozen=True)
class Family:
    """One family: what its configuration needs, and what a capture must find."""

    scoring: Scoring
    normalized: bool
    scale: float = 1.0
    shared: Shared = ""
    settings: dict[str, Any] = field(default_factory=dict)
    form: str = "stacked"


COMMON: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "d_model": 32,
    "num_hidden_layers": 3,
    "num_layers": 3,
    "n_layers": 3,
    "num_attention_heads": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "shared_intermediate_size": 24,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "expert_ffn_hidden_size": 16,
    "ffn_hidden_size": 48,
    "num_experts": 8,
    "n_routed_experts": 8,
    "num_local_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 3,
    "top_k_experts": 3,
    "moe_topk": 3,
    "moe_k": 3,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "moe_layer_start_index": 1,
    "zero_expert_num": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_head_dim": 8,
    "linear_num_heads": 2,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
    "use_mamba_kernels": False,
    "sliding_window": 16,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
"""Settings of a tiny model; each configuration takes those that it knows."""

LATENT = {"num_key_value_heads": 4}
"""Latent attention has as many key heads as query heads."""

FAMILIES: dict[str, Family] = {
    "afmoe": Family("sigmoid", True, 1.5, "plain", {"route_scale": 1.5}),
    "aria_text": Family("softmax", True, 1, "plain"),
    "axk1": Family("sigmoid", True, 2.5, "plain", LATENT),
    "axk2": Family("sigmoid", True, 2.5, "plain", LATENT),
    "bailing_hybrid": Family("sigmoid", True, 2.5, "plain", LATENT),
    "beam": Family("sigmoid", True, 2.5, "", {"mlp_layer_types": ["dense", "sparse", "sparse"]}),
    "cohere2_moe": Family("softmax", True, 0.5, "plain"),
    "dbrx": Family(
        "softmax",
        True,
        settings={
            "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
            "ffn_config": {
                "hidden_size": 32,
                "ffn_hidden_size": 16,
                "moe_num_experts": 8,
                "moe_top_k": 3,
            },
        },
        form="own",
    ),
    "deepseek_v2": Family(
        "softmax",
        False,
        1.7,
        "plain",
        {**LATENT, "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.7},
    ),
    "deepseek_v3": Family("sigmoid", True, 2.5, "plain", LATENT),
    "deepseek_v32": Family("sigmoid", True, 2.5, "plain", LATENT),
    "dots1": Family(
        "sigmoid", True, 2.5, "plain", {"norm_topk_prob": True, "routed_scaling_factor": 2.5}
    ),
    "dots3_note_text": Family("sigmoid", True, 1, "plain", LATENT),
    "ernie4_5_moe": Family("softmax", True, 1, "plain"),
    "exaone_moe": Family("sigmoid", True, 2.5, "plain"),
    "flex_olmo": Family("softmax", False),
    "flint": Family("sigmoid", True, 1, "plain"),
    "gemma4_text": Family(
        "softmax",
        True,
        settings={
            "enable_moe_block": True,
            "hidden_size_per_layer_input": 0,
        },
    ),
    "glm4_moe": Family("sigmoid", True, 1, "plain"),
    "glm4_moe_lite": Family("sigmoid", True, 1.8, "plain", LATENT),
    "glm_moe_dsa": Family("sigmoid", True, 2.5, "plain", LATENT),
    "gpt_oss": Family("softmax", True),
    "granitemoe": Family("softmax", True, settings={"logits_scaling": 4.0}),
    "granitemoe_swa": Family("softmax", True, 1, "beside the block"),
    "granitemoehybrid": Family("softmax", True, 1, "beside the block"),
    "granitemoeshared": Family(
        "softmax", True, 1, "beside the block", {"residual_multiplier": 0.3}
    ),
    "hunyuan_v1_moe": Family("softmax", True, 1, "plain"),
    "hy_v3": Family("sigmoid", True, 2.826, "plain"),
    "inkling2_text": Family("sigmoid", True, 8),
    "inkling_text": Family("other", False, 1, "plain"),
    "jamba": Family("softmax", False),
    "kimi_linear": Family("sigmoid", True, 2.446, "plain", LATENT),
    "kolibri1": Family("sigmoid", False, 1, "plain"),
    "laguna": Family("sigmoid", True, 2.5, "plain", {"moe_routed_scaling_factor": 2.5}),
    "lfm2_moe": Family(
        "sigmoid", True, settings={"layer_types": ["conv", "full_attention", "conv"]}
    ),
    "longcat_flash": Family("softmax", False, 6, "", {**LATENT, "head_dim": 8}, "own"),
    "mellum": Family("softmax", True),
    "mimo_v2_flash": Family("sigmoid", True),
    "minimax": Family("softmax", True),
    "minimax_m2": Family("sigmoid", True),
    "minimax_m3_vl_text": Family("sigmoid", True, 2, "plain"),
    "mixtral": Family("softmax", True),
    "nemotron_h": Family("sigmoid", True, 1, "plain"),
    "olmoe": Family("softmax", False),
    "phimoe": Family("other", False, settings={"num_experts_per_tok": 2}),
    "qwen2_moe": Family("softmax", False, 1, "gated"),
    "qwen3_5_moe_text": Family("softmax", True, 1, "gated"),
    "qwen3_moe": Family("softmax", False),
    "qwen3_next": Family("softmax", True, 1, "gated"),
    "solar_open": Family("sigmoid", True, 1, "plain"),
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "deepseek_v4": ({}, r"model.layers.0: expected to read a residual stream"),
    "hy_v4": (LATENT, r"model.layers.0: expected to read a residual stream"),
    "qwen4_exp_text": ({}, r"model.layers.0: expected to read a residual stream"),
    "jetmoe": ({}, r"model.layers.0.mlp \(JetMoeMoE\) is none of these"),
    "llama4_text": ({}, r"model.layers.0.feed_forward \(Llama4TextMoe\) is none of these"),
    "doge": ({"is_moe": True}, r"model.layers.0.mlp \(DogeCDMoE\) is none of these"),
    "nemotron_h": ({"moe_latent_size": 16}, "expected experts that write to the residual stream"),
    "zaya": ({"num_experts_per_tok": 1}, "one logit for each of 8 experts, found none"),
    "bamba": ({}, "found a dense model"),
}
"""Settings, and what the refusal must say."""


def tiny_config(name: str, settings: dict[str, Any]) -> Any:
    """A tiny configuration of a family; skips where this release of transformers has none."""
    if name not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    config_class = CONFIG_MAPPING[name]
    known = {*vars(config_class()), *inspect.signature(config_class.__init__).parameters}
    renamed = getattr(config_class, "attribute_map", {})
    chosen = {}
    for key, value in COMMON.items():
        if renamed.get(key, key) in known:
            chosen[renamed.get(key, key)] = value
    return config_class(**{**chosen, **settings})


WITH_IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4": ("gemma4_text", {"vision_config": None, "audio_config": None}),
    "qwen3_5_moe": ("qwen3_5_moe_text", {}),
}
"""Families of text and images: that of their text, and what else their configuration needs."""


def tiny_config_with_images(name: str) -> Any:
    """A tiny configuration of a family of text and images; it has no id for padding."""
    of_text, settings = WITH_IMAGES[name]
    text = tiny_config(of_text, FAMILIES[of_text].settings)
    config = CONFIG_MAPPING[name](text_config=text.to_dict(), **settings)
    assert config.get_text_config().pad_token_id is None
    return config


def tiny_model(name: str, settings: dict[str, Any]) -> PreTrainedModel:
    """A tiny random model of a family, with weights large enough to tell values apart."""
    return random_model_of(tiny_config(name, settings))


def random_model_of(config: Any) -> PreTrainedModel:
    """A random model, with weights large enough to tell values apart."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2, generator=generator)
        for path, buffer in model.named_buffers():
            if "correction_bias" in path or "expert_bias" in path:
                buffer.normal_(0, 0.1, generator=generator)
    return model  # type: ignore[no-any-return]


def described(name: str, model: PreTrainedModel, wiring: Wiring) -> str:
    """The family's row of ``docs/models.md``."""
    found = wiring.blocks[0]
    shared = ""
    if found.has_shared_expert:
        gated = "gated" if found.has_shared_gate else "plain"
        shared = "beside the block" if found.shared_is_beside else gated
    layers = ", ".join(str(each.block.layer) for each in wiring.blocks)
    normalized = "yes" if found.rule.norm_topk_prob else "no"
    cells = (
        f"`{name}`",
        f"`{type(model).__name__}`",
        found.rule.scoring,
        "" if found.rule.scoring == "other" else normalized,
        f"{found.rule.scale:g}",
        shared,
        found.block.form,
        f"{layers} of {wiring.n_layers}",
    )
    return f"| {' | '.join(cells)} |"


def short_texts(tokenizer: Any) -> Dataset:
    """Six texts of mixed lengths; any tokenizer will do, for the tokens are made up."""
    lengths = (3, 9, 1, 6, 12, 4)
    ids = [tuple((7 * index + 3 * t) % 250 for t in range(n)) for index, n in enumerate(lengths)]
    examples = tuple(Example("all", None, each, tuple(str(i) for i in each)) for each in ids)
    return Dataset("text", "made-up texts", {}, examples)
