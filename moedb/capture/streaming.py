"""Models larger than memory: weights that come from the disk layer by layer, as they are needed.

Each forward reads the checkpoint once, from first layer to last, so batches should be large. The
next layer is read while the present one runs. transformers' own rules turn the checkpoint's tensors
into the model's, one layer at a time; nothing is written to the disk.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging

from moedb.capture.blocks import find_blocks
from moedb.capture.checkpoints import (
    DTYPES,
    Checkpoint,
    load_config,
    load_model,
    load_skeleton,
    weight_files,
)
from moedb.capture.machine import keep_freed_memory
from moedb.errors import ModelError, UsageError

FREE_SHARE = 0.6
"""Share of the free memory that weights may take; the rest is for activations."""

Slices = Mapping[str, Any]
"""Tensors of a checkpoint by their names there, not read yet."""


@dataclass(frozen=True)
class Placement:
    """What a model runs in, and where its weights go.

    Attributes
    ----------
    dtype, device
        What the model runs in and on.
    max_bytes
        Bytes of weights to hold at most. None: as much as is free, less what a forward needs; and
        all on a device of its own memory.
    device_map
        How transformers spreads the layers over several devices, instead of ``device``.
    """

    dtype: str
    device: str
    max_bytes: int | None = None
    device_map: str | None = None


class StreamedLayers:
    """The decoder layers of a model, whose weights are in memory only while they are needed.

    Parameters
    ----------
    model
        The model; all else in it is loaded.
    layers_path
        Where its decoder layers are; they have no weights yet.
    sources
        For each layer its tensors in the checkpoint.
    load
        What `convert_and_load_state_dict_in_model` is told.
    n_resident
        How many of the first layers stay in memory once they are read.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers_path: str,
        sources: Sequence[Slices],
        load: LoadStateDictConfig,
        n_resident: int,
    ) -> None:
        self._model = model
        self._layers_path = layers_path
        self._layers = list(model.get_submodule(layers_path).children())
        self._sources = sources
        self._load = load
        self._n_resident = n_resident
        self._reading: dict[int, Future[None]] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have each layer fetch its weights before it runs, and drop them after."""
        with ExitStack() as stack:
            self._reader = stack.enter_context(
                ThreadPoolExecutor(1, thread_name_prefix="moedb-weights")
            )
            for index, layer in enumerate(self._layers):
                stack.callback(layer.register_forward_pre_hook(self._before(index)).remove)
                stack.callback(layer.register_forward_hook(self._after(index)).remove)
            yield

    def _before(self, index: int) -> Any:
        def fetch(module: nn.Module, inputs: Any) -> None:
            self._start(index)
            self._reading.pop(index).result()
            # Fewer than all while only the first ones run.
            n_layers = len(list(self._model.get_submodule(self._layers_path).children()))
            following = (index + 1) % n_layers
            if following != index:  # a layer that is alone is dropped before it runs again
                self._start(following)

        return fetch

    def _after(self, index: int) -> Any:
        def drop(module: nn.Module, inputs: Any, output: Any) -> None:
            if index >= self._n_resident:
                forget_weights(module)

        return drop

    def _start(self, index: int) -> None:
        if index not in self._reading:
            self._reading[index] = self._reader.submit(self._read, index)

    def _read(self, index: int) -> None:
        if any(parameter.is_meta for parameter in self._layers[index].parameters()):
            _fill(self._model, self._sources[index], self._load)
            check_filled(self._layers[index], f"layer {index}")


def forget_weights(module: nn.Module) -> None:
    """Leave of every parameter but its shape."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            empty = torch.empty_like(parameter, device="meta")
            setattr(part, name, nn.Parameter(empty, requires_grad=False))


def check_filled(module: nn.Module, where: str) -> None:
    """Check that every parameter of ``module`` has a value.

    Raises
    ------
    ModelError
        If one has none; the message names it.
    """
    missing = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    if missing:
        raise ModelError(
            f"the checkpoint lacks {len(missing)} tensors of {where}, such as {missing[0]}",
            "it is incomplete; download it again",
        )


def _fill(model: PreTrainedModel, source: Slices, load: LoadStateDictConfig) -> None:
    try:
        info, _ = convert_and_load_state_dict_in_model(model, dict(source), load)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        first = next(iter(source), "none")
        raise ModelError(f"the tensors around {first} cannot be loaded: {error}") from error
    if info.mismatched_keys or info.conversion_errors:
        wrong = [*map(str, info.mismatched_keys), *map(str, info.conversion_errors)]
        raise ModelError(f"the checkpoint does not fit its configuration: {wrong[0]}")


