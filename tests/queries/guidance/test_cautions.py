"""What is said beside the correlation of two experts, which is 1 or -1 whatever a model does."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.style
import pytest
from matplotlib.axes import Axes

import moedb
from moedb.cli import run_cli
from moedb.queries.figures.classes.panels import plot_class_pair_panels
from moedb.queries.figures.drawing import style_file
from moedb.queries.figures.parts.figure import new_figure
from moedb.queries.results.export import export
from moedb.queries.results.result import Result
from tests.support.models.cifar_store import CifarStore
from tests.support.stores.samples import RUN_ID, write_texts

pytestmark = pytest.mark.model

Run = Callable[..., tuple[int, str, str]]


def panels_of(result: Result, value: str) -> list[Axes]:
    with matplotlib.style.context(["default", style_file()]):
        return plot_class_pair_panels(result.df(), new_figure(4.0), value=value)


def test_every_correlation_of_two_experts_is_one_or_minus_one(cifar_store: CifarStore) -> None:
    rows = moedb.open(cifar_store.folder).query("class-correlation", experts=2).df()
    defined = rows["lowest"].dropna()
    assert len(defined)
    assert set(defined.round(12)) | set(rows["highest"].dropna().round(12)) <= {-1.0, 1.0}


@pytest.mark.parametrize(("experts", "said"), [(2, True), (3, False), (None, True)])
def test_is_said_where_there_are_two_experts(
    cifar_store: CifarStore, tmp_path: Path, experts: int | None, said: bool
) -> None:
    result = moedb.open(cifar_store.folder).query("class-correlation", experts=experts)
    assert (result.caution is not None) == said
    assert ("1 or -1 by necessity" in result.footer) == said
    assert result.limit(1).as_text(set()).caution == result.caution
    for ending in ("tex", "md", "html"):
        path, _ = export(result, tmp_path / f"x.{ending}")
        assert ("by necessity" in path.read_text()) == said
    panels = panels_of(result, "correlation")
    for ax in panels:
        of_two = "2 experts" in ax.get_title()
        assert ("±1 by necessity" in ax.get_title()) == of_two
    assert any("±1" in ax.get_title() for ax in panels) == said


def test_other_queries_have_none(cifar_store: CifarStore) -> None:
    result = moedb.open(cifar_store.folder).query("class-covariance", experts=2)
    assert result.caution is None
    assert result.footer == result.provenance.footer()
    assert not any("necessity" in ax.get_title() for ax in panels_of(result, "covariance"))


@pytest.mark.parametrize(
    ("texts", "key", "is_of_one"),
    [(["a 1 b 2"], "digit", True), (["a, b. c"], "punctuation", False)],
)
def test_is_said_where_a_label_has_one_value(
    tmp_path: Path, texts: list[str], key: str, is_of_one: bool
) -> None:
    write_texts(tmp_path, texts)
    moedb.label_tokens(RUN_ID, tmp_path)
    with moedb.open(tmp_path) as db:
        asked = (
            db.query("expert-specialization", key=key, min_decisions=1),
            db.query("label-information", key=key, permutations=20),
        )
        for result in asked:
            assert ("nothing is told apart" in (result.caution or "")) == is_of_one
        # with a threshold that no expert reaches there are no rows to be cautious of
        assert db.query("expert-specialization", key=key, min_decisions=99).caution is None


def test_the_command_line_says_so_on_stderr(
    cifar_store: CifarStore,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOEDB_STORE", str(cifar_store.folder))

    def said(*arguments: str) -> str:
        assert run_cli(list(arguments)) == 0
        out, err = capfd.readouterr()
        assert "necessity" not in out
        return "\n".join(line for line in err.splitlines() if line.startswith("note: "))

    asked = ("class-correlation", "-p", "experts")
    assert "1 or -1 by necessity" in said("query", *asked, "2")
    assert "1 or -1 by necessity" in said("plot", *asked, "2", "-o", str(tmp_path / "x.png"))
    assert said("query", *asked, "3") == ""
