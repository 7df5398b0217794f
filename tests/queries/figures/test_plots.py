import hashlib
import json
import subprocess
import sys

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures import drawing
from moedb.queries.figures.classes.matrices import (
    plot_class_experts,
    plot_class_pairs,
    plot_routing_by_class,
)
from moedb.queries.figures.classes.panels import (
    panels_of,
    plot_class_expert_panels,
    plot_class_pair_panels,
)
from moedb.queries.figures.drawing import draw, style_file
from moedb.queries.figures.experts.use import plot_expert_frequency
from moedb.queries.figures.pairs.co_activation import (
    co_activation_matrix,
    plot_co_activation,
    plot_co_activation_layers,
)
from moedb.queries.figures.parts.heatmap import heatmap
from moedb.queries.figures.parts.text_fitting import shown_name
from moedb.queries.figures.registry import PLOTS
from moedb.queries.figures.router_ablation import (
    plot_router_ablation,
    plot_router_ablation_variants,
)
from tests.support.drawn.figure_frames import (
    balances,
    concentrations,
    confidences,
    cross_layers,
    expert_similarities,
    informations,
    label_effects,
    labelled_experts,
    output_overlaps,
    overlaps,
    polysemantic,
    probe_bests,
    probe_curves,
    saturations,
    states_and_functions,
)
from tests.support.drawn.figures import assert_readable, frame_result
from tests.support.drawn.ioi_frames import (
    ablations,
    attributions,
    effects,
    lens,
    lens_effects,
    routed,
)
from tests.support.stores.result_samples import FOOTER, a_result, rows_result

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


NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
PAIR_FIGURES = {
    "class-correlation": "correlation",
    "class-covariance": "covariance",
    "class-consistency": "share",
}


def class_shares(variants, experts, classes=NAMES):
    rng = np.random.default_rng(4)
    for variant in variants:
        for n in experts:
            yield variant, n, rng.dirichlet(np.full(n, 0.4), len(classes))


def class_pairs(value, variants=("base",), experts=(3,)):
    rows = []
    for variant, n, shares in class_shares(variants, experts):
        matrix = {
            "correlation": np.corrcoef(shares),
            "covariance": np.cov(shares, bias=True),
            "share": np.abs(np.corrcoef(shares)),
        }[value]
        rows += [
            (variant, n, 3, one, other, 10, matrix[i, j])
            for i, one in enumerate(NAMES)
            for j, other in enumerate(NAMES)
        ]
    names = ["variant", "experts", "layer", "class_a", "class_b", "n_trials", value]
    return pd.DataFrame(rows, columns=names)


def matched(variants=("base",), experts=(2,)):
    rows = [
        (variant, n, 3, name, expert, 10, shares[c, expert], 0.1, 0.0, 1.0, 50, 100)
        for variant, n, shares in class_shares(variants, experts)
        for c, name in enumerate(NAMES)
        for expert in range(n)
    ]
    names = (
        "variant experts layer value expert n_trials share sd lowest highest n_decisions n_tokens"
    )
    return pd.DataFrame(rows, columns=names.split())


def by_class(classes=NAMES, n=5, layers=1):
    rows = [
        (layer, name, expert, 5, 100, 2 * shares[c, expert], shares[c, expert])
        for layer in range(layers)
        for _, _, shares in class_shares([""], [n], classes)
        for c, name in enumerate(classes)
        for expert in range(n)
    ]
    names = "layer value expert n_decisions n_tokens rate share"
    frame = pd.DataFrame(rows, columns=names.split())
    return frame.assign(lift=frame["rate"] / frame.groupby("expert")["rate"].transform("mean"))


def accuracies(variants=("base",), experts=(3,), trials=2):
    frames = [
        matched(variants, experts).rename(columns={"share": "accuracy"}).assign(trial=trial)
        for trial in range(trials)
    ]
    return pd.concat(frames, ignore_index=True)


def ablation(variants=("base", "short"), experts=(2, 3, 5), trials=10):
    several = trials > 1
    rows = [
        (
            *(variant, n, trials, 0.7 + 0.01 * n, 0.7 / n, None if variant == "short" else 0.1),
            *((0.02, 0.04) if several else (None, None)),
        )
        for variant in variants
        for n in experts
    ]
    names = "variant experts n_trials learned random reinitialized learned_sd random_sd"
    return pd.DataFrame(rows, columns=names.split())


