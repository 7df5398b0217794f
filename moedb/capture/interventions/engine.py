"""A forward pass with edits: many conditions in one batch, from any layer on, through nnsight."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import nnsight
import torch

from moedb.capture.interventions.layer_edits import Edit, LayerEdits
from moedb.capture.models.layer_ranges import skipping
from moedb.capture.structure.wiring import Read
from moedb.capture.tracing.logit_lens import LogitLens, Point, after_attention, entering
from moedb.capture.tracing.traced_model import TracedModel


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Attributes
    ----------
    token_ids
        The token ids of each row, of any lengths.
    edits
        What is changed, each on its own rows.
    start, stream
        The layer to start at, and the residual stream that enters it for each row, (position,
        d_model); without a stream the pass starts from the tokens.
    watched
        Layers at which to count the tokens whose experts are not the top-k of their logits.
    lens
        Whether to keep every stream that a logit lens reads, and not those entering layers alone.
    positions
        For each row the positions whose logits are read, one or more; None for its last token.
    """

    token_ids: tuple[Sequence[int], ...]
    edits: tuple[Edit, ...] = ()
    start: int = 0
    stream: tuple[torch.Tensor, ...] | None = None
    watched: frozenset[int] = field(default_factory=frozenset)
    lens: bool = False
    positions: tuple[Sequence[int], ...] | None = None


@dataclass(frozen=True)
class PassOutcome:
    """What came out of a pass, at each row's last token.

    Attributes
    ----------
    logits
        (row, vocabulary); of a pass with positions (position, vocabulary), those of a row together.
    residuals
        For each layer from the start on, (row, d_model): the residual stream that enters it, edits
        included; index n_layers is the stream after the last layer.
    middles
        The same between the attention and the MoE block of each layer that has one; empty unless
        for a logit lens.
    not_top_k
        For each watched layer the number of tokens whose experts are not the top-k.
    """

    logits: torch.Tensor
    residuals: Mapping[int, torch.Tensor]
    middles: Mapping[int, torch.Tensor]
    not_top_k: Mapping[int, int]

    def points(self, first_layer: int) -> dict[Point, torch.Tensor]:
        """The streams from that entering ``first_layer`` on, by their points."""
        found = {}
        for layer, stream in self.residuals.items():
            if layer >= first_layer:
                found[entering(layer)] = stream
                if layer in self.middles:
                    found[after_attention(layer)] = self.middles[layer]
        return found


