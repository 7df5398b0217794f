"""Figures of logit lens, attribution and interventions."""

from collections.abc import Iterator

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moedb.errors import UsageError
from moedb.queries.figures.drawing import style_file
from moedb.queries.figures.predictions.experts import plot_expert_attribution, plot_expert_effect
from moedb.queries.figures.predictions.interventions import plot_intervention_effect
from moedb.queries.figures.predictions.lens import plot_logit_lens
from tests.support.drawn.ioi_frames import ablations, attributions, effects, lens


@pytest.fixture
def ax() -> Iterator[Axes]:
    with matplotlib.style.context(["default", style_file()]):
        yield Figure().subplots()


def test_lens_has_a_line_and_a_band_for_each_place(ax: Axes) -> None:
    frame = lens()
    plot_logit_lens(frame, ax)
    for line, place in zip(ax.lines, ("mid", "post"), strict=False):
        rows = frame[frame["place"] == place]
        np.testing.assert_array_equal(line.get_ydata(), rows["mean_logit_diff"])
    bands = [band for band in ax.collections if len(band.get_paths()[0].vertices) > 4]
    mid = frame[frame["place"] == "mid"]
    heights = bands[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == mid["mean_logit_diff_low"].min()
    assert heights.max() == mid["mean_logit_diff_high"].max()
    assert ax.get_ylabel() == "logit difference"
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"after attention", "after the layer", "embedding"}


def test_lens_of_a_value_without_interval(ax: Axes) -> None:
    plot_logit_lens(lens(), ax, value="mean_logprob")
    assert ax.get_ylabel() == "log-probability (nats)"
    with pytest.raises(UsageError, match="no value 'mean_logpro'"):
        plot_logit_lens(lens(), ax, value="mean_logpro")


def test_effects_have_a_line_for_each_kind_and_its_parameters(ax: Axes) -> None:
    frame = effects(
        ("random-routing", {}, "clean"),
        ("patch", {"site": "residual", "roles": ["end", "s2"]}, "clean"),
        ("patch", {"site": "residual", "roles": ["end", "s2"]}, "corrupted"),
    )
    plot_intervention_effect(frame, ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [
        "random-routing into clean",
        "patch residual end+s2 into clean",
        "patch residual end+s2 into corrupted",
    ]
    line = ax.containers[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [0.0, 1.0])
    np.testing.assert_allclose(line.get_xdata(), [-0.2, 1.8])


def test_effects_of_single_experts_are_dots(ax: Axes) -> None:
    frame = pd.concat([effects(("ablate-experts", {"form": "zero"}, "clean"))] * 3)
    plot_intervention_effect(frame.reset_index(drop=True), ax)
    assert ax.lines[0].get_linestyle() == "None"
    assert len(ax.lines[0].get_xdata()) == 6


def test_effects_of_several_layers_are_left_out(ax: Axes) -> None:
    together = effects(("uniform-weights", {"layers": [0, 2]}, "clean")).assign(layer=None)
    frame = pd.concat([effects(("random-routing", {}, "clean")), together], ignore_index=True)
    plot_intervention_effect(frame, ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["random-routing"]
    with pytest.raises(UsageError, match="no intervention at a single layer"):
        plot_intervention_effect(together, ax)


def test_many_effects_are_a_heat_map(ax: Axes) -> None:
    splits = ("corrupted", "clean")
    many = effects(*((f"kind-{n}", {}, splits[n % 2]) for n in range(9)), layers=(0, 2, 3))
    plot_intervention_effect(many, ax)
    rows = [label.get_text() for label in ax.get_yticklabels()]
    clean = [f"kind-{n} into clean" for n in range(1, 9, 2)]
    assert rows == [*clean, *(f"kind-{n} into corrupted" for n in range(0, 9, 2))]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.0, 1.0, 1.5]] * 9)
    several = pd.concat([many, many], ignore_index=True)
    with pytest.raises(UsageError, match="9 series, some about single experts, are too many"):
        plot_intervention_effect(several, ax)


def test_attribution_is_coloured_around_zero(ax: Axes) -> None:
    plot_expert_attribution(attributions(), ax)
    image = ax.images[0]
    assert image.get_array().shape == (2, 5)
    assert image.norm.vmin == -image.norm.vmax == pytest.approx(-0.3)
    assert image.get_array()[1, 4] == pytest.approx(0.1)
    with pytest.raises(UsageError, match="no rows of experts"):
        plot_expert_attribution(attributions().iloc[:1], ax)


def test_attribution_per_use_leaves_unused_experts_out(ax: Axes) -> None:
    plot_expert_attribution(attributions(), ax, value="attribution_per_use")
    assert np.isnan(np.ma.filled(ax.images[0].get_array(), np.nan)[:, 2]).all()


@pytest.mark.parametrize(("value", "said"), [("attribution", "loss"), ("frequency", "size")])
def test_effect_is_a_scatter_with_its_correlation(ax: Axes, value: str, said: str) -> None:
    frame = ablations()
    plot_expert_effect(frame, ax, value=value)
    places = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(places, frame[[value, "change_logit_diff"]])
    change = -frame["change_logit_diff"]
    expected = frame[value].corr(change, method="spearman")
    assert f"{expected:.2f} (12 experts)" in ax.get_title(loc="right")
    assert said in ax.get_title(loc="right")


def test_effect_refuses_two_forms_and_no_attribution(ax: Axes) -> None:
    frame = ablations()
    mixed = pd.concat([frame, frame.assign(params='{"form": "remove"}')], ignore_index=True)
    with pytest.raises(UsageError, match=r"differ in form, tokens or split \(remove, zero\)"):
        plot_expert_effect(mixed, ax)
    with pytest.raises(UsageError, match="no ablated expert has its attribution"):
        plot_expert_effect(frame.assign(attribution=np.nan), ax)
