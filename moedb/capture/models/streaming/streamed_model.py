"""Models larger than memory: weights that come from the disk layer by layer, as they are needed.

Each forward reads the checkpoint once, from first layer to last, so batches should be large. The
next layer is read while the present one runs. transformers' own rules turn the checkpoint's tensors
into the model's, one layer at a time; nothing is written to the disk. What GPTQ quantized is
dequantized as it is read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging

from moedb.capture.models.checkpoints import Checkpoint, weight_files
from moedb.capture.models.layer_ranges import only_first_layers
from moedb.capture.models.loading.pretrained import DTYPES, load_config
from moedb.capture.models.loading.quantized import gptq_settings
from moedb.capture.models.streaming.gptq_weights import check_unused_biases, with_gptq_weights
from moedb.capture.models.streaming.layer_weights import Weights
from moedb.capture.models.streaming.stored_tensors import ReadableTensor, stored_tensors
from moedb.capture.structure.blocks import experts_modules
from moedb.capture.structure.dense_blocks import find_layers
from moedb.errors import UsageError


class StreamedLayers:
    """The decoder layers of a model, whose weights are in memory only while they are needed.

    The memory is taken once: a layer's weights are read over those of the layer before the last.

    Parameters
    ----------
    model
        The model; all else in it is loaded.
    layers_path
        Where its decoder layers are; they have no weights yet.
    weights
        Each layer's weights in the checkpoint.
    device
        Where they go.
    reader
        Reads them.
    n_resident
        How many of the first layers stay in memory once they are read.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers_path: str,
        weights: Sequence[Weights],
        device: str,
        reader: Executor,
        n_resident: int,
    ) -> None:
        self._model = model
        self._layers_path = layers_path
        self._layers = list(model.get_submodule(layers_path).children())
        self._weights = weights
        self._device = device
        self._reader = reader
        self._n_resident = n_resident
        self._memory: dict[int, torch.Tensor] = {}
        self._running = 0
        self._first = 0

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have each layer fetch its weights before it runs."""
        with ExitStack() as stack:
            for index, layer in enumerate(self._layers):
                stack.callback(layer.register_forward_pre_hook(self._before(index)).remove)
            yield

    def _before(self, index: int) -> Any:
        def fetch(module: nn.Module, inputs: Any) -> None:
            if index <= self._running:  # a new pass, which may begin at any layer
                self._first = index
            self._running = index
            self._reader.submit(self._read, index).result()
            # Fewer than all while only the first ones run.
            n_layers = len(list(self._model.get_submodule(self._layers_path).children()))
            following = index + 1 if index + 1 < n_layers else self._first
            if following != index:
                self._reader.submit(self._read, following)

        return fetch

    def _read(self, index: int) -> None:
        """Read a layer's weights, unless they are there; only ever in the reader's thread."""
        if index in self._memory:
            return
        weights = self._weights[index]
        memory = self._taken(index)
        # Only once all are read does the layer have any.
        weights.put(weights.read(memory))
        self._memory[index] = memory

    def _taken(self, index: int) -> torch.Tensor:
        """Memory for a layer: for one that stays its own, for another one of two."""
        if index < self._n_resident:
            return _memory(self._weights[index].n_bytes, self._device)
        passing = [other for other in self._memory if other >= self._n_resident]
        if len(passing) < 2:
            return _memory(max(each.n_bytes for each in self._weights), self._device)
        oldest = next(other for other in passing if other != self._running)
        self._weights[oldest].forget()
        return self._memory.pop(oldest)


@contextmanager
def _reading_thread() -> Iterator[Executor]:
    """A thread that reads weights and uses no others.

    Helpers of its own would wait busily for every block that it reads, on the processors that run
    the model.
    """
    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, thread_name_prefix="moedb-weights") as reader:
        for set_up in (torch.get_num_threads, partial(torch.set_num_threads, 1)):
            reader.submit(set_up).result()  # being asked first, a thread takes the default
        torch.set_num_threads(n_threads)  # for this thread and later ones
        yield reader


def _memory(n_bytes: int, device: str) -> torch.Tensor:
    return torch.empty(n_bytes, dtype=torch.uint8, device=device)


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
        model = AutoModelForCausalLM.from_config(
            config, dtype=DTYPES[dtype], trust_remote_code=False
        )
    is_dense = next(experts_modules(model), None) is None
    path = find_layers(model, dense=is_dense)[0].decoder_path.rpartition(".")[0]
    layers = list(model.get_submodule(path).children())
    load = LoadStateDictConfig(
        dtype=DTYPES[dtype],
        device_map={"": device},
        weight_mapping=get_model_conversion_mapping(model),
    )
    with ExitStack() as stack:
        reader = stack.enter_context(_reading_thread())
        stored: Mapping[str, ReadableTensor]
        stored = stack.enter_context(stored_tensors(weight_files(checkpoint.folder)))
        quantization = gptq_settings(checkpoint)
        if quantization is not None:
            stored = with_gptq_weights(stored, quantization)
        by_layer, others = _by_layer(stored, path, len(layers))
        with only_first_layers(model, path, 0):
            model.tie_weights()  # what is tied need not be stored
            rest = Weights(model, model, others, load, "")
            memory = _memory(rest.n_bytes, device)
            rest.put(reader.submit(rest.read, memory).result())
            model.tie_weights()
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
        weights = [
            Weights(model, layer, stored_there, load, f" of layer {index}")
            for index, (layer, stored_there) in enumerate(zip(layers, by_layer, strict=True))
        ]
        for each in (rest, *weights):
            check_unused_biases(stored, each.unused)
        streamed = StreamedLayers(model, path, weights, device, reader, n_resident)
        stack.enter_context(streamed.attached())
        yield model.eval()


def _n_bytes(module: nn.Module, only_filled: bool = False) -> int:
    return sum(
        parameter.numel() * parameter.element_size()
        for parameter in module.parameters()
        if not (only_filled and parameter.is_meta)
    )


def _by_layer(
    stored: Mapping[str, ReadableTensor], layers_path: str, n_layers: int
) -> tuple[list[dict[str, ReadableTensor]], dict[str, ReadableTensor]]:
    """The checkpoint's tensors for each layer, and those of no layer."""
    by_layer: list[dict[str, ReadableTensor]] = [{} for _ in range(n_layers)]
    others: dict[str, ReadableTensor] = {}
    # The base model's prefix may be missing from the names.
    leaf = re.escape(layers_path.rpartition(".")[2])
    in_layer = re.compile(rf"(?:^|\.){leaf}\.(\d+)\.")
    for name, tensor in stored.items():
        match = in_layer.search(name)
        layer = int(match.group(1)) if match else n_layers
        (by_layer[layer] if layer < n_layers else others)[name] = tensor
    return by_layer, others
