"""Which arrays are kept, of which layers: as the user says, or what fits a budget."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from moedb.capture.pipeline.sizes import ModelShape, array_bytes
from moedb.errors import UsageError, did_you_mean
from moedb.schemas.arrays import (
    ARRAY_NAMES,
    DEFAULT_ARRAYS,
    FINAL_NORM,
    IMAGES,
    INPUT_LAYER,
    UNEMBEDDING,
    array_spec,
)

BUDGET_ORDER = (
    "router_logits",
    "images",
    "residual_pre",
    "logit_direction",
    "residual_mid",
    "router_input",
    "shared_outputs",
    "expert_outputs",
    "all_expert_outputs",
)
"""Which arrays are kept first where the budget does not hold all."""


def parse_layers(text: str, layers: Sequence[int]) -> tuple[int, ...]:
    """Parse a selection of layers such as ``all``, ``3``, ``0,2`` or ``4-7,9``.

    Raises
    ------
    UsageError
        If it is malformed or names a layer without an MoE block.
    """
    if text == "all":
        return tuple(layers)
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise UsageError(f"layers {text!r}: valid are all, 3, 0,2 and 4-7")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        wanted = set(range(first, last + 1))
        unknown = sorted(wanted - set(layers))
        if unknown or not wanted:
            span = f"{layers[0]} to {layers[-1]}" if layers else "none"
            raise UsageError(
                f"layers {text!r}: no MoE block at {unknown or part}; MoE layers are {span}"
            )
        chosen |= wanted
    return tuple(sorted(chosen))


def parse_arrays(
    choices: Sequence[str], layers: Sequence[int], shape: ModelShape
) -> dict[str, tuple[int, ...]]:
    """Resolve ``--arrays`` choices to layers for each array.

    Parameters
    ----------
    choices
        Each ``all``, ``none``, or ``NAME`` or ``NAME@LAYERS``; names may be joined by commas
        where no layers are given.
    layers
        The layers of an array that names none.
    shape
        The model.

    Raises
    ------
    UsageError
        If a name or a layer is unknown.
    """
    kept: dict[str, tuple[int, ...]] = {}
    for choice in choices:
        names, at, layer_text = choice.partition("@")
        for name in names.split(","):
            if name == "none":
                continue
            chosen = parse_layers(layer_text, shape.layers) if at else tuple(layers)
            if name == "all":
                kept |= {each: chosen for each in DEFAULT_ARRAYS if each in shape.arrays}
            elif name in ARRAY_NAMES and name not in shape.arrays:
                raise UsageError(
                    f"--arrays: this model gives no {name}; it gives {', '.join(shape.arrays)}"
                )
            elif name in ARRAY_NAMES and array_spec(name).is_of_run and at:
                raise UsageError(
                    f"--arrays {choice}: {name} is the whole model's, of no layer",
                    f"--arrays {name}",
                )
            elif name in ARRAY_NAMES:
                kept[name] = chosen
            else:
                valid = did_you_mean(name, (*ARRAY_NAMES, "all", "none"))
                raise UsageError(f"--arrays: no array named {name!r}; {valid}")
    return _with_neighbours(kept, shape)


def _with_neighbours(
    kept: Mapping[str, tuple[int, ...]], shape: ModelShape
) -> dict[str, tuple[int, ...]]:
    """Add the streams that a layer's write is the difference of, and what else belongs together."""
    arrays = dict(kept)
    if "residual_pre" in arrays:
        wanted = {next_ for layer in arrays["residual_pre"] for next_ in (layer, layer + 1)}
        arrays["residual_pre"] = tuple(sorted(wanted | {shape.n_layers}))
    if "logit_direction" in arrays:
        arrays["logit_direction"] = (shape.n_layers,)
    if IMAGES in arrays:
        arrays[IMAGES] = (INPUT_LAYER,)
    if UNEMBEDDING in arrays or FINAL_NORM in arrays:
        arrays |= {UNEMBEDDING: (shape.n_layers,), FINAL_NORM: (shape.n_layers,)}
    return {name: layers for name, layers in arrays.items() if layers}


def budgeted_arrays(
    layers: Sequence[int], shape: ModelShape, n_rows: int, budget: int
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Choose the arrays that fit a budget of bytes.

    Returns
    -------
    arrays, left_out
        The arrays kept, and the names of those that would not fit.
    """
    kept: dict[str, tuple[int, ...]] = {}
    left_out = []
    for name in (name for name in BUDGET_ORDER if name in shape.arrays):
        candidate = _with_neighbours({**kept, name: tuple(layers)}, shape)
        if sum(array_bytes(candidate, shape, n_rows).values()) <= budget:
            kept = {**kept, name: tuple(layers)}
        else:
            left_out.append(name)
    return _with_neighbours(kept, shape), left_out


def describe_selection(arrays: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The arrays and layers in a form for the run's configuration."""
    return {name: list(layers) for name, layers in sorted(arrays.items())}