def all_kinds():
    kinds = ("random-routing", "uniform-weights", "force-experts", "swap-routing")
    kinds += ("ablate-experts", "knock-out-shared")
    return effects(*((kind, {}, "clean") for kind in kinds), layers=tuple(range(24)))


def patches():
    sites = ("residual", "block-output", "expert-output", "attention-output")
    params = [{"site": site, "roles": ["end", "$s2", "s1"]} for site in sites]
    return effects(*(("patch", p, split) for p in params for split in ("clean", "corrupted")))


@pytest.fixture
def figure():
    with matplotlib.style.context(["default", style_file()]):
        yield Figure()


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


class TestClassPairs:
    @pytest.mark.parametrize("value", ["correlation", "covariance", "share"])
    def test_values_names_and_colours(self, figure, value):
        frame = class_pairs(value)
        shuffled = frame.sample(frac=1, random_state=1)
        ax = figure.subplots()
        assert plot_class_pairs(shuffled, ax, value=value, classes=NAMES) is ax
        expected = frame[value].to_numpy().reshape(10, 10)
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            assert [label.get_text() for label in labels] == list(NAMES)
        low, high = ax.images[0].get_clim()
        if value == "share":
            assert (low, high, ax.images[0].cmap.name) == (0.0, 1.0, "cividis")
        else:
            assert low == -high and ax.images[0].norm(0.0) == 0.5
            assert high == (1.0 if value == "correlation" else expected.max())
            assert ax.images[0].cmap.name == "PuOr"

    def test_variants_stand_side_by_side_on_one_scale(self, figure):
        frame = class_pairs("covariance", ("base", "short"), (2, 5))
        axes = plot_class_pair_panels(frame, figure, value="covariance")
        assert [ax.get_title() for ax in axes] == [
            "base, 2 experts", "base, 5 experts", "short, 2 experts", "short, 5 experts",
        ]  # fmt: skip
        places = [(panel.row, panel.column) for panel in panels_of(frame)]
        assert places == [(0, 0), (1, 0), (0, 1), (1, 1)]
        assert len({ax.images[0].get_clim() for ax in axes}) == 1
        assert axes[0].images[0].get_clim()[1] == frame["covariance"].abs().max()

    def test_values_are_printed_where_they_fit(self, figure):
        figure.set_size_inches(3.4, 3.2)
        (ax,) = plot_class_pair_panels(class_pairs("correlation"), figure)
        assert len(ax.texts) == 100
        assert {text.get_text() for text in ax.texts} >= {"1.00"}
        assert {text.get_color() for text in ax.texts} == {"black", "white"}
        crowded = Figure(figsize=(3.4, 2.0))
        axes = plot_class_pair_panels(class_pairs("correlation", ("base", "short")), crowded)
        assert sum(len(ax.texts) for ax in axes) == 0

    def test_a_pair_without_a_value_is_grey(self, figure):
        frame = class_pairs("correlation").iloc[1:]
        figure.set_size_inches(3.4, 3.2)
        (ax,) = plot_class_pair_panels(frame, figure)
        assert ax.images[0].get_array().mask.sum() == 1 and len(ax.texts) == 99

    def test_refusals(self, figure):
        frame = class_pairs("correlation")
        with pytest.raises(UsageError, match="no value 'corelation'") as caught:
            plot_class_pair_panels(frame, figure, value="corelation")
        assert "did you mean correlation" in caught.value.hint
        with pytest.raises(UsageError, match="lacks covariance"):
            plot_class_pair_panels(frame, figure, value="covariance")
        with pytest.raises(UsageError, match="layers 3, 4 in one panel"):
            plot_class_pair_panels(pd.concat([frame, frame.assign(layer=4)]), figure)
        with pytest.raises(UsageError, match="more than one row"):
            plot_class_pairs(pd.concat([frame, frame]), figure.subplots())
        with pytest.raises(UsageError, match="26 panels are too many"):
            panels_of(class_pairs("share", ("a", "b"), range(2, 15)))


