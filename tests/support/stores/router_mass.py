"""The counts of decisions that a capture writes beside the router's probabilities."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def with_router_mass(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Add the table ``router_mass`` to a unit's tables: what its decisions add up to.

    The router's probabilities are not known here: they are 0.
    """
    routing, tokens = pd.DataFrame(dict(tables["routing"])), pd.DataFrame(dict(tables["tokens"]))
    decisions = routing.merge(tokens[["token_idx", "example_id"]], on="token_idx")
    decisions["weight"] = decisions["weight"].astype("float64")
    counted = decisions.groupby(["example_id", "layer", "expert"], as_index=False).agg(
        n_decisions=("rank", "size"), weight=("weight", "sum")
    )
    mass = counted.assign(probability=0.0)
    return {**tables, "router_mass": {name: mass[name].to_numpy() for name in mass.columns}}
