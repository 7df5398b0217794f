"""Learning where the values of a dense model's feed-forward layer are."""

from typing import Any

from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.feed_forward import feed_forward
from moedb.capture.structure.forward_recording import Recording, Seen
from moedb.capture.structure.probing.block_probe import find_residual_mid
from moedb.capture.structure.router_rule import RouterRule
from moedb.capture.structure.wiring import BlockWiring
from moedb.errors import ModelError


def wire_dense(
    model: Any, recording: Recording, block: MoEBlock, d_model: int
) -> tuple[BlockWiring, list[tuple[str, Seen]]]:
    """Find what a feed-forward layer reads, its hidden units and its output.

    The expert's output is read off the down projection, and the block's off the layer: they are
    held against each other in every batch.

    Parameters
    ----------
    model, recording
        The model, and what was seen of it.
    block
        The layer.
    d_model
        Width of the residual stream.

    Raises
    ------
    ModelError
        If the layer did not run as one down projection after its hidden units.
    """
    found = feed_forward(model.get_submodule(block.path))
    down = f"{block.path}.{found.down}" if found else block.path
    inputs, outputs = recording.of(block.path, "input"), recording.of(block.path, "output")
    neurons, written = recording.of(down, "input"), recording.of(down, "output")
    if not (inputs and outputs and neurons and written):
        raise ModelError(f"{block.path}: expected to run in a forward pass, did not")
    shape = (recording.n_tokens, d_model)
    if inputs[0].rows.shape != shape or outputs[0].rows.shape != shape:
        raise ModelError(f"{block.path}: expected to read and write {d_model} values for a token")
    if neurons[0].rows.shape != (recording.n_tokens, block.d_expert):
        raise ModelError(f"{down}: expected to read {block.d_expert} values for a token")
    if not written[0].equals(outputs[0].rows):
        raise ModelError(f"{block.path}: expected its output to be that of {down}, it is not")
    mid = find_residual_mid(recording, block, inputs[0].rows, inputs[0])
    wiring = BlockWiring(
        block, "", RouterRule("none", False), has_shared_expert=False, has_shared_gate=False
    )
    return wiring, [
        ("residual_mid", mid),
        ("router_input", inputs[0]),
        ("dense_neurons", neurons[0]),
        ("dense_outputs", written[0]),
        ("block_output", outputs[0]),
    ]