@contextmanager
def opened_model(checkpoint: Checkpoint, placement: Placement) -> Iterator[PreTrainedModel]:
    """Open a checkpoint for inference, streamed where its weights are too large.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    placement
        What it runs in, and where its weights go.

    Raises
    ------
    UsageError, ModelError
        As `load_model` and `streamed_model` do.
    """
    dtype, device, max_bytes = placement.dtype, placement.device, placement.max_bytes
    if placement.device_map is not None:
        keep_freed_memory()
        yield load_model(checkpoint, dtype, placement.device_map)
        return
    if max_bytes is None:
        on_cpu = device == "cpu"
        max_bytes = int(FREE_SHARE * psutil.virtual_memory().available) if on_cpu else None
    if max_bytes is None or weight_bytes(checkpoint, dtype) <= max_bytes:
        # Not for a streamed model: what is freed there differs in size, and would pile up.
        keep_freed_memory()
        yield load_model(checkpoint, dtype, device)
        return
    with streamed_model(checkpoint, dtype, device, max_bytes) as model:
        yield model


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """Bytes of a checkpoint's weights once they are loaded as ``dtype``."""
    n_values = sum(parameter.numel() for parameter in load_skeleton(checkpoint).parameters())
    return int(n_values * DTYPES[dtype].itemsize)


@contextmanager
def streamed_model(
    checkpoint: Checkpoint, dtype: str, device: str, max_bytes: int
) -> Iterator[PreTrainedModel]:
    """Open a checkpoint without loading its decoder layers.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    dtype, device
        What the model runs in and on.
    max_bytes
        Bytes of weights to hold at most; what two layers and all but the layers need is the least.

    Raises
    ------
    UsageError
        If ``max_bytes`` is less than that.
    ModelError
        If the weights do not fit the configuration.
    """
    logging.disable_progress_bar()
    config = load_config(checkpoint)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    path = find_blocks(model)[0].decoder_path.rpartition(".")[0]
    layers = list(model.get_submodule(path).children())
    load = LoadStateDictConfig(
        dtype=DTYPES[dtype],
        device_map={"": device},
        weight_mapping=get_model_conversion_mapping(model),
    )
    with ExitStack() as stack:
        sources, rest = _slices(weight_files(checkpoint.folder), path, len(layers), stack)
        _fill(model, rest, load)
        model.tie_weights()
        _check_rest(model, path)
        sizes = [_n_bytes(layer) for layer in layers]
        fixed = _n_bytes(model, only_filled=True)
        room = max_bytes - fixed - 2 * max(sizes)
        if room < 0:
            least = (fixed + 2 * max(sizes)) / 1e9
            raise UsageError(
                f"--max-memory {max_bytes / 1e9:.1f}: {checkpoint.name} in {dtype} needs "
                f"{least:.1f} GB, for two layers and what is not in a layer"
            )
        n_resident = 0
        while n_resident < len(layers) and sum(sizes[: n_resident + 1]) <= room:
            n_resident += 1
        for name, buffer in model.named_buffers():
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = buffer.to(device)
        streamed = StreamedLayers(model, path, sources, load, n_resident)
        stack.enter_context(streamed.attached())
        yield model.eval()


def _check_rest(model: PreTrainedModel, layers_path: str) -> None:
    outside = {
        name
        for name, parameter in model.named_parameters()
        if parameter.is_meta and not name.startswith(f"{layers_path}.")
    }
    if outside:
        raise ModelError(
            f"the checkpoint lacks {len(outside)} tensors, such as {min(outside)}",
            "it is incomplete; download it again",
        )


def _n_bytes(module: nn.Module, only_filled: bool = False) -> int:
    return sum(
        parameter.numel() * parameter.element_size()
        for parameter in module.parameters()
        if not (only_filled and parameter.is_meta)
    )


def _slices(
    files: Sequence[Path], layers_path: str, n_layers: int, stack: ExitStack
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The checkpoint's tensors for each layer, and those of no layer; none is read."""
    sources: list[dict[str, Any]] = [{} for _ in range(n_layers)]
    rest: dict[str, Any] = {}
    # The base model's prefix may be missing from the names.
    leaf = re.escape(layers_path.rpartition(".")[2])
    in_layer = re.compile(rf"(?:^|\.){leaf}\.(\d+)\.")
    for file in files:
        # Mapped pages would count as the process's memory.
        opened = stack.enter_context(safe_open(file, framework="pt", backend="pread"))
        for name in opened.keys():  # noqa: SIM118
            match = in_layer.search(name)
            layer = int(match.group(1)) if match else n_layers
            (sources[layer] if layer < n_layers else rest)[name] = opened.get_slice(name)
    return sources, rest
