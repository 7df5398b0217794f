"""Tensors that are still to be made of what a checkpoint holds.

transformers' rules for a checkpoint's tensors stack, join and cast them, and every step takes fresh
memory. Applied to deferred tensors they only tell what is to be done; :func:`write` then does it
straight into the memory in which a weight belongs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from moedb.capture.models.streaming.stored_tensors import ReadableTensor

_aten = torch.ops.aten

_SAME_VALUES = (_aten.alias.default, _aten.detach.default, _aten.clone.default)


@dataclass(frozen=True)
class _Call:
    """One of the results of an operation."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: int | None


class Deferred(torch.Tensor):
    """A tensor without values, which knows what they will be made of.

    Attributes
    ----------
    like
        A tensor of its shape and format on the meta device.
    source
        What it is made of.
    """

    like: torch.Tensor
    source: ReadableTensor | _Call

    @staticmethod
    def __new__(cls, like: torch.Tensor, source: ReadableTensor | _Call) -> "Deferred":
        """Make one; see the class."""
        made: Deferred = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device
        )
        made.like, made.source = like, source
        return made

    def __init__(self, like: torch.Tensor, source: ReadableTensor | _Call) -> None:
        super().__init__()

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Note an operation, instead of computing it.

        Raises
        ------
        NotImplementedError
            If it changes a tensor in place, or gives something that is no tensor.
        """
        if function._schema.is_mutable:
            raise NotImplementedError(f"{function} on a deferred tensor")
        kwargs = kwargs or {}
        metas = pytree.tree_map(_like, (args, kwargs))
        result = function(*metas[0], **metas[1])
        if isinstance(result, torch.Tensor):
            return cls(result, _Call(function, args, kwargs, None))
        if not isinstance(result, (list, tuple)):
            raise NotImplementedError(f"{function} on a deferred tensor")
        calls = [_Call(function, args, kwargs, index) for index in range(len(result))]
        return type(result)(map(cls, result, calls))


def deferred(stored: ReadableTensor) -> Deferred:
    """Defer the reading of a tensor."""
    return Deferred(torch.empty(stored.shape, dtype=stored.dtype, device="meta"), stored)


def write(value: torch.Tensor, target: torch.Tensor) -> None:
    """Make a tensor, deferred or not, in ``target``, which has its shape and format."""
    if not isinstance(value, Deferred):
        target.copy_(value)
        return
    source = value.source
    if not isinstance(source, _Call):
        source.copy_to(target)
    elif source.function is _aten.stack.default:
        for part, place in zip(source.args[0], target.unbind(_dimension(source)), strict=True):
            write(part, place)
    elif source.function is _aten.cat.default:
        parts, dimension = source.args[0], _dimension(source)
        places = torch.split(target, [part.shape[dimension] for part in parts], dimension)
        for part, place in zip(parts, places, strict=True):
            write(part, place)
    elif source.function in _SAME_VALUES or (
        source.function is _aten._to_copy.default and target.dtype == value.dtype
    ):
        write(source.args[0], target)
    else:
        target.copy_(_made(value))


def _made(value: Any) -> Any:
    """The value in memory of its own."""
    if not isinstance(value, Deferred):
        return value
    call = value.source
    if not isinstance(call, _Call):
        return call[...]
    args, kwargs = pytree.tree_map(_made, (call.args, call.kwargs))
    if "device" in kwargs:
        kwargs["device"] = torch.device("cpu")
    result = call.function(*args, **kwargs)
    return result if call.index is None else result[call.index]


def _like(value: Any) -> Any:
    return value.like if isinstance(value, Deferred) else value


def _dimension(call: _Call) -> int:
    return int(call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0))
