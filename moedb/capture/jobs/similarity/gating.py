"""Telling the gate of a gated feed-forward layer from its up projection, by what they do.

The hidden layer is ``act(gate) * up``, up to a constant: it is a straight line in ``up``, and none
in ``gate``. So nothing has to be known of names, or of how the two stand in one weight.
"""

from collections.abc import Callable

import torch

N_PROBED = 16
"""Tokens whose hidden layer is looked at."""

STRAIGHT = 2.0**-5
"""How far from a straight line a hidden layer may be, as a share of its values: far above rounding
in any format, and far below what an activation bends."""

Scale = float
Hidden = Callable[[slice, Scale], torch.Tensor]
"""Gives the layer's outputs with some of its hidden values multiplied by a number."""


def layouts(d_hidden: int) -> tuple[tuple[slice, slice], ...]:
    """The ways in which two projections can stand in one weight: in a row, or in turn."""
    return (
        (slice(0, d_hidden), slice(d_hidden, 2 * d_hidden)),
        (slice(0, None, 2), slice(1, None, 2)),
    )


def gate_and_up(
    scaled: Hidden, candidates: tuple[tuple[slice, slice], ...]
) -> tuple[slice, slice] | None:
    """Find which part of the hidden values is the gate's, and which is the up projection's.

    Parameters
    ----------
    scaled
        The layer, with a part of the values before its activation multiplied by a number.
    candidates
        Pairs of parts that may be the two, in either order.

    Returns
    -------
    tuple of slice, or None
        The parts of the gate and of the up projection; None where no pair has one part that the
        outputs are a straight line in, and one that they are not.
    """
    for first, second in candidates:
        straight = _is_straight(scaled, first), _is_straight(scaled, second)
        if straight == (False, True):
            return first, second
        if straight == (True, False):
            return second, first
    return None


def _is_straight(scaled: Hidden, part: slice) -> bool:
    up, none, down = (scaled(part, scale).double() for scale in (1.0, 0.0, -1.0))
    bend = (up + down - 2 * none).abs().max()
    return bool(bend <= STRAIGHT * (up - down).abs().max())
