"""Tables and figures for a paper, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli
from moedb.queries.figures.registry import PLOTS

pytestmark = pytest.mark.model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def moedb(
    mini_store: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    monkeypatch.setenv("MOEDB_STORE", str(mini_store))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


class TestTables:
    def test_says_what_the_table_needs(self, moedb: Run) -> None:
        code, out, err = moedb("export", "load-balance", "-o", "a.tex", "--table-star")
        assert (code, out) == (0, "")
        assert r"in the preamble: \usepackage{booktabs}" in err.splitlines()
        assert Path("a.tex").read_text().startswith(r"\begin{table*}")
        code, _, err = moedb("export", "load-balance", "-o", "a.tex", "--longtable")
        assert r"in the preamble: \usepackage{booktabs} \usepackage{longtable}" in err
        assert r"\onecolumn" in err
        assert "usepackage" not in moedb("export", "load-balance", "-o", "a.csv")[2]

    def test_renames_columns(self, moedb: Run) -> None:
        heads = ("--rename", "cv=Spread = sd / mean", "--rename", "layer=Layer")
        for ending in ("tex", "md", "html"):
            assert moedb("export", "load-balance", "-o", f"a.{ending}", *heads)[0] == 0
            text = Path(f"a.{ending}").read_text()
            assert "Spread = sd / mean" in text and "Layer" in text and "cv" not in text
        options = json.loads(Path("a.tex.provenance.json").read_text())["options"]
        assert options["header_names"] == {"cv": "Spread = sd / mean", "layer": "Layer"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--longtable", "--table-star"), "do not go together"),
            (("--font-size", "9pt"), "'scriptsize'"),
            (("--rename", "cv"), "no COLUMN=HEAD"),
            (("--rename", "cv=a", "--rename", "cv=b"), "two heads"),
            (("--rename", "ginni=Gini"), "did you mean gini?"),
        ],
    )
    def test_refusals(self, moedb: Run, options: tuple[str, ...], message: str) -> None:
        code, _, err = moedb("export", "load-balance", "-o", "a.tex", *options)
        assert (code, message in err) == (2, True), err
        assert not Path("a.tex").exists()


class TestSqlOfAFile:
    def test_its_rows_are_those_of_the_same_sql(self, moedb: Run) -> None:
        layers = "select distinct layer, n_experts from moe_layers"
        sql = f"{layers} where layer >= cast($first as int) order by layer"
        Path("layers.sql").write_text(f"-- layers\n{sql}\n")
        assert moedb("export", "-f", "layers.sql", "-p", "first", "2", "-o", "a.csv")[0] == 0
        assert moedb("export", "--sql", sql, "-p", "first", "2", "-o", "b.csv")[0] == 0
        lines = Path("a.csv").read_text().splitlines()
        assert lines[:2] == ["layer,n_experts", "2,60"] and len(lines) == 5
        assert Path("b.csv").read_text() == Path("a.csv").read_text()
        told = json.loads(Path("a.csv.provenance.json").read_text())
        assert told["sql"].startswith("-- layers") and told["parameters"] == {"first": "2"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("-f", "none.sql"), "cannot read none.sql"),
            (("-f", "layers.sql", "--sql", "select 1"), "the SQL is given twice"),
            (("load-balance", "-f", "layers.sql"), "the name of a query or --sql"),
            (("-f", "layers.sql"), "arameter"),  # as versions of DuckDB word it
        ],
    )
    def test_refusals(self, moedb: Run, arguments: tuple[str, ...], message: str) -> None:
        Path("layers.sql").write_text("select $first as x")
        code, _, err = moedb("export", *arguments, "-o", "a.csv")
        assert code != 0 and message in err, err
        assert not Path("a.csv").exists()


class TestFigures:
    def test_without_a_name_they_are_listed(self, moedb: Run) -> None:
        code, out, _ = moedb("plot", "--store", "nowhere")
        assert code == 0
        listed = {line.split("  ", 1)[0]: line.split("  ", 1)[1] for line in out.splitlines()[2:]}
        assert set(listed) == set(PLOTS)
        assert listed["concentration"].strip() == (
            "what share of a layer's decisions its most used experts take"
        )
        rows = json.loads(moedb("query", "--format", "json")[1])
        known = {row["name"] for row in rows}
        assert set(listed) <= known

    def test_width_title_and_no_footer_are_in_the_sidecar(self, moedb: Run) -> None:
        asked = ("plot", "load-balance", "-o", "a.png", "--width", "text", "--title", "Balance")
        assert moedb(*asked, "--no-footer")[0] == 0
        sidecar = json.loads(Path("a.png.provenance.json").read_text())
        assert sidecar["layout"] == {"width": 7.0, "title": "Balance", "footer": False}
        assert sidecar["runs"][0]["model"] == "qwen-moe-mini"
        # the width and height of a PNG are behind its first 16 bytes
        assert int.from_bytes(Path("a.png").read_bytes()[16:20]) == 7 * 300

    def test_several_runs_are_in_one_figure(self, moedb: Run, mini_store: Path) -> None:
        first, last = sorted(each.name for each in (mini_store / "runs").iterdir())
        asked = ("plot", "saturation", "-p", "run_b", last, "-o", "a.png")
        code, _, err = moedb(*asked, "--run", f"{first},{last}")
        assert code == 0, err
        sidecar = json.loads(Path("a.png.provenance.json").read_text())
        assert {run["run_id"] for run in sidecar["runs"]} == {first, last}
        assert sidecar["n_rows"] == 12
        assert moedb("export", "--check", "a.png")[0] == 0
        code, _, err = moedb(*asked, "--run", f"{first},{last}", "--by", "step")
        assert code == 2 and "has no label 'step'" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("load-balance",), "moedb plot load-balance -o load-balance.pdf"),
            (("-o", "a.pdf"), "moedb plot lists the figures"),
            (("concentratoin", "-o", "a.pdf"), "did you mean concentration?"),
            (("concentration", "-o", "a.pdf", "--width", "1"), "2 to 20 inches"),
            (("concentration", "-o", "a.pdf", "--width", "colum"), "did you mean column?"),
            (("concentration", "-o", "a.pdf", "--title", "x" * 301), "300 at most"),
            (("concentration", "-o", "a.pdf", "--value", "share"), "takes no option 'value'"),
            (("router-confidence", "-o", "a.pdf", "-p", "key", "rule"), "did you mean role?"),
            (("load-balance", "-o", "a.pdf", "--run", "*"), "over several runs are: saturation"),
            (
                ("load-balance", "-o", "a.pdf", "--run", "qwen-ioi", "--by", "step"),
                "the figure of load-balance is of one run, and --by is 'step'",
            ),
        ],
    )
    def test_refusals(self, moedb: Run, arguments: tuple[str, ...], message: str) -> None:
        code, _, err = moedb("plot", *arguments)
        assert (code, message in err) == (2, True), err
        assert list(Path().iterdir()) == []
