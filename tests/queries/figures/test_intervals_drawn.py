"""Intervals and what chance gives as figures draw them: artists' values against the rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

import moedb
from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling
from moedb.queries.figures.drawing import draw, style_file
from moedb.queries.figures.parts.estimates.intervals import BANDS, BARS, CHANCE
from moedb.queries.figures.parts.layout import Layout, add_footer, set_title
from moedb.queries.figures.registry import PLOTS
from moedb.queries.report.pinned import check_file
from tests.support.drawn.figure_frames import (
    balances,
    concentrations,
    confidences,
    cross_layers,
    overlaps,
)
from tests.support.drawn.figures import assert_readable, frame_result
from tests.support.stores.result_samples import FOOTER


def painted(name: str, frame: pd.DataFrame, **options: Any) -> Figure:
    with matplotlib.style.context(["default", style_file()]):
        return PLOTS[name].paint(frame, **options)


def with_ends(frame: pd.DataFrame, *values: str, seed: int = 0) -> pd.DataFrame:
    """Ends around each value, as far as its row says, further above than below."""
    rng = np.random.default_rng(seed)
    more = {}
    for value in values:
        far = 0.02 + 0.05 * rng.random(len(frame))
        more |= {f"{value}_low": frame[value] - far, f"{value}_high": frame[value] + 2 * far}
    return frame.assign(**more)


def with_chance(frame: pd.DataFrame, *values: str) -> pd.DataFrame:
    null = {f"{value}_null": frame[value] / 2 for value in values}
    return with_ends(frame.assign(**null), *null, seed=1)


def bars(ax: Axes) -> list[np.ndarray]:
    """Of each set of error bars its ends: (bar, end, xy)."""
    found = [each for each in ax.collections if isinstance(each, LineCollection)]
    return [np.array(each.get_segments()) for each in found]


def assert_bars(drawn: np.ndarray, frame: pd.DataFrame, value: str) -> None:
    np.testing.assert_allclose(drawn[:, 0, 1], frame[f"{value}_low"], rtol=1e-12)
    np.testing.assert_allclose(drawn[:, 1, 1], frame[f"{value}_high"], rtol=1e-12)


def hollow(ax: Axes) -> list[np.ndarray]:
    lines = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    return [np.asarray(line.get_ydata(), dtype=float) for line in lines]


def dots(ax: Axes, shape: tuple[int, int]) -> np.ndarray:
    """(row, column): the cells that a dot lies in."""
    mask = np.zeros(shape, dtype=bool)
    for each in ax.collections:
        if isinstance(each, PathCollection):
            for x, y in np.asarray(each.get_offsets()):
                mask[round(y), round(x)] = True
    return mask


def notes(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def renderer_of(figure: Figure) -> Any:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_load_balance_has_bars_and_chance() -> None:
    frame = with_chance(
        with_ends(balances(), "effective_experts", "normalized_entropy", "gini"), "gini"
    )
    figure = painted("load-balance", frame)
    above, below = figure.axes
    (effective,) = bars(above)
    assert_bars(effective, frame, "effective_experts")
    entropy, gini, of_chance = bars(below)
    assert_bars(entropy, frame, "normalized_entropy")
    assert_bars(gini, frame, "gini")
    assert_bars(of_chance, frame, "gini_null")
    (found,) = hollow(below)
    np.testing.assert_array_equal(found, frame["gini_null"])
    assert notes(figure) == f"{BARS}; {CHANCE}"
    assert notes(painted("load-balance", balances())) == ""


@pytest.mark.parametrize("value", ["gini", "cv", "max_over_mean", "switch_loss"])
def test_one_measure_of_load_balance(value: str) -> None:
    frame = with_chance(with_ends(balances(), value), value)
    (ax,) = painted("load-balance", frame, value=value).axes
    own, of_chance = bars(ax)
    assert_bars(own, frame, value)
    assert_bars(of_chance, frame, f"{value}_null")
    np.testing.assert_allclose(own[:, 0, 0], frame["layer"])


def test_a_missing_end_has_no_bar() -> None:
    frame = with_ends(balances(), "gini")
    frame.loc[2, ["gini_low", "gini_high"]] = np.nan
    (ax,) = painted("load-balance", frame, value="gini").axes
    (own,) = bars(ax)
    assert own[2, 0, 1] == own[2, 1, 1] == frame["gini"][2]
    frame[["gini_low", "gini_high"]] = np.nan
    figure = painted("load-balance", frame, value="gini")
    assert bars(figure.axes[0]) == [] and notes(figure) == ""


def test_concentration_has_a_band_for_each_layer() -> None:
    frame = with_chance(with_ends(concentrations(3), "share"), "share")
    figure = painted("concentration", frame)
    ax = figure.axes[0]
    bands = [each for each in ax.collections if not isinstance(each, LineCollection)]
    assert len(bands) == 3
    for layer, band in enumerate(bands):
        rows = frame[frame["layer"] == layer]
        corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}  # type: ignore
        for end in ("share_low", "share_high"):
            assert set(zip(rows["n_top"].astype(float), rows[end], strict=True)) <= corners
    for layer, found in enumerate(hollow(ax)):
        np.testing.assert_array_equal(found, frame.loc[frame["layer"] == layer, "share_null"])
    assert notes(figure) == f"{BANDS}; {CHANCE}"
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["equal use"]


def test_overlap_has_what_random_sets_share() -> None:
    (ax,) = painted(
        "overlap", overlaps().assign(expected_jaccard=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    ).axes
    (line,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert line.get_label() == "the same of 4 drawn at random"
    np.testing.assert_array_equal(line.get_ydata(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    alone = painted("overlap", overlaps(), value="weighted_jaccard").axes[0]
    assert not [line for line in alone.lines if line.get_linestyle() == ":"]
    two_models = painted("overlap", overlaps().assign(expected_jaccard=None)).axes[0]
    assert not [line for line in two_models.lines if line.get_linestyle() == ":"]


def test_overlap_has_bars_and_chance() -> None:
    shown = ("jaccard", "weighted_jaccard", "jensen_shannon")
    frame = with_chance(with_ends(overlaps(), *shown), *shown)
    (ax,) = painted("overlap", frame).axes
    drawn = bars(ax)
    for number, value in enumerate(shown):
        assert_bars(drawn[2 * number], frame, value)
        assert_bars(drawn[2 * number + 1], frame, f"{value}_null")
        np.testing.assert_array_equal(hollow(ax)[number], frame[f"{value}_null"])


def test_router_confidence_has_intervals_in_the_place_of_deviations() -> None:
    plain = confidences()
    frame = with_ends(plain, "mean_entropy", "mean_margin")
    for value in ("mean_entropy", "mean_margin"):
        figure = painted("router-confidence", frame, value=value)
        (ax,) = figure.axes
        classes = list(dict.fromkeys(frame["value"]))
        assert len(classes) > 1
        for name, drawn in zip(classes, bars(ax), strict=True):
            assert_bars(drawn, frame[frame["value"] == name], value)
        assert ax.get_xlabel() == "layer"
        assert notes(figure) == BARS
    one = frame[frame["value"] == frame["value"].iloc[0]]
    figure = painted("router-confidence", one)
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]  # type: ignore[index]
    assert heights.min() == one["mean_entropy_low"].min()
    assert heights.max() == one["mean_entropy_high"].max()
    assert notes(figure) == BANDS


def frequencies() -> pd.DataFrame:
    rows = [
        (layer, expert, (1 + (3 * layer + expert) % 7) / 20)
        for layer in (2, 5)
        for expert in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["layer", "expert", "frequency"])
    frame = frame.assign(share=frame["frequency"] / 2, n_decisions=1, uniform=0.25)
    found = frame["frequency"]
    return frame.assign(frequency_low=found - 0.06, frequency_high=found + 0.06)


@pytest.mark.parametrize("value", ["frequency", "share"])
def test_experts_not_told_from_uniform_use_have_a_dot(value: str) -> None:
    frame = frequencies()
    frame.loc[3, ["frequency_low", "frequency_high"]] = np.nan
    figure = painted("expert-frequency", frame, value=value)
    expected = (abs(frame["frequency"] - 0.25) <= 0.06).to_numpy(copy=True)
    expected[3] = True
    np.testing.assert_array_equal(dots(figure.axes[0], (2, 8)), expected.reshape(2, 8))
    assert 0 < expected.sum() < 16
    assert notes(figure).startswith("dot: its 95 % interval holds uniform use")
    told = frame.assign(frequency_low=0.9, frequency_high=0.95)
    figure = painted("expert-frequency", told, value=value)
    assert not dots(figure.axes[0], (2, 8)).any()
    assert notes(figure).startswith("no dot: ")
    assert notes(painted("expert-frequency", frame.drop(columns="frequency_low"))) == ""


def by_class(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [(0, name, expert) for name in ("a", "b", "c") for expert in range(n)]
    frame = pd.DataFrame(rows, columns=["layer", "value", "expert"])
    lift = np.exp(rng.normal(0, 0.7, len(frame)))
    return frame.assign(
        lift=lift,
        share=lift / n,
        rate=2 * lift / n,
        weight_share=lift / n,
        lift_low=lift * 0.7,
        lift_high=lift * 1.4,
        rate_q=rng.uniform(0, 0.12, len(frame)),
    )


@pytest.mark.parametrize("n", [5, 60])
@pytest.mark.parametrize(
    ("value", "lacks", "by"),
    [
        ("lift", (), "lift"),
        ("lift", ("lift_low",), "q"),
        ("share", (), "q"),
        ("rate", ("rate_q",), "lift"),
        ("weight_share", (), None),
        ("share", ("rate_q", "lift_low"), None),
    ],
)
def test_classes_not_told_from_chance_have_a_dot(
    value: str, lacks: tuple[str, ...], by: str | None, n: int
) -> None:
    frame = by_class(n)
    holds_one = (frame["lift"] * 0.7 <= 1) & (frame["lift"] * 1.4 >= 1)
    expected = {"lift": holds_one, "q": frame["rate_q"] >= 0.05, None: holds_one & False}[by]
    figure = painted("routing-by-class", frame.drop(columns=list(lacks)), value=value)
    ax = figure.axes[0]
    np.testing.assert_array_equal(dots(ax, (3, n)), expected.to_numpy().reshape(3, n))
    assert bool(notes(figure)) == (by is not None)
    assert bool(ax.texts) == (n == 5)
    renderer = renderer_of(figure)
    boxes = [text.get_window_extent(renderer) for text in ax.texts]
    for each in ax.collections:
        for spot in ax.transData.transform(np.asarray(each.get_offsets())):
            radius = np.sqrt(each.get_sizes()[0]) / 2 * figure.dpi / 72  # type: ignore[attr-defined]
            assert not any(
                box.x0 - radius < spot[0] < box.x1 + radius
                and box.y0 - radius < spot[1] < box.y1 + radius
                for box in boxes
            )


def pairs(layers: int, n: int = 6) -> pd.DataFrame:
    rows = [
        (layer, a, b, 0.2 + ((layer + a * b) % 5) / 2)
        for layer in range(layers)
        for a in range(n)
        for b in range(a + 1, n)
        if (a + b) % 4
    ]
    frame = pd.DataFrame(rows, columns=["layer", "expert_a", "expert_b", "lift"])
    frame = frame.assign(n_a=10 + frame["expert_a"], n_b=10 + frame["expert_b"], n_both=3)
    frame = frame.assign(jaccard=frame["lift"] / 10, p_a_given_b=0.1, p_b_given_a=0.2)
    return frame.assign(lift_low=frame["lift"] - 0.31, lift_high=frame["lift"] + 0.31)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("value", ["lift", "jaccard"])
def test_pairs_not_told_from_chance_have_a_dot(value: str, layers: int) -> None:
    frame = pairs(layers)
    figure = painted("co-activation", frame, value=value)
    for layer in range(layers):
        expected = ~np.eye(6, dtype=bool)  # a pair without a row has no interval
        for row in frame[frame["layer"] == layer].itertuples():
            held = abs(float(str(row.lift)) - 1) <= 0.31
            a, b = int(str(row.expert_a)), int(str(row.expert_b))
            expected[a, b] = expected[b, a] = held
        np.testing.assert_array_equal(dots(figure.axes[layer], (6, 6)), expected)
    assert notes(figure).startswith("dot: the 95 % interval of its lift holds 1")
    assert notes(painted("co-activation", frame.drop(columns="lift_high"))) == ""


def test_pairs_of_layers_not_told_from_chance_have_a_dot() -> None:
    frame = cross_layers(2, 5)
    frame = frame.assign(lift_low=frame["lift"] - 0.31, lift_high=frame["lift"] + 0.31)
    figure = painted("cross-layer", frame)
    for layer in range(2):
        rows = frame[frame["layer"] == layer]
        expected = np.ones((5, 5), dtype=bool)
        held = (rows["lift"] - 0.31 <= 1) & (rows["lift"] + 0.31 >= 1)
        expected[rows["expert"], rows["next_expert"]] = held
        np.testing.assert_array_equal(dots(figure.axes[layer], (5, 5)), expected)


FIGURES: Mapping[str, tuple[pd.DataFrame, Mapping[str, Any]]] = {
    "load-balance": (with_chance(with_ends(balances(), "gini"), "gini"), {}),
    "concentration": (with_chance(with_ends(concentrations(), "share"), "share"), {}),
    "overlap": (with_chance(with_ends(overlaps(), "jaccard"), "jaccard"), {}),
    "router-confidence": (with_ends(confidences(), "mean_entropy"), {}),
    "expert-frequency": (frequencies(), {}),
    "routing-by-class": (by_class(60), {"value": "lift"}),
    "co-activation": (pairs(4, 12), {}),
}


@pytest.mark.parametrize("title", [None, "A title"])
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_and_no_line_lies_over_another(name: str, title: str | None) -> None:
    frame, options = FIGURES[name]
    figure = painted(name, frame, **options)
    with matplotlib.style.context(["default", style_file()]):
        if title is not None:
            set_title(figure, title)
        add_footer(figure, FOOTER)
        assert_readable(figure)
    note, line = [text for text in figure.texts if not text.get_in_layout()]
    renderer = renderer_of(figure)
    above, below = note.get_window_extent(renderer), line.get_window_extent(renderer)
    assert above.y0 >= below.y1
    axes = [ax.get_tightbbox(renderer) for ax in figure.axes if ax.axison]
    assert min(box.y0 for box in axes if box is not None) >= above.y1 - 1


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_rows_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    frame, options = FIGURES[name]
    for number in (1, 2):
        draw(name, frame_result(frame), tmp_path / f"{number}.svg", Layout(width=7), **options)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


@pytest.mark.model
def test_a_figure_of_a_store_is_drawn_again_from_its_sidecar(
    mini_store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "balance.svg"
    with moedb.open(mini_store) as database:
        doubted = database.resampled(Resampling("percentile", 100), Null(20))
        result = doubted.query("load-balance")
        draw("load-balance", result, path, value="gini")
        assert check_file(database, path).status == "same"
        frame = result.df()
        own, of_chance = bars(painted("load-balance", frame, value="gini").axes[0])
    assert_bars(own, frame, "gini")
    assert_bars(of_chance, frame, "gini_null")
