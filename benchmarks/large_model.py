"""Write a random checkpoint with the shape of Qwen1.5-MoE-A2.7B: 14.3 billion parameters in bf16.

    python benchmarks/large_model.py FOLDER [--layers 24] [--gptq]
    /usr/bin/time -v moedb capture qwen-ioi --model FOLDER --n 300 --no-twins --batch-size 300 \\
        --max-memory 8 --arrays router_logits --arrays router_input@11,23 \\
        --arrays expert_outputs@11,23

Random values are enough to see what a capture of the real one takes; 28.6 GB of disk are needed.
With --gptq it is in the format of Qwen1.5-MoE-A2.7B-Chat-GPTQ-Int4, 8.4 GB: attention, experts and
shared experts in 4 bits, symmetric, in groups of 128; embeddings, norms, routers, the gates of
shared experts and the output layer in fp16. `benchmarks/dequantized.py` checks a capture of it.
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

GPTQ = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.01,
    "desc_act": False,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "quant_method": "gptq",
}
GROUP = 128


Tensors = Iterator[tuple[str, torch.Tensor]]


class Noise:
    """Values cut from one block at random places."""

    def __init__(self, block: torch.Tensor, generator: torch.Generator) -> None:
        self._block = block
        self._generator = generator

    def tensor(self, *shape: int) -> torch.Tensor:
        n_values, half = math.prod(shape), len(self._block) // 2
        parts = []
        for length in [half] * (n_values // half) + [n_values % half]:
            start = int(torch.randint(half, (1,), generator=self._generator))
            parts.append(self._block[start : start + length])
        return torch.cat(parts).reshape(shape)


class Plain:
    """Normal weights of standard deviation 0.02."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)
        block = torch.randn(1 << 25, generator=self.generator) * 0.02
        self.values = Noise(block.to(dtype), self.generator)

    def linear(self, name: str, n_out: int, n_in: int, bias: bool = False) -> Tensors:
        yield f"{name}.weight", self.values.tensor(n_out, n_in)
        if bias:
            yield f"{name}.bias", self.values.tensor(n_out)


class Quantized(Plain):
    """The same, where a layer is linear as 4-bit codes with a scale for each group of inputs."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, torch.float16)
        # Codes of standard deviation 2.5 around the zero point, which is 8.
        codes = torch.randn(1 << 22, 8, generator=self.generator).mul_(2.5).round_().add_(8)
        shifted = codes.clamp_(0, 15).long() << torch.arange(0, 32, 4)
        self._packed = Noise(shifted.sum(dim=1).to(torch.int32), self.generator)
        spread = torch.rand(1 << 20, generator=self.generator) * 0.4 + 0.8
        self._scales = Noise((spread * 0.02 / 2.5).half(), self.generator)

    def linear(self, name: str, n_out: int, n_in: int, bias: bool = False) -> Tensors:
        n_groups = n_in // GROUP
        yield f"{name}.qweight", self._packed.tensor(n_in // 8, n_out)
        # This format stores a zero point less one.
        yield f"{name}.qzeros", torch.full((n_groups, n_out // 8), 0x77777777, dtype=torch.int32)
        yield f"{name}.scales", self._scales.tensor(n_groups, n_out)
        yield f"{name}.g_idx", torch.arange(n_in, dtype=torch.int32) // GROUP
        # The real one has biases of zeros where the model has none.
        yield f"{name}.bias", self.values.tensor(n_out) if bias else torch.zeros(n_out).half()


def layer_tensors(layer: int, config: Qwen2MoeConfig, made: Plain) -> Tensors:
    d, prefix = config.hidden_size, f"model.layers.{layer}"
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{name}.weight", torch.ones(d, dtype=made.dtype)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        yield from made.linear(f"{prefix}.self_attn.{name}", d, d, bias=name != "o_proj")
    yield f"{prefix}.mlp.gate.weight", made.values.tensor(config.num_experts, d)
    yield f"{prefix}.mlp.shared_expert_gate.weight", made.values.tensor(1, d)
    parts = [("shared_expert", config.shared_expert_intermediate_size)]
    parts += [(f"experts.{e}", config.moe_intermediate_size) for e in range(config.num_experts)]
    for name, width in parts:
        yield from made.linear(f"{prefix}.mlp.{name}.gate_proj", width, d)
        yield from made.linear(f"{prefix}.mlp.{name}.up_proj", width, d)
        yield from made.linear(f"{prefix}.mlp.{name}.down_proj", d, width)


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
    parser.add_argument("--gptq", action="store_true", help="quantized to 4 bits by GPTQ's format")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    made = Quantized(0) if arguments.gptq else Plain(0, torch.bfloat16)
    config = Qwen2MoeConfig(**SHAPE, num_hidden_layers=arguments.layers, dtype=made.dtype)
    config.architectures = ["Qwen2MoeForCausalLM"]
    if arguments.gptq:
        config.quantization_config = GPTQ
    config.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    d = config.hidden_size
    weight_map = {}
    started = time.perf_counter()
    n_bytes = 0
    for index in range(arguments.layers + 1):
        if index < arguments.layers:
            tensors = dict(layer_tensors(index, config, made))
        else:
            tensors = {
                "model.embed_tokens.weight": made.values.tensor(config.vocab_size, d),
                "model.norm.weight": torch.ones(d, dtype=made.dtype),
                "lm_head.weight": made.values.tensor(config.vocab_size, d),
            }
        name = f"model-{index + 1:05d}-of-{arguments.layers + 1:05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        n_bytes += sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": n_bytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
    print(f"{n_bytes / 1e9:.1f} GB in {time.perf_counter() - started:.0f} s: {folder}")


if __name__ == "__main__":
    main()
