"""One forward pass of a batch, with everything that a capture wants read off by nnsight."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import nnsight
import torch

from moedb.capture.blocks import MoEBlock
from moedb.capture.checks import check_batch
from moedb.capture.ending import BatchLogits, ModelEnd
from moedb.capture.first_layers import (
    extended,
    layer_kinds,
    n_first_layers,
    only_first_layers,
)
from moedb.capture.probe import probe
from moedb.capture.tap import tapped
from moedb.capture.wiring import BlockWiring, Read, Wiring
from moedb.errors import CheckError, ModelError


@dataclass(frozen=True)
class LayerActivations:
    """What one MoE layer did with the tokens of a batch, padding left out.

    Experts, weights, outputs and neurons are in the order of their rank: by router score.

    Attributes
    ----------
    router_logits
        (token, expert).
    probabilities
        (token, expert): the router's full distribution.
    experts
        (token, rank).
    weights
        (token, rank).
    expert_outputs
        (token, rank, d_model), before the weights.
    shared_outputs
        (token, d_model), before the gate; None without a shared expert.
    shared_gate
        (token,): the factor on the shared expert's output; None without a shared expert.
    block_output
        (token, d_model).
    router_input
        (token, d_model).
    residual_mid
        (token, d_model); None where there is no residual stream.
    expert_neurons
        (token, rank, d_expert); None unless tapped.
    all_expert_outputs
        (token, expert, d_model), before any weight; None where only chosen experts ran.
    """

    router_logits: torch.Tensor
    probabilities: torch.Tensor
    experts: torch.Tensor
    weights: torch.Tensor
    expert_outputs: torch.Tensor
    shared_outputs: torch.Tensor | None
    shared_gate: torch.Tensor | None
    block_output: torch.Tensor
    router_input: torch.Tensor
    residual_mid: torch.Tensor | None = None
    expert_neurons: torch.Tensor | None = None
    all_expert_outputs: torch.Tensor | None = None


@dataclass(frozen=True)
class BatchActivations:
    """What the model did with a batch, padding left out, tokens in the order of the batch.

    Attributes
    ----------
    layers
        For each MoE layer what it did.
    residual_pre
        For each layer (token, d_model); index n_layers is the stream after the last layer.
    logits
        (token, vocabulary).
    """

    layers: dict[int, LayerActivations]
    residual_pre: dict[int, torch.Tensor]
    logits: torch.Tensor


class Reader(Protocol):
    """Takes what a batch does while the model runs, and keeps of it what it wants.

    All layers' values of a large batch would be larger than a large model.
    """

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        """The residual stream entering a layer, (token, d_model); n_layers is after the last."""

    def layer(self, layer: int, activations: LayerActivations) -> None:
        """What an MoE layer did."""


class _Everything:
    """Keeps it all."""

    def __init__(self) -> None:
        self.layers: dict[int, LayerActivations] = {}
        self.residual_pre: dict[int, torch.Tensor] = {}

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        self.residual_pre[layer] = residual

    def layer(self, layer: int, activations: LayerActivations) -> None:
        self.layers[layer] = activations


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
    """A model that is ready to be captured. Made by :func:`traced`.

    Attributes
    ----------
    rehearsed
        The small batch that was captured first, perhaps by the first layers alone.
    end
        What makes logits of the last stream; None where that is more than norm and unembedding.
    """

    rehearsed: BatchActivations
    end: ModelEnd | None = None

    def __init__(self, model: Any, wiring: Wiring) -> None:
        self.model = model
        self.wiring = wiring
        self._nnsight = nnsight.NNsight(model)
        self._device = next(model.parameters()).device
        self._n_vocabulary = model.get_input_embeddings().num_embeddings
        self._blocks = {found.block.layer: found for found in wiring.blocks}
        self._layers = [
            (layer, self._places(list(reads)))
            for layer, reads in groupby(wiring.reads, key=lambda read: read.layer)
        ]

    def _places(self, reads: Sequence[Read]) -> list[tuple[tuple[Read, ...], Any]]:
        """The reads by the module's side that has them, in the order in which the model runs."""
        return [
            (tuple(same), self._nnsight.get(path) if path else self._nnsight)
            for (path, _), same in groupby(reads, key=lambda read: (read.path, read.side))
        ]

    def run(self, token_ids: Sequence[Sequence[int]]) -> BatchActivations:
        """Run a batch of examples and keep everything.

        Parameters
        ----------
        token_ids
            The examples' token ids, of any lengths.
        """
        everything = _Everything()
        logits = self._read(token_ids, everything, False)
        return BatchActivations(everything.layers, everything.residual_pre, logits)

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
            logits = self._read(token_ids, reader, False)
            return BatchLogits(n_tokens, logits.__getitem__)
        end, last = self.end, _LastStream(reader, self.wiring.n_layers)
        own = self._read(token_ids, last, True)
        ends = lengths.cumsum(0)[:N_CHECKED] - 1
        found = end.logits(last.stream_after[ends.to(last.stream_after.device)])
        gap = float((found - own).abs().max())
        if not gap <= _rounding(own) * float(own.abs().max()):
            raise CheckError(
                f"the logits of the last tokens differ by {gap:.3g} from the unembedding of the "
                "normed last stream"
            )
        return BatchLogits(n_tokens, lambda rows: end.logits(last.stream_after[rows]))

    def _read(
        self, token_ids: Sequence[Sequence[int]], reader: Reader, only_last: bool
    ) -> torch.Tensor:
        """Run a batch; return the logits of all tokens, or of the first examples' last ones."""
        lengths = torch.tensor([len(ids) for ids in token_ids])
        longest = int(lengths.max())
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        padded = torch.zeros(len(token_ids), longest, dtype=torch.long)
        padded[mask] = torch.tensor([token for ids in token_ids for token in ids])
        kept = mask.flatten().nonzero().flatten()
        with (
            torch.no_grad(),
            self._nnsight.trace(
                input_ids=padded.to(self._device),
                attention_mask=mask.long().to(self._device),
                use_cache=False,
            ),
        ):
            found = nnsight.save([])
            found.append(self._walk(reader, kept, lengths[:N_CHECKED] - 1 if only_last else None))
        [logits] = found
        return logits  # type: ignore[no-any-return]

    def _walk(self, reader: Reader, kept: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """Go through the layers as they run, handing on what each did.

        With ``last``, a position for each of the first examples, only those go on after the last
        layer.
        """
        for layer, places in self._layers:
            roles: dict[str, torch.Tensor] = {}
            for reads, envoy in places:
                # A place that has several values is asked for once: the model passes it once.
                value = envoy.inputs if reads[0].side == "input" else envoy.output
                for read in reads:
                    if last is not None and read.role == "logits":
                        roles["logits"] = read.pick(value)[:, 0]
                        continue
                    tokens = _tokens(read.pick(value), read.role, kept)
                    # Several shared experts add up.
                    known = roles.get(read.role)
                    roles[read.role] = tokens if known is None else known + tokens
                ended = layer == self.wiring.n_layers and reads[0].role == "residual_pre"
                if last is not None and ended:
                    stream = reads[0].pick(value)
                    at = torch.arange(len(last), device=stream.device), last.to(stream.device)
                    envoy.inputs = reads[0].put(value, stream[at].unsqueeze(1))
            if "residual_pre" in roles:
                reader.stream(layer, roles["residual_pre"])
            if layer in self._blocks:
                reader.layer(layer, _layer(self._blocks[layer], roles))
        return roles["logits"]


def _tokens(value: torch.Tensor, role: str, kept: torch.Tensor) -> torch.Tensor:
    """A value by token, (token, ...), without padding."""
    tokens = value.reshape(-1, *value.shape[_FLAT.get(role, -1) :])
    return tokens if len(kept) == len(tokens) else tokens[kept.to(tokens.device)]


_FLAT = {"expert_outputs": -2, "expert_neurons": -2}
"""Where a token's own dimensions begin; for all other values it is the last."""


def _layer(wiring: BlockWiring, roles: Mapping[str, Any]) -> LayerActivations:
    logits, experts = roles["router_logits"], roles["experts"].long()
    # Some routers return their choice unsorted: rank is by score, whatever order the model used.
    by_rank = logits.gather(-1, experts).argsort(dim=-1, descending=True, stable=True)
    is_sorted = bool((by_rank[:, 1:] > by_rank[:, :-1]).all())

    def ranked(values: torch.Tensor) -> torch.Tensor:
        if is_sorted:  # spares a copy of the largest values that there are
            return values
        return values.gather(1, by_rank[..., None].expand(-1, -1, values.shape[-1]))

    block_output, shared = roles["block_output"], roles.get("shared_outputs")
    if wiring.shared_is_beside:
        block_output = block_output + shared
    gate = None
    if shared is not None:
        gate = torch.full_like(shared[:, 0], wiring.shared_scale)
    if wiring.has_shared_gate:
        gate = _scaled(roles["shared_gate"].sigmoid().flatten(), wiring.shared_scale)
    neurons = roles.get("expert_neurons")
    return LayerActivations(
        router_logits=logits,
        probabilities=wiring.rule.probabilities(logits),
        experts=experts.gather(-1, by_rank),
        weights=_weights(wiring, roles, experts).gather(-1, by_rank),
        expert_outputs=ranked(roles["expert_outputs"]),
        shared_outputs=shared,
        shared_gate=gate,
        block_output=block_output,
        router_input=roles["router_input"],
        residual_mid=roles["residual_mid"],
        expert_neurons=None if neurons is None else ranked(neurons),
    )


def _weights(wiring: BlockWiring, roles: Mapping[str, Any], experts: torch.Tensor) -> torch.Tensor:
    """(token, slot): the weights in the order of the tap."""
    if "weights" not in roles:
        weights = wiring.rule.weights(roles["router_logits"], experts)
        return weights.to(roles["block_output"].dtype)
    weights = roles["weights"]
    if "weights_order" in roles:
        weights = weights.gather(-1, roles["weights_order"].argsort(dim=-1))
    return _scaled(weights, wiring.routed_scale)


def _scaled(values: torch.Tensor, scale: float) -> torch.Tensor:
    # The product of two bfloat16 numbers is none, so it is kept in a wider format.
    return values if scale == 1 else values.float() * scale


@contextmanager
def traced(
    model: Any, blocks: Sequence[MoEBlock], neurons: Collection[int] = ()
) -> Iterator[TracedModel]:
    """Tap ``model``, probe it, and leave it as it was found.

    Of a model whose weights come from the disk only the first layers run for that.

    Raises
    ------
    ModelError
        If a block is wired in a way that a capture could not read, or what a capture would read
        of a small batch does not add up or differs from what the untouched model does.
    """
    layers_path = blocks[0].decoder_path.rpartition(".")[0]
    layers = list(model.get_submodule(layers_path).children())
    kinds = layer_kinds(layers, neurons)
    streamed = any(parameter.is_meta for parameter in model.parameters())
    n_layers = n_first_layers(kinds) if streamed else len(layers)
    with only_first_layers(model, layers_path, n_layers):
        plain = _plain_logits(model)
    with tapped(model, blocks, neurons):
        with only_first_layers(model, layers_path, n_layers):
            first = [block for block in blocks if block.layer < n_layers]
            wiring = probe(model, first)
            rehearsed = _rehearse(TracedModel(model, wiring), plain)
        traced_model = TracedModel(model, extended(wiring, blocks, kinds, layers_path))
        traced_model.rehearsed = rehearsed
        traced_model.end = _end(model, wiring, rehearsed)
        yield traced_model


def _end(model: Any, wiring: Wiring, rehearsed: BatchActivations) -> ModelEnd | None:
    """The model's end, where it is no more than norm and unembedding."""
    stream, logits = rehearsed.residual_pre[wiring.n_layers], rehearsed.logits
    try:
        return ModelEnd(model, wiring, stream, logits, _rounding(logits))
    except ModelError:
        return None


def _rounding(logits: torch.Tensor) -> float:
    """The share of the largest logit that the order of additions may change."""
    return 16 * torch.finfo(logits.dtype).eps


_REHEARSAL = ((0, 1, 2, 3, 4), (5, 6))
"""Token ids that every vocabulary has; the shorter is padded."""


def _plain_logits(model: Any) -> torch.Tensor:
    """The untouched model's logits of the first, which fills its row of the batch."""
    ids = torch.tensor([_REHEARSAL[0]], device=next(model.parameters()).device)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0]


def _rehearse(traced_model: TracedModel, plain: torch.Tensor) -> BatchActivations:
    """Capture a small batch and hold it against the model's arithmetic and a plain forward."""
    batch = traced_model.run(_REHEARSAL)
    name = type(traced_model.model).__name__
    try:
        check_batch(batch, traced_model.wiring.blocks)
    except CheckError as error:
        raise ModelError(f"{name} cannot be captured: {error}") from error
    expected = plain.double()
    gaps = (batch.logits[: len(expected)].double() - expected).abs().amax(dim=-1)
    # In a short format a near tie between two experts may fall either way, for a token or two.
    gap = float(gaps.max() if batch.logits.dtype == torch.float32 else gaps.median())
    allowed = torch.finfo(batch.logits.dtype).eps ** 0.5 * float(expected.abs().max())
    if not gap <= allowed:
        raise ModelError(
            f"{name}: expected the logits of a plain forward pass, with padding and the experts "
            f"tapped they differ by {gap:.3g}"
        )
    return batch
