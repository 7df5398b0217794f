"""What figures draw is what their queries answer: artists' values against the rows, one by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import moedb
from moedb.errors import UsageError
from moedb.queries.database import Database
from moedb.queries.figures.drawing import style_file
from moedb.queries.figures.registry import PLOTS
from tests.support.drawn.figure_frames import expert_similarities, saturations

pytestmark = pytest.mark.model

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def database(mini_store: Path) -> Iterator[Database]:
    with moedb.open(mini_store) as opened:
        yield opened


def painted(
    database: Database, name: str, options: dict[str, Any], **parameters: object
) -> tuple[Figure, Rows]:
    """The figure of a query, and its rows by the names of the columns."""
    result = database.query(name, **parameters)
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]
    with matplotlib.style.context(["default", style_file()]):
        return PLOTS[name].paint(result.df(), **options), rows


def line(ax: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the line with a label."""
    (found,) = [each for each in ax.lines if str(each.get_label()).lstrip("_") == label]
    points: list[tuple[float, float]] = np.column_stack([found.get_data()]).T.tolist()
    return [(float(x), float(y)) for x, y in points]


def cells(ax: Axes) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.masked_invalid(np.ma.asarray(ax.images[0].get_array()))


def test_concentration(database: Database) -> None:
    figure, rows = painted(database, "concentration", {})
    ax = figure.axes[0]
    for layer in range(6):
        expected = [(row["n_top"], row["share"]) for row in rows if row["layer"] == layer]
        assert line(ax, f"layer {layer}") == sorted(expected)
    assert line(ax, "equal use") == [(m, m / 60) for m in (1, 4, 8, 16, 32, 60)]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "4", "8", "16", "32", "60"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "most used experts of the layer",
        "share of routing decisions",
    )
    assert figure.axes[1].get_ylabel() == "layer"


def test_load_balance(database: Database) -> None:
    figure, rows = painted(database, "load-balance", {})
    above, below = figure.axes
    for ax, label, column in (
        (above, "experts", "n_experts"),
        (above, "chosen at least once", "n_used"),
        (above, "effective: 2 to the entropy", "effective_experts"),
        (below, "entropy over log2 E (even: 1)", "normalized_entropy"),
        (below, "Gini coefficient (even: 0)", "gini"),
    ):
        assert line(ax, label) == [(row["layer"], row[column]) for row in rows]


@pytest.mark.parametrize(
    ("value", "even"), [("switch_loss", 1.0), ("max_over_mean", 1.0), ("cv", 0.0), ("n_dead", None)]
)
def test_one_measure_of_load_balance(database: Database, value: str, even: float | None) -> None:
    figure, rows = painted(database, "load-balance", {"value": value})
    *dashed, found = figure.axes[0].lines
    np.testing.assert_array_equal(found.get_ydata(), [row[value] for row in rows])
    assert [float(np.asarray(each.get_ydata())[0]) for each in dashed] == (
        [] if even is None else [even]
    )


@pytest.mark.parametrize("value", ["p_next_given", "lift", "n_both"])
def test_cross_layer(database: Database, value: str) -> None:
    figure, rows = painted(database, "cross-layer", {"value": value})
    used = {(row["layer"], row["expert"]) for row in rows}
    used_next = {(row["layer"], row["next_expert"]) for row in rows}
    for layer, ax in enumerate(figure.axes[:5]):
        drawn = cells(ax)
        found = {
            (row["expert"], row["next_expert"]): row[value] for row in rows if row["layer"] == layer
        }
        assert drawn.shape == (60, 60)
        for a, b in np.ndindex(60, 60):
            known = (layer, a) in used and (value != "lift" or (layer, b) in used_next)
            assert bool(np.ma.getmaskarray(drawn)[a, b]) == (not known)
            if known:
                assert drawn[a, b] == found.get((a, b), 0.0)
        assert ax.get_title() == f"layers {layer} to {layer + 1}"


