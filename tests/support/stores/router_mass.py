"""The counts of decisions that a capture writes beside the router's probabilities."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def with_router_mass(
    tables: Mapping[str, Mapping[str, Any]], experts: Mapping[int, int] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Add the table ``router_mass`` to a unit's tables: what its decisions add up to.

    Parameters
    ----------
    tables
        The tables.
    experts
        For each layer its experts: then there is a row for each of them and each example, as a
        capture writes it, with a probability that is drawn. Without there are rows of what was
        chosen, with probabilities of 0.
    """
    routing, tokens = pd.DataFrame(dict(tables["routing"])), pd.DataFrame(dict(tables["tokens"]))
    decisions = routing.merge(tokens[["token_idx", "example_id"]], on="token_idx")
    decisions["weight"] = decisions["weight"].astype("float64")
    counted = decisions.groupby(["example_id", "layer", "expert"], as_index=False).agg(
        n_decisions=("rank", "size"), weight=("weight", "sum")
    )
    mass = counted.assign(probability=0.0)
    if experts is not None:
        cells = pd.MultiIndex.from_tuples(
            [
                (example, layer, expert)
                for layer, n_experts in experts.items()
                for example in tables["examples"]["example_id"]
                for expert in range(n_experts)
            ],
            names=["example_id", "layer", "expert"],
        )
        mass = mass.set_index(cells.names).reindex(cells, fill_value=0).reset_index()
        mass["probability"] = np.random.default_rng(len(mass)).random(len(mass))
    return {**tables, "router_mass": {name: mass[name].to_numpy() for name in mass.columns}}