class TestClassExperts:
    def test_shares_of_the_experts(self, figure):
        frame = matched(experts=(2, 4))
        two, four = plot_class_expert_panels(frame.sample(frac=1, random_state=2), figure)
        panels = {ax.get_title(): ax for ax in (two, four)}
        ax = panels["base, 4 experts"]
        order = [NAMES.index(label.get_text()) for label in ax.get_yticklabels()]
        expected = frame[frame["experts"] == 4]["share"].to_numpy().reshape(10, 4)[order]
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
        assert len(ax.texts) == 40 and len(panels["base, 2 experts"].texts) == 20
        assert ax.texts[0].get_text() == f"{expected[0, 0]:.2f}"
        assert ax.images[0].get_clim() == (0.0, 1.0)

    def test_each_trial_has_a_panel(self, figure):
        keys = ("variant", "experts", "trial")
        axes = plot_class_expert_panels(accuracies(), figure, value="accuracy", keys=keys)
        assert [ax.get_title() for ax in axes] == [
            "base, 3 experts\ntrial 0", "base, 3 experts\ntrial 1",
        ]  # fmt: skip

    def test_each_way_of_training_has_a_panel(self, figure):
        one = matched().assign(gate="weighted", balance="mean", aux_coefficient=1e-5)
        frame = pd.concat([one, one.assign(gate="unweighted"), one.assign(aux_coefficient=None)])
        axes = plot_class_expert_panels(frame, figure)
        assert [ax.get_title() for ax in axes] == [
            "base, 2 experts\ngate weighted\naux_coefficient 1e-05",
            "base, 2 experts\ngate unweighted\naux_coefficient 1e-05",
            "base, 2 experts\ngate weighted\naux_coefficient nan",
        ]
        many = [one.assign(aux_coefficient=number) for number in range(25)]
        with pytest.raises(UsageError, match="25 panels are too many") as caught:
            panels_of(pd.concat(many))
        assert "-p aux_coefficient" in caught.value.hint

    def test_one_layer_of_a_run(self, figure):
        frame = by_class(layers=2)
        with pytest.raises(UsageError, match="more than one layer") as caught:
            plot_routing_by_class(frame, figure.subplots())
        assert caught.value.hint == "name one of 0, 1: -p layer NUMBER"
        with pytest.raises(UsageError, match="no layer 7"):
            plot_routing_by_class(frame, figure.subplots(), layer=7)
        ax = figure.subplots()
        assert plot_routing_by_class(frame, ax, layer=1, value="rate") is ax
        expected = frame[frame["layer"] == 1]["rate"].to_numpy().reshape(10, 5)
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
        assert (ax.get_title(), ax.get_xlabel()) == ("layer 1", "expert")
        assert ax.images[0].colorbar.ax.get_ylabel() == "share of class's tokens"
        assert ax.images[0].get_clim() == (0.0, expected.max())
        with pytest.raises(UsageError, match="no value 'lfit'"):
            plot_class_experts(frame, figure.subplots(), value="lfit")

    def test_names_can_be_drawn(self):
        assert shown_name("a\nb") == "a\\nb"
        assert len(shown_name("x" * 99)) == 16


class TestRouterAblation:
    def test_bars_and_error_bars(self, figure):
        frame = ablation(("base",)).sample(frac=1, random_state=0)
        ax = plot_router_ablation(frame, figure.subplots())
        heights = np.array([bar.get_height() for bar in ax.patches]).reshape(3, 3)
        expected = frame.sort_values("experts")[["learned", "random", "reinitialized"]].T
        np.testing.assert_array_equal(heights, expected)
        assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "3", "5"]
        bars = [each for each in ax.containers if isinstance(each, ErrorbarContainer)]
        lengths = [np.diff(s[:, 1])[0] for bar in bars for s in bar[2][0].get_segments()]
        np.testing.assert_allclose(lengths, [0.04] * 3 + [0.08] * 3)

    def test_one_trial_has_no_error_bars(self, figure):
        (ax,) = plot_router_ablation_variants(ablation(("",), trials=1), figure)
        assert len(ax.containers) == 3 and ax.get_title() == ""
        assert figure.legends[0].get_title().get_text() == ""

    def test_variants_share_the_scale_of_accuracy(self, figure):
        axes = plot_router_ablation_variants(ablation(), figure)
        assert [ax.get_title() for ax in axes] == ["base", "short"]
        assert {ax.get_ylim() for ax in axes} == {(0.0, 1.0)}
        assert np.isnan([bar.get_height() for bar in axes[1].patches]).sum() == 3
        assert figure.legends[0].get_title().get_text() == "error bars: one sd over trials"

    def test_ways_of_training_are_not_in_one_panel(self, figure):
        one = ablation(("base",)).assign(gate="weighted", balance="mean", aux_coefficient=None)
        frame = pd.concat([one, one.assign(gate="unweighted", balance="sum")])
        axes = plot_router_ablation_variants(frame, figure)
        assert [ax.get_title() for ax in axes] == [
            "base\ngate weighted\nbalance mean", "base\ngate unweighted\nbalance sum",
        ]  # fmt: skip
        assert [len(ax.patches) for ax in axes] == [9, 9]

    def test_refusals(self, figure):
        frame = ablation()
        with pytest.raises(UsageError, match="more than one row") as caught:
            plot_router_ablation(frame, figure.subplots())
        assert caught.value.hint is not None and "-p level experts" in caught.value.hint
        with pytest.raises(UsageError, match="no trial has an accuracy"):
            empty = dict.fromkeys(("learned", "random", "reinitialized"))
            plot_router_ablation_variants(frame.assign(**empty), figure)
        with pytest.raises(UsageError, match="4 variants are too many"):
            plot_router_ablation_variants(ablation("abcd"), figure)


