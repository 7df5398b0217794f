"""Hold a capture of a checkpoint in GPTQ's format against a forward over its dequantized weights.

    python benchmarks/dequantized.py FOLDER STORE RUN [--examples 8]

FOLDER is what `benchmarks/large_model.py FOLDER --gptq` wrote, RUN a capture of IOI prompts of it
with the router logits of every layer. One layer at a time is dequantized by the formula, in numpy,
into transformers' own layer, which runs in float32 over the first examples of the run; nothing of
moedb's reading is used. Prints how far the stored router logits, choices of experts and answers are
from those of that forward.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.models.qwen2_moe.modeling_qwen2_moe import (
    Qwen2MoeDecoderLayer,
    Qwen2MoeRMSNorm,
    Qwen2MoeRotaryEmbedding,
)

from moedb.queries.database import open_database


class Stored:
    """The checkpoint's tensors by name, quantized layers as (output, input)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        self._files = index["weight_map"]

    def _tensor(self, name: str) -> np.ndarray:
        with safe_open(self._folder / self._files[name], framework="np") as file:
            return file.get_tensor(name)

    def tensor(self, name: str) -> torch.Tensor:
        layer = name.removesuffix(".weight")
        if f"{layer}.qweight" not in self._files:
            return torch.from_numpy(self._tensor(name).astype(np.float32))
        words = self._tensor(f"{layer}.qweight").view(np.uint32)
        codes = np.empty((8 * words.shape[0], words.shape[1]), dtype=np.float32)
        for place in range(8):
            codes[place::8] = words >> np.uint32(4 * place) & np.uint32(15)
        words = self._tensor(f"{layer}.qzeros").view(np.uint32)
        zeros = np.empty((words.shape[0], 8 * words.shape[1]), dtype=np.float32)
        for place in range(8):
            zeros[:, place::8] = (words >> np.uint32(4 * place) & np.uint32(15)) + 1
        group = self._tensor(f"{layer}.g_idx")
        codes -= zeros[group]
        codes *= self._tensor(f"{layer}.scales").astype(np.float32)[group]
        return torch.from_numpy(codes.T)


def fill(layer: Any, prefix: str, tensor: Callable[[str], torch.Tensor]) -> None:
    """Give a decoder layer its weights, the experts' stacked."""
    for name, parameter in layer.named_parameters():
        path = f"{prefix}.{name.rpartition('.')[0]}"
        if name.endswith("experts.gate_up_proj"):
            half = parameter.shape[1] // 2
            for expert in range(len(parameter)):
                parameter.data[expert, :half] = tensor(f"{path}.{expert}.gate_proj.weight")
                parameter.data[expert, half:] = tensor(f"{path}.{expert}.up_proj.weight")
        elif name.endswith("experts.down_proj"):
            for expert in range(len(parameter)):
                parameter.data[expert] = tensor(f"{path}.{expert}.down_proj.weight")
        else:
            parameter.data.copy_(tensor(f"{prefix}.{name}"))


def forward(
    folder: Path, examples: list[list[int]]
) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
    """For each layer and example the router's logits, and each example's last logits."""
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation, config._experts_implementation = "eager", "eager"
    stored = Stored(folder)
    embeddings = stored.tensor("model.embed_tokens.weight")
    streams = [embeddings[torch.tensor(ids)][None] for ids in examples]
    del embeddings
    rotary = Qwen2MoeRotaryEmbedding(config)
    router_logits = []
    layer = Qwen2MoeDecoderLayer(config, 0).eval()
    read: list[torch.Tensor] = []
    layer.mlp.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    for index in range(config.num_hidden_layers):
        fill(layer, f"model.layers.{index}", stored.tensor)
        read.clear()
        for place, stream in enumerate(streams):
            positions = torch.arange(stream.shape[1])[None]
            mask = torch.full((stream.shape[1],) * 2, -torch.inf).triu(1)[None, None]
            result = layer(
                stream,
                attention_mask=mask,
                position_ids=positions,
                position_embeddings=rotary(stream, positions),
            )
            streams[place] = result[0] if isinstance(result, tuple) else result
        router_logits.append([nn.functional.linear(x[0], layer.mlp.gate.weight) for x in read])
        print(f"layer {index} of {config.num_hidden_layers}", flush=True)
    norm = Qwen2MoeRMSNorm(config.hidden_size, config.rms_norm_eps)
    norm.weight.data.copy_(stored.tensor("model.norm.weight"))
    head = stored.tensor("lm_head.weight")
    return router_logits, [norm(stream[0, -1]) @ head.T for stream in streams]


def compared(
    expected: torch.Tensor, found: torch.Tensor, experts: np.ndarray
) -> tuple[float, list[float]]:
    """How far logits are apart, and the margins of the tokens that chose other experts."""
    top_k = experts.shape[1]
    values, order = expected.topk(top_k + 1)
    same = order[:, :top_k].sort().values == torch.from_numpy(np.sort(experts, axis=1))
    margins = (values[:, top_k - 1] - values[:, top_k])[~same.all(dim=1)]
    return float((found - expected).abs().max()), margins.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("run")
    parser.add_argument("--examples", type=int, default=8)
    arguments = parser.parse_args()
    database = open_database(arguments.store).of_run(arguments.run)
    tokens = database.sql(
        "select example_id, token_idx, token_id, array_row from tokens order by token_idx"
    ).df()
    by_example = [group for _, group in tokens.groupby("example_id")][: arguments.examples]
    with torch.no_grad():
        logits, last = forward(arguments.folder, [list(each.token_id) for each in by_example])
    rows = pd.concat(by_example)
    n_other, margins, distances = 0, [], []
    for layer, each in enumerate(logits):
        array = database.array(arguments.run, "router_logits", layer)
        found = torch.from_numpy(np.asarray(array[:])[rows.array_row.to_numpy()])
        routing = database.sql(
            "select token_idx, expert from routing where layer = $layer order by token_idx, rank",
            {"layer": layer},
        ).df()
        chosen = routing[routing.token_idx.isin(rows.token_idx)].expert.to_numpy()
        distance, near = compared(torch.cat(each), found, chosen.reshape(len(rows), -1))
        distances.append(distance)
        n_other, margins = n_other + len(near), margins + near
    every = range(0, len(distances), max(1, len(distances) // 6))
    shown = ", ".join(f"{distances[layer]:.1e} ({layer})" for layer in every)
    print(f"router logits apart by {max(distances):.1e} at most; by layer: {shown}")
    widest = f", where the margin was {max(margins):.1e} at most" if margins else ""
    print(f"other experts for {n_other} of {len(rows) * len(logits)} tokens and layers{widest}")
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    answers = database.sql(
        "select example_id, target, target_logprob from predictions order by example_id"
    ).df()
    stored = answers.set_index("example_id").loc[[each.example_id.iloc[0] for each in by_example]]
    apart = [
        abs(float(logits.log_softmax(0)[tokenizer(target).input_ids[0]]) - logprob)
        for logits, target, logprob in zip(last, stored.target, stored.target_logprob, strict=True)
    ]
    print(f"log probabilities of the right answers apart by {max(apart):.1e} at most")


if __name__ == "__main__":
    main()