class Engine:
    """A traced model that runs passes with edits.

    Parameters
    ----------
    traced
        The model, tapped and probed.
    lens
        Its logit lens, if there is to be one.

    Attributes
    ----------
    lens
        The logit lens; None without one.
    n_vocabulary, dtype
        The logits of a token, and the format that the model runs in.
    takes_shortcuts
        Whether passes leave out the layers before their start, and after the last layer all
        positions whose logits are not read. Off, a pass runs the whole model.
    """

    def __init__(self, traced: TracedModel, lens: LogitLens | None = None) -> None:
        self.lens = lens
        self.wiring = traced.wiring
        self.takes_shortcuts = True
        self._model = traced.model
        self.n_vocabulary = int(traced.model.get_input_embeddings().num_embeddings)
        self.dtype: torch.dtype = traced.model.dtype
        self._nnsight = nnsight.NNsight(traced.model)
        self._device = next(traced.model.parameters()).device
        self._layers_path = self.wiring.blocks[0].block.decoder_path.rpartition(".")[0]
        self._blocks = {wiring.block.layer: wiring for wiring in self.wiring.blocks}
        self._places = {layer: self._places_of(layer) for layer in range(self.wiring.n_layers + 1)}

    def _places_of(self, layer: int) -> list[tuple[tuple[Read, ...], Any]]:
        """The reads of a layer by the place that has them, in the order in which it runs."""
        own = [read for read in self.wiring.reads if read.layer == layer]
        streams = [read for read in own if read.role == "residual_pre"]
        attention = [read for read in self.wiring.attention if read.layer == layer]
        others = [read for read in own if read.role not in ("residual_pre", "logits")]
        return [
            (tuple(reads), self._nnsight.get(path) if path else self._nnsight)
            for (path, _), reads in groupby(
                [*streams, *attention, *others], key=lambda read: (read.path, read.side)
            )
        ]

    def run(self, batch: Pass) -> PassOutcome:
        """Run a pass, padded on the right."""
        lengths = torch.tensor([len(ids) for ids in batch.token_ids])
        longest = int(lengths.max())
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        padded = torch.zeros(mask.shape, dtype=torch.long)
        padded[mask] = torch.tensor([token for ids in batch.token_ids for token in ids])
        inputs = {
            "input_ids": padded.to(self._device),
            "attention_mask": mask.long().to(self._device),
            "use_cache": False,
        }
        start = batch.start if self.takes_shortcuts and batch.stream is not None else 0
        with (
            skipping(self._model, self._layers_path, start),
            torch.no_grad(),
            self._nnsight.trace(**inputs),
        ):
            found = nnsight.save([])
            found.append(self._walk(batch, start, (len(lengths), longest), lengths - 1))
        [outcome] = found
        return outcome  # type: ignore[no-any-return]

    def _walk(
        self, batch: Pass, start: int, shape: tuple[int, int], last: torch.Tensor
    ) -> PassOutcome:
        """Go through the layers as they run, and edit on the way."""
        residuals, middles, not_top_k = {}, {}, {}
        every_row = torch.arange(len(last))
        wanted_at, is_wanted = _places_read(batch.positions, last)
        tokens = torch.arange(shape[1])[None, :] <= last[:, None]
        n_layers = self.wiring.n_layers
        for layer in range(start, n_layers + 1):
            watched = tokens if layer in batch.watched else None
            edits = LayerEdits(layer, self._blocks.get(layer), batch.edits, shape, watched)
            wanted = edits.values | {"residual_pre"}
            if batch.lens:
                wanted |= {"residual_mid"}
            for place, envoy in self._places[layer]:
                reads = [read for read in place if read.role in wanted]
                if not reads:
                    continue
                value = envoy.inputs if reads[0].side == "input" else envoy.output
                seen = {read.role: read.pick(value) for read in reads}
                known: dict[str, torch.Tensor] = {}
                if start and layer == start and "residual_pre" in seen:
                    known["residual_pre"] = _padded(batch.stream or (), seen["residual_pre"])
                changed = known | edits.change(seen | known)
                if "residual_mid" in seen:
                    stream = seen["residual_mid"].reshape(*shape, -1)
                    middles[layer] = stream[every_row.to(stream.device), last.to(stream.device)]
                if "residual_pre" in seen:
                    stream = changed.get("residual_pre", seen["residual_pre"])
                    at = (every_row.to(stream.device), last.to(stream.device))
                    residuals[layer] = stream[at]
                    if layer == n_layers and self.takes_shortcuts:
                        changed["residual_pre"] = stream[at[0][:, None], wanted_at.to(at[0].device)]
                if changed:
                    for read in reads:
                        if read.role in changed:
                            value = read.put(value, changed[read.role])
                    if reads[0].side == "input":
                        envoy.inputs = value
                    else:
                        envoy.output = value
            if watched is not None:
                not_top_k[layer] = edits.n_not_top_k
        logits = self._nnsight.output.logits
        if not self.takes_shortcuts:
            logits = logits[every_row[:, None].to(logits.device), wanted_at.to(logits.device)]
        return PassOutcome(logits[is_wanted.to(logits.device)], residuals, middles, not_top_k)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Run every layer at every position for the time."""
        before, self.takes_shortcuts = self.takes_shortcuts, False
        try:
            yield
        finally:
            self.takes_shortcuts = before


def _places_read(
    positions: tuple[Sequence[int], ...] | None, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions whose logits are read, (row, place), filled up with the last; and which are."""
    if positions is None:
        return last[:, None], torch.ones(len(last), 1, dtype=torch.bool)
    sizes = torch.tensor([len(each) for each in positions])
    is_wanted = torch.arange(int(sizes.max()))[None, :] < sizes[:, None]
    found = last[:, None].repeat(1, is_wanted.shape[1])
    found[is_wanted] = torch.tensor([place for each in positions for place in each])
    return found, is_wanted


def _padded(stream: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The rows' streams, zero where there is no token, of the shape and format of ``like``."""
    found = torch.zeros_like(like)
    for row, values in enumerate(stream):
        found[row, : len(values)] = values.to(found.device, found.dtype)
    return found
