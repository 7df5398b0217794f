"""The weights of a part of a model in its checkpoint, made by transformers' rules."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig

from moedb.capture.models.streaming.deferred import deferred, write
from moedb.capture.models.streaming.stored_tensors import ReadableTensor
from moedb.errors import ModelError

ALIGNMENT = 64
"""Bytes: tensors begin where a tensor of its own memory would."""


class Weights:
    """The weights of a module, which lacks them.

    Parameters
    ----------
    model
        The model that the module is in.
    module
        The module; its parameters are on the meta device.
    stored
        Its tensors in the checkpoint.
    load
        What transformers is told about the conversion.
    where
        What a message says about where a missing tensor belongs.

    Attributes
    ----------
    n_bytes
        Bytes of memory that its parameters take.
    unused
        The names of stored tensors for which the model has no place.

    Raises
    ------
    ModelError
        If the tensors do not fit the module, or one is missing; the message names it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        module: nn.Module,
        stored: Mapping[str, ReadableTensor],
        load: LoadStateDictConfig,
        where: str,
    ) -> None:
        self._model = model
        self._module = module
        self._stored = stored
        self._load = load
        self._where = where
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        rules = replace(load, device_map={"": "meta"})
        lazy = {name: deferred(tensor) for name, tensor in stored.items()}
        info, self._planned = self._converted(lazy, rules)
        self.unused = info.unexpected_keys & stored.keys()
        if info.conversion_errors:  # a rule that looks at values
            self._planned = None
        if self._planned is not None:
            self._check(self._planned)
        self.n_bytes = sum(map(_padded_bytes, self._parameters.values()))

    def read(self, memory: torch.Tensor) -> dict[str, torch.Tensor]:
        """Read and convert the weights.

        Parameters
        ----------
        memory
            Bytes in which to put the parameters, at least ``n_bytes``.

        Returns
        -------
        dict[str, torch.Tensor]
            The parameters, all of them in ``memory``, and buffers by their names in the module.

        Raises
        ------
        ModelError
            If they cannot be read, do not fit the module, or one is missing.
        """
        values = self._planned
        if values is None:
            info, values = self._converted(self._stored, self._load)
            if info.conversion_errors:
                raise _misfit(info.conversion_errors)
            self._check(values)
        found = {}
        start = 0
        for name, value in values.items():
            if name in self._parameters:
                n_bytes = value.numel() * value.element_size()
                target = memory[start : start + n_bytes].view(value.dtype).view(value.shape)
                start += _padded_bytes(value)
            else:
                target = torch.empty(value.shape, dtype=value.dtype, device=memory.device)
            write(value, target)
            found[name] = target
        return found

    def put(self, values: Mapping[str, torch.Tensor]) -> None:
        """Give the module what was read."""
        found = {
            name: nn.Parameter(value, requires_grad=False) if name in self._parameters else value
            for name, value in values.items()
        }
        shared = {id(self._parameters[name]): name for name in values if name in self._parameters}
        for name, parameter in self._parameters.items():
            found.setdefault(name, found[shared[id(parameter)]])
        _set(self._module, found)

    def forget(self) -> None:
        """Leave of every parameter of the module but its shape."""
        _set(self._module, self._parameters)

    def _converted(self, tensors: Mapping[str, Any], load: LoadStateDictConfig) -> tuple[Any, Any]:
        """What transformers makes of tensors, by name; the module stays as it is."""
        before = _named_tensors(self._module)
        try:
            info, _ = convert_and_load_state_dict_in_model(self._model, dict(tensors), load)
            made = {
                name: tensor
                for name, tensor in _named_tensors(self._module).items()
                if tensor is not before[name]
            }
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            first = next(iter(tensors), "none")
            raise ModelError(f"the tensors around {first} cannot be loaded: {error}") from error
        finally:
            _set(self._module, before)
        if info.mismatched_keys:
            raise _misfit(info.mismatched_keys)
        return info, made

    def _check(self, values: Mapping[str, torch.Tensor]) -> None:
        found = {id(self._parameters[name]) for name in values if name in self._parameters}
        missing = [name for name, each in self._parameters.items() if id(each) not in found]
        if missing:
            raise ModelError(
                f"the checkpoint lacks {len(missing)} tensors{self._where}, such as {missing[0]}",
                "it is incomplete; download it again",
            )


def _misfit(reasons: Iterable[Any]) -> ModelError:
    return ModelError(f"the checkpoint does not fit its configuration: {next(map(str, reasons))}")


def _padded_bytes(tensor: torch.Tensor) -> int:
    n_bytes = tensor.numel() * tensor.element_size()
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _set(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        kind: dict[str, Any] = owner._buffers if leaf in owner._buffers else owner._parameters
        kind[leaf] = tensor
