"""Padding left out of the MoE blocks, which treat each token for itself."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def without_padding(blocks: Iterable[nn.Module], mask: torch.Tensor) -> Iterator[None]:
    """Have MoE blocks run on the tokens of a batch alone, as one row of them.

    What a block gives for padding is then zero. A block that takes more than the hidden states
    runs as ever.

    Parameters
    ----------
    blocks
        The MoE blocks' modules.
    mask
        Bool[Tensor, "example position"]: where the batch has tokens.
    """
    with ExitStack() as stack:
        if not bool(mask.all()):
            for block in blocks:
                _Unpadded(mask).attach(block, stack)
        yield


class _Unpadded:
    """The hooks of one block."""

    def __init__(self, mask: torch.Tensor) -> None:
        self._mask = mask
        self._n_tokens = int(mask.sum())
        self._is_short = False

    def attach(self, block: nn.Module, stack: ExitStack) -> None:
        before = block.register_forward_pre_hook(self._shorten, with_kwargs=True)
        stack.callback(before.remove)
        stack.callback(block.register_forward_hook(self._lengthen).remove)

    def _shorten(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        self._is_short = (
            len(given) == 1 and given[0].dim() == 3 and given[0].shape[:2] == self._mask.shape
        )
        if not self._is_short:
            return None

        def short(value: Any) -> Any:
            return value[self._mask][None] if isinstance(value, torch.Tensor) else value

        return tuple(map(short, args)), {name: short(value) for name, value in kwargs.items()}

    def _lengthen(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self._is_short:
            return None
        return tuple(map(self._long, output)) if isinstance(output, tuple) else self._long(output)

    def _long(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.shape[:2] != (1, self._n_tokens):
            return value
        padded = value.new_zeros(*self._mask.shape, *value.shape[2:])
        padded[self._mask] = value[0]
        return padded
