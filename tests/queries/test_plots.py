import hashlib
import json
import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries import plots
from moedb.queries.heatmaps import (
    co_activation_matrix,
    heatmap,
    plot_co_activation,
    plot_co_activation_layers,
    plot_expert_frequency,
)
from moedb.queries.plots import PLOTS, draw, style_file
from tests.queries.result_samples import FOOTER, a_result, rows_result

FREQUENCY_SQL = """
select layer::int as layer, expert::int as expert,
    (layer * 37 + expert * 11) % 50 as n_decisions, 200 as n_tokens,
    ((layer * 37 + expert * 11) % 50) / 200.0::double as frequency,
    ((layer * 37 + expert * 11) % 50) / 800.0::double as share,
    4 / {n}.0::double as uniform
from range({first}, {first} + {layers}) l(layer), range({n}) e(expert) order by layer, expert
"""
PAIRS_SQL = """
select layer::int as layer, a::int as expert_a, b::int as expert_b, n_both, n_a, n_b,
    400 as n_tokens, n_both / n_a as p_b_given_a, n_both / n_b as p_a_given_b,
    n_both / (n_a + n_b - n_both) as jaccard, n_a * n_b / 400 as expected,
    n_both * 400 / (n_a * n_b) as lift
from (
    select *, 60.0::double + 5 * (a * (layer + 3) % 7) as n_a,
        60.0::double + 5 * (b * (layer + 3) % 7) as n_b,
        1 + (layer + a * b) % 13 as n_both
    from range({layers}) l(layer), range({n}) x(a), range({n}) y(b)
    where a < b and (a + b) % 3 <> 0
) order by layer, expert_a, expert_b
"""


def frequencies(layers=6, n=60, first=0):
    return a_result(FREQUENCY_SQL.format(layers=layers, n=n, first=first))


def pairs(layers=6, n=60):
    return a_result(PAIRS_SQL.format(layers=layers, n=n))


@pytest.fixture
def figure():
    with matplotlib.style.context(["default", style_file()]):
        yield Figure()


def drawn_labels(axis):
    """The tick labels within the limits of an axis, each with a text."""
    ticks = axis._update_ticks()
    labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]


