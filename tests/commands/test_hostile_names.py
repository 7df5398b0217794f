"""Names in a store that would act on a terminal, on a page or in a figure."""

import csv
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from moedb.cli import run_cli
from moedb.queries.report.writing import PAGE
from tests.queries.analyses.test_ioi_analyses import make_settings
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.synthetic_ioi import CAPTURED

# sets a terminal's title, clears it, turns text around; markup of rich, HTML, Markdown, LaTeX and
# matplotlib; a letter of which nothing is drawn
HOSTILE = (
    "evil\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u200b\u3164\r\n# Title\n"
    "[red]<script>alert(1)</script><img src=x>![i](http://x/i.png)|*b*"
    r"$\frac{$\input{/etc/passwd}%&_^~"
)
TO_LOOK_AT = ("table", "markdown", "latex", "html")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "store"
    prompts = ioi.write_captured(folder, model=HOSTILE)
    kept = [each for each in make_settings(prompts) if each.params.get("form") != "remove"]
    splits = {p.example_id: p.split for p in prompts}
    twins = {e: e + 1 for e in splits if e % 9 % 2 == 0}
    ioi.write_interventions(folder, kept, splits, twins, with_lens=True)
    return folder


@pytest.fixture
def moedb(store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MOEDB_STORE", str(store))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def assert_harmless(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), text
    assert "\u3164" not in text


@pytest.mark.parametrize("format_", TO_LOOK_AT)
def test_nothing_raw_reaches_the_terminal(moedb: Run, format_: str) -> None:
    for arguments in (
        ("runs",),
        ("show", CAPTURED),
        ("query", "ioi-logit-diff", "--run", CAPTURED),
        ("sql", "select model, [model] as list, {'m': model} as struct from runs"),
        ("sql", 'select 1 as "\x1b[2J\u202e"'),
    ):
        code, out, err = moedb(*arguments, "--format", format_)
        assert code == 0, err
        assert_harmless(out)
        assert_harmless(err)


def test_a_cell_is_one_line(moedb: Run) -> None:
    _, out, _ = moedb("sql", "select model from runs where run_id = $r", "-p", "r", CAPTURED)
    assert len(out.splitlines()) == 3
    assert r"\x1b]0;owned\x07" in out and r"\u202egnp\u200b\u3164\r\n# Title\n" in out


def test_formats_for_machines_are_exact(moedb: Run) -> None:
    asked = "sql", "select model from runs where run_id = $r", "-p", "r", CAPTURED
    _, out, _ = moedb(*asked, "--format", "json")
    assert json.loads(out) == [{"model": HOSTILE}]
    assert all(line.isprintable() for line in out.split("\n"))
    _, out, _ = moedb(*asked, "--format", "jsonl")
    assert json.loads(out) == {"model": HOSTILE}
    assert out.rstrip("\n").isprintable()
    _, out, _ = moedb(*asked, "--format", "csv")
    assert list(csv.reader(io.StringIO(out, newline="")))[1] == [HOSTILE]


def test_errors_and_warnings_are_harmless(moedb: Run, tmp_path: Path) -> None:
    for arguments, expected in (
        (("sql", f"select error(model) from runs where run_id = '{CAPTURED}'"), 2),
        (("sql", 'from "\x1b[2J"'), 2),
        (("show", "\x1b[2J"), 2),
        (("query", "\x1b[2J"), 2),
        (("\x1b[2J",), 2),
        (("rm", "\x1b[2J\x9b"), 2),
        (("-v", "show", "\x1b[2J"), 2),
        (("sql", "-f", str(tmp_path / "\x1b[2J")), 2),
    ):
        code, out, err = moedb(*arguments)
        assert code == expected, err
        assert_harmless(out)
        assert_harmless(err)
        assert r"\x1b" in err, arguments


def test_log_messages_are_harmless(moedb: Run, capfd: pytest.CaptureFixture[str]) -> None:
    moedb("runs")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("moedb").exception("of %s", HOSTILE)
    err = capfd.readouterr().err
    assert r"\x1b]0;owned\x07" in err
    assert_harmless(err)


def test_an_unexpected_error_is_harmless(moedb: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from moedb.queries.guidance import overview

    def fail(_: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(overview, "run_list", fail)
    for arguments in (("runs",), ("-v", "runs")):
        code, _, err = moedb(*arguments)
        assert code == 1 and r"\x1b[2J" in err
        assert_harmless(err)


def test_progress_takes_names_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    from moedb.commands.api.progress import RichProgress, TrainingBar

    with RichProgress() as progress:
        progress.note(f"capturing {HOSTILE}")
    with TrainingBar() as bar:
        bar.begin(f"[/red]{HOSTILE}", 10, 5)
        bar.epoch(HOSTILE, {"epoch": 1, "train_loss": 0.5})
    err = capfd.readouterr().err
    assert_harmless(err)
    assert err.count("[red]") == 3 and "[/red]evil" in err


def test_a_result_in_python_is_harmless(store: Path) -> None:
    import moedb

    with moedb.open(store) as database:
        assert_harmless(repr(database.sql("select model from runs")))


def html_of(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


def test_the_page_of_a_report_prints_names_as_they_are(
    moedb: Run, store: Path, tmp_path: Path
) -> None:
    code, _, err = moedb("report", "ioi", "-o", str(tmp_path))
    assert code == 0, err
    assert_harmless(err)
    page = (tmp_path / PAGE).read_text()
    assert_harmless(page)
    html = html_of(page)
    assert "<script" not in html and "<img src=x" not in html and "<em>b" not in html
    assert set(re.findall(r'(?:src|href)="([^"]+)"', html)) <= {p.name for p in tmp_path.iterdir()}
    assert "<h1>" in html and html.count("<h1>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_exports_print_names_as_they_are(moedb: Run, tmp_path: Path) -> None:
    sql = f"select model, 1.5 as x from runs where run_id = '{CAPTURED}'"
    for ending in ("md", "html", "tex"):
        path = tmp_path / f"table.{ending}"
        assert moedb("export", "--sql", sql, "-o", str(path))[0] == 0
        text = path.read_text()
        assert_harmless(text)
        if ending == "tex":
            assert r"\input" not in text and r"\frac" not in text
        else:
            html = html_of(text) if ending == "md" else text
            assert "<script" not in html and "<img" not in html and "<em>" not in html


@pytest.mark.parametrize("ending", ["pdf", "png", "svg"])
def test_figures_print_names_as_they_are(moedb: Run, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"figure.{ending}"
    code, _, err = moedb("plot", "logit-lens", "--run", CAPTURED, "-o", str(path))
    assert code == 0, err
    if ending == "svg":
        drawn = path.read_text()
        assert "<script" not in drawn and "\x1b" not in drawn
        # matplotlib names each line of text in a comment before it draws it
        assert re.search(r"\$\\frac\{\$", drawn)
