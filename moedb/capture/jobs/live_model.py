"""A transformers model that is loaded already, captured as it is in memory."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from moedb.capture.jobs.model_outline import ModelOutline
from moedb.capture.models.checkpoints import local_checkpoint
from moedb.capture.models.loading.pretrained import DTYPES
from moedb.capture.structure.dense_blocks import find_layers
from moedb.errors import ModelError, UsageError, first_line


@contextmanager
def live_outline(model: Any, tokenizer: Any, *, dense: bool = False) -> Iterator[ModelOutline]:
    """Describe a model that is loaded, as one would be described from its folder.

    It is saved to a temporary folder to be hashed, so that the run says of it what it would say of
    the folder that ``save_pretrained`` makes; the copy of the weights is deleted at once. Within
    the block the model is in evaluation mode, and after it as it was found.

    Parameters
    ----------
    model
        A causal language model of transformers, on one device.
    tokenizer
        Its tokenizer.
    dense
        Whether it is a dense model.

    Raises
    ------
    ModelError
        If it is no such model, cannot be saved, or has no MoE block that can be captured.
    UsageError
        If there is no tokenizer.
    """
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"expected a model of transformers, the name of one or a folder, got {type(model)}"
        )
    name = str(model.name_or_path or type(model).__name__)
    if tokenizer is None:
        raise UsageError(f"a model that is loaded comes with its tokenizer: {name} came alone")
    formats = {str(dtype): short for short, dtype in DTYPES.items()}
    if str(model.dtype) not in formats or any(p.is_meta for p in model.parameters()):
        raise ModelError(f"{name}: expected weights in memory in {', '.join(DTYPES)}")
    was_training = model.training
    with tempfile.TemporaryDirectory(prefix="moedb-model-") as folder:
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except Exception as error:  # each model family saves itself its own way
            raise ModelError(f"{name} cannot be saved: {first_line(error)}") from error
        checkpoint = replace(local_checkpoint(Path(folder)), name=name)
        for path in Path(folder).glob("*.safetensors"):
            path.unlink()
        try:
            blocks = tuple(find_layers(model, dense=dense))
            yield ModelOutline(checkpoint, model.eval(), blocks, is_live=True, is_dense=dense)
        finally:
            model.train(was_training)
