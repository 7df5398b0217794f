"""The words for interventions, and what is asked and told of the ablation of one expert."""

from typing import NamedTuple

ABLATE = "ablate-experts"
RANDOM = "random-routing"
UNIFORM = "uniform-weights"
FORCE = "force-experts"
SWAP = "swap-routing"
PATCH = "patch"
KNOCK_OUT = "knock-out-shared"

RANDOM_REWEIGHTED, REINITIALIZE = "random-routing-reweighted", "reinitialize-experts"
"""Conditions that captures of ``cifar-moe`` have besides."""

KINDS = (ABLATE, RANDOM, UNIFORM, FORCE, SWAP, PATCH, KNOCK_OUT)
"""What ``moedb intervene`` can change."""

REMOVE, ZERO = "remove", "zero"
FORMS = (REMOVE, ZERO)
"""Of an ablation: the next best experts take over, or nothing does."""

BLOCK, EXPERT, SHARED, ATTENTION, RESIDUAL = (
    "block-output",
    "expert-output",
    "shared-output",
    "attention-output",
    "residual",
)
SITES = (BLOCK, EXPERT, SHARED, ATTENTION, RESIDUAL)
"""What a patch replaces."""


class Ablation(NamedTuple):
    """One expert whose output is taken away in one example, and the tokens that are looked at.

    Attributes
    ----------
    layer, expert, example_id
        The expert, and the example.
    positions
        Where the tokens stand.
    ends
        For each the position after the last whose next token counts; the token's own position where
        nothing follows.
    chose
        For each whether it chose the expert.
    first
        Where the example first chooses the expert; None where it never does.
    """

    layer: int
    expert: int
    example_id: int
    positions: tuple[int, ...]
    ends: tuple[int, ...]
    chose: tuple[bool, ...]
    first: int | None

    @property
    def n_read(self) -> int:
        """Positions of the example that have to run; 0 where nothing can have changed."""
        spans = zip(self.positions, self.ends, strict=True)
        end = max((end for place, end in spans if end > place), default=0)
        return end if self.first is not None and self.first < end else 0


class AblationEffect(NamedTuple):
    """What an ablation changes at one of its tokens.

    Attributes
    ----------
    next_change
        The log-probability (nats) of the next token, less what the untouched model gives; None
        where nothing follows.
    following_change
        The mean change over the tokens that count.
    attribution
        What the expert writes into the next token's logit less the mean over the vocabulary, with
        the final norm's scale frozen; None where the token did not choose it.
    attribution_rank, n_attributed
        Its place among all that the token chose at all layers, from 1 for the largest, and how many
        these are.
    """

    next_change: float | None
    following_change: float | None
    attribution: float | None = None
    attribution_rank: int | None = None
    n_attributed: int | None = None
