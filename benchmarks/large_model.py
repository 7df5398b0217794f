"""Write a random checkpoint with the shape of Qwen1.5-MoE-A2.7B: 14.3 billion parameters in bf16.

    python benchmarks/large_model.py FOLDER [--layers 24]
    /usr/bin/time -v moedb capture qwen-ioi --model FOLDER --n 300 --no-twins --batch-size 300 \\
        --max-memory 8 --arrays router_logits --arrays router_input@11,23 \\
        --arrays expert_outputs@11,23

Random values are enough to see what a capture of the real one takes; 28.6 GB of disk are needed.
The tokenizer has a token for every word of the IOI prompts, as a large vocabulary has for nearly
all of them, so prompts are as long as they would be.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2MoeConfig

from moedb.capture.jobs.qwen_ioi.templates import SLOT, load_ioi_templates
from moedb.capture.models.checkpoints import find_checkpoint

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "norm_topk_prob": False,
    "tie_word_embeddings": False,
}


class Noise:
    """Normal values of standard deviation 0.02, cut from one block at random places."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        block = torch.randn(1 << 25, generator=self._generator) * 0.02
        self._block = block.bfloat16()

    def tensor(self, *shape: int) -> torch.Tensor:
        n_values, half = math.prod(shape), len(self._block) // 2
        parts = []
        for length in [half] * (n_values // half) + [n_values % half]:
            start = int(torch.randint(half, (1,), generator=self._generator))
            parts.append(self._block[start : start + length])
        return torch.cat(parts).reshape(shape)


def layer_tensors(
    layer: int, config: Qwen2MoeConfig, noise: Noise
) -> Iterator[tuple[str, torch.Tensor]]:
    d, prefix = config.hidden_size, f"model.layers.{layer}"
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{name}.weight", torch.ones(d, dtype=torch.bfloat16)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        yield f"{prefix}.self_attn.{name}.weight", noise.tensor(d, d)
        if name != "o_proj":
            yield f"{prefix}.self_attn.{name}.bias", noise.tensor(d)
    yield f"{prefix}.mlp.gate.weight", noise.tensor(config.num_experts, d)
    yield f"{prefix}.mlp.shared_expert_gate.weight", noise.tensor(1, d)
    parts = [("shared_expert", config.shared_expert_intermediate_size)]
    parts += [(f"experts.{e}", config.moe_intermediate_size) for e in range(config.num_experts)]
    for name, width in parts:
        yield f"{prefix}.mlp.{name}.gate_proj.weight", noise.tensor(width, d)
        yield f"{prefix}.mlp.{name}.up_proj.weight", noise.tensor(width, d)
        yield f"{prefix}.mlp.{name}.down_proj.weight", noise.tensor(d, width)


def word_tokenizer() -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer, trained anew on the words of the IOI prompts."""
    lists = load_ioi_templates()
    texts = [f" {word}" for word in (*lists.names, *lists.places, *lists.objects)]
    texts += [part for template in lists.templates_baba for part in SLOT.split(template)]
    ours = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    return ours.train_new_from_iterator([texts], vocab_size=SHAPE["vocab_size"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    config = Qwen2MoeConfig(**SHAPE, num_hidden_layers=arguments.layers, dtype="bfloat16")
    config.architectures = ["Qwen2MoeForCausalLM"]
    config.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    noise = Noise(0)
    d = config.hidden_size
    weight_map = {}
    started = time.perf_counter()
    n_bytes = 0
    for index in range(arguments.layers + 1):
        if index < arguments.layers:
            tensors = dict(layer_tensors(index, config, noise))
        else:
            tensors = {
                "model.embed_tokens.weight": noise.tensor(config.vocab_size, d),
                "model.norm.weight": torch.ones(d, dtype=torch.bfloat16),
                "lm_head.weight": noise.tensor(config.vocab_size, d),
            }
        name = f"model-{index + 1:05d}-of-{arguments.layers + 1:05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        n_bytes += sum(tensor.numel() * 2 for tensor in tensors.values())
    content = {"metadata": {"total_size": n_bytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
    print(f"{n_bytes / 1e9:.1f} GB in {time.perf_counter() - started:.0f} s: {folder}")


if __name__ == "__main__":
    main()
