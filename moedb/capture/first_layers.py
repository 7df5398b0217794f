"""Learning the wiring of a large model from its first layers.

Running every layer of a model whose weights come from the disk reads the whole checkpoint. Layers
that are built alike are wired alike, so the shortest run of first layers that has one of every kind
tells enough. Should a later layer differ in what cannot be seen in its modules, such as a factor,
the check of every batch finds it.
"""

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from moedb.capture.blocks import MoEBlock
from moedb.capture.wiring import Read, Wiring

Kind = Hashable
"""How a layer is built; equal where two are built alike."""


def layer_kinds(layers: Sequence[nn.Module], neurons: Collection[int]) -> list[Kind]:
    """The kind of each layer.

    Parameters
    ----------
    layers
        The decoder layers, with or without weights.
    neurons
        The layers whose experts' hidden units will be tapped.
    """
    return [(_parts(layer), index in neurons) for index, layer in enumerate(layers)]


def _parts(layer: nn.Module) -> Kind:
    return tuple(
        (path, type(module), tuple((n, p.shape) for n, p in module.named_parameters(recurse=False)))
        for path, module in layer.named_modules()
    )


def n_first_layers(kinds: Sequence[Kind]) -> int:
    """The number of first layers among which there is one of every kind."""
    return 1 + max(kinds.index(kind) for kind in set(kinds))


@contextmanager
def only_first_layers(model: nn.Module, layers_path: str, n_layers: int) -> Iterator[None]:
    """Have ``model`` run but the first ``n_layers`` of the layers at ``layers_path``."""
    parent_path, _, name = layers_path.rpartition(".")
    parent = model.get_submodule(parent_path)
    layers: Any = parent._modules[name]
    parent._modules[name] = layers[:n_layers]
    try:
        yield
    finally:
        parent._modules[name] = layers


def extended(
    wiring: Wiring, blocks: Sequence[MoEBlock], kinds: Sequence[Kind], layers_path: str
) -> Wiring:
    """The wiring of the whole model.

    Parameters
    ----------
    wiring
        What the probe learned of the first layers.
    blocks, kinds
        All MoE blocks, and the kind of every layer.
    layers_path
        Where the layers are in the model.
    """

    def moved(path: str, layer: int) -> str:
        like = f"{layers_path}.{kinds.index(kinds[layer])}"
        return f"{layers_path}.{layer}{path.removeprefix(like)}"

    attention = tuple(
        replace(read, layer=layer, path=moved(read.path, layer))
        for layer, kind in enumerate(kinds)
        for read in wiring.attention
        if read.layer == kinds.index(kind)
    )
    known = {each.block.layer: each for each in wiring.blocks}
    reads: list[Read] = []
    for layer, kind in enumerate(kinds):
        like = kinds.index(kind)
        reads += (
            replace(read, layer=layer, path=moved(read.path, layer))
            for read in wiring.reads
            if read.layer == like
        )
    reads += (
        replace(read, layer=len(kinds)) for read in wiring.reads if read.layer == wiring.n_layers
    )
    wirings = []
    for block in blocks:
        found = known[kinds.index(kinds[block.layer])]
        path = moved(found.router_path, block.layer)
        wirings.append(replace(found, block=block, router_path=path))
    return Wiring(tuple(wirings), tuple(reads), len(kinds), wiring.d_model, attention)