def test_cross_layer_of_the_most_used(database: Database) -> None:
    figure, rows = painted(database, "cross-layer", {"value": "n_both", "top": 5}, layer=2)
    ax = figure.axes[0]
    uses = {row["expert"]: row["n_expert"] for row in rows}
    best = sorted(uses, key=lambda expert: (-uses[expert], expert))[:5]
    assert [int(text.get_text()) for text in ax.get_yticklabels()] == best
    usage = database.query("expert-frequency").df()
    there = usage[usage["layer"] == 3].sort_values(
        ["n_decisions", "expert"], ascending=[False, True]
    )
    best_next = there["expert"].tolist()[:5]
    assert [int(text.get_text()) for text in ax.get_xticklabels()] == best_next
    both = {(row["expert"], row["next_expert"]): row["n_both"] for row in rows}
    expected = [[both.get((a, b), 0) for b in best_next] for a in best]
    np.testing.assert_array_equal(cells(ax), expected)


@pytest.mark.parametrize("value", ["cosine", "cka"])
def test_output_overlap(database: Database, value: str) -> None:
    figure, rows = painted(database, "output-overlap", {"value": value})
    layers = sorted({row["layer"] for row in rows})
    for layer, ax in zip(layers, figure.axes, strict=False):
        drawn, mask = cells(ax), np.ma.getmaskarray(cells(ax))
        own = [row for row in rows if row["layer"] == layer and row[value] is not None]
        for row in own:
            a, b = row["expert_a"], row["expert_b"]
            assert drawn[a, b] == drawn[b, a] == row[value]
        assert (~mask).sum() == 2 * len(own)
        assert ax.get_title() == f"layer {layer}"
    scale = figure.axes[0].images[0].norm
    assert scale.vmin == (-(scale.vmax or 0.0) if value == "cosine" else 0.0)


@pytest.mark.parametrize("value", ["saturation", "first_saturation"])
def test_saturation_of_one_run(database: Database, value: str) -> None:
    first, last = sorted(database.snapshot.runs)
    asked = {"run": first, "run_b": last}
    figure, rows = painted(database, "saturation", {"value": value}, **asked)
    ax = figure.axes[0]
    (drawn,) = [each for each in ax.lines if each.get_marker() == "o"]
    np.testing.assert_array_equal(drawn.get_xydata(), [(r["layer"], r[value]) for r in rows])
    assert 0 < max(row[value] for row in rows) < 1
    # of 60 experts a random router has 4, and 1 in the first place
    chance = {"saturation": 4 / 60, "first_saturation": 1 / 60}[value]
    assert [height for _, height in line(ax, "routers that choose at random")] == [
        pytest.approx(chance)
    ] * 2
    assert ax.get_xlabel() == "layer"


def test_saturation_over_runs(database: Database) -> None:
    last, first = sorted(database.snapshot.runs)
    figure, rows = painted(database, "saturation", {}, run=[first, last], run_b=last)
    ax = figure.axes[0]
    for layer in range(6):
        own = [row["saturation"] for row in rows if row["layer"] == layer]
        assert line(ax, f"layer {layer}") == [(0.0, own[0]), (1.0, own[1])]
        assert own[0] < own[1] == 1.0
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert [name.rstrip("…") for name in names] == [row["run"][:15] for row in rows[::6]]
    assert ax.get_xlabel() == "run"
    assert figure.axes[1].get_ylabel() == "layer"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("expert_cosine", "cosine of all weights (random: 0 ± 0.006)"),
        ("up_cosine", "cosine of the up projections (random: 0 ± 0.01)"),
        ("router_cosine", "cosine of the router's rows (random: 0 ± 0.02)"),
        ("matched_cosine", "cosine of matched neurons (random: 0.1)"),
    ],
)
def test_expert_similarity(value: str, label: str) -> None:
    frame = expert_similarities(3, 5)
    frame.loc[frame["layer"] == 1, value] = np.nan
    with matplotlib.style.context(["default", style_file()]):
        figure = PLOTS["expert-similarity"].paint(frame, value=value)
    *panels, bar = [ax for ax in figure.axes if ax.axison]
    assert bar.get_ylabel() == label
    for layer, ax in enumerate(panels):
        drawn, mask = cells(ax), np.ma.getmaskarray(cells(ax))
        assert ax.get_title() == f"layer {layer}" and mask.diagonal().all()
        for row in frame[frame["layer"] == layer].to_dict("records"):
            a, b = row["expert_a"], row["expert_b"]
            assert mask[a, b] == mask[b, a] == (layer == 1)
            if layer != 1:
                assert drawn[a, b] == drawn[b, a] == row[value]
    limits = panels[0].images[0].get_clim()
    lowest = frame[value].min() if value == "matched_cosine" else -frame[value].abs().max()
    assert limits == (lowest, frame[value].abs().max())