ONE_GROUP = [("clean", None, 3)]


def by_example(layers=6, splits=("clean",)):
    groups = [(split, f"t{n} of $", 4) for split in splits for n in range(15)]
    return routed(dict.fromkeys(range(layers), 60), groups)


DRAWN = {
    "frequency": ("expert-frequency", frequencies, {}),
    "frequency-24": ("expert-frequency", lambda: frequencies(24), {}),
    "frequency-small": ("expert-frequency", lambda: frequencies(1, 8), {}),
    "pairs": ("co-activation", pairs, {}),
    "pairs-5": ("co-activation", lambda: pairs(5), {"value": "lift"}),
    "pairs-layer": ("co-activation", pairs, {"layer": "2"}),
    "pairs-top": ("co-activation", pairs, {"top": "10", "value": "p_b_given_a"}),
    "pairs-one-layer": ("co-activation", lambda: pairs(1, 8), {"top": 5}),
    "correlation": ("class-correlation", lambda: frame_result(class_pairs("correlation")), {}),
    "correlation-8": (
        "class-correlation",
        lambda: frame_result(class_pairs("correlation", ("base", "short"), (2, 3, 5, 10))),
        {},
    ),
    "covariance-4": (
        "class-covariance",
        lambda: frame_result(class_pairs("covariance", ("base",), (2, 3, 5, 10))),
        {},
    ),
    "consistency-2": (
        "class-consistency",
        lambda: frame_result(class_pairs("share", ("base", "short"), (3,))),
        {},
    ),
    "matched": ("routing-by-class-over-trials", lambda: frame_result(matched()), {}),
    "matched-8": (
        "routing-by-class-over-trials",
        lambda: frame_result(matched(("base", "short"), (2, 3, 5, 10))),
        {},
    ),
    "by-class": ("routing-by-class", lambda: frame_result(by_class()), {}),
    "by-class-60": (
        "routing-by-class",
        lambda: frame_result(by_class(("io", "s1", "$2", "end of a very long name"), 60, 2)),
        {"layer": "1", "value": "rate"},
    ),
    "lift": ("routing-by-class", lambda: frame_result(by_class()), {"value": "lift"}),
    "lift-60": (
        "routing-by-class",
        lambda: frame_result(by_class(("io", "s1", "$2"), 60)),
        {"value": "lift"},
    ),
    "concentration-24": ("concentration", lambda: frame_result(concentrations(24, 256)), {}),
    "concentration-1": ("concentration", lambda: frame_result(concentrations(1, 4)), {}),
    "balance-48": ("load-balance", lambda: frame_result(balances(48, 128)), {}),
    **{
        f"balance-{value}": ("load-balance", lambda: frame_result(balances()), {"value": value})
        for value in ("effective_experts", "gini", "cv", "max_over_mean", "switch_loss", "n_dead")
    },
    "cross-layer-23": ("cross-layer", lambda: frame_result(cross_layers(23, 20)), {}),
    "cross-layer-lift": (
        "cross-layer",
        lambda: frame_result(cross_layers(5, 60)),
        {"value": "lift"},
    ),
    "cross-layer-top": (
        "cross-layer",
        lambda: frame_result(cross_layers(1, 60)),
        {"value": "n_both", "top": 12},
    ),
    "output-overlap-24": ("output-overlap", lambda: frame_result(output_overlaps(24, 12)), {}),
    "output-overlap-cka": (
        "output-overlap",
        lambda: frame_result(output_overlaps(1, 60)),
        {"value": "cka"},
    ),
    "output-overlap-6": (
        "output-overlap",
        lambda: frame_result(output_overlaps(6, 8)),
        {"value": "cka"},
    ),
    **{
        f"expert-similarity-{n}-{value}": (
            "expert-similarity",
            lambda n=n: frame_result(expert_similarities(n, 12)),
            {"value": value},
        )
        for n, value in ((1, "router_cosine"), (6, "matched_cosine"), (24, "gate_cosine"))
    },
    "saturation-24": ("saturation", lambda: frame_result(saturations(24)), {}),
    "saturation-steps": (
        "saturation",
        lambda: frame_result(saturations(24, tuple(range(1000, 300_000, 23_000)))),
        {"value": "first_saturation"},
    ),
    "saturation-runs": (
        "saturation",
        lambda: frame_result(saturations(1, tuple(range(100, 3000, 100)), by=None)),
        {},
    ),
    "overlap-24": ("overlap", lambda: frame_result(overlaps(24)), {}),
    "overlap-js": ("overlap", lambda: frame_result(overlaps()), {"value": "jensen_shannon"}),
    "confidence-1": ("router-confidence", lambda: frame_result(confidences(1)), {}),
    "confidence-8": ("router-confidence", lambda: frame_result(confidences(8, 24)), {}),
    "confidence-60": (
        "router-confidence",
        lambda: frame_result(confidences(60, 24)),
        {"value": "mean_topk_mass"},
    ),
    "probe-curves-1": ("probe-curves", lambda: frame_result(probe_curves((1,))), {}),
    "probe-curves-accuracy": (
        "probe-curves",
        lambda: frame_result(probe_curves((1, 2, 4, 8, 16, 32, 64))),
        {"value": "balanced_accuracy"},
    ),
    **{
        f"probe-best-{n}-{len(keys)}": (
            "probe-best",
            lambda n=n, keys=keys: frame_result(probe_bests(n, keys)),
            {},
        )
        for n, keys in ((1, ("upos",)), (60, ("upos",)), (9, ("a very long key with a $", "b")))
    },
    "polysemanticity-1": ("polysemanticity", lambda: frame_result(polysemantic(1, 1)), {}),
    "polysemanticity-24": ("polysemanticity", lambda: frame_result(polysemantic(24, 20)), {}),
    **{
        f"labelled-experts-{n}-{len(sets)}": (
            "labelled-experts",
            lambda n=n, sets=sets: frame_result(labelled_experts(n, sets)),
            {},
        )
        for n, sets in ((1, ("a",)), (60, ("a",)), (10, ("qwen", "llama")), (360, ("a",)))
    },
    "information-24": ("label-information", lambda: frame_result(informations(24)), {}),
    "information-1": (
        "label-information",
        lambda: frame_result(informations(1)),
        {"value": "normalized"},
    ),
    **{
        f"state-{n_keys}-{n_layers}": (
            "state-and-function",
            lambda n_keys=n_keys, n_layers=n_layers: frame_result(
                states_and_functions(
                    ("a very long key with a $", *"bcdefgh"[: n_keys - 1]), n_layers
                )
            ),
            {},
        )
        for n_keys in (1, 2, 6, 8)
        for n_layers in (1, 6, 24)
    },
    **{
        f"label-effects-{n}": (
            "label-effects",
            lambda n=n: frame_result(label_effects(n).assign(label="a label with a $ in it")),
            {},
        )
        for n in (1, 12, 64)
    },
    "accuracy": ("expert-accuracy", lambda: frame_result(accuracies(trials=1)), {}),
    "accuracy-20": (
        "expert-accuracy",
        lambda: frame_result(accuracies(("base", "short"), (5,), 10)),
        {},
    ),
    "ablation": ("router-ablation", lambda: frame_result(ablation()), {}),
    "ablation-1": ("router-ablation", lambda: frame_result(ablation(("",), (2, 3), 1)), {}),
    "lens-24": ("logit-lens", lambda: frame_result(lens(24)), {}),
    "lens-logprob": ("logit-lens", lambda: frame_result(lens()), {"value": "mean_logprob"}),
    "lens-effect": ("lens-effect", lambda: frame_result(lens_effects(("patch", {}))), {}),
    "lens-effect-24": (
        "lens-effect",
        lambda: frame_result(
            lens_effects(
                ("patch", {"site": "attention-output", "roles": ["s2", "end"]}),
                layers=tuple(range(24)),
                n_layers=24,
            )
        ),
        {},
    ),
    "effects": ("intervention-effect", lambda: frame_result(all_kinds()), {}),
    "patches-24": (
        "intervention-effect",
        lambda: frame_result(
            effects(
                *(
                    ("patch", {"site": site, "roles": [role]}, split)
                    for site in ("attention-output", "block-output", "shared-output", "residual")
                    for role in ("s1", "s2", "end")
                    for split in ("clean", "corrupted")
                ),
                layers=tuple(range(24)),
            ),
        ),
        {},
    ),
    "patches": ("intervention-effect", lambda: frame_result(patches()), {}),
    "attribution": ("expert-attribution", lambda: frame_result(attributions()), {}),
    "attribution-24": (
        "expert-attribution",
        lambda: frame_result(attributions(tuple(range(24)), 60)),
        {"value": "attribution_per_use"},
    ),
    "effect-24": (
        "expert-effect",
        lambda: frame_result(ablations(tuple(range(24)), 60)),
        {"value": "frequency"},
    ),
    "effect-1": ("expert-effect", lambda: frame_result(ablations((3,), 1)), {}),
    "examples": ("routing-by-example", lambda: frame_result(by_example()), {}),
    "examples-24": (
        "routing-by-example",
        lambda: frame_result(by_example(24, ("clean", "corrupted"))),
        {"value": "share"},
    ),
    "examples-60": (
        "routing-by-example",
        lambda: frame_result(routed(dict.fromkeys(range(60), 8), ONE_GROUP)),
        {},
    ),
    "examples-1": ("routing-by-example", lambda: frame_result(routed({3: 8}, ONE_GROUP)), {}),
}
WIDE = ("routing-by-example",)
SMALL = {
    "expert-frequency": lambda: frequencies(2, 8),
    "co-activation": lambda: pairs(2, 8),
    "concentration": lambda: frame_result(concentrations()),
    "load-balance": lambda: frame_result(balances()),
    "cross-layer": lambda: frame_result(cross_layers(2, 6)),
    "output-overlap": lambda: frame_result(output_overlaps(2, 6)),
    "overlap": lambda: frame_result(overlaps()),
    "router-confidence": lambda: frame_result(confidences()),
    "label-information": lambda: frame_result(informations()),
    "expert-similarity": lambda: frame_result(expert_similarities(2, 5)),
    "saturation": lambda: frame_result(saturations(6, (100, 200, 900))),
    "state-and-function": lambda: frame_result(states_and_functions()),
    "label-effects": lambda: frame_result(label_effects()),
    "probe-curves": lambda: frame_result(probe_curves()),
    "probe-best": lambda: frame_result(probe_bests()),
    "polysemanticity": lambda: frame_result(polysemantic()),
    "labelled-experts": lambda: frame_result(labelled_experts()),
    "routing-by-class": lambda: frame_result(by_class()),
    "routing-by-class-over-trials": lambda: frame_result(matched()),
    "expert-accuracy": lambda: frame_result(accuracies()),
    "router-ablation": lambda: frame_result(ablation()),
    "logit-lens": lambda: frame_result(lens()),
    "lens-effect": lambda: frame_result(lens_effects(("patch", {}))),
    "intervention-effect": lambda: frame_result(all_kinds()),
    "expert-attribution": lambda: frame_result(attributions()),
    "expert-effect": lambda: frame_result(ablations()),
    "routing-by-example": lambda: frame_result(routed({0: 8, 2: 8}, ONE_GROUP)),
    **{
        name: (lambda value=value: frame_result(class_pairs(value)))
        for name, value in PAIR_FIGURES.items()
    },
}


