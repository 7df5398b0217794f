"""Small random checkpoints in GPTQ's format, beside the plain weights that they stand for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2MoeConfig

from moedb.capture.models.checkpoints import find_checkpoint

N_EXPERTS, WIDTH, D_EXPERT, D_SHARED, GROUP = 8, 128, 64, 128, 32


@dataclass(frozen=True)
class Format:
    """How the layers are quantized and stored."""

    bits: int = 4
    layout: str = "gptq"
    act_order: bool = False
    symmetric: bool = False


@dataclass(frozen=True)
class Pair:
    """The same model twice: ``plain`` in float32, ``quantized`` by GPTQ."""

    plain: Path
    quantized: Path


def save_pair(folder: Path, made: Format, n_layers: int = 3) -> Pair:
    """Write a random Qwen2-MoE, quantized where Qwen1.5-MoE's is."""
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    config = Qwen2MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        moe_intermediate_size=D_EXPERT,
        shared_expert_intermediate_size=D_SHARED,
        num_experts=N_EXPERTS,
        num_experts_per_tok=4,
        norm_topk_prob=False,
        dtype="float32",
    )
    config.architectures = ["Qwen2MoeForCausalLM"]
    random = np.random.default_rng(0)
    plain, quantized = {}, {}

    def dense(name: str, *shape: int) -> None:
        values = random.normal(0, 0.3, shape).astype(np.float16)
        plain[name], quantized[name] = torch.from_numpy(values).float(), torch.from_numpy(values)

    def linear(name: str, n_out: int, n_in: int, bias: bool = False) -> None:
        weight, parts = quantized_layer(random, n_out, n_in, made)
        plain[f"{name}.weight"] = torch.from_numpy(weight)
        quantized.update({f"{name}.{part}": torch.from_numpy(v) for part, v in parts.items()})
        if bias:
            dense(f"{name}.bias", n_out)
        else:  # as some tools write them
            quantized[f"{name}.bias"] = torch.zeros(n_out, dtype=torch.float16)

    dense("model.embed_tokens.weight", len(tokenizer), WIDTH)
    dense("lm_head.weight", len(tokenizer), WIDTH)
    dense("model.norm.weight", WIDTH)
    for layer in range(n_layers):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            dense(f"{prefix}.{name}.weight", WIDTH)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            linear(f"{prefix}.self_attn.{name}", WIDTH, WIDTH, bias=name != "o_proj")
        dense(f"{prefix}.mlp.gate.weight", N_EXPERTS, WIDTH)
        dense(f"{prefix}.mlp.shared_expert_gate.weight", 1, WIDTH)
        widths = {"shared_expert": D_SHARED}
        widths |= {f"experts.{expert}": D_EXPERT for expert in range(N_EXPERTS)}
        for name, width in widths.items():
            linear(f"{prefix}.mlp.{name}.gate_proj", width, WIDTH)
            linear(f"{prefix}.mlp.{name}.up_proj", width, WIDTH)
            linear(f"{prefix}.mlp.{name}.down_proj", WIDTH, width)
    pair = Pair(folder / "plain", folder / "quantized")
    for path, tensors in ((pair.plain, plain), (pair.quantized, quantized)):
        if path == pair.quantized:
            config.dtype = "float16"
            config.quantization_config = {
                "bits": made.bits,
                "group_size": GROUP,
                "desc_act": made.act_order,
                "sym": made.symmetric,
                "quant_method": "gptq",
                "checkpoint_format": made.layout,
                # Of others gptqmodel reads no zero points but the middle.
                "meta": {"quantizer": ["gptqmodel:7.6.0"]},
            }
        config.save_pretrained(path)
        tokenizer.save_pretrained(path)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return pair


def quantized_layer(
    random: np.random.Generator, n_out: int, n_in: int, made: Format
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A random weight (output, input), and what is stored of it."""
    n_groups, highest = n_in // GROUP, (1 << made.bits) - 1
    codes = random.integers(0, highest + 1, (n_in, n_out))
    zeros = random.integers(0, highest + 1, (n_groups, n_out))
    if made.symmetric:
        zeros[:] = (highest + 1) // 2
    scales = random.uniform(0.2, 0.4, (n_groups, n_out)).astype(np.float16)
    scales /= np.float16(highest)
    groups = np.arange(n_in) // GROUP
    if made.act_order:
        random.shuffle(groups)
    weight = (codes - zeros[groups]) * scales[groups].astype(np.float64)
    less = 1 if made.layout == "gptq" else 0
    return np.ascontiguousarray(weight.T.astype(np.float32)), {
        "qweight": packed(codes, made.bits),
        "qzeros": np.ascontiguousarray(packed(zeros.T, made.bits, less).T),
        "scales": scales,
        "g_idx": groups.astype(np.int32),
    }


def packed(codes: np.ndarray, bits: int, less: int = 0) -> np.ndarray:
    """Consecutive rows in one word, the first in its lowest bits, each code less ``less``."""
    n_codes = 32 // bits
    words = np.zeros((len(codes) // n_codes, codes.shape[1]), dtype=np.int64)
    for place in range(n_codes):
        words += (codes[place::n_codes] - less) * (1 << bits * place)
    return (words % 2**32).astype(np.uint32).view(np.int32)