def test_weights_that_could_not_be_compared_are_not_drawn() -> None:
    frame = expert_similarities(1, 3).assign(up_cosine=None, reason="they are away")
    with pytest.raises(UsageError, match="up_cosine: no pair of experts has one") as caught:
        PLOTS["expert-similarity"].paint(frame, value="up_cosine")
    assert caught.value.hint == "they are away"


def test_saturation_over_a_number_of_runs(database: Database) -> None:
    frame = saturations(3, (800, 100, 300))
    with matplotlib.style.context(["default", style_file()]):
        figure = PLOTS["saturation"].paint(frame)
    ax = figure.axes[0]
    for layer in range(3):
        own = frame[frame["layer"] == layer]
        expected = list(zip(own["step"], own["saturation"], strict=True))
        assert sorted(line(ax, f"layer {layer}")) == sorted(expected)
    assert (ax.get_xlabel(), ax.get_xscale()) == ("step", "linear")
    with pytest.raises(UsageError, match="more than one row for a layer and a step") as caught:
        PLOTS["saturation"].paint(frame.assign(step=100))
    assert caught.value.hint == "tell the runs apart: --by KEY"
    with pytest.raises(UsageError, match="no token in common"):
        PLOTS["saturation"].paint(frame.assign(saturation=np.nan))


def test_overlap(database: Database) -> None:
    asked = {"key": "role", "value_a": "io", "value_b": "s2"}
    figure, rows = painted(database, "overlap", {}, **asked)
    (ax,) = figure.axes
    for label, column in (
        ("Jaccard index of the 4 most used", "jaccard"),
        ("weighted Jaccard index of all", "weighted_jaccard"),
        ("Jensen-Shannon divergence (bits)", "jensen_shannon"),
    ):
        assert line(ax, label) == [(row["layer"], row[column]) for row in rows]
    assert ax.get_xlabel() == "layer (40 tokens in group A, 40 in B)"
    alone, _ = painted(database, "overlap", {"value": "overlap_coefficient"}, **asked)
    (found,) = alone.axes[0].lines
    np.testing.assert_array_equal(found.get_ydata(), [row["overlap_coefficient"] for row in rows])


def test_router_confidence_by_class(database: Database) -> None:
    figure, rows = painted(database, "router-confidence", {}, key="role")
    (ax,) = figure.axes
    names = [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]
    assert names == ["end", "io", "other", "s1", "s2"]
    for number, container in enumerate(ax.containers):
        points, _, (bars,) = container  # type: ignore[misc]
        own = [row for row in rows if row["value"] == names[number]]
        np.testing.assert_array_equal(points.get_ydata(), [row["mean_entropy"] for row in own])
        shifted = points.get_xdata() - [row["layer"] for row in own]
        np.testing.assert_allclose(shifted, -0.2 + 0.1 * number, atol=1e-12)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        deviations = [row["sd_entropy"] for row in own]
        np.testing.assert_allclose((ends[:, 1] - ends[:, 0]) / 2, deviations, rtol=1e-12)
    assert ax.get_xlabel() == "layer (bars: one sd over tokens)"
    assert ax.get_ylabel() == "entropy of the router (bits)"


def test_router_confidence_of_all_tokens(database: Database) -> None:
    figure, rows = painted(database, "router-confidence", {})
    (ax,) = figure.axes
    assert line(ax, "all") == [(row["layer"], row["mean_entropy"]) for row in rows]
    (band,) = ax.collections
    (path,) = band.get_paths()
    low = [row["mean_entropy"] - row["sd_entropy"] for row in rows]
    high = [row["mean_entropy"] + row["sd_entropy"] for row in rows]
    assert path.vertices[:, 1].min() == min(low)  # type: ignore[index,union-attr]
    assert path.vertices[:, 1].max() == max(high)  # type: ignore[index,union-attr]
    assert ax.get_legend() is None


