"""Finding the feed-forward layers of a dense model, each a block with one expert."""

import re
from typing import Any

from torch import nn

from moedb.capture.structure.blocks import MoEBlock, experts_modules, find_blocks
from moedb.capture.structure.feed_forward import feed_forward
from moedb.errors import ModelError


def find_layers(model: nn.Module, *, dense: bool) -> list[MoEBlock]:
    """Find the blocks that a capture reads: the MoE blocks, or those of a dense model.

    Raises
    ------
    ModelError
        If there are none, or the model is of the other kind.
    """
    return find_dense_blocks(model) if dense else find_blocks(model)


def find_dense_blocks(model: nn.Module) -> list[MoEBlock]:
    """Find the feed-forward layer of every decoder block, in the order of their layers.

    Raises
    ------
    ModelError
        If the model has an MoE block, or not one feed-forward layer in every decoder block.
    """
    name = type(model).__name__
    experts = next(experts_modules(model), None)
    if experts is not None:
        raise ModelError(
            f"--dense: {name} has MoE blocks, the first with experts at {experts[0]}",
            "leave --dense out; where only some layers have experts, those without are not "
            "captured",
        )
    blocks = [_block(path, module) for path, module in _outermost(model)]
    found = [block.decoder_path for block in blocks]
    repeated = next((path for path in found if found.count(path) > 1), None)
    if repeated is not None:
        raise ModelError(f"--dense: {name} has several feed-forward layers in {repeated}")
    paths = {path.rpartition(".")[0] for path in found}
    if len(paths) != 1:
        where = f"found them in {', '.join(sorted(paths))}" if paths else "found none"
        raise ModelError(
            f"--dense: {name}: expected a feed-forward layer in each decoder block, a module with "
            f"a down projection and one or two linear layers before it; {where}"
        )
    layers_path = paths.pop()
    layers: Any = model.get_submodule(layers_path)
    lacking = sorted(set(range(len(layers))) - {block.layer for block in blocks})
    if lacking:
        raise ModelError(
            f"--dense: {name} has no feed-forward layer of its own in {layers_path}.{lacking[0]}"
        )
    return sorted(blocks, key=lambda block: block.layer)


def _outermost(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The feed-forward layers inside numbered layers, without what is inside of them."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        inside = found and path.startswith(f"{found[-1][0]}.")
        if not inside and re.search(r"\.\d+\.", path) and feed_forward(module) is not None:
            found.append((path, module))
    return found


def _block(path: str, module: nn.Module) -> MoEBlock:
    found = feed_forward(module)
    decoder = re.match(r"^(.*?\.(\d+))\.", path)
    if found is None or decoder is None:
        raise ValueError(f"{path}: expected a feed-forward layer inside a numbered layer")
    return MoEBlock(
        layer=int(decoder.group(2)),
        path=path,
        experts_path=path,
        decoder_path=decoder.group(1),
        n_experts=1,
        top_k=1,
        d_expert=found.d_hidden,
        form="dense",
    )
