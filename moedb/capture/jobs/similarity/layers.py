"""The experts of every layer of a language model compared, while its weights are there."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from moedb.capture.jobs.similarity.cosines import joined, similarity_columns
from moedb.capture.jobs.similarity.weights import expert_weights, router_rows
from moedb.capture.structure.wiring import BlockWiring, Wiring
from moedb.store.writing.tables.parquet import Columns

_TOKENS = (0, 1, 2, 3, 4)
"""Ids that every vocabulary has."""


def expert_similarity(model: Any, wiring: Wiring, *, neurons: bool) -> dict[str, Columns]:
    """Compare the experts of every layer, right after it ran in a pass over a few tokens.

    So it is the same for a model that is in memory, and for one whose layers are read one after
    the other, whose files are then read once.

    Parameters
    ----------
    model
        The model, tapped or not.
    wiring
        What the probe learned of it.
    neurons
        Whether neurons are matched too.

    Returns
    -------
    dict
        The table ``expert_cosines``.
    """
    found: dict[int, Columns] = {}

    def compare(each: BlockWiring, *_: Any) -> None:
        block = each.block
        router = router_rows(model, each.router_path, block.n_experts, wiring.d_model)
        weights = expert_weights(model, block)
        found[block.layer] = similarity_columns(
            block.layer, block.n_experts, weights, router, neurons=neurons
        )

    device = next(each for each in model.parameters() if not each.is_meta).device
    with ExitStack() as stack, torch.no_grad():
        for each in wiring.blocks:
            layer = model.get_submodule(each.block.decoder_path)
            handle = layer.register_forward_hook(partial(compare, each))
            stack.callback(handle.remove)
        model(input_ids=torch.tensor([_TOKENS], device=device), use_cache=False)
    return joined(found[layer] for layer in sorted(found))
