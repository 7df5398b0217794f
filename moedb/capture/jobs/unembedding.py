"""What a run keeps to read outputs as tokens: the end of its model, and its vocabulary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from moedb.capture.tracing.activations import BatchActivations
from moedb.capture.tracing.batch_records import to_numpy
from moedb.capture.tracing.model_end import ModelEnd, affine
from moedb.capture.tracing.traced_model import TracedModel
from moedb.errors import ModelError
from moedb.schemas import manifests
from moedb.schemas.arrays import FINAL_NORM, UNEMBEDDING
from moedb.schemas.tables import VOCABULARY
from moedb.store.arrays.stored import Activations, ArrayKey, Rows
from moedb.store.writing.tables.parquet import Columns

_HINT = "leave unembedding out: name the other arrays with --arrays"


class WeightRows:
    """Rows of a weight, which may be on a device, copied when they are wanted."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def __len__(self) -> int:
        return len(self._weight)

    def __getitem__(self, rows: slice, /) -> Activations:
        return to_numpy(self._weight[rows])


@dataclass(frozen=True)
class KeptUnembedding:
    """The end of a model, as a run keeps it.

    Attributes
    ----------
    about
        What the run's configuration says of it.
    arrays
        The unembedding, and the gain of the final norm.
    tables
        The vocabulary.
    """

    about: manifests.ModelEnd
    arrays: Mapping[ArrayKey, Rows]
    tables: Mapping[str, Columns]


def kept_unembedding(model: TracedModel, tokenizer: Any) -> KeptUnembedding:
    """Read the end of a model, which has to be a norm with a gain, an unembedding, and a factor.

    Parameters
    ----------
    model
        The model, rehearsed: what is kept is held against the logits of that batch.
    tokenizer
        Its tokenizer.

    Raises
    ------
    ModelError
        If its logits are not made so, or the weights are not in memory.
    """
    name = type(model.model).__name__
    rehearsed = model.rehearsed
    stream = rehearsed.residual_pre[max(rehearsed.residual_pre)]
    rounding = torch.finfo(rehearsed.logits.dtype).eps ** 0.5
    try:
        end = ModelEnd(model.model, model.wiring, stream, rehearsed.logits, rounding)
    except ModelError as error:
        raise ModelError(f"{error}, so that the unembedding is not kept", _HINT) from error
    weight = _weight(end.unembedding, model.wiring.d_model, name)
    measured, _, centers = affine(end.norm, model.wiring.d_model, model.model)
    gain = _gain(end.norm, measured, rounding, name)
    _check(end, weight, gain, centers, rehearsed, rounding, name)
    layer = model.wiring.n_layers
    texts = {token_id: str(tokenizer.decode([token_id])) for token_id in _ids(tokenizer, weight)}
    return KeptUnembedding(
        manifests.ModelEnd(len(weight), centers, end.factor),
        {ArrayKey(UNEMBEDDING, layer): WeightRows(weight), ArrayKey(FINAL_NORM, layer): gain},
        {VOCABULARY.name: {"token_id": [*texts], "token": [*texts.values()]}},
    )


def _ids(tokenizer: Any, weight: torch.Tensor) -> list[int]:
    """The tokens that the tokenizer has, of those that the model has."""
    ids = {int(token_id) for token_id in tokenizer.get_vocab().values()}
    return sorted(token_id for token_id in ids if 0 <= token_id < len(weight))


def _weight(unembedding: nn.Module, width: int, name: str) -> torch.Tensor:
    weight: Any = getattr(unembedding, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or weight.is_meta:
        raise ModelError(f"{name}: its unembedding has no weight in memory that can be kept", _HINT)
    if weight.ndim != 2 or weight.shape[1] != width:
        raise ModelError(
            f"{name}: expected an unembedding of the shape (vocabulary, {width}), got "
            f"{tuple(weight.shape)}",
            _HINT,
        )
    return weight.detach()


def _gain(norm: nn.Module, measured: torch.Tensor, rounding: float, name: str) -> Activations:
    """The norm's gain as its weight has it: the weight itself, 1 more, or 1 where it has none."""
    weight = getattr(norm, "weight", None)
    ones = torch.ones_like(measured.flatten())
    found = [ones] if weight is None else [weight.detach(), 1 + weight.detach().float()]
    for gain in found:
        gap = (gain.float() - measured.flatten()).abs().max()
        if gap <= rounding * measured.abs().max():
            return to_numpy(gain)
    raise ModelError(f"{name}: its final norm does not multiply by its weight", _HINT)


def _check(
    end: ModelEnd,
    weight: torch.Tensor,
    gain: Activations,
    centers: bool,
    rehearsed: BatchActivations,
    rounding: float,
    name: str,
) -> None:
    """Hold logits made of what is kept against the model's, up to each token's scale."""
    stream = rehearsed.residual_pre[max(rehearsed.residual_pre)].float()
    if centers:
        stream = stream - stream.mean(dim=-1, keepdim=True)
    with torch.no_grad():
        # what norm and unembedding add whatever the stream is
        constant = end.unembedding(end.norm(torch.zeros_like(stream[:1], dtype=weight.dtype)))
        scaled = stream * torch.from_numpy(np.asarray(gain)).to(stream.device).float()
        found = end.factor * (scaled @ weight.float().T)
    expected = rehearsed.logits.float() - end.factor * constant.float()
    scale = (found * expected).sum(dim=-1, keepdim=True) / (found * found).sum(dim=-1, keepdim=True)
    gap = float((found * scale - expected).abs().max())
    if not gap <= rounding * float(expected.abs().max()):
        raise ModelError(
            f"{name}: expected logits that are the unembedding of the stream times the final "
            f"norm's gain, up to a scale; they differ by {gap:.3g}",
            _HINT,
        )
