"""Tables and figures for a paper, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli

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