def assert_readable(drawn):
    """Labels of one axis do not overlap, and every text lies within the figure."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    renderer = canvas.get_renderer()
    whole = drawn.bbox
    texts = list(drawn.texts)
    for ax in drawn.axes:
        if not ax.axison:
            continue
        texts += [ax.title, ax._left_title, ax._right_title, ax.xaxis.label, ax.yaxis.label]
        for axis, way in ((ax.xaxis, "x"), (ax.yaxis, "y")):
            labels = drawn_labels(axis)
            boxes = [label.get_window_extent(renderer) for label in labels]
            spans = sorted((getattr(box, f"{way}0"), getattr(box, f"{way}1")) for box in boxes)
            assert all(one[1] <= two[0] for one, two in pairwise(spans))
            texts += labels
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    for box in boxes:
        assert box.x0 >= whole.x0 - 1
        assert box.x1 <= whole.x1 + 1
        assert box.y0 >= whole.y0 - 1
        assert box.y1 <= whole.y1 + 1
    footer = drawn.texts[0].get_window_extent(renderer)
    assert sum(box.overlaps(footer) for box in boxes) == 1


class TestHeatmap:
    def test_array_labels_and_limits(self, figure):
        matrix = np.array([[0.0, 0.5, 1.5], [2.0, np.nan, 0.25]])
        ax = figure.subplots()
        assert heatmap(ax, matrix, ["l3", "l5"], ["a", "b", "c"], "share (of tokens)") is ax
        image = ax.images[0]
        np.testing.assert_array_equal(image.get_array().filled(np.nan), matrix)
        assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["l3", "l5"]
        assert ax.get_xlim() == (-0.5, 2.5)
        assert ax.get_ylim() == (1.5, -0.5)
        assert image.get_clim() == (0.0, 2.0)
        assert image.colorbar.ax.get_ylabel() == "share (of tokens)"
        assert image.cmap.name == "cividis"

    def test_all_zero(self, figure):
        ax = heatmap(figure.subplots(), np.zeros((2, 2)), [0, 1], [0, 1], None)
        assert ax.images[0].get_clim() == (0.0, 1.0)
        assert ax.images[0].colorbar is None

    def test_ticks_keep_even_steps(self, figure):
        ax = heatmap(figure.subplots(), np.zeros((3, 640)), range(3), range(640), None)
        places = [int(text.get_text()) for text in ax.get_xticklabels()]
        assert places[:2] == [0, 50]
        assert np.unique(np.diff(places)).tolist() == [50]


class TestExpertFrequency:
    def test_values_and_labels(self, figure):
        result = frequencies(layers=3, n=8, first=4)
        frame = result.df().sample(frac=1, random_state=0)
        ax = plot_expert_frequency(frame, figure.subplots())
        expected = np.array([row[4] for row in result.fetchall()]).reshape(3, 8)
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("expert", "layer")
        assert [text.get_text() for text in ax.get_yticklabels()] == ["4", "5", "6"]
        bar = ax.images[0].colorbar
        assert bar.ax.get_ylabel() == "frequency (share of tokens)"
        assert "uniform use, 0.5" in ax.get_title(loc="right")
        assert {tuple(line.get_ydata()) for line in bar.ax.lines} == {(0.5, 0.5)}
        assert ax.images[0].get_clim()[1] >= 0.5

    def test_share(self, figure):
        ax = plot_expert_frequency(frequencies().df(), figure.subplots(), value="share")
        assert ax.images[0].colorbar.ax.get_ylabel() == "share of routing decisions"
        assert ax.get_title(loc="right") == ""

    def test_a_missing_expert_is_no_zero(self, figure):
        frame = frequencies(layers=2, n=4).df()
        ax = plot_expert_frequency(frame[frame["expert"] != 1], figure.subplots())
        assert ax.images[0].get_array().mask[:, 1].all()

    def test_refusals(self, figure):
        frame = frequencies(layers=1, n=4).df()
        with pytest.raises(UsageError, match="more than one row"):
            plot_expert_frequency(pd.concat([frame, frame]), figure.subplots())
        with pytest.raises(UsageError, match="lacks frequency"):
            plot_expert_frequency(frame.drop(columns="frequency"), figure.subplots())
        with pytest.raises(UsageError, match="no value 'rate'"):
            plot_expert_frequency(frame, figure.subplots(), value="rate")


class TestCoActivation:
    @pytest.mark.parametrize("value", ["jaccard", "lift", "n_both"])
    def test_symmetric_matrix(self, value):
        frame = pairs(layers=3, n=7).df()
        matrix, experts = co_activation_matrix(frame, 2, value=value)
        expected = np.zeros((7, 7))
        for row in frame[frame["layer"] == 2].to_dict("records"):
            expected[row["expert_a"], row["expert_b"]] = row[value]
            expected[row["expert_b"], row["expert_a"]] = row[value]
        np.fill_diagonal(expected, np.nan)
        np.testing.assert_array_equal(matrix, expected)
        assert experts == list(range(7))
        assert matrix[0, 3] == 0.0

    def test_conditional_probability_reads_row_then_column(self):
        frame = pairs(layers=1, n=5).df()
        matrix, _ = co_activation_matrix(frame, 0, value="p_b_given_a")
        (row,) = frame.query("expert_a == 1 and expert_b == 3").to_dict("records")
        assert matrix[1, 3] == row["p_b_given_a"]
        assert matrix[3, 1] == row["p_a_given_b"]

    def test_top_takes_the_most_used(self):
        frame = pairs(layers=2, n=7).df()
        full, _ = co_activation_matrix(frame, 1)
        used = {**frame.query("layer == 1").set_index("expert_a")["n_a"].to_dict()}
        used |= frame.query("layer == 1").set_index("expert_b")["n_b"].to_dict()
        best = sorted(used, key=lambda expert: (-used[expert], expert))[:3]
        matrix, experts = co_activation_matrix(frame, 1, top=3)
        assert experts == best
        np.testing.assert_array_equal(matrix, full[np.ix_(best, best)])

    def test_axes(self, figure):
        ax = plot_co_activation(pairs().df(), figure.subplots(), 3)
        assert ax.get_title() == "layer 3"
        assert ax.images[0].get_array().shape == (60, 60)
        assert ax.get_xlim() == (-0.5, 59.5)
        assert "Jaccard" in ax.images[0].colorbar.ax.get_ylabel()

    def test_lift_meets_at_one(self, figure):
        ax = plot_co_activation(pairs().df(), figure.subplots(), 0, value="lift")
        assert ax.images[0].norm(1.0) == 0.5
        assert ax.images[0].cmap.name == "PuOr"

    def test_a_few_large_values_do_not_darken_the_rest(self, figure):
        frame = pairs(layers=1).df()
        frame.loc[0, "jaccard"] = 1.0
        ax = plot_co_activation(frame, figure.subplots(), 0)
        assert ax.images[0].get_clim()[1] < 0.5
        assert ax.images[0].colorbar.extend == "max"

    def test_all_layers_share_one_scale(self, figure):
        axes = plot_co_activation_layers(pairs(layers=5).df(), figure)
        assert [ax.get_title() for ax in axes] == [f"layer {n}" for n in range(5)]
        assert len({ax.images[0].get_clim() for ax in axes}) == 1
        assert [bool(ax.get_xlabel()) for ax in axes] == [False, False, True, True, True]
        assert [bool(ax.get_ylabel()) for ax in axes] == [True, False, False, True, False]

    def test_refusals(self):
        frame = pairs(layers=2, n=5).df()
        with pytest.raises(UsageError, match="no layer 7") as caught:
            co_activation_matrix(frame, 7)
        assert caught.value.hint == "layers: 0, 1"
        with pytest.raises(UsageError, match="2 experts or more"):
            co_activation_matrix(frame, 0, top=1)
        with pytest.raises(UsageError, match="no value 'jacard'"):
            co_activation_matrix(frame, 0, value="jacard")
        with pytest.raises(UsageError, match="more than one row"):
            co_activation_matrix(pd.concat([frame, frame]), 0)


DRAWN = {
    "frequency": ("expert-frequency", frequencies, {}),
    "frequency-24": ("expert-frequency", lambda: frequencies(24), {}),
    "frequency-small": ("expert-frequency", lambda: frequencies(1, 8), {}),
    "pairs": ("co-activation", pairs, {}),
    "pairs-5": ("co-activation", lambda: pairs(5), {"value": "lift"}),
    "pairs-layer": ("co-activation", pairs, {"layer": "2"}),
    "pairs-top": ("co-activation", pairs, {"top": "10", "value": "p_b_given_a"}),
    "pairs-one-layer": ("co-activation", lambda: pairs(1, 8), {"top": 5}),
}


class TestDraw:
    @pytest.mark.parametrize("case", DRAWN)
    def test_is_readable_at_column_width(self, tmp_path, monkeypatch, case):
        kept = []

        def keep(figure, format):
            kept.append(figure)
            assert_readable(figure)
            return b"figure"

        monkeypatch.setattr(plots, "_figure_bytes", keep)
        name, result, options = DRAWN[case]
        draw(name, result(), tmp_path / "x.png", **options)
        assert kept[0].get_figwidth() == pytest.approx(3.4)
        assert kept[0].texts[0].get_text().replace("\n", " ") == FOOTER

    @pytest.mark.parametrize("ending", ["pdf", "png", "svg"])
    @pytest.mark.parametrize("name", PLOTS)
    def test_writes_the_same_bytes_and_a_sidecar(self, tmp_path, name, ending):
        result = frequencies(2, 8) if name == "expert-frequency" else pairs(2, 8)
        path = tmp_path / f"x.{ending}"
        files = draw(name, result, path)
        assert files == [path, tmp_path / f"x.{ending}.provenance.json"]
        first = [file.read_bytes() for file in files]
        draw(name, result, path)
        assert [file.read_bytes() for file in files] == first
        start = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}[ending]
        assert first[0].startswith(start)
        sidecar = json.loads(first[1])
        assert sidecar["sha256"] == hashlib.sha256(first[0]).hexdigest()
        assert (sidecar["plot"], sidecar["format"]) == (name, ending)
        assert sidecar["runs"][0]["model"] == "qwen-moe-mini"
        assert sidecar["n_rows"] == len(result.fetchall())
        assert sorted(tmp_path.iterdir()) == sorted(files)

    def test_pdf_has_no_date_and_true_type_fonts(self, tmp_path):
        path, _ = draw("expert-frequency", frequencies(2, 8), tmp_path / "x.pdf")
        content = path.read_bytes()
        assert b"CreationDate" not in content
        assert b"/CIDFontType2" in content
        assert b"/Type3" not in content

    def test_svg_has_no_date(self, tmp_path):
        path, _ = draw("expert-frequency", frequencies(2, 8), tmp_path / "x.svg")
        text = path.read_text(encoding="utf-8")
        assert "dc:date" not in text
        assert FOOTER in text

    def test_leaves_the_settings_of_the_user(self, tmp_path):
        with mpl.rc_context({"font.size": 23.0, "image.cmap": "jet"}):
            path, _ = draw("expert-frequency", frequencies(2, 8), tmp_path / "a.png")
            assert (mpl.rcParams["font.size"], mpl.rcParams["image.cmap"]) == (23.0, "jet")
        plain, _ = draw("expert-frequency", frequencies(2, 8), tmp_path / "b.png")
        assert path.read_bytes() == plain.read_bytes()

    @pytest.mark.parametrize(
        ("name", "file", "options", "message"),
        [
            ("co-activaton", "x.pdf", {}, "no figure of 'co-activaton'"),
            ("co-activation", "x.jpeg", {}, r"'\.jpeg' is no figure format"),
            ("co-activation", "x", {}, "without ending"),
            ("co-activation", "x.pdf", {"experts": 3}, "no option 'experts'"),
            ("co-activation", "x.pdf", {"layer": "two"}, "layer is 'two', not of type int"),
            ("co-activation", "x.pdf", {"layer": 9}, "no layer 9"),
            ("expert-frequency", "x.pdf", {}, "lacks expert"),
            ("co-activation", "no/x.pdf", {}, "there is no folder"),
        ],
    )
    def test_refusals_write_nothing(self, tmp_path, name, file, options, message):
        with pytest.raises(UsageError, match=message):
            draw(name, pairs(2, 5), tmp_path / file, **options)
        assert list(tmp_path.iterdir()) == []

    def test_no_rows(self, tmp_path):
        result = rows_result([("layer", "INTEGER"), ("expert", "INTEGER")], [])
        with pytest.raises(UsageError, match="no rows to draw"):
            draw("expert-frequency", result, tmp_path / "x.pdf")


def test_importing_plots_imports_no_matplotlib():
    code = "import sys, moedb.queries.plots; print({'matplotlib', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