def test_router_confidence_of_many_classes(database: Database) -> None:
    figure, rows = painted(database, "router-confidence", {"value": "mean_margin"}, key="template")
    ax = figure.axes[0]
    classes = list(dict.fromkeys(row["value"] for row in rows))
    assert len(classes) == 15
    expected = {(row["value"], row["layer"]): row["mean_margin"] for row in rows}
    drawn = cells(ax)
    assert drawn.shape == (15, 6)
    for (y, x), value in np.ndenumerate(drawn):
        assert value == expected[classes[y], x]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer", "class")


@pytest.mark.parametrize("value", ["information", "normalized"])
def test_label_information(database: Database, value: str) -> None:
    asked = {"key": "template", "permutations": 19}
    figure, rows = painted(database, "label-information", {"value": value}, **asked)
    (ax,) = figure.axes
    assert line(ax, "labels as they are") == [(row["layer"], row[value]) for row in rows]
    unit = [row["label_entropy"] if value == "normalized" else 1.0 for row in rows]
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]  # type: ignore[index,union-attr]
    lowest = min(row["null_mean"] / h for row, h in zip(rows, unit, strict=True))
    highest = max(row["null_highest"] / h for row, h in zip(rows, unit, strict=True))
    np.testing.assert_allclose([heights.min(), heights.max()], [lowest, highest], rtol=1e-12)
    filled = [row["layer"] for row in rows if row["p_value"] <= 0.05]
    marks = {str(each.get_label()): each for each in ax.lines}
    assert ("p at most 0.05" in marks) == bool(filled)
    if filled:
        assert list(marks["p at most 0.05"].get_xdata()) == filled
    assert ax.get_xlabel() == f"layer (shuffled: {rows[0]['permuted']})"


def test_lift_by_class(database: Database) -> None:
    figure, rows = painted(database, "routing-by-class", {"value": "lift"}, key="role", layer=3)
    ax = figure.axes[0]
    classes = [text.get_text() for text in ax.get_yticklabels()]
    assert classes == ["end", "io", "other", "s1", "s2"]
    drawn = cells(ax)
    for row in rows:
        at = classes.index(row["value"]), row["expert"]
        assert bool(np.ma.getmaskarray(drawn)[at]) == (row["lift"] is None)
        if row["lift"] is not None:
            assert drawn[at] == row["lift"]
    norm = ax.images[0].norm
    for ratio in (1.25, 2.0):  # twice as many and half as many are as far from the middle
        above, below = float(norm(ratio)) - 0.5, 0.5 - float(norm(1 / ratio))
        assert above == pytest.approx(below) and above > 0
    assert float(norm(1.0)) == pytest.approx(0.5)
    assert float(norm(0.0)) == 0.0 and not np.ma.is_masked(norm(0.0))
    assert figure.axes[1].get_ylabel() == "lift (class over all)"
    numbers = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert "1" in numbers and "1/2" in numbers and "2" in numbers


def test_state_and_function(database: Database) -> None:
    asked = {"keys": "role,token", "permutations": 19, "samples": 50, "min_count": 5}
    figure, rows = painted(database, "state-and-function", {}, **asked)
    assert [ax.get_title() for ax in figure.axes] == ["role", "token"]
    for ax in figure.axes:
        own = [row for row in rows if row["key"] == ax.get_title()]
        nulls = [each for each in ax.lines if each.get_marker() == "_"]
        measures = "experts_beyond", "clusters_beyond"
        for container, null, measure in zip(ax.containers, nulls, measures, strict=True):
            points, _, (bars,) = container  # type: ignore[misc]
            means = np.array([row[f"{measure}_null_mean"] for row in own])
            shifted = [
                np.array([row[f"{measure}{column}"] for row in own]) - means
                for column in ("", "_low", "_high", "_null_95")
            ]
            ends = np.array([segment[:, 1] for segment in bars.get_segments()]).T
            drawn = [points.get_ydata(), *ends, null.get_ydata()]
            np.testing.assert_allclose(drawn, shifted, atol=1e-9)
