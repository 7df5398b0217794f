"""The logit lens: what the model would say if the residual stream ended at some layer.

The lens puts the stream through the model's own final norm and unembedding. With the norm's scale
frozen at a token, both are linear, so the difference of two logits is a direction in the stream.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.examples import Example
from moedb.capture.structure.wiring import Wiring
from moedb.capture.tracing.activations import BatchActivations
from moedb.capture.tracing.model_end import ModelEnd, affine
from moedb.errors import ModelError

Positions = Literal["last", "all-positions", "none"]
"""The tokens of an example that the lens reads."""

CANDIDATES = ("target", "foil")

Point = tuple[str, int]
"""A point of the residual stream: a place in a layer (pre, mid or post), and the layer."""


def entering(layer: int) -> Point:
    """The point at which the stream enters a layer: that after the one before."""
    return ("pre", 0) if layer == 0 else ("post", layer - 1)


def after_attention(layer: int) -> Point:
    """The point between the attention and the MoE block of a layer."""
    return ("mid", layer)


@dataclass(frozen=True)
class LensRecords:
    """The rows that a batch gives to the table ``logit_lens``, as columns.

    Attributes
    ----------
    example
        Index of the example in the batch.
    target
        The text of the candidate.
    """

    example: NDArray[Any]
    position: NDArray[Any]
    layer: NDArray[Any]
    place: NDArray[Any]
    candidate: NDArray[Any]
    target: NDArray[Any]
    logit: NDArray[Any]
    logprob: NDArray[Any]
    rank: NDArray[Any]
    logit_diff: NDArray[Any]

    def columns(self, example_ids: NDArray[Any], condition_id: int) -> dict[str, NDArray[Any]]:
        """The columns of the table.

        Parameters
        ----------
        example_ids
            For each example of the batch its id.
        condition_id
            The condition that the model ran under.
        """
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        index = own.pop("example")
        condition = np.full(len(index), condition_id, dtype=np.int32)
        return {"condition_id": condition, "example_id": example_ids[index], **own}


class LogitLens:
    """The end of a model, from the last residual stream to the logits.

    Parameters
    ----------
    model, wiring
        The model, and what the probe learned of it.
    rehearsed
        A batch that went through it: what the lens gives is held against its logits.

    Raises
    ------
    ModelError
        If norm and unembedding, up to a factor, do not give the model's logits.
    """

    def __init__(self, model: Any, wiring: Wiring, rehearsed: BatchActivations) -> None:
        stream, logits = rehearsed.residual_pre[max(rehearsed.residual_pre)], rehearsed.logits
        rounding = torch.finfo(logits.dtype).eps ** 0.5
        try:
            self._end = ModelEnd(model, wiring, stream, logits, rounding)
        except ModelError as error:
            raise ModelError(
                f"{error}, so that there is no logit lens",
                "go without it: capture with --lens none, intervene without --lens",
            ) from error
        self._gain, self._offset, self._centers = affine(self._end.norm, wiring.d_model, model)

    def logits(self, stream: torch.Tensor) -> torch.Tensor:
        """The logits, (token, vocabulary), of residual streams, (token, d_model)."""
        return self._end.logits(stream)

    def records(
        self,
        streams: Mapping[Point, torch.Tensor],
        tokens: "LensTokens",
    ) -> LensRecords | None:
        """Two rows for each token and point of the stream; None where there is none.

        Parameters
        ----------
        streams
            For each point the residual stream of the tokens, (token, d_model).
        tokens
            What the tokens are.
        """
        if not streams or not len(tokens.example):
            return None
        values = []
        for stream in streams.values():
            logits = self.logits(stream)
            values.append(_values(logits, tokens.ids.to(logits.device)).cpu().numpy())
        logit, logprob, rank, diff = np.concatenate(values, axis=1)
        n_points, n_rows = len(streams), 2 * len(tokens.example)
        return LensRecords(
            example=np.tile(np.repeat(tokens.example.numpy(), 2), n_points),
            position=np.tile(np.repeat(tokens.position.numpy(), 2), n_points),
            layer=np.repeat([layer for _, layer in streams], n_rows),
            place=np.repeat([place for place, _ in streams], n_rows),
            candidate=np.tile(np.array(CANDIDATES), n_points * n_rows // 2),
            target=np.tile(np.array(tokens.texts, dtype=object).reshape(-1), n_points),
            logit=logit,
            logprob=logprob,
            rank=rank.astype(np.int32),
            logit_diff=diff,
        )

    @cached_property
    def _mean_weight(self) -> torch.Tensor:
        """(1, d_model): the mean row of the unembedding."""
        weight: Any = self._end.unembedding.weight
        with torch.no_grad():
            mean: torch.Tensor = weight.mean(dim=0, keepdim=True, dtype=torch.float32)
        return mean

    def directions(
        self, stream: torch.Tensor, targets: torch.Tensor, foils: torch.Tensor | None
    ) -> torch.Tensor:
        """The direction of the stream along which the target's logit gains on the foil's.

        Parameters
        ----------
        stream
            (token, d_model): the last residual stream.
        targets, foils
            (token,): token ids; without foils the target's logit is held against the mean over the
            vocabulary.

        Returns
        -------
        torch.Tensor
            (token, d_model): with the scale of the final norm frozen, the dot product with the
            stream, or with a part of it, is what it adds to the difference of the two logits.
        """
        weight: Any = self._end.unembedding.weight
        if foils is None:
            difference = (weight[targets].float() - self._mean_weight) * self._gain
        else:
            difference = (weight[targets] - weight[foils]).float() * self._gain
        values = stream.float()
        with torch.no_grad():
            normed = self._end.norm(stream).float() - self._offset
        if self._centers:
            difference = difference - difference.mean(dim=-1, keepdim=True)
            values = values - values.mean(dim=-1, keepdim=True)
        scaled = self._gain * values
        scale = (normed * scaled).sum(dim=-1, keepdim=True)
        scale = scale / (scaled * scaled).sum(dim=-1, keepdim=True)
        directions: torch.Tensor = self._end.factor * scale * difference
        return directions


@dataclass(frozen=True)
class LensTokens:
    """Tokens whose residual stream is read.

    Attributes
    ----------
    example, position
        (token,): the index of the token's example in the batch, and its position there.
    ids, texts
        The token ids, (token, 2), and the texts of its example's target and foil.
    """

    example: torch.Tensor
    position: torch.Tensor
    ids: torch.Tensor
    texts: Sequence[tuple[str, str]]

    @classmethod
    def last(cls, examples: Sequence[Example], tokenizer: Any) -> "LensTokens":
        """The last token of each example; all have a target and a foil."""
        return cls(
            torch.arange(len(examples)),
            torch.tensor([len(example) - 1 for example in examples]),
            candidate_ids(examples),
            candidate_texts(examples, tokenizer),
        )


def candidate_ids(examples: Sequence[Example]) -> torch.Tensor:
    """(example, 2): the token ids of each example's target and foil; 0 where it has none."""
    return torch.tensor([[each.target_id or 0, each.foil_id or 0] for each in examples])


