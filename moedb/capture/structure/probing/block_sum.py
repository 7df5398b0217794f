"""Finding what a block's output is the sum of: routed experts, shared experts, constants."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.forward_recording import Recording, Seen
from moedb.capture.structure.router_rule import nearest
from moedb.capture.structure.tap_wrappers import INNER


@dataclass(frozen=True)
class BlockSum:
    """A block's output, taken apart.

    Attributes
    ----------
    total
        Where the sum is seen.
    shared
        The outputs of the shared experts, which add up.
    gate
        The shared experts' gate, before its sigmoid.
    routed_scale, shared_scale
        Constant factors on the routed experts' sum and on the shared experts.
    """

    total: Seen
    shared: tuple[Seen, ...] = ()
    gate: Seen | None = None
    routed_scale: float = 1.0
    shared_scale: float = 1.0


@dataclass(frozen=True)
class RoutedSum:
    """The routed experts' weighted sum, (token, d_model), and the sum of its parts' magnitudes."""

    total: torch.Tensor
    magnitude: torch.Tensor

    @classmethod
    def of(cls, outputs: torch.Tensor, weights: torch.Tensor) -> "RoutedSum":
        """Add up (token, rank, d_model) outputs by (token, rank) weights."""
        parts = outputs.double() * weights.double().unsqueeze(-1)
        return cls(parts.sum(dim=1), parts.abs().sum(dim=1))


def find_sum(
    recording: Recording,
    block: MoEBlock,
    routed: RoutedSum,
    inputs: torch.Tensor,
    router_path: str,
    constants: Collection[float],
) -> BlockSum | None:
    """Find how the block's output is made, or None where no way found adds up.

    Parameters
    ----------
    recording
        What was seen of the model.
    block
        The block.
    routed
        The experts' outputs, added up by their weights.
    inputs
        (token, d_model): what the experts read.
    router_path
        The router's module.
    constants
        What the constant factors may be.
    """
    children = [
        seen
        for seen in _children(recording, block)
        if not f"{seen.path}.".startswith((f"{router_path}.", f"{experts_root(block)}."))
    ]
    gates = [seen for seen in children if seen.rows.shape == (len(inputs), 1)]
    # Modules that hand on what the experts read, or what they wrote, add nothing to the sum.
    handed_on = [inputs, *(seen.rows for seen in recording.of(experts_root(block), "output"))]
    wide = [
        seen
        for seen in children
        if seen.rows.shape == routed.total.shape
        and not any(seen.equals(rows) for rows in handed_on)
    ]
    for total in _totals(recording, block, wide, routed):
        before = [seen for seen in wide if seen.position < total.position]
        for shared in _choices(before):
            for gate in (*gates, None) if shared else (None,):
                found = _fit(total, shared, gate, routed, constants, block.top_k)
                if found is not None:
                    return found
    return None


def block_root(block: MoEBlock) -> str:
    """Path of the block's own module while it is tapped."""
    return f"{block.path}.{INNER}" if block.form == "list" else block.path


def experts_root(block: MoEBlock) -> str:
    """Path of the experts while the block is tapped."""
    return f"{block_root(block)}{block.experts_path.removeprefix(block.path)}"


def _children(recording: Recording, block: MoEBlock) -> Iterator[Seen]:
    """Outputs of the outermost modules inside the block, wherever lists or wrappers hold them."""
    root = block_root(block)
    for seen in recording.under(root, "output"):
        names = seen.path.removeprefix(f"{root}.").split(".")
        above = [f"{root}.{'.'.join(names[:depth])}" for depth in range(1, len(names))]
        if not any(recording.was_called(path) for path in above):
            yield seen


def _totals(
    recording: Recording, block: MoEBlock, children: Sequence[Seen], routed: RoutedSum
) -> Iterator[Seen]:
    """Where the sum may be: the block's output, or what the module that gives it reads (a norm)."""
    experts = experts_root(block)
    ran = (*recording.of(experts, "output"), *recording.under(experts, "output"))
    experts_end = max(seen.position for seen in ran)
    for output in recording.of(block.path, "output"):
        if not output.value.is_floating_point() or output.rows.shape != routed.total.shape:
            continue
        yield output
        for child in children:
            if child.equals(output.rows):
                for seen in recording.of(child.path, "input"):
                    if seen.position > experts_end and seen.rows.shape == routed.total.shape:
                        yield seen


def _choices(shared: Sequence[Seen]) -> Iterator[tuple[Seen, ...]]:
    """All of them, then each alone, then none."""
    if len(shared) > 1:
        yield tuple(shared)
    for seen in shared:
        yield (seen,)
    yield ()


def _fit(
    total: Seen,
    shared: tuple[Seen, ...],
    gate: Seen | None,
    routed: RoutedSum,
    constants: Collection[float],
    top_k: int,
) -> BlockSum | None:
    """Solve for the two factors, and see whether rounding explains what remains."""
    goal = total.rows
    added = torch.zeros_like(goal)
    for seen in shared:
        added = added + seen.rows
    if gate is not None:
        added = added * gate.rows.sigmoid()
    columns = torch.stack([routed.total.flatten(), added.flatten()][: 2 if shared else 1], dim=1)
    measured = torch.linalg.lstsq(columns, goal.flatten().unsqueeze(1)).solution.flatten().tolist()
    routed_scale = nearest(measured[0], constants)
    shared_scale = nearest(measured[1], constants) if shared else 1.0
    routed_part, shared_part = routed.total * routed_scale, added * shared_scale
    magnitude = routed.magnitude * abs(routed_scale) + shared_part.abs()
    n_roundings = top_k + 3 + len(shared)
    allowed = n_roundings * torch.finfo(total.value.dtype).eps * magnitude + 1e-30
    if not bool(((routed_part + shared_part - goal).abs() <= allowed).all()):
        return None
    # A part that could as well be left out belongs to no sum: what is measured then is rounding.
    for part in (routed_part, shared_part) if shared else (routed_part,):
        if bool((part.abs() <= allowed).all()):
            return None
    return BlockSum(total, shared, gate, routed_scale, shared_scale)


def find_beside(
    recording: Recording,
    block: MoEBlock,
    block_input: torch.Tensor,
    block_output: Seen,
    residual_mid: torch.Tensor,
) -> Seen | None:
    """Find a shared expert beside the block: one that reads what the block reads.

    The residual stream tells: from before the block to after the layer it must have grown by a
    multiple of the sum of both outputs.
    """
    streams = [seen.rows for seen in recording.of(block.decoder_path, "output")]
    after = next((rows for rows in streams if rows.shape == residual_mid.shape), None)
    if after is None:
        return None
    for seen in recording.under(block.decoder_path, "output"):
        inputs = recording.of(seen.path, "input")
        if (
            f"{seen.path}.".startswith(f"{block.path}.")
            or seen.key is not None
            or seen.rows.shape != residual_mid.shape
            or not any(each.equals(block_input) for each in inputs)
        ):
            continue
        both = block_output.rows + seen.rows
        growth = after - residual_mid
        factor = (growth * both).sum() / both.square().sum()
        magnitude = after.abs() + residual_mid.abs() + (factor * both).abs()
        eps = torch.finfo(seen.value.dtype).eps
        if bool(((growth - factor * both).abs() <= 8 * eps * magnitude).all()):
            return seen
    return None
