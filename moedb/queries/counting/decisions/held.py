"""The experts of a run, all at once: where tokens are not counted in the order of the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moedb.queries.counting.decisions.layers import slabs_of
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.counting.decisions.stretches import each_stretch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.stretches import Stretch
    from moedb.store.reading.snapshot import RunSnapshot

MOST_HELD = 2**29
"""Decisions of the largest run whose experts are held at once."""


@dataclass(frozen=True)
class HeldExperts:
    """The experts of a run, all at once.

    Attributes
    ----------
    tokens
        (token,): the tokens, ascending.
    experts
        For each layer (token, rank): the experts, a byte or two each.
    """

    tokens: NDArray[np.int64]
    experts: Mapping[int, NDArray[np.unsignedinteger]]

    def rows_of(self, token_idx: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of tokens.

        Raises
        ------
        UnorderedError
            If a token has no decisions.
        """
        import numpy as np

        if not len(self.tokens):
            rows = np.zeros(len(token_idx), np.int64)
        elif self.tokens[-1] - self.tokens[0] == len(self.tokens) - 1:
            rows = token_idx - self.tokens[0]  # none is missing between them
        else:
            rows = np.searchsorted(self.tokens, token_idx)
        if not np.array_equal(self.tokens.take(rows, mode="clip"), token_idx):
            raise UnorderedError
        return rows


def hold_experts(run: RunSnapshot) -> HeldExperts:
    """Read the experts of a run and hold them.

    Raises
    ------
    UnorderedError
        If a file is not in order, or the run is too large.
    """
    import numpy as np

    if run.n_rows("routing") > MOST_HELD:
        raise UnorderedError

    def reduced(stretch: Stretch) -> tuple[NDArray[np.int64], list[NDArray[np.unsignedinteger]]]:
        tokens = np.arange(stretch.first_token, stretch.first_token + stretch.n_tokens)
        return tokens, [
            slab.experts.astype(smallest_type(slab.n_experts)) for slab in stretch.slabs
        ]

    read = list(each_stretch(run, reduced))
    tokens = np.concatenate([np.zeros(0, np.int64), *(tokens for tokens, _ in read)])
    if (np.diff(tokens) <= 0).any():
        raise UnorderedError
    experts = {}
    for number, layers in enumerate(slabs_of(run)):
        none = np.zeros((len(layers), 0, layers[0].top_k), smallest_type(layers[0].n_experts))
        together = np.concatenate([none, *(slabs[number] for _, slabs in read)], axis=1)
        experts.update({layer.layer: of for layer, of in zip(layers, together, strict=True)})
    return HeldExperts(tokens, experts)


def smallest_type(n_experts: int) -> type[np.unsignedinteger]:
    """The type of the fewest bytes that can number the experts."""
    import numpy as np

    return np.uint8 if n_experts <= 2**8 else np.uint16
