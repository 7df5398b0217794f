"""Wrappers that tap experts which transformers' experts interface does not run.

A wrapper takes its module's place in the model for as long as the tap is on. The module inside
is called as it always is, so whatever hangs on it (offloading, quantized linear layers) works.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moedb.errors import ModelError

OUTPUTS = "moedb_outputs"
CHOICE = "moedb_choice"
INNER = "moedb_inner"

Key = int | str
"""Where a call has a value: its position, or the name of its keyword."""


class _Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.train(inner.training)
        self.add_module(INNER, inner)
        self.add_module(OUTPUTS, nn.Identity())

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__(INNER), name)


def routing_keys(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Key, Key] | None:
    """Find the chosen experts and their weights, both (token, rank), among a call's arguments."""
    given: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    tensors = [(key, value) for key, value in given if isinstance(value, torch.Tensor)]
    for key, indices in tensors:
        if indices.dim() != 2 or indices.is_floating_point() or indices.dtype == torch.bool:
            continue
        for other, weights in tensors:
            if weights.is_floating_point() and weights.shape == indices.shape:
                return key, other
    return None


class TappedExperts(_Wrapper):
    """Experts with a forward of their own, run once for each rank.

    Called with the expert of that rank and a weight of 1, they give its output. It is named twice,
    the second time with a weight of 0: some families cannot take a single expert for each token.
    """

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the experts, with a tap, and add up their weighted outputs."""
        keys = routing_keys(args, kwargs)
        if keys is None:
            inner = type(getattr(self, INNER)).__name__
            raise ModelError(f"{inner}: expected a call with (token, rank) indices and weights")
        call: dict[Key, Any] = dict(enumerate(args))
        call.update(kwargs)
        indices, weights = call[keys[0]], call[keys[1]]
        outputs = []
        like = torch.empty(0)
        for rank in range(indices.shape[1]):
            call[keys[0]] = indices[:, [rank, rank]]
            call[keys[1]] = weights.new_tensor([1.0, 0.0]).expand(len(indices), 2)
            like = getattr(self, INNER)(
                *(call[key] for key in range(len(args))), **{key: call[key] for key in kwargs}
            )
            outputs.append(like.reshape(len(indices), -1))
        tapped = getattr(self, OUTPUTS)(torch.stack(outputs, dim=1))
        total: torch.Tensor = (tapped * weights.unsqueeze(-1)).sum(dim=1)
        return total.to(like.dtype).view(like.shape)


@dataclass(frozen=True)
class _Rows:
    """What one expert did: its output rows, and the token and slot of each."""

    outputs: torch.Tensor
    tokens: torch.Tensor
    slots: torch.Tensor


class TappedList(_Wrapper):
    """A block that calls each expert of a list with the rows of the tokens that chose it.

    Which rows they are is told by their content: a hash of each row's bits is looked up among the
    block's input rows. Rows of equal content have equal routing, so any order among them is right.
    The chosen experts come out of the tap ``moedb_choice`` in ascending order, their outputs in
    that order out of ``moedb_outputs``. If those were edited, the block runs again with the edits.
    """

    def __init__(self, block: nn.Module, experts: str, path: str, top_k: int) -> None:
        super().__init__(block)
        self.add_module(CHOICE, nn.Identity())
        self._path = path
        self._top_k = top_k
        self._ran: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._edits: dict[int, torch.Tensor] = {}
        self._n_experts = len(block.get_submodule(experts))  # type: ignore[arg-type]
        self._handles = [
            expert.register_forward_hook(self._hook(index))
            for index, expert in enumerate(block.get_submodule(experts).children())
        ]

    def release(self) -> None:
        """Take the hooks off the experts."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, expert: int) -> Any:
        def after(_: Any, args: tuple[Any, ...], output: Any) -> Any:
            if self._edits:
                # An expert may be called several times; its rows come in the same order again.
                edited = self._edits[expert]
                n_rows = output.numel() // edited.shape[-1]
                self._edits[expert] = edited[n_rows:]
                return edited[:n_rows].view_as(output)
            if not args or not isinstance(output, torch.Tensor):
                raise ModelError(f"{self._path}: expected experts that map a tensor to a tensor")
            rows = (args[0].flatten(0, -2), output.flatten(0, -2))
            self._ran.setdefault(expert, []).append(rows)
            return None

        return after

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block, with taps."""
        self._ran.clear()
        inner = getattr(self, INNER)
        result = inner(*args, **kwargs)
        inputs = next(
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        )
        rows, choice = self._placed(_hashes(inputs.flatten(0, -2)))
        width = next(iter(rows.values())).outputs.shape[-1]
        outputs = inputs.new_zeros(*choice.shape, width)
        for row in rows.values():
            outputs[row.tokens, row.slots] = row.outputs.to(outputs.dtype)
        getattr(self, CHOICE)(choice)
        before = outputs.clone()
        edited = getattr(self, OUTPUTS)(outputs)
        if not torch.equal(edited, before):
            self._edits = {
                expert: edited[row.tokens, row.slots].to(row.outputs.dtype)
                for expert, row in rows.items()
            }
            try:
                result = inner(*args, **kwargs)
            finally:
                self._edits = {}
        self._ran.clear()
        return result

    def _placed(self, tokens: torch.Tensor) -> tuple[dict[int, _Rows], torch.Tensor]:
        """Find the tokens of every expert's rows, given the hashes of all tokens."""
        chosen = torch.zeros(len(tokens), self._n_experts, dtype=torch.bool, device=tokens.device)
        placed = {}
        for expert, calls in self._ran.items():
            hashes = torch.cat([_hashes(inputs) for inputs, _ in calls])
            here = torch.isin(tokens, hashes).nonzero().flatten()
            if len(here) != len(hashes):
                raise ModelError(
                    f"{self._path}: expected expert {expert} to be called with rows of the "
                    f"block's input; {len(here)} of its {len(hashes)} rows were found there"
                )
            placed[expert] = torch.empty_like(here)
            placed[expert][hashes.argsort(stable=True)] = here[tokens[here].argsort(stable=True)]
            chosen[here, expert] = True
        if not bool((chosen.sum(dim=1) == self._top_k).all()):
            raise ModelError(f"{self._path}: expected {self._top_k} experts to run for each token")
        slots = chosen.cumsum(dim=1) - 1
        rows = {
            expert: _Rows(
                torch.cat([outputs for _, outputs in self._ran[expert]]), here, slots[here, expert]
            )
            for expert, here in placed.items()
        }
        return rows, chosen.nonzero()[:, 1].view(-1, self._top_k)


def _hashes(rows: torch.Tensor) -> torch.Tensor:
    """(row,): a 64-bit hash of each row's bits, in exact arithmetic."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    bits = rows.contiguous().view(words).long()
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator)
    return ((bits + 1) * (factors.to(bits.device) | 1)).sum(dim=-1)
