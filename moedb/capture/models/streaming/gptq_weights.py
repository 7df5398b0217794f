"""Linear layers that GPTQ quantized, read as the weights that they stand for.

A layer is stored as codes of a few bits, packed into 32-bit words, and a scale and a zero point for
each output and group of inputs. Its weight is (code - zero point) * scale, which float32 holds
exactly.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from moedb.capture.models.streaming.stored_tensors import ReadableTensor
from moedb.errors import ModelError

PARTS = ("qweight", "qzeros", "scales", "g_idx")

FORMATS = ("gptq", "gptq_v2")
"""How zero points are stored: less one, or as they are."""

BITS = (2, 4, 8)
"""Bits of a code. Three do not divide a word, and are packed in another way."""

SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)

BLOCK_ROWS = 64
"""Outputs that are computed at a time: few, so that they are still in the processor's cache."""


@dataclass(frozen=True)
class GptqWeight:
    """The weight of a quantized layer, (output, input).

    Attributes
    ----------
    name
        The layer's path in the checkpoint.
    codes
        (input * bits / 32, output): the codes of consecutive inputs in one word, lowest bits first.
    zeros
        (group, output * bits / 32): the zero points of consecutive outputs in one word.
    scales
        (group, output).
    groups
        (input,): the group of each input.
    bits
        Bits of a code, one of ``BITS``.
    zeros_less_one
        Whether each zero point is stored less one.
    """

    name: str
    codes: ReadableTensor
    zeros: ReadableTensor
    scales: ReadableTensor
    groups: ReadableTensor
    bits: int
    zeros_less_one: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Outputs and inputs."""
        return (self.codes.shape[1], self.groups.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """A format that holds the weight exactly."""
        return torch.float32

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Make it; transformers asks for ``tensor[...]``."""
        made = torch.empty(self.shape, dtype=self.dtype)
        self.copy_to(made)
        return made[index]

    def copy_to(self, target: torch.Tensor) -> None:
        """Make it in ``target``, of the same shape and any format and device.

        Raises
        ------
        ModelError
            If an input's group is none of the layer's, or a file ends too early.
        """
        n_groups, n_in = self.scales.shape[0], self.groups.shape[0]
        groups = self.groups[...].long()
        if int(groups.min()) < 0 or int(groups.max()) >= n_groups:
            raise ModelError(
                f"{self.name}.g_idx: expected groups of 0 to {n_groups - 1}, found "
                f"{int(groups.min())} to {int(groups.max())}",
                "the checkpoint is damaged; download it again",
            )
        words = self.codes[...].T.contiguous()
        zeros = self._zeros().float()
        scales = self.scales[...].float().T.contiguous()
        in_turn = n_in % n_groups == 0 and torch.equal(
            groups, torch.arange(n_in) // (n_in // n_groups)
        )

        def by_input(values: torch.Tensor) -> torch.Tensor:
            return values[:, :, None] if in_turn else values[:, groups]

        for first in range(0, len(words), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            block = unpacked(words[rows], self.bits).float()
            values = block.view(len(block), n_groups, -1) if in_turn else block
            values.sub_(by_input(zeros[rows])).mul_(by_input(scales[rows]))
            target[rows].copy_(block)

    def _zeros(self) -> torch.Tensor:
        """(output, group): the zero points."""
        words = self.zeros[...]
        if self.zeros_less_one:
            # Added to whole words: what is stored of a zero point of 0 borrowed from the next.
            words = words + sum(1 << shift for shift in range(0, 32, self.bits))
        return unpacked(words, self.bits).T.contiguous()


def unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Take the codes out of words.

    Parameters
    ----------
    words
        (row, word), int32.
    bits
        Bits of a code, one of ``BITS``.

    Returns
    -------
    torch.Tensor
        (row, code), uint8: those of a word in turn, its lowest bits first.
    """
    stored = words.contiguous().view(torch.uint8)
    mask = (1 << bits) - 1
    return torch.stack([stored >> shift & mask for shift in range(0, 8, bits)], dim=-1).flatten(1)


def with_gptq_weights(
    stored: Mapping[str, ReadableTensor], settings: Mapping[str, Any]
) -> dict[str, ReadableTensor]:
    """Put one weight where the parts of a quantized layer are stored.

    Parameters
    ----------
    stored
        A checkpoint's tensors by name.
    settings
        What its configuration says of the quantization.

    Returns
    -------
    dict[str, ReadableTensor]
        The same, with ``NAME.weight`` instead of ``NAME.qweight`` and what belongs to it.

    Raises
    ------
    ModelError
        If the format is not known, or a layer's parts are missing or do not fit each other.
    """
    layout = settings.get("format") or settings.get("checkpoint_format") or FORMATS[0]
    if layout not in FORMATS or settings.get("is_marlin_format"):
        raise ModelError(
            f"its weights are in the GPTQ format {layout!r}; read on a CPU or in part are "
            f"{', '.join(FORMATS)}",
            "convert it with gptqmodel, or run it whole on a GPU: --device cuda",
        )
    found = dict(stored)
    for name in [each.removesuffix(".qweight") for each in stored if each.endswith(".qweight")]:
        if f"{name}.weight" in found:
            raise ModelError(f"the checkpoint has both {name}.weight and {name}.qweight")
        lacking = [part for part in PARTS if f"{name}.{part}" not in found]
        if lacking:
            raise ModelError(
                f"the checkpoint lacks {name}.{lacking[0]}", "it is incomplete; download it again"
            )
        codes, zeros, scales, groups = (found.pop(f"{name}.{part}") for part in PARTS)
        found[f"{name}.weight"] = _weight(name, codes, zeros, scales, groups, layout == "gptq")
    return found


def _weight(
    name: str,
    codes: ReadableTensor,
    zeros: ReadableTensor,
    scales: ReadableTensor,
    groups: ReadableTensor,
    zeros_less_one: bool,
) -> GptqWeight:
    """The weight, once its parts are found to fit each other."""
    parts = (codes, zeros, scales, groups)
    n_groups, n_out = scales.shape if len(scales.shape) == 2 else (0, 0)
    n_in = groups.shape[0] if len(groups.shape) == 1 else 0
    shapes = [part.shape for part in parts]
    for bits in BITS:
        fitting = [(n_in * bits // 32, n_out), (n_groups, n_out * bits // 32)]
        whole = n_in * bits % 32 == 0 and n_out * bits % 32 == 0
        if shapes[:2] == fitting and whole and n_in * n_out * n_groups:
            break
    else:
        found = ", ".join(f"{part} {shape}" for part, shape in zip(PARTS, shapes, strict=True))
        raise ModelError(f"{name}: the parts fit no layer of 2, 4 or 8 bits: {found}")
    words = (codes, zeros, groups)
    if any(part.dtype != torch.int32 for part in words) or scales.dtype not in SCALE_DTYPES:
        found = ", ".join(f"{part} {each.dtype}" for part, each in zip(PARTS, parts, strict=True))
        raise ModelError(f"{name}: expected int32, and scales in a float format, found {found}")
    return GptqWeight(name, codes, zeros, scales, groups, bits, zeros_less_one)


def check_unused_biases(stored: Mapping[str, ReadableTensor], unused: Collection[str]) -> None:
    """Check that biases of quantized layers for which a model has no place are zeros.

    Some tools write one for every layer.

    Parameters
    ----------
    stored
        A checkpoint's tensors by name, with the weights of quantized layers.
    unused
        The names of those that the model does not take.

    Raises
    ------
    ModelError
        If one is not.
    """
    for name in sorted(unused):
        layer = name.removesuffix(".bias")
        quantized = layer != name and isinstance(stored.get(f"{layer}.weight"), GptqWeight)
        if quantized and bool(stored[name][...].count_nonzero()):
            raise ModelError(
                f"{name} is not zero, and the model has no bias there",
                "the checkpoint does not fit its configuration",
            )
