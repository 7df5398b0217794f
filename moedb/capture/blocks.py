"""Finding a model's MoE blocks by their structure.

A block is the module that holds a router and an experts module with stacked weights, as
transformers builds them. Nothing here runs the model, so it works on a model without weights too;
:mod:`moedb.capture.probe` then watches a small forward pass to learn the rest.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from moedb.errors import ModelError


@dataclass(frozen=True)
class MoEBlock:
    """One MoE block of a model.

    Attributes
    ----------
    layer
        Index of the decoder block that holds it.
    path, experts_path, decoder_path
        Where the block, its experts module and the decoder block are in the model.
    n_experts, top_k, d_expert
        Routed experts, experts chosen for each token, width of an expert's hidden layer.
    """

    layer: int
    path: str
    experts_path: str
    decoder_path: str
    n_experts: int
    top_k: int
    d_expert: int


def find_blocks(model: nn.Module) -> list[MoEBlock]:
    """Find the MoE blocks of ``model``, in the order of their layers.

    Raises
    ------
    ModelError
        If there are none (a dense model), or one is not built as expected.
    """
    blocks = [
        _block(model, path, module) for path, module in model.named_modules() if _is_experts(module)
    ]
    if not blocks:
        raise ModelError(
            f"{type(model).__name__} has no MoE block: a dense model, or experts that do not go "
            "through transformers' experts interface",
            "moedb captures Mixture-of-Experts models; leave --model out for qwen-moe-mini",
        )
    layers = [block.layer for block in blocks]
    if len(set(layers)) != len(layers):
        raise ModelError(f"several MoE blocks in one decoder block: layers {layers}")
    return sorted(blocks, key=lambda block: block.layer)


def _is_experts(module: nn.Module) -> bool:
    """Whether transformers' experts interface runs this module."""
    down = getattr(module, "down_proj", None)
    return hasattr(module, "is_transposed") and isinstance(down, nn.Parameter) and down.dim() == 3


def _block(model: nn.Module, experts_path: str, experts: Any) -> MoEBlock:
    path, _, _ = experts_path.rpartition(".")
    decoder = re.match(r"^(.*\.(\d+))\.", experts_path)
    if not path or decoder is None:
        raise ModelError(f"{experts_path}: expected an experts module inside a numbered layer")
    n_experts, first, second = experts.down_proj.shape
    return MoEBlock(
        layer=int(decoder.group(2)),
        path=path,
        experts_path=experts_path,
        decoder_path=decoder.group(1),
        n_experts=n_experts,
        top_k=_top_k(model, path),
        d_expert=first if experts.is_transposed else second,
    )


def _top_k(model: nn.Module, path: str) -> int:
    for module in model.get_submodule(path).modules():
        for name in ("top_k", "num_experts_per_tok"):
            value = getattr(module, name, None)
            if isinstance(value, int) and value > 0:
                return value
    value = getattr(getattr(model, "config", None), "num_experts_per_tok", None)
    if isinstance(value, int) and value > 0:
        return value
    raise ModelError(f"{path}: cannot tell how many experts its router chooses")
