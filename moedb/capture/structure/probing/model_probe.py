"""Learning a model's wiring from one small forward pass.

Nothing is known of a model family here. Values are found by what they are: the router's logits by
the rule that makes the weights of them, the shared expert by the sum that its output belongs to,
the norm before the block by its output being the block's input. A model where one of them is not
found is refused.
"""

from collections.abc import Sequence
from typing import Any

import torch

from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.forward_recording import Recording, Seen, recorded
from moedb.capture.structure.probing.block_probe import BlockProbe
from moedb.capture.structure.probing.dense_probe import wire_dense
from moedb.capture.structure.wiring import Read, Wiring
from moedb.errors import ModelError

N_TOKENS = 16


def probe(model: Any, blocks: Sequence[MoEBlock]) -> Wiring:
    """Run a few tokens through the tapped ``model`` and learn where its values are.

    Parameters
    ----------
    model
        A transformers causal language model whose experts are tapped.
    blocks
        Its MoE blocks.

    Raises
    ------
    ModelError
        If a block is wired in a way that a capture could not read; the message names the module.
    """
    embeddings = model.get_input_embeddings()
    device = next(model.parameters()).device
    ids = torch.linspace(0, embeddings.num_embeddings - 1, N_TOKENS, device=device).long()
    with torch.no_grad(), recorded(model, N_TOKENS) as recording:
        model(input_ids=ids.unsqueeze(0), use_cache=False)
    d_model = embeddings.embedding_dim
    layers_path = blocks[0].decoder_path.rpartition(".")[0]
    n_layers = len(model.get_submodule(layers_path))
    found: list[tuple[str, int, Seen]] = []
    wirings = []
    after_attention = {}
    for block in blocks:
        if block.decoder_path != f"{layers_path}.{block.layer}":
            raise ModelError(f"{block.decoder_path}: expected a layer of {layers_path}")
        if block.form == "dense":
            wiring, seen = wire_dense(model, recording, block, d_model)
        else:
            wiring, seen = BlockProbe(model, recording, block, d_model).wire()
        wirings.append(wiring)
        found.extend((role, block.layer, each) for role, each in seen)
        after_attention[block.layer] = block, dict(seen)["residual_mid"]
    attention = []
    for layer in range(n_layers):
        stream = _stream(recording, f"{layers_path}.{layer}", d_model)
        found.append(("residual_pre", layer, stream))
        if layer in after_attention:
            write = _attention_output(recording, *after_attention[layer], stream)
            if write is not None:
                attention.append(Read.of("attention_output", layer, write))
    final = _final_norm(recording, layers_path)
    found.append(("residual_pre", n_layers, _stream(recording, final, d_model)))
    logits = [seen for seen in recording.of("", "output") if seen.key == "logits"]
    if not logits:
        raise ModelError(f"{type(model).__name__}: expected an output with logits, found none")
    found.append(("logits", n_layers, logits[0]))
    found.sort(key=lambda each: each[2].position)
    reads = tuple(
        Read.of(role, layer, seen, recording.was_overwritten(seen)) for role, layer, seen in found
    )
    return Wiring(tuple(wirings), reads, n_layers, d_model, tuple(attention))


def _stream(recording: Recording, path: str, d_model: int) -> Seen:
    """The residual stream among a module's arguments."""
    for seen in recording.of(path, "input"):
        if seen.value.is_floating_point() and seen.value.shape == (1, N_TOKENS, d_model):
            return seen
    shapes = [tuple(seen.value.shape) for seen in recording.of(path, "input")]
    raise ModelError(
        f"{path}: expected to read a residual stream (batch, position, {d_model}), found {shapes}"
    )


def _attention_output(
    recording: Recording, block: MoEBlock, after: Seen, before: Seen
) -> Seen | None:
    """The module output that, added to the stream entering the layer, gives the one after it."""
    fits = []
    for seen in recording.under(block.decoder_path, "output"):
        if (
            seen.position < after.position
            and seen.value.is_floating_point()
            and seen.rows.shape == before.rows.shape == after.rows.shape
        ):
            magnitude = before.rows.abs() + seen.rows.abs()
            allowed = 2 * torch.finfo(seen.value.dtype).eps * magnitude
            if bool(((before.rows + seen.rows - after.rows).abs() <= allowed).all()):
                fits.append(seen)
    # Of modules that hand on one value, the last one's output is what the stream is added to.
    return fits[-1] if fits else None


def _final_norm(recording: Recording, layers_path: str) -> str:
    """The module that reads the residual stream after the last decoder block."""
    model_path = layers_path.rpartition(".")[0]
    last = max(seen.position for seen in recording.under(layers_path, "output"))
    for seen in recording.under(model_path, "input"):
        if seen.position > last and "." not in seen.path.removeprefix(f"{model_path}."):
            return seen.path
    raise ModelError(f"{model_path}: expected a final norm after the last layer, found none")
