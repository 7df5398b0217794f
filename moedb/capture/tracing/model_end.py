"""The end of a model, from the last residual stream to the logits, and the logits in pieces.

The logits of all tokens of a large batch can be larger than all else that is kept of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moedb.capture.structure.wiring import Read, Wiring
from moedb.errors import ModelError

PIECE_ROWS = 512
"""Tokens whose logits are there at a time: enough for a fast product, few for the memory."""


def last_stream(wiring: Wiring) -> Read:
    """Where the residual stream after the last layer is read."""
    return next(
        read
        for read in wiring.reads
        if read.role == "residual_pre" and read.layer == wiring.n_layers
    )


class ModelEnd:
    """A model's final norm, unembedding, and the factor that some put on their logits.

    Parameters
    ----------
    model, wiring
        The model, and what the probe learned of it.
    stream, logits
        Of a batch that went through it, by token.
    rounding
        The share of the largest logit by which others may differ.

    Attributes
    ----------
    norm, unembedding, factor
        What the end consists of.

    Raises
    ------
    ModelError
        If norm and unembedding, up to a factor, do not give the model's logits.
    """

    def __init__(
        self,
        model: Any,
        wiring: Wiring,
        stream: torch.Tensor,
        logits: torch.Tensor,
        rounding: float,
    ) -> None:
        self.norm: nn.Module = model.get_submodule(last_stream(wiring).path)
        self.unembedding: nn.Module = model.get_output_embeddings()
        self.factor = 1.0
        self.factor = self._fitted(type(model).__name__, stream, logits.float(), rounding)

    def _fitted(
        self, name: str, stream: torch.Tensor, expected: torch.Tensor, rounding: float
    ) -> float:
        try:
            found = self.logits(stream)
        except TypeError as error:  # what reads the last stream is no norm
            raise ModelError(f"{name}: expected a final norm of one input: {error}") from error
        factor = float((found * expected).sum() / (found * found).sum())
        for constant in (1.0, factor):
            gap = float((found * constant - expected).abs().max())
            if gap <= rounding * float(expected.abs().max()):
                return constant
        raise ModelError(
            f"{name}: expected the logits to be the unembedding of the normed last stream; they "
            f"differ by {gap:.3g}"
        )

    def logits(self, stream: torch.Tensor) -> torch.Tensor:
        """The logits, (token, vocabulary), of residual streams, (token, d_model)."""
        with torch.no_grad():
            found: torch.Tensor = self.unembedding(self.norm(stream)).float()
        return found if self.factor == 1 else found * self.factor


def affine(norm: nn.Module, width: int, model: Any) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The gain and the offset of a norm, and whether it subtracts the mean."""
    parameter = next(model.get_output_embeddings().parameters())
    signs = torch.ones(1, width, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        flat = norm(signs).float()
        signs[:, ::2] = -1
        up, down = norm(signs).float(), norm(-signs).float()
    offset = (up + down) / 2
    gain = (up - offset) * signs.float()
    return gain, offset, bool((flat - offset).abs().max() < 1e-3 * gain.abs().max())


@dataclass(frozen=True)
class BatchLogits:
    """The logits of a batch, which need not be there all at once.

    Attributes
    ----------
    n_tokens
        Tokens of the batch.
    rows
        Gives the logits, (token, vocabulary), of some tokens.
    """

    n_tokens: int
    rows: Callable[[slice], torch.Tensor]

    def pieces(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The logits of all tokens, some at a time."""
        for first in range(0, self.n_tokens, PIECE_ROWS):
            piece = slice(first, min(first + PIECE_ROWS, self.n_tokens))
            yield piece, self.rows(piece)
