"""Making a model ready to be captured: tapped, probed, and tried on a small batch."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from moedb.capture.models.layer_ranges import only_first_layers
from moedb.capture.structure.blocks import MoEBlock, layer_kinds, n_first_layers
from moedb.capture.structure.probing.model_probe import probe
from moedb.capture.structure.taps import tapped
from moedb.capture.structure.wiring import Wiring, extended, reading_neurons
from moedb.capture.tracing.activations import BatchActivations
from moedb.capture.tracing.checks import check_batch
from moedb.capture.tracing.model_end import ModelEnd
from moedb.capture.tracing.traced_model import TracedModel, rounding
from moedb.capture.tracing.tracer import Tracer
from moedb.errors import CheckError, ModelError


@contextmanager
def traced(
    model: Any,
    blocks: Sequence[MoEBlock],
    neurons: Collection[int] = (),
    shared_neurons: Collection[int] = (),
) -> Iterator[TracedModel]:
    """Tap ``model``, probe it, and leave it as it was found.

    Of a model whose weights come from the disk only the first layers run for that.

    Parameters
    ----------
    model, blocks
        The model, and its blocks.
    neurons, shared_neurons
        The layers whose experts' hidden units are read, and those whose shared expert's are.

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
            rehearsed = _rehearse(Tracer(model, wiring), plain)
        wanted = {"dense_neurons": neurons, "shared_neurons": shared_neurons}
        whole_wiring = extended(wiring, blocks, kinds, layers_path)
        whole = Tracer(model, reading_neurons(whole_wiring, wanted))
        yield TracedModel(whole, rehearsed, _end(model, wiring, rehearsed))


def _end(model: Any, wiring: Wiring, rehearsed: BatchActivations) -> ModelEnd | None:
    """The model's end, where it is no more than norm and unembedding."""
    stream, logits = rehearsed.residual_pre[wiring.n_layers], rehearsed.logits
    try:
        return ModelEnd(model, wiring, stream, logits, rounding(logits))
    except ModelError:
        return None


_REHEARSAL = ((0, 1, 2, 3, 4), (5, 6))
"""Token ids that every vocabulary has; the shorter is padded."""


def _plain_logits(model: Any) -> torch.Tensor:
    """The untouched model's logits of the first, which fills its row of the batch."""
    ids = torch.tensor([_REHEARSAL[0]], device=next(model.parameters()).device)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0]


def _rehearse(tracer: Tracer, plain: torch.Tensor) -> BatchActivations:
    """Capture a small batch and hold it against the model's arithmetic and a plain forward."""
    batch = tracer.run(_REHEARSAL)
    name = type(tracer.model).__name__
    try:
        check_batch(batch, tracer.wiring.blocks)
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
