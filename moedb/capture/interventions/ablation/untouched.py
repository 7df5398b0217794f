"""What the untouched model does at the tokens that ablations are looked at by."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.interventions.engine import Engine, Pass
from moedb.capture.tracing.activations import LayerActivations
from moedb.capture.tracing.logit_lens import LogitLens
from moedb.capture.tracing.traced_model import MOST_LOGITS, TracedModel
from moedb.errors import CheckError
from moedb.schemas.interventions import Ablation

MOST_STREAM_BYTES = 1 << 30
"""Bytes of residual streams that are kept, so that the layers before an ablation need not run."""

_MOST_WRITTEN_BYTES = 1 << 28
"""Bytes of what the experts write that are there at a time."""

_PIECE = 512
"""Rows of logits that become log-probabilities at a time."""


class RunTokens(NamedTuple):
    """The tokens of an example as the run has them.

    Attributes
    ----------
    ids
        Their ids.
    next_logprobs
        (token,): the log-probability of the next, as it was stored; NaN for the last.
    """

    ids: list[int]
    next_logprobs: NDArray[np.float64]


class Attributions(NamedTuple):
    """What the experts that a token chose write into the next token's logit.

    Attributes
    ----------
    layers, experts, values
        (decision,): over all layers.
    """

    layers: NDArray[np.int32]
    experts: NDArray[np.int32]
    values: NDArray[np.float32]

    def of(self, layer: int, expert: int) -> tuple[float, int] | None:
        """What one writes, and its place from 1; None where the token did not choose it."""
        at = np.flatnonzero((self.layers == layer) & (self.experts == expert))
        if not len(at):
            return None
        value = self.values[at[0]]
        return float(value), 1 + int((self.values > value).sum())


class Untouched:
    """The untouched model at the tokens that are asked for, each example run when it is needed.

    Parameters
    ----------
    engine, traced, lens
        The model, as it is run for ablations, and as a capture reads it; its logit lens, without
        which there are no attributions.
    tokens
        The run's tokens by example.
    ablations
        All that will be asked for.
    batch_size
        Examples of a forward pass at most.
    note
        Takes what the user should know.
    """

    def __init__(
        self,
        engine: Engine,
        traced: TracedModel,
        lens: LogitLens | None,
        tokens: Mapping[int, RunTokens],
        ablations: Iterable[Ablation],
        batch_size: int,
        note: Callable[[str], None],
    ) -> None:
        self._engine, self._traced, self._lens, self._note = engine, traced, lens, note
        self._tokens, self._batch_size = tokens, batch_size
        self._read: dict[int, set[int]] = {}
        self._attributed: dict[int, set[int]] = {}
        self._changed: dict[int, set[int]] = {}
        for each in ablations:
            if each.n_read:
                self._read.setdefault(each.example_id, set()).update(
                    *map(range, each.positions, each.ends)
                )
                chose = (
                    place
                    for place, end, chose in zip(each.positions, each.ends, each.chose, strict=True)
                    if chose and end > place
                )
                self._attributed.setdefault(each.example_id, set()).update(chose)
                self._changed.setdefault(each.example_id, set()).add(each.layer)
        self._logprobs: dict[int, NDArray[np.float64]] = {}
        self._attributions: dict[tuple[int, int], Attributions] = {}
        self._streams: dict[tuple[int, int], torch.Tensor] = {}
        self._n_stream_bytes = 0

    def ids(self, example_id: int, n_tokens: int | None = None) -> list[int]:
        """The first token ids of an example."""
        return self._tokens[example_id].ids[:n_tokens]

    def logprobs(self, example_id: int) -> NDArray[np.float64]:
        """(position,): the log-probability of the next token; NaN where nobody asks."""
        return self._logprobs[example_id]

    def attributions(self, example_id: int, position: int) -> Attributions | None:
        """What the experts of a token write; None without a logit lens."""
        return self._attributions.get((example_id, position))

    def stream(self, layer: int, example_id: int) -> torch.Tensor | None:
        """(position, d_model): the residual stream entering a layer; None unless it is kept."""
        return self._streams.get((layer, example_id))

    def prepare(self, example_ids: Iterable[int]) -> None:
        """Run those of some examples that have not run yet.

        Raises
        ------
        CheckError
            If the model does not give what the run has of it.
        """
        missing = sorted(set(example_ids) - set(self._logprobs))
        lengths = {example_id: 1 + max(self._read[example_id]) for example_id in missing}
        n_places = max((len(self._read[example_id]) for example_id in missing), default=1)
        size = rows_at_once(
            self._engine, self._batch_size, n_places, max(lengths.values(), default=1)
        )
        ordered = sorted(missing, key=lambda example_id: (lengths[example_id], example_id))
        for first in range(0, len(ordered), size):
            batch = ordered[first : first + size]
            found = self._run(batch, lengths)
            if not self._fits(found) and self._engine.takes_shortcuts:
                self._engine.takes_shortcuts = False
                found = self._run(batch, lengths)
                if self._fits(found):
                    self._note(
                        "every pass is whole: the model ends otherwise where it is cut short"
                    )
            self._expect_stored(found)
            self._logprobs |= found
        for batch in self._attributed_at_once(ordered):
            self._attribute(batch, lengths)

    def _run(
        self, batch: Sequence[int], lengths: Mapping[int, int]
    ) -> dict[int, NDArray[np.float64]]:
        read = [sorted(self._read[example_id]) for example_id in batch]
        rows = [self.ids(example_id, lengths[example_id]) for example_id in batch]
        outcome = self._engine.run(Pass(tuple(map(tuple, rows)), positions=tuple(read)))
        following = [
            self.ids(e)[place + 1]
            for e, places in zip(batch, read, strict=True)
            for place in places
        ]
        values = next_logprobs(outcome.logits, following)
        found, start = {}, 0
        for example_id, places in zip(batch, read, strict=True):
            found[example_id] = np.full(lengths[example_id], np.nan)
            found[example_id][places] = values[start : start + len(places)]
            start += len(places)
        return found

    def _gaps(self, found: Mapping[int, NDArray[np.float64]]) -> tuple[float, float]:
        """How far what is found is from what is stored, and how far rounding may take it."""
        pairs = [
            (values, self._tokens[example_id].next_logprobs[: len(values)])
            for example_id, values in found.items()
        ]
        gaps = np.concatenate(
            [np.abs(values - stored)[np.isfinite(values)] for values, stored in pairs]
        )
        largest = max(float(np.nanmax(np.abs(stored), initial=0)) for _, stored in pairs)
        return typical_gap(gaps, self._dtype), allowed_gap(self._dtype, largest)

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._traced.model.dtype
        return dtype

    def _fits(self, found: Mapping[int, NDArray[np.float64]]) -> bool:
        gap, allowed = self._gaps(found)
        return gap <= allowed

    def _expect_stored(self, found: Mapping[int, NDArray[np.float64]]) -> None:
        gap, allowed = self._gaps(found)
        if not gap <= allowed:
            raise CheckError(
                "the untouched model's log-probabilities of the next tokens are not those of the "
                f"run: they differ by {gap:.3g}; rounding explains {allowed:.3g}",
                "capture the run again with this version of the libraries",
            )

    def _attributed_at_once(self, example_ids: Sequence[int]) -> Iterator[list[int]]:
        """Examples in batches, few enough for what their experts write."""
        wiring = self._traced.wiring
        n_slots = sum(each.block.top_k for each in wiring.blocks)
        most = max(1, _MOST_WRITTEN_BYTES // (4 * n_slots * wiring.d_model))
        batch: list[int] = []
        n_tokens = 0
        for example_id in example_ids:
            own = len(self._attributed[example_id])
            if batch and (len(batch) == self._batch_size or n_tokens + own > most):
                yield batch
                batch, n_tokens = [], 0
            batch.append(example_id)
            n_tokens += own
        if batch:
            yield batch

    def _attribute(self, batch: Sequence[int], lengths: Mapping[int, int]) -> None:
        """Read what the experts of the tokens write, and keep streams that ablations start from."""
        places = [sorted(self._attributed[example_id]) for example_id in batch]
        ends = np.cumsum([lengths[example_id] for example_id in batch])
        starts = ends - [lengths[example_id] for example_id in batch]
        rows = [start + p for start, own in zip(starts.tolist(), places, strict=True) for p in own]
        reader = _Written(
            torch.tensor(rows, dtype=torch.long), self._keep_streams(batch, starts, ends)
        )
        self._traced.read([self.ids(e, lengths[e]) for e in batch], reader)
        if self._lens is None or not rows:
            return
        targets = [self.ids(e)[p + 1] for e, own in zip(batch, places, strict=True) for p in own]
        last = reader.last
        directions = self._lens.directions(last, torch.tensor(targets, device=last.device), None)
        found = reader.attributions(directions.detach())
        tokens = [(e, p) for e, own in zip(batch, places, strict=True) for p in own]
        self._attributions |= dict(zip(tokens, found, strict=True))

    def _keep_streams(
        self, batch: Sequence[int], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Callable[[int, torch.Tensor], None]:
        def keep(layer: int, residual: torch.Tensor) -> None:
            for example_id, start, end in zip(batch, starts.tolist(), ends.tolist(), strict=True):
                n_bytes = (end - start) * residual.shape[-1] * residual.element_size()
                is_room = self._n_stream_bytes + n_bytes <= MOST_STREAM_BYTES
                if layer and is_room and layer in self._changed[example_id]:
                    self._n_stream_bytes += n_bytes
                    self._streams[layer, example_id] = residual[start:end].clone()

        return keep


class _Written:
    """What the experts of some tokens of a batch write, layer by layer.

    Attributes
    ----------
    last
        (token, d_model): the residual stream after the last layer.
    """

    def __init__(self, rows: torch.Tensor, keep: Callable[[int, torch.Tensor], None]) -> None:
        self._rows, self._keep = rows, keep
        self._experts: dict[int, torch.Tensor] = {}
        self._written: list[torch.Tensor] = []
        self.last = torch.empty(0)

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        self._keep(layer, residual)
        self.last = residual[self._rows.to(residual.device)]

    def layer(self, layer: int, activations: LayerActivations) -> None:
        rows = self._rows.to(activations.experts.device)
        weights = activations.weights[rows].float().unsqueeze(-1)
        self._experts[layer] = activations.experts[rows]
        self._written.append(weights * activations.expert_outputs[rows].float())

    def attributions(self, directions: torch.Tensor) -> list[Attributions]:
        """For each token what its experts write along its direction."""
        values = [
            torch.einsum("trd,td->tr", written, directions.to(written.device)).cpu()
            for written in self._written
        ]
        experts = [each.cpu() for each in self._experts.values()]
        layers = [layer for layer, each in self._experts.items() for _ in range(each.shape[1])]
        at = np.array(layers, dtype=np.int32)
        of_tokens = zip(
            torch.cat(experts, dim=1).numpy().astype(np.int32),
            torch.cat(values, dim=1).numpy().astype(np.float32),
            strict=True,
        )
        return [Attributions(at, own, written) for own, written in of_tokens]


def next_logprobs(logits: torch.Tensor, following: Sequence[int]) -> NDArray[np.float64]:
    """(row,): the log-probability of one token each.

    Parameters
    ----------
    logits
        (row, vocabulary).
    following
        The tokens.
    """
    ids = torch.tensor(following, dtype=torch.long, device=logits.device).unsqueeze(-1)
    found = [
        logits[first : first + _PIECE]
        .float()
        .log_softmax(dim=-1)
        .gather(-1, ids[first : first + _PIECE])
        for first in range(0, len(logits), _PIECE)
    ]
    if not found:
        return np.empty(0)
    return np.asarray(torch.cat(found).flatten().double().cpu().numpy())


def rows_at_once(engine: Engine, batch_size: int, n_places: int, n_tokens: int) -> int:
    """Rows of a pass, of which so many logits are read that they fit into memory."""
    n_read = n_places if engine.takes_shortcuts else n_tokens
    return max(1, min(batch_size, MOST_LOGITS // (n_read * engine.n_vocabulary)))


def typical_gap(gaps: NDArray[np.float64], dtype: torch.dtype) -> float:
    """The gap that is held against rounding: the largest, in a short format the median.

    There a near tie between two experts may fall either way.
    """
    if not len(gaps):
        return 0.0
    return float(gaps.max() if dtype == torch.float32 else np.median(gaps))


def allowed_gap(dtype: torch.dtype, largest: float) -> float:
    """How far rounding may take log-probabilities of such a size."""
    return float(torch.finfo(dtype).eps ** 0.5 * max(1.0, largest))
