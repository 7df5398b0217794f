"""The logit lens: what the model would say if the residual stream ended at some layer.

The lens puts the stream through the model's own final norm and unembedding. With the norm's scale
frozen at a token, both are linear, so the difference of two logits is a direction in the stream.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from moedb.capture.examples import Example
from moedb.capture.trace import BatchActivations
from moedb.capture.wiring import Wiring
from moedb.errors import ModelError

Positions = Literal["last", "all-positions", "none"]
"""The tokens of an example that the lens reads."""

POSITIONS: tuple[Positions, ...] = ("last", "all-positions", "none")

CANDIDATES = ("target", "foil")


@dataclass(frozen=True)
class LensRecords:
    """The rows that a batch gives to the table ``logit_lens``, as columns.

    Attributes
    ----------
    example
        Index of the example in the batch.
    texts
        For each example of the batch the texts of its two candidates.
    """

    example: NDArray[Any]
    position: NDArray[Any]
    layer: NDArray[Any]
    place: NDArray[Any]
    candidate: NDArray[Any]
    logit: NDArray[Any]
    logprob: NDArray[Any]
    rank: NDArray[Any]
    logit_diff: NDArray[Any]
    texts: tuple[tuple[str, str], ...]


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
        final = next(
            read
            for read in wiring.reads
            if read.role == "residual_pre" and read.layer == wiring.n_layers
        )
        self._norm: nn.Module = model.get_submodule(final.path)
        self._unembedding: nn.Module = model.get_output_embeddings()
        self._factor = 1.0
        self._factor = self._fitted(type(model).__name__, rehearsed)
        self._gain, self._offset, self._centers = _affine(self._norm, wiring.d_model, model)

    def _fitted(self, name: str, rehearsed: BatchActivations) -> float:
        """The factor that some models put on their logits."""
        hint = "capture without it: --lens none"
        stream = rehearsed.residual_pre[max(rehearsed.residual_pre)]
        expected = rehearsed.logits.float()
        try:
            found = self.logits(stream)
        except TypeError as error:  # what reads the last stream is no norm
            raise ModelError(
                f"{name}: expected a final norm of one input: {error}", hint
            ) from error
        factor = float((found * expected).sum() / (found * found).sum())
        allowed = torch.finfo(rehearsed.logits.dtype).eps ** 0.5 * float(expected.abs().max())
        for constant in (1.0, factor):
            gap = float((found * constant - expected).abs().max())
            if gap <= allowed:
                return constant
        raise ModelError(
            f"{name}: expected the logits to be the unembedding of the normed last stream; they "
            f"differ by {gap:.3g}, so that there is no logit lens",
            hint,
        )

    def logits(self, stream: torch.Tensor) -> torch.Tensor:
        """The logits, (token, vocabulary), of residual streams, (token, d_model)."""
        with torch.no_grad():
            found: torch.Tensor = self._unembedding(self._norm(stream)).float()
        return found if self._factor == 1 else found * self._factor

    def directions(
        self, stream: torch.Tensor, targets: torch.Tensor, foils: torch.Tensor
    ) -> torch.Tensor:
        """The direction of the stream along which the target's logit gains on the foil's.

        Parameters
        ----------
        stream
            (token, d_model): the last residual stream.
        targets, foils
            (token,): token ids.

        Returns
        -------
        torch.Tensor
            (token, d_model): with the scale of the final norm frozen, the dot product with the
            stream, or with a part of it, is what it adds to the difference of the two logits.
        """
        weight: Any = self._unembedding.weight
        difference = (weight[targets] - weight[foils]).float() * self._gain
        values = stream.float()
        with torch.no_grad():
            normed = self._norm(stream).float() - self._offset
        if self._centers:
            difference = difference - difference.mean(dim=-1, keepdim=True)
            values = values - values.mean(dim=-1, keepdim=True)
        scaled = self._gain * values
        scale = (normed * scaled).sum(dim=-1, keepdim=True)
        scale = scale / (scaled * scaled).sum(dim=-1, keepdim=True)
        directions: torch.Tensor = self._factor * scale * difference
        return directions


def _affine(norm: nn.Module, width: int, model: Any) -> tuple[torch.Tensor, torch.Tensor, bool]:
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


def read_lens(
    lens: LogitLens,
    batch: BatchActivations,
    examples: Sequence[Example],
    texts: tuple[tuple[str, str], ...],
    positions: Positions,
) -> LensRecords | None:
    """Read the residual streams of a batch through the lens.

    Parameters
    ----------
    lens
        The lens.
    batch
        The activations, tokens in the order of the examples.
    examples
        The examples; those without target and foil are passed over.
    texts
        For each example the texts of its target and its foil.
    positions
        Which tokens are read.

    Returns
    -------
    LensRecords or None
        Two rows for each token and point of the stream; None where there is none.
    """
    rows, owners, places = _tokens(examples, positions)
    if not len(rows) or positions == "none":
        return None
    ids = torch.tensor([[e.target_id or 0, e.foil_id or 0] for e in examples])[owners]
    parts: dict[str, list[Any]] = {name: [] for name in ("layer", "place", "values")}
    for place, layer, stream in stream_points(batch):
        logits = lens.logits(stream[rows.to(stream.device)])
        parts["layer"].append(np.full(2 * len(rows), layer))
        parts["place"].append(np.full(2 * len(rows), place))
        parts["values"].append(_values(logits, ids.to(logits.device)).cpu().numpy())
    logit, logprob, rank, diff = np.concatenate(parts["values"], axis=1)
    n_points = len(parts["layer"])
    return LensRecords(
        example=np.tile(np.repeat(owners.numpy(), 2), n_points),
        position=np.tile(np.repeat(places.numpy(), 2), n_points),
        layer=np.concatenate(parts["layer"]),
        place=np.concatenate(parts["place"]),
        candidate=np.tile(np.array(CANDIDATES), n_points * len(rows)),
        logit=logit,
        logprob=logprob,
        rank=rank.astype(np.int32),
        logit_diff=diff,
        texts=texts,
    )


def n_lens_tokens(examples: Iterable[Example], positions: Positions) -> int:
    """The number of tokens that the lens will read."""
    if positions == "none":
        return 0
    return sum(
        len(example) if positions == "all-positions" else 1
        for example in examples
        if example.has_foil
    )


def with_directions(
    lens: LogitLens, batch: BatchActivations, examples: Sequence[Example]
) -> BatchActivations:
    """Add to a batch the directions of its examples' logit differences.

    Each token has that of its example; NaN where an example has no foil.
    """
    stream = batch.residual_pre[max(batch.residual_pre)]
    owners = torch.repeat_interleave(torch.tensor([len(example) for example in examples]))
    ids = torch.tensor([[e.target_id or 0, e.foil_id or 0] for e in examples])[owners]
    targets, foils = ids.to(stream.device).unbind(dim=1)
    found = lens.directions(stream, targets, foils)
    without = torch.tensor([not example.has_foil for example in examples])[owners]
    found[without.to(found.device)] = torch.nan
    return replace(batch, logit_direction=found)


def stream_points(batch: BatchActivations) -> Iterator[tuple[str, int, torch.Tensor]]:
    """The residual stream, (token, d_model), at each point that the lens reads.

    Yields
    ------
    place, layer, stream
        ``pre`` the first layer; ``mid`` each MoE layer, after attention; ``post`` each layer.
    """
    yield "pre", 0, batch.residual_pre[0]
    for layer in sorted(batch.residual_pre)[:-1]:
        if layer in batch.layers:
            mid = batch.layers[layer].residual_mid
            if mid is not None:
                yield "mid", layer, mid
        yield "post", layer, batch.residual_pre[layer + 1]


def _tokens(
    examples: Sequence[Example], positions: Positions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each token that is read: its row in the batch, its example, its position."""
    found = []
    start = 0
    for index, example in enumerate(examples):
        if example.has_foil:
            first = 0 if positions == "all-positions" else len(example) - 1
            found += [(start + p, index, p) for p in range(first, len(example))]
        start += len(example)
    rows, owners, places = torch.tensor(found, dtype=torch.long).reshape(-1, 3).unbind(dim=1)
    return rows, owners, places


def _values(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Logit, log-probability, rank and difference, (4, token * 2), of the two candidates."""
    chosen = logits.gather(-1, ids)
    logprobs = chosen - logits.logsumexp(dim=-1, keepdim=True)
    ranks = torch.stack([(logits > each[:, None]).sum(dim=-1) for each in chosen.T], dim=-1)
    return torch.stack([chosen, logprobs, ranks.float(), chosen - chosen.flip(-1)]).flatten(1)
