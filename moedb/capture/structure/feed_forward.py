"""Telling a feed-forward layer by its linear layers: what reads d and writes h, and back."""

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class FeedForward:
    """A module that is a feed-forward layer.

    Attributes
    ----------
    down
        Path of its down projection in it.
    d_hidden
        Width of its hidden layer: what the down projection reads.
    d_model
        What it reads and writes.
    ups
        Paths of the linear layers before it, in the order in which they are registered: up and
        gate, in either order, or the one that is both, or up alone.
    is_joined
        Whether the one before it is both.
    """

    down: str
    d_hidden: int
    d_model: int
    ups: tuple[str, ...]
    is_joined: bool


def feed_forward(module: nn.Module) -> FeedForward | None:
    """The feed-forward layer that a module is, if it is one.

    It has one or two linear layers that read what it writes (up, or up and gate; or both in one),
    one that reads what those write (down), and is called with hidden states alone. Attention,
    which may have linear layers of the same sizes, is called with more.
    """
    linears = {
        path: sizes
        for path, inner in module.named_modules()
        if path and (sizes := _linear_sizes(inner)) is not None
    }
    if len(linears) not in (2, 3) or not _takes_hidden_states_alone(module):
        return None
    # Where all are square, the last to be registered is the last to run.
    for down, (d_hidden, d_model) in reversed(linears.items()):
        ups = {path: sizes for path, sizes in linears.items() if path != down}
        allowed = {d_hidden, 2 * d_hidden} if len(ups) == 1 else {d_hidden}
        if all(reads == d_model and writes in allowed for reads, writes in ups.values()):
            is_joined = all(writes == 2 * d_hidden for _, writes in ups.values())
            return FeedForward(down, d_hidden, d_model, tuple(ups), is_joined)
    return None


def shared_width(model: nn.Module, decoder_path: str) -> int:
    """Guess the width of a layer's shared expert from its modules' names, as nothing has run yet.

    Returns
    -------
    int
        0 where there is not exactly one feed-forward layer that is called shared.
    """
    layer = model.get_submodule(decoder_path)
    named = {
        path: found
        for path, module in layer.named_modules()
        if "shared" in path and (found := feed_forward(module)) is not None
    }
    widths = [
        found.d_hidden
        for path, found in named.items()
        if not any(path.startswith(f"{other}.") for other in named)
    ]
    return widths[0] if len(widths) == 1 else 0


def _linear_sizes(module: Any) -> tuple[int, int] | None:
    """What a linear layer reads and writes, whatever class it is of; None for other modules."""
    for reads, writes in (("in_features", "out_features"), ("nx", "nf")):
        sizes = getattr(module, reads, None), getattr(module, writes, None)
        if type(sizes[0]) is int and type(sizes[1]) is int:
            return sizes[0], sizes[1]
    return None


def _takes_hidden_states_alone(module: nn.Module) -> bool:
    # the class's, as tools put a forward of their own into an instance
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    needed = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    names = {parameter.name for parameter in parameters}
    return len(needed) == 1 and names.isdisjoint({"attention_mask", "position_embeddings"})
