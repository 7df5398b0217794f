"""Watching a forward pass: every tensor that goes into a module or comes out of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from moedb.capture.structure.tap_wrappers import Key

Side = Literal["input", "output"]


@dataclass(frozen=True, eq=False)
class Seen:
    """One tensor, as a module's input or output.

    Attributes
    ----------
    path, side, key
        The module, and where the tensor is among its arguments or in its output.
    value
        A copy.
    position
        When it was seen. Tensors of one input or one output have the same position.
    """

    path: str
    side: Side
    key: Key | None
    value: torch.Tensor
    position: int

    @property
    def rows(self) -> torch.Tensor:
        """(token, width), in double precision where it is a floating-point tensor."""
        rows = self.value.reshape(-1, self.value.shape[-1]) if self.value.dim() else self.value
        return rows.double() if rows.is_floating_point() else rows

    def equals(self, rows: torch.Tensor) -> bool:
        """Whether it has these rows, in double precision."""
        return self.value.is_floating_point() and torch.equal(self.rows, rows)


class Recording:
    """What was seen of the first call of every module, in the order in which it came up."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens
        self.seen: list[Seen] = []
        self._started: set[tuple[str, Side]] = set()
        self._versions: list[tuple[torch.Tensor, int]] = []
        self._position = 0

    def add(self, path: str, side: Side, values: dict[Key | None, Any]) -> None:
        """Record one input or output of a module, unless it was called before."""
        if (path, side) in self._started:
            return
        self._started.add((path, side))
        self._position += 1
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                self.seen.append(Seen(path, side, key, value.clone(), self._position))
                self._versions.append((value, value._version))

    def of(self, path: str, side: Side) -> list[Seen]:
        """The tensors of one module's input or output; empty where it did not run."""
        return [seen for seen in self.seen if seen.path == path and seen.side == side]

    def under(self, path: str, side: Side) -> list[Seen]:
        """The tensors of the modules inside the one at ``path``."""
        return [
            seen for seen in self.seen if seen.path.startswith(f"{path}.") and seen.side == side
        ]

    def was_called(self, path: str) -> bool:
        """Whether the module ran."""
        return (path, "input") in self._started

    def was_overwritten(self, seen: Seen) -> bool:
        """Whether the model changed the tensor in place after it was seen."""
        value, version = self._versions[self.seen.index(seen)]
        return value._version != version


@contextmanager
def recorded(model: nn.Module, n_tokens: int) -> Iterator[Recording]:
    """Record what the modules of ``model`` read and write, given ``n_tokens`` tokens."""
    recording = Recording(n_tokens)
    handles = []
    for path, module in model.named_modules():

        def before(_: Any, args: Any, kwargs: Any, path: str = path) -> None:
            recording.add(path, "input", {**dict(enumerate(args)), **kwargs})

        def after(_: Any, args: Any, output: Any, path: str = path) -> None:
            recording.add(path, "output", _tensors(output))

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> dict[Key | None, Any]:
    if isinstance(output, tuple):
        return dict(enumerate(output))
    if hasattr(output, "logits"):
        return {"logits": output.logits}
    return {None: output}
