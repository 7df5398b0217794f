"""The cosines of the weights of two experts, as rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.jobs.similarity.matching import matched_cosines
from moedb.capture.jobs.similarity.weights import ExpertWeights, Projection
from moedb.schemas.tables import EXPERT_COSINES
from moedb.store.writing.tables.parquet import Columns

_VALUES = 1 << 22
"""Values of all experts that are multiplied at a time."""

Gram = NDArray[np.float64]


def similarity_columns(
    layer: int,
    n_experts: int,
    weights: ExpertWeights,
    router: Projection | None,
    *,
    neurons: bool = False,
) -> Columns:
    """Compare every two experts of a layer.

    Parameters
    ----------
    layer
        The layer.
    n_experts
        Its experts.
    weights
        Their weights.
    router
        The rows of its router's weight; None without one.
    neurons
        Whether neurons are matched too.

    Returns
    -------
    dict
        The rows of the table ``expert_cosines``, without ``run_id``.
    """
    a, b = np.triu_indices(n_experts, 1)
    named = {"gate": weights.gate, "up": weights.up, "down": weights.down}
    products = {name: _product(each) for name, each in named.items() if each is not None}
    parts = [*products.values(), *map(_product, weights.others)]
    whole = None
    if parts:
        whole = np.sum([gram for gram, _ in parts], axis=0), sum(n for _, n in parts)
    norms = None if whole is None else np.sqrt(np.diag(whole[0]))
    sizes = {n for _, n in products.values()}

    def cosines(found: tuple[Gram, int] | None) -> list[float | None]:
        if found is None:
            return [None] * len(a)
        lengths = np.sqrt(np.diag(found[0]))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.clip((found[0] / lengths / lengths[:, None])[a, b], -1, 1)
        return [float(value) if np.isfinite(value) else None for value in values]

    def of_all(value: Any) -> list[Any]:
        return [value] * len(a)

    matched = matched_cosines(weights) if neurons else None
    of_router = None if router is None else _product(router)
    return {
        "layer": of_all(layer),
        "expert_a": a.tolist(),
        "expert_b": b.tolist(),
        "gate_cosine": cosines(products.get("gate")),
        "up_cosine": cosines(products.get("up")),
        "down_cosine": cosines(products.get("down")),
        "expert_cosine": cosines(whole),
        "matched_cosine": of_all(None) if matched is None else matched[0],
        "matched_chance": of_all(None if matched is None else matched[1]),
        "router_cosine": cosines(of_router),
        "norm_a": of_all(None) if norms is None else norms[a].tolist(),
        "norm_b": of_all(None) if norms is None else norms[b].tolist(),
        "n_projection": of_all(sizes.pop() if len(sizes) == 1 else None),
        "n_weights": of_all(None if whole is None else whole[1]),
        "n_router": of_all(None if of_router is None else of_router[1]),
        "reason": of_all(weights.reason),
    }


def joined(layers: Iterable[Mapping[str, Any]]) -> dict[str, Columns]:
    """Put the rows of several layers together, as a table."""
    every = list(layers)
    names = EXPERT_COSINES.column_names[1:]
    rows = {name: [value for each in every for value in each[name]] for name in names}
    return {EXPERT_COSINES.name: rows}


def _product(weights: Projection) -> tuple[Gram, int]:
    """(expert, expert): the products of two experts' weights, and how many values one has.

    Of some rows at a time in single precision, and these added up in double: of a single sum over
    millions the last digits would be lost.
    """
    first = weights.rows(0, 1)
    row = first[0].numel()
    step = max(1, _VALUES // (len(first) * row))
    total = torch.zeros(len(first), len(first), dtype=torch.float64, device=first.device)
    with torch.no_grad():
        for begin in range(0, weights.n_rows, step):
            values = weights.rows(begin, min(begin + step, weights.n_rows)).float().flatten(1)
            total += (values @ values.T).double()
    return total.cpu().numpy(), row * weights.n_rows
