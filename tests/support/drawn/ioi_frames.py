"""Made-up rows of what a report on IOI draws."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def lens(n_layers: int = 4) -> pd.DataFrame:
    points = [(0, "pre")] + [(n, place) for n in range(n_layers) for place in ("mid", "post")]
    frame = pd.DataFrame(points, columns=["layer", "place"])
    frame["mean_logit_diff"] = np.linspace(-1, 4, len(frame))
    frame["mean_logit_diff_low"] = frame["mean_logit_diff"] - 0.5
    frame["mean_logit_diff_high"] = frame["mean_logit_diff"] + 0.25
    return frame.assign(mean_logprob=-1.0)


def effects(
    *kinds: tuple[str, dict[str, Any], str], layers: tuple[int, ...] = (0, 2)
) -> pd.DataFrame:
    rows = [
        (
            kind,
            layer,
            None,
            json.dumps(params),
            split,
            0.5 * layer,
            0.5 * layer - 1,
            0.5 * layer + 1,
        )
        for kind, params, split in kinds
        for layer in layers
    ]
    value = "change_logit_diff"
    names = ["kind", "layer", "expert", "params", "split", value, f"{value}_low", f"{value}_high"]
    return pd.DataFrame(rows, columns=names)


def attributions(layers: tuple[int, ...] = (1, 3), n: int = 5) -> pd.DataFrame:
    rows = [("embedding", None, None, 9.0, 9.0)] + [
        ("expert", layer, e, 0.1 * e - 0.3, None if e == 2 else 1.0)
        for layer in layers
        for e in range(n)
    ]
    names = ["component", "layer", "expert", "attribution", "attribution_per_use"]
    return pd.DataFrame(rows, columns=names)


def ablations(layers: tuple[int, ...] = (0, 1), n: int = 6) -> pd.DataFrame:
    rows = [
        ('{"form": "zero"}', "clean", layer, e, 0.1 * e, 0.2 * e - layer, -0.3 * e)
        for layer in layers
        for e in range(n)
    ]
    names = ["params", "split", "layer", "expert", "frequency", "attribution", "change_logit_diff"]
    return pd.DataFrame(rows, columns=names)


def lens_effects(
    *kinds: tuple[str, dict[str, Any]], layers: tuple[int, ...] = (0, 1), n_layers: int = 4
) -> pd.DataFrame:
    rows = [
        (kind, layer, None, json.dumps(params), "clean", read, place, 0.5 * layer - read)
        for kind, params in kinds
        for layer in layers
        for read in range(max(layer - 1, 0), n_layers)
        for place in ("mid", "post")
    ]
    names = ["kind", "layer", "expert", "params", "split", "read_layer", "place"]
    return pd.DataFrame(rows, columns=[*names, "change_logit_diff"])


def routed(
    widths: Mapping[int, int], groups: Sequence[tuple[str, str | None, int]], top_k: int = 2
) -> pd.DataFrame:
    """Rows of ``routing-by-example``.

    Parameters
    ----------
    widths
        For each layer its number of experts.
    groups
        Split, value of the label and number of examples.
    """
    rng = np.random.default_rng(3)
    rows: list[tuple[Any, ...]] = []
    example = 0
    for split, value, size in groups:
        for _ in range(size):
            for layer, width in widths.items():
                for expert in np.sort(rng.permutation(width)[:top_k]).tolist():
                    weight = float(rng.uniform(0.1, 0.4))
                    rows.append(
                        (
                            split,
                            "template",
                            value,
                            example,
                            layer,
                            expert,
                            width,
                            1,
                            4,
                            0.25,
                            weight,
                        )
                    )
            example += 7
    keys = ["split", "key", "value", "example_id", "layer", "expert"]
    values = ["n_experts", "n_decisions", "n_tokens", "share", "weight"]
    return pd.DataFrame(rows, columns=keys + values)
