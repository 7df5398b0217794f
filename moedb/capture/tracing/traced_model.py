"""A model that is ready to be captured: its passes, and the logits of batches of any size."""

from collections.abc import Sequence
from typing import Any

import torch

from moedb.capture.structure.wiring import Wiring
from moedb.capture.tracing.activations import BatchActivations, Reader
from moedb.capture.tracing.model_end import BatchLogits, ModelEnd
from moedb.capture.tracing.tracer import Tracer
from moedb.errors import CheckError


class _LastStream:
    """Hands everything on, and keeps the stream after the last layer."""

    def __init__(self, reader: Reader, n_layers: int) -> None:
        self._reader = reader
        self._n_layers = n_layers
        self.stream_after = torch.empty(0)
        self.layer = reader.layer

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        self._reader.stream(layer, residual)
        if layer == self._n_layers:
            self.stream_after = residual


MOST_LOGITS = 1 << 26
"""The most logits of a batch that the model itself makes."""

N_CHECKED = 64
"""Examples of whose last token it makes them still, to hold the others against."""


class TracedModel:
    """A model that is ready to be captured. Made by :func:`moedb.capture.tracing.rehearsal.traced`.

    Parameters
    ----------
    tracer
        Runs it.
    rehearsed
        The small batch that was captured first, perhaps by the first layers alone.
    end
        What makes logits of the last stream; None where that is more than norm and unembedding.
    """

    def __init__(self, tracer: Tracer, rehearsed: BatchActivations, end: ModelEnd | None) -> None:
        self.rehearsed = rehearsed
        self.end = end
        self._tracer = tracer
        self._n_vocabulary = tracer.model.get_input_embeddings().num_embeddings

    @property
    def model(self) -> Any:
        """The model."""
        return self._tracer.model

    @property
    def wiring(self) -> Wiring:
        """What the probe learned of it."""
        return self._tracer.wiring

    def run(self, token_ids: Sequence[Sequence[int]]) -> BatchActivations:
        """Run a batch of examples, of any lengths, and keep everything."""
        return self._tracer.run(token_ids)

    def read(self, token_ids: Sequence[Sequence[int]], reader: Reader) -> BatchLogits:
        """Run a batch of examples, padded on the right, and read off its activations.

        Parameters
        ----------
        token_ids
            The examples' token ids, of any lengths.
        reader
            Is given each layer's values as soon as they are there, padding left out.

        Returns
        -------
        BatchLogits
            The logits; where they are many, they are made when they are asked for.

        Raises
        ------
        CheckError
            If those of the last tokens are not what the model itself gives.
        """
        lengths = torch.tensor([len(ids) for ids in token_ids])
        n_tokens = int(lengths.sum())
        if self.end is None or n_tokens * self._n_vocabulary <= MOST_LOGITS:
            logits = self._tracer.read(token_ids, reader)
            return BatchLogits(n_tokens, logits.__getitem__)
        end, last = self.end, _LastStream(reader, self.wiring.n_layers)
        own = self._tracer.read(token_ids, last, lengths[:N_CHECKED] - 1)
        ends = lengths.cumsum(0)[:N_CHECKED] - 1
        found = end.logits(last.stream_after[ends.to(last.stream_after.device)])
        gap = float((found - own).abs().max())
        if not gap <= rounding(own) * float(own.abs().max()):
            raise CheckError(
                f"the logits of the last tokens differ by {gap:.3g} from the unembedding of the "
                "normed last stream"
            )
        return BatchLogits(n_tokens, lambda rows: end.logits(last.stream_after[rows]))


def rounding(logits: torch.Tensor) -> float:
    """The share of the largest logit that the order of additions may change."""
    return 16 * torch.finfo(logits.dtype).eps
