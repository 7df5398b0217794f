"""Width, title and the line below, as they are drawn and as the sidecar has them."""

import json

import matplotlib as mpl
import matplotlib.style
import pytest

from moedb.errors import UsageError
from moedb.queries.figures import drawing
from moedb.queries.figures.drawing import draw, style_file
from moedb.queries.figures.parts.layout import WIDTHS, Layout, read_width
from tests.support.drawn.figure_frames import balances, concentrations, cross_layers
from tests.support.drawn.figures import assert_readable, frame_result
from tests.support.stores.result_samples import FOOTER, RUN


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw into a file; return the figure and its sidecar."""
    figures = []
    to_bytes = drawing._figure_bytes

    def keep(figure, format):
        figures.append(figure)
        return to_bytes(figure, format)

    monkeypatch.setattr(drawing, "_figure_bytes", keep)

    def draw_it(name, frame, layout, **options):
        _, sidecar = draw(name, frame_result(frame), tmp_path / "x.png", layout, **options)
        return figures[-1], json.loads(sidecar.read_text())

    return draw_it


class TestWidth:
    @pytest.mark.parametrize(
        ("text", "inches"), [("column", 3.4), ("text", 7.0), ("5.25", 5.25), ("3", 3.0)]
    )
    def test_names_and_inches(self, drawn, text, inches):
        figure, sidecar = drawn("concentration", concentrations(), Layout(read_width(text)))
        assert figure.get_figwidth() == inches
        assert sidecar["layout"] == {"width": inches, "title": None, "footer": True}
        assert_readable(figure)

    def test_the_style_is_as_wide_as_a_column(self):
        with matplotlib.style.context(["default", style_file()]):
            assert mpl.rcParams["figure.figsize"][0] == WIDTHS["column"]

    def test_square_panels_grow_with_the_width(self, drawn):
        heights = [
            drawn("cross-layer", cross_layers(4, 6), Layout(width))[0].get_figheight()
            for width in (3.4, 7.0)
        ]
        assert heights[1] > 1.6 * heights[0]

    @pytest.mark.parametrize("text", ["wide", "", "nan", "inf", "3in"])
    def test_no_width(self, text):
        with pytest.raises(UsageError, match="no width") as caught:
            read_width(text)
        assert "column (3.4 inches), text (7 inches)" in caught.value.message

    def test_near_names_are_named(self):
        with pytest.raises(UsageError) as caught:
            read_width("colum")
        assert "did you mean column?" in caught.value.hint

    @pytest.mark.parametrize("width", [0.0, -3.4, 1.9, 20.1])
    def test_range(self, width):
        with pytest.raises(UsageError, match="2 to 20 inches"):
            Layout(width)

    def test_what_does_not_fit_is_refused_and_not_written(self, drawn, tmp_path):
        frame = cross_layers(1, 60)
        with pytest.raises(UsageError, match=r"at a width of 2 inches this is cut off: 'P\(col"):
            drawn("cross-layer", frame, Layout(2.0))
        assert list(tmp_path.iterdir()) == []
        assert drawn("cross-layer", frame, Layout(4.0))[0].get_figwidth() == 4.0


class TestTitle:
    def test_stands_for_that_of_a_single_panel(self, drawn):
        one = cross_layers(1, 6)
        figure, _ = drawn("cross-layer", one, Layout())
        assert (figure.axes[0].get_title(), figure.get_suptitle()) == ("layers 0 to 2", "")
        figure, sidecar = drawn("cross-layer", one, Layout(title="What $goes$ where\x1b[2J"))
        assert figure.axes[0].get_title() == ""
        assert figure.get_suptitle() == r"What \$goes\$ where\x1b[2J"
        assert sidecar["layout"]["title"] == "What $goes$ where\x1b[2J"
        assert_readable(figure)

    def test_an_empty_one_leaves_it_out(self, drawn):
        figure, _ = drawn("cross-layer", cross_layers(1, 6), Layout(title=""))
        assert (figure.axes[0].get_title(), figure.get_suptitle()) == ("", "")

    def test_panels_keep_theirs(self, drawn):
        figure, _ = drawn("cross-layer", cross_layers(2, 6), Layout(title="Both"))
        assert figure.get_suptitle() == "Both"
        assert [ax.get_title() for ax in figure.axes[:2]] == ["layers 0 to 2", "layers 1 to 3"]

    def test_a_long_one_takes_lines_of_its_own(self, drawn):
        plain, _ = drawn("load-balance", balances(), Layout())
        titled, _ = drawn("load-balance", balances(), Layout(title="a long title " * 20))
        assert titled.get_suptitle().count("\n") >= 4
        assert titled.get_figheight() > plain.get_figheight() + 0.5
        assert_readable(titled)
        with pytest.raises(UsageError, match="has 301 characters: 300 at most"):
            Layout(title="x" * 301)


class TestFooter:
    def test_is_left_out_and_the_sidecar_stays(self, drawn):
        figure, sidecar = drawn("load-balance", balances(), Layout(footer=False))
        assert figure.texts == []
        assert sidecar["runs"][0]["run_id"] == RUN.run_id
        assert sidecar["layout"]["footer"] is False
        below, _ = drawn("load-balance", balances(), Layout())
        assert [text.get_text() for text in below.texts] == [FOOTER]
        assert below.get_figheight() > figure.get_figheight()