def candidate_texts(examples: Sequence[Example], tokenizer: Any) -> list[tuple[str, str]]:
    """The texts of each example's target and foil; empty where it has none."""

    def text(token_id: int | None) -> str:
        return "" if token_id is None else str(tokenizer.decode([token_id]))

    return [(text(each.target_id), text(each.foil_id)) for each in examples]


class LensReading:
    """The reading of one batch's residual streams.

    While the model runs, the streams of the tokens that are read are put aside. They go through the
    lens afterwards, as norm and unembedding are the running model's own.

    Parameters
    ----------
    lens
        The lens.
    examples
        The examples of the batch; those without target and foil are passed over.
    tokenizer
        The model's tokenizer.
    positions
        Which tokens are read.
    """

    def __init__(
        self,
        lens: LogitLens,
        examples: Sequence[Example],
        tokenizer: Any,
        positions: Positions,
    ) -> None:
        self._lens = lens
        self._owners = torch.repeat_interleave(torch.tensor([len(e) for e in examples]))
        self._ids = candidate_ids(examples)
        self._without = torch.tensor([not e.has_foil for e in examples])
        self._rows, places = _tokens(examples, positions)
        owners = self._owners[self._rows]
        texts = candidate_texts(examples, tokenizer)
        self._tokens = LensTokens(
            owners, places, self._ids[owners], [texts[i] for i in owners.tolist()]
        )
        self._streams: dict[Point, torch.Tensor] = {}

    def take(self, point: Point, stream: torch.Tensor) -> None:
        """Take the stream at a point, (token, d_model)."""
        if len(self._rows):
            self._streams[point] = stream[self._rows.to(stream.device)]

    def directions(self, stream: torch.Tensor) -> torch.Tensor:
        """The direction of each token's logit difference; NaN where its example has no foil.

        Parameters
        ----------
        stream
            (token, d_model): the last residual stream.
        """
        targets, foils = self._ids[self._owners].to(stream.device).unbind(dim=1)
        found = self._lens.directions(stream, targets, foils)
        found[self._without[self._owners].to(found.device)] = torch.nan
        return found

    def records(self) -> LensRecords | None:
        """Two rows for each token and point of the stream; None where there is none."""
        return self._lens.records(self._streams, self._tokens)


def n_lens_tokens(examples: Iterable[Example], positions: Positions) -> int:
    """The number of tokens that the lens will read."""
    if positions == "none":
        return 0
    return sum(
        len(example) if positions == "all-positions" else 1
        for example in examples
        if example.has_foil
    )


def _tokens(examples: Sequence[Example], positions: Positions) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token that is read: its row in the batch, and its position."""
    found = []
    start = 0
    for example in examples:
        if example.has_foil and positions != "none":
            first = 0 if positions == "all-positions" else len(example) - 1
            found += [(start + place, place) for place in range(first, len(example))]
        start += len(example)
    rows, places = torch.tensor(found, dtype=torch.long).reshape(-1, 2).unbind(dim=1)
    return rows, places


def _values(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Logit, log-probability, rank and difference, (4, token * 2), of the two candidates."""
    chosen = logits.gather(-1, ids)
    logprobs = chosen - logits.logsumexp(dim=-1, keepdim=True)
    ranks = torch.stack([(logits > each[:, None]).sum(dim=-1) for each in chosen.T], dim=-1)
    return torch.stack([chosen, logprobs, ranks.float(), chosen - chosen.flip(-1)]).flatten(1)
