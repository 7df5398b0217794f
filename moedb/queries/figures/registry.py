"""The figures of the named analyses, each painted at the size that its rows need.

Everything is set by ``moedb.mplstyle`` for one column of a paper; a figure with hundreds of experts
side by side is as wide as two.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from moedb.queries.figures.classes import (
    classes_of,
    panels_of,
    plot_class_expert_panels,
    plot_class_pair_panels,
    plot_routing_by_class,
)
from moedb.queries.figures.co_activation import (
    grid_columns,
    plot_co_activation,
    plot_co_activation_layers,
)
from moedb.queries.figures.examples import bands_of, plot_routing_by_example_bands
from moedb.queries.figures.expert_use import (
    plot_expert_frequency,
)
from moedb.queries.figures.parts.figure import (
    TALLEST,
    TWO_COLUMNS,
    Plot,
    height_of_layers,
    new_figure,
)
from moedb.queries.figures.parts.frames import require_columns
from moedb.queries.figures.predictions.experts import plot_expert_attribution, plot_expert_effect
from moedb.queries.figures.predictions.interventions import (
    MOST_SERIES,
    effect_lines,
    plot_intervention_effect,
)
from moedb.queries.figures.predictions.lens import plot_lens_effect, plot_logit_lens
from moedb.queries.figures.router_ablation import plot_router_ablation_variants

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def _paint_expert_frequency(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer", "expert"))
    figure = new_figure(height_of_layers(frame["layer"].nunique()))
    plot_expert_frequency(frame, figure.subplots(), **options)
    return figure


def _paint_co_activation(
    frame: "pd.DataFrame", layer: int | None = None, **options: Any
) -> "Figure":
    require_columns(frame, ("layer",))
    n_layers = frame["layer"].nunique()
    if layer is None and n_layers == 1:
        layer = int(frame["layer"].iloc[0])
    if layer is not None:
        figure = new_figure(2.9)
        plot_co_activation(frame, figure.subplots(), layer, **options)
        return figure
    n_columns = grid_columns(n_layers)
    panel = 2.6 / n_columns
    figure = new_figure(0.45 + (panel + 0.1) * math.ceil(n_layers / n_columns))
    plot_co_activation_layers(frame, figure, **options)
    return figure


def _paint_class_pairs(frame: "pd.DataFrame", value: str) -> "Figure":
    panels = panels_of(frame)
    n_rows = 1 + max(panel.row for panel in panels)
    n_columns = 1 + max(panel.column for panel in panels)
    figure = new_figure(min(0.6 + n_rows * ((2.4 - 0.1 * n_columns) / n_columns + 0.2), TALLEST))
    plot_class_pair_panels(frame, figure, value=value)
    return figure


def _paint_class_experts(
    frame: "pd.DataFrame", value: str, keys: tuple[str, ...] = ("variant", "experts")
) -> "Figure":
    panels = panels_of(frame, keys)
    n_rows = 1 + max(panel.row for panel in panels)
    n_lines = 1 + max(panel.title.count("\n") for panel in panels)
    room = min(max(0.7, 0.12 * len(classes_of(frame))), 2.5) + 0.12 * (2 + n_lines)
    figure = new_figure(min(0.3 + n_rows * room, TALLEST))
    plot_class_expert_panels(frame, figure, value=value, keys=keys)
    return figure


def _paint_routing_by_class(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(min(max(1.6, 0.7 + 0.13 * len(classes_of(frame))), 4.5))
    plot_routing_by_class(frame, figure.subplots(), **options)
    return figure


def _paint_routing_by_example(frame: "pd.DataFrame", **options: Any) -> "Figure":
    n_bands = len(bands_of(frame))
    # three pixels of a PNG to an example, where the page is long enough
    band = max(1.0, 0.01 * frame["example_id"].nunique()) + 0.35
    figure = new_figure(min(n_bands * band, TALLEST), TWO_COLUMNS)
    plot_routing_by_example_bands(frame, figure, **options)
    return figure


def _paint_router_ablation(frame: "pd.DataFrame") -> "Figure":
    figure = new_figure(2.2)
    plot_router_ablation_variants(frame, figure)
    return figure


def _paint_logit_lens(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(2.2)
    plot_logit_lens(frame, figure.subplots(), **options)
    return figure


def _paint_lens_effect(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(height_of_layers(frame["layer"].nunique()))
    plot_lens_effect(frame, figure.subplots(), **options)
    return figure


def _paint_intervention_effect(frame: "pd.DataFrame", **options: Any) -> "Figure":
    n_lines = effect_lines(frame)
    height = 2.1 + 0.12 * n_lines if n_lines <= MOST_SERIES else 0.9 + 0.13 * n_lines
    figure = new_figure(min(height, TALLEST))
    plot_intervention_effect(frame, figure.subplots(), **options)
    return figure


def _paint_expert_attribution(frame: "pd.DataFrame", **options: Any) -> "Figure":
    require_columns(frame, ("layer",))
    figure = new_figure(height_of_layers(frame["layer"].nunique()))
    plot_expert_attribution(frame, figure.subplots(), **options)
    return figure


def _paint_expert_effect(frame: "pd.DataFrame", **options: Any) -> "Figure":
    figure = new_figure(2.4)
    plot_expert_effect(frame, figure.subplots(), **options)
    return figure


PLOTS: Mapping[str, Plot] = {
    "expert-frequency": Plot(
        "how often each expert of each layer is used", _paint_expert_frequency, {"value": str}
    ),
    "co-activation": Plot(
        "how much the tokens of two experts coincide",
        _paint_co_activation,
        {"layer": int, "value": str, "top": int},
    ),
    "class-consistency": Plot(
        "in how many trials two classes have the same main expert",
        partial(_paint_class_pairs, value="share"),
        {},
    ),
    "class-correlation": Plot(
        "whether two classes choose the same experts",
        partial(_paint_class_pairs, value="correlation"),
        {},
    ),
    "class-covariance": Plot(
        "whether two classes choose the same experts, by the spread of their shares",
        partial(_paint_class_pairs, value="covariance"),
        {},
    ),
    "expert-accuracy": Plot(
        "how well each expert alone knows each class",
        partial(_paint_class_experts, value="accuracy", keys=("variant", "experts", "trial")),
        {},
    ),
    "expert-attribution": Plot(
        "what each expert of each layer writes into the logit difference",
        _paint_expert_attribution,
        {"value": str},
    ),
    "expert-effect": Plot(
        "what ablating an expert changes, over what it writes or how often it is used",
        _paint_expert_effect,
        {"value": str},
    ),
    "intervention-effect": Plot(
        "what interventions at each layer change in the answers",
        _paint_intervention_effect,
        {"value": str},
    ),
    "lens-effect": Plot(
        "what interventions at each layer change of the residual stream after each layer",
        _paint_lens_effect,
        {"value": str},
    ),
    "logit-lens": Plot(
        "what the residual stream says after each layer", _paint_logit_lens, {"value": str}
    ),
    "router-ablation": Plot(
        "accuracy with the learned router, a random one, and untrained experts",
        _paint_router_ablation,
        {},
    ),
    "routing-by-class": Plot(
        "which experts of a layer each class chooses",
        _paint_routing_by_class,
        {"layer": int, "value": str},
    ),
    "routing-by-example": Plot(
        "which experts each example is routed to", _paint_routing_by_example, {"value": str}
    ),
    "routing-by-class-over-trials": Plot(
        "which matched experts each class chooses, mean over trials",
        partial(_paint_class_experts, value="share"),
        {},
    ),
}
