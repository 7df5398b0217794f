"""What is known of a model once it was probed: where its values are, and how they relate."""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from moedb.capture.structure.blocks import Kind, MoEBlock
from moedb.capture.structure.forward_recording import Seen, Side
from moedb.capture.structure.router_rule import RouterRule
from moedb.capture.structure.tap_wrappers import Key


@dataclass(frozen=True)
class Read:
    """One value to read.

    Attributes
    ----------
    role, layer
        What it is, and of which layer.
    path, side
        The module whose input or output it is.
    key
        Where among the arguments (a position or a keyword) or in the output (a position in a
        tuple, an attribute); None where it is the output itself.
    overwritten
        Whether the model changes it in place later, so that it must be copied.
    """

    role: str
    layer: int
    path: str
    side: Side
    key: Key | None = None
    overwritten: bool = False

    @classmethod
    def of(cls, role: str, layer: int, seen: Seen, overwritten: bool = False) -> "Read":
        """The read of a tensor that was seen."""
        return cls(role, layer, seen.path, seen.side, seen.key, overwritten)

    def pick(self, value: Any) -> Any:
        """Pick it from the module's ``(args, kwargs)`` or from its output."""
        if self.side == "input":
            args, kwargs = value
            picked = args[self.key] if isinstance(self.key, int) else kwargs[self.key]
        elif isinstance(self.key, str):
            picked = getattr(value, self.key)
        else:
            picked = value if self.key is None else value[self.key]
        return picked.clone() if self.overwritten else picked

    def put(self, value: Any, new: Any) -> Any:
        """Put ``new`` in its place: the inverse of :meth:`pick`; ``value`` stays as it is."""
        if self.side == "input":
            args, kwargs = value
            if isinstance(self.key, int):
                return (*args[: self.key], new, *args[self.key + 1 :]), kwargs
            return args, {**kwargs, self.key: new}
        if isinstance(self.key, str):
            changed = copy(value)
            setattr(changed, self.key, new)
            return changed
        if self.key is None:
            return new
        return (*value[: self.key], new, *value[self.key + 1 :])


@dataclass(frozen=True)
class BlockWiring:
    """What the probe learned of one block.

    Attributes
    ----------
    block, router_path, rule
        The block, the module that gives its router's logits (empty where there is none), and how
        those become weights.
    has_shared_expert, has_shared_gate
        Whether there is a shared expert, and a gate on it that a sigmoid is applied to.
    routed_scale, shared_scale
        Constants that the block multiplies the routed experts' sum and the shared expert's output
        by; stored weights and gates include them.
    shared_is_beside
        Whether the shared expert is not in the block but beside it, added to its output; what is
        called the block's output then includes it.
    d_shared
        Width of the shared expert's hidden layer as it ran; 0 where it cannot be read.
    """

    block: MoEBlock
    router_path: str
    rule: RouterRule
    has_shared_expert: bool
    has_shared_gate: bool
    routed_scale: float = 1.0
    shared_scale: float = 1.0
    shared_is_beside: bool = False
    d_shared: int = 0


@dataclass(frozen=True)
class Wiring:
    """What the probe learned of a model.

    Attributes
    ----------
    blocks
        The MoE blocks.
    reads
        Everything that can be read, in the order in which the model runs.
    n_layers
        Number of decoder blocks; ``residual_pre`` of this index is the stream after the last.
    d_model
        Width of the residual stream.
    attention
        Where attention's write to the residual stream can be edited, for the MoE layers at which
        it was found; a capture has no need to read it, the stream before and after tells it.
    """

    blocks: tuple[BlockWiring, ...]
    reads: tuple[Read, ...]
    n_layers: int
    d_model: int
    attention: tuple[Read, ...] = ()


def extended(
    wiring: Wiring, blocks: Sequence[MoEBlock], kinds: Sequence[Kind], layers_path: str
) -> Wiring:
    """The wiring of a whole model that was probed with its first layers alone.

    Running every layer of a model whose weights come from the disk reads the whole checkpoint.
    Layers that are built alike are wired alike, so the shortest run of first layers that has one of
    every kind tells enough. Should a later layer differ in what cannot be seen in its modules, such
    as a factor, the check of every batch finds it.

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
        path = moved(found.router_path, block.layer) if found.router_path else ""
        wirings.append(replace(found, block=block, router_path=path))
    return Wiring(tuple(wirings), tuple(reads), len(kinds), wiring.d_model, attention)


def reading_neurons(wiring: Wiring, wanted: Mapping[str, Collection[int]]) -> Wiring:
    """The wiring without the reads of hidden units that are not wanted.

    Parameters
    ----------
    wiring
        What is known of the model.
    wanted
        For each role of hidden units the layers of which they are read.
    """
    reads = tuple(
        read for read in wiring.reads if read.role not in wanted or read.layer in wanted[read.role]
    )
    return replace(wiring, reads=reads)