class TestDraw:
    @pytest.mark.parametrize("case", DRAWN)
    def test_is_readable_at_its_width(self, tmp_path, monkeypatch, case):
        kept = []

        def keep(figure, format):
            kept.append(figure)
            assert_readable(figure)
            return b"figure"

        monkeypatch.setattr(drawing, "_figure_bytes", keep)
        name, result, options = DRAWN[case]
        draw(name, result(), tmp_path / "x.png", **options)
        assert kept[0].get_figwidth() == pytest.approx(7.0 if name in WIDE else 3.4)
        assert kept[0].texts[0].get_text().replace("\n", " ") == FOOTER

    @pytest.mark.parametrize(
        ("name", "ending"),
        [
            *((name, "pdf") for name in PLOTS),
            *zip(PLOTS, ["png", "svg"] * len(PLOTS), strict=False),
        ],
    )
    def test_writes_the_same_bytes_and_a_sidecar(self, tmp_path, name, ending):
        result = SMALL[name]()
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
        with pytest.raises(UsageError, match="no rows for it"):
            draw("expert-frequency", result, tmp_path / "x.pdf")


def test_importing_plots_imports_no_matplotlib():
    module = "moedb.queries.figures.drawing"
    code = f"import sys, {module}; print({{'matplotlib', 'pandas'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
