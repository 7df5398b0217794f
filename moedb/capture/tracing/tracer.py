"""One forward pass of a batch, with everything that a capture wants read off by nnsight."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import nnsight
import torch
from torch import nn

from moedb.capture.structure.wiring import Read, Wiring
from moedb.capture.tracing.activations import (
    BatchActivations,
    LayerActivations,
    Reader,
    layer_activations,
)
from moedb.capture.tracing.padding import without_padding


class _Everything:
    """Keeps it all."""

    def __init__(self) -> None:
        self.layers: dict[int, LayerActivations] = {}
        self.residual_pre: dict[int, torch.Tensor] = {}

    def stream(self, layer: int, residual: torch.Tensor) -> None:
        self.residual_pre[layer] = residual

    def layer(self, layer: int, activations: LayerActivations) -> None:
        self.layers[layer] = activations


class Tracer:
    """Runs batches through a tapped model, and reads its values in the order in which it runs.

    Parameters
    ----------
    model, wiring
        The model, tapped, and what the probe learned of it.
    """

    def __init__(self, model: Any, wiring: Wiring) -> None:
        self.model = model
        self.wiring = wiring
        self._nnsight = nnsight.NNsight(model)
        self._device = next(model.parameters()).device
        self._blocks = {found.block.layer: found for found in wiring.blocks}
        self._layers = [
            (layer, self._places(list(reads)))
            for layer, reads in groupby(wiring.reads, key=lambda read: read.layer)
        ]

    def _places(self, reads: Sequence[Read]) -> list[tuple[tuple[Read, ...], Any]]:
        """The reads by the module's side that has them, in the order in which the model runs."""
        return [
            (tuple(same), self._nnsight.get(path) if path else self._nnsight)
            for (path, _), same in groupby(reads, key=lambda read: (read.path, read.side))
        ]

    def run(self, token_ids: Sequence[Sequence[int]]) -> BatchActivations:
        """Run a batch of examples and keep everything.

        Parameters
        ----------
        token_ids
            The examples' token ids, of any lengths.
        """
        everything = _Everything()
        logits = self.read(token_ids, everything)
        return BatchActivations(everything.layers, everything.residual_pre, logits)

    def read(
        self, token_ids: Sequence[Sequence[int]], reader: Reader, last: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run a batch of examples, padded on the right, and read off its activations.

        Parameters
        ----------
        token_ids
            The examples' token ids, of any lengths.
        reader
            Is given each layer's values as soon as they are there, padding left out.
        last
            (example,): for each of the first examples the position of its last token.

        Returns
        -------
        torch.Tensor
            (token, vocabulary): the logits of all tokens, or of those ``last`` ones alone.
        """
        lengths = torch.tensor([len(ids) for ids in token_ids])
        longest = int(lengths.max())
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        padded = torch.zeros(len(token_ids), longest, dtype=torch.long)
        padded[mask] = torch.tensor([token for ids in token_ids for token in ids])
        kept = mask.flatten().nonzero().flatten()
        with (
            torch.no_grad(),
            without_padding(self._token_wise(), mask.to(self._device)),
            self._nnsight.trace(
                input_ids=padded.to(self._device),
                attention_mask=mask.long().to(self._device),
                use_cache=False,
            ),
        ):
            found = nnsight.save([])
            found.append(self._walk(reader, kept, last))
        [logits] = found
        return logits  # type: ignore[no-any-return]

    def _token_wise(self) -> list[nn.Module]:
        """The MoE blocks, unless the model puts its routers' scores beside its padding mask."""
        if getattr(self.model.config, "output_router_logits", False):
            return []
        return [self.model.get_submodule(found.block.path) for found in self.wiring.blocks]

    def _walk(self, reader: Reader, kept: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """Go through the layers as they run, handing on what each did.

        With ``last``, a position for each of the first examples, only those go on after the last
        layer.
        """
        for layer, places in self._layers:
            roles: dict[str, torch.Tensor] = {}
            for reads, envoy in places:
                # A place that has several values is asked for once: the model passes it once.
                value = envoy.inputs if reads[0].side == "input" else envoy.output
                for read in reads:
                    if last is not None and read.role == "logits":
                        roles["logits"] = read.pick(value)[:, 0]
                        continue
                    tokens = _tokens(read.pick(value), read.role, kept)
                    # Several shared experts add up.
                    known = roles.get(read.role)
                    roles[read.role] = tokens if known is None else known + tokens
                ended = layer == self.wiring.n_layers and reads[0].role == "residual_pre"
                if last is not None and ended:
                    stream = reads[0].pick(value)
                    at = torch.arange(len(last), device=stream.device), last.to(stream.device)
                    envoy.inputs = reads[0].put(value, stream[at].unsqueeze(1))
            if "residual_pre" in roles:
                reader.stream(layer, roles["residual_pre"])
            if layer in self._blocks:
                reader.layer(layer, layer_activations(self._blocks[layer], roles))
        return roles["logits"]


def _tokens(value: torch.Tensor, role: str, kept: torch.Tensor) -> torch.Tensor:
    """A value by token, (token, ...), without padding."""
    tokens = value.reshape(-1, *value.shape[_FLAT.get(role, -1) :])
    return tokens if len(kept) == len(tokens) else tokens[kept.to(tokens.device)]


_FLAT = {"expert_outputs": -2, "expert_neurons": -2}
"""Where a token's own dimensions begin; for all other values it is the last."""
