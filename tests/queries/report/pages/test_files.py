"""The files of pages: whole, closed to the outside, and as large as they may be."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import RunNotFoundError, UsageError
from moedb.queries.report.pages import rendering, writing
from moedb.queries.report.pages.columns import read_column, read_table
from moedb.queries.report.pages.rendering import json_block
from moedb.queries.report.pages.subject import subject_of
from moedb.queries.report.pages.writing import write_folder, write_page
from tests.support.drawn.pages import ReadPage
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.made.hostile import KEY, MODEL, RUN, RUN_B, TOKENS, write_hostile
from tests.support.stores.made.routed_words import write_routed_words
from tests.support.stores.synthetic_ioi import CAPTURED, INTERVENED, Setting

BUNDLE = Path(rendering.__file__).parent / "bundle"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "store"
    write_hostile(folder)
    return folder


@pytest.fixture(scope="module")
def page(store: Path, tmp_path_factory: pytest.TempPathFactory) -> ReadPage:
    path = tmp_path_factory.mktemp("files") / "report.html"
    with moedb.open(store) as database:
        write_page(subject_of(database, RUN), path)
    return ReadPage(path)


def test_a_page_runs_its_own_scripts_and_loads_nothing(page: ReadPage) -> None:
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in page.scripts
    ]
    directives = dict(each.strip().split(" ", 1) for each in page.policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"].split() == hashes and len(hashes) > 10
    assert "connect-src" not in directives and directives["img-src"] == "data:"
    assert all(address.startswith(("#", "data:")) for address in page.addresses)


def test_nothing_of_the_data_is_markup(page: ReadPage) -> None:
    assert page.views["index"]["title"] == f"{MODEL} over numbers"
    assert read_column(page.views["tokens-0"]["token"])[:7] == [*TOKENS]
    assert page.views["tokens-0"]["labels"][0]["key"] == KEY
    outside = page.text
    for script in page.scripts:
        outside = outside.replace(script, "")
    assert "owned'</script>" not in outside and "<img src=x" not in outside
    assert "\x1b" not in outside and "\u2028" not in outside


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "a\u2028b\u2029", "&amp;", "é{{"])
def test_no_text_ends_its_block(text: str) -> None:
    block = json_block({text: [text]})
    assert json.loads(block) == {text: [text]}
    assert not set("<>&\u2028\u2029") & set(block)


def test_the_libraries_are_those_that_were_fetched() -> None:
    told = dict(reversed(line.split()) for line in (BUNDLE / "sha256sums.txt").open())
    assert {*told} == {path.name for path in BUNDLE.iterdir()} - {"build.sh", "sha256sums.txt"}
    for name, digest in told.items():
        assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == digest, name


def test_their_licences_go_with_them(page: ReadPage) -> None:
    licences = (BUNDLE / "LICENSES.txt").read_text()
    for package in ("d3-7", "observablehq-plot-0", "tabulator-tables-6", "interval-tree-1d"):
        assert f"== {package}" in licences
    assert "Permission to use, copy, modify, and/or distribute" in page.text
    assert "Copyright (c) 2015-2026 Oli Folkerd" in page.text or "Oli Folkerd" in page.text


def test_a_small_run_is_a_small_file(page: ReadPage) -> None:
    libraries = sum(path.stat().st_size for path in BUNDLE.iterdir())
    assert len(page.text.encode()) < libraries + 300_000


def test_a_folder_holds_the_same_in_parts(store: Path, page: ReadPage, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with moedb.open(store) as database:
        written = write_folder(subject_of(database, RUN), folder)
    there = {path for path in folder.rglob("*") if path.is_file()}
    assert {*written.files} == there and written.files[0].name == "index.html"
    assert written.n_bytes == sum(path.stat().st_size for path in there)
    first = ReadPage(folder / "index.html")
    assert first.views["load"] == page.views["load"]
    assert {*first.views["places"].values()} | {"assets"} == {
        path.name for path in folder.iterdir()
    }
    one = ReadPage(folder / "experts-3.html")
    assert one.views["experts-3"] == page.views["experts-3"]
    kept = read_table(one.views["load"]["parts"][0]["table"])
    assert kept["layer"].tolist() == [3] * 4
    whole = read_table(page.views["load"]["parts"][0]["table"])
    assert kept["frequency"].tolist() == whole["frequency"][whole["layer"] == 3].tolist()
    assert ReadPage(folder / "tokens-0.html").views["tokens-0"] == page.views["tokens-0"]


def test_what_is_too_much_for_one_file_is_said(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 5 tokens to an example, 2 layers, top 2: 20 decisions
    monkeypatch.setattr(writing, "MOST_DECISIONS", 40)
    monkeypatch.setattr(writing, "MOST_IN_FOLDERS", 40)
    monkeypatch.setattr(writing, "LARGE", 1000)
    path = tmp_path / "report.html"
    assert run_cli(["report", RUN, "--no-ci", "--store", str(store), "-o", str(path)]) == 0
    err = capsys.readouterr().err
    assert "holds examples 0 to 1 of 3" in err and f"moedb report {RUN} --folder" in err
    assert "may open slowly" in err
    found = ReadPage(path)
    assert found.views["index"]["slices"] == [[0, 1]]
    assert len(read_column(found.views["tokens-0"]["token"])) == 10
    assert "holds examples 0 to 1 of 3" in found.views["index"]["notes"][0]
    assert "tokens-1" not in found.views
    with moedb.open(store) as database:
        write_folder(subject_of(database, RUN), tmp_path / "folder")
    assert [*ReadPage(tmp_path / "folder" / "tokens-1.html").views["index"]["slices"]] == [
        [0, 1],
        [2, 2],
    ]


def test_a_run_without_statistics_of_routers_has_a_page(tmp_path: Path) -> None:
    write_routed_words(tmp_path / "store", n_examples=3, n_words=6, with_outputs=True)
    with moedb.open(tmp_path / "store") as database:
        write_page(subject_of(database), tmp_path / "report.html")
    found = ReadPage(tmp_path / "report.html")
    assert found.views["tokens-0"]["layers"][0]["entropy"] is None
    parts = {part["id"]: part for _, part in found.parts()}
    promoted = read_table(parts["promoted"]["table"])
    assert {*promoted["direction"]} == {"promotes", "suppresses"}
    assert any("no labels to show" in note for note in found.views["classes"]["notes"])
    assert "no answers" in found.views["answers"]["notes"][0]


def test_what_is_asked_wrongly_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert run_cli(["report", *arguments, "--store", str(store)]) == 2
        return capsys.readouterr().err

    out = str(tmp_path / "report.html")
    assert "moedb report RUN -o report.html" in refused(RUN)
    assert "give a file or a folder" in refused(RUN, "-o", out, "--folder", out)
    assert "absent" in refused("absent", "-o", out)
    assert "compared with itself" in refused(RUN, "--run-b", RUN, "-o", out)
    assert "--no-ci leaves them out" in refused(RUN, "--no-ci", "--samples", "200", "-o", out)
    assert "there is no folder" in refused(RUN, "-o", str(tmp_path / "no" / "report.html"))
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in refused(RUN, "--folder", str(tmp_path / "file" / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_run_is_the_newest_with_routing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    prompts = ioi.write_captured(store)
    answers = {p.example_id: (p.logit_diff, -0.5, 1) for p in prompts}
    splits = {p.example_id: p.split for p in prompts}
    ioi.write_interventions(store, [Setting("none", answers=answers)], splits, {})
    with moedb.open(store) as database:
        assert subject_of(database).run.run_id == CAPTURED
        with pytest.raises(UsageError, match="no routing decisions"):
            subject_of(database, INTERVENED)
        with pytest.raises(RunNotFoundError):
            subject_of(database, run_b="absent")


def test_two_runs_stand_in_one_page(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    arguments = ["report", RUN, "--run-b", RUN_B, "--no-ci", "-o", str(path)]
    assert run_cli([*arguments, "--store", str(store)]) == 0
    assert ReadPage(path).views["examples"]["run_b"] == RUN_B
    assert f"beside it run {RUN_B}" in path.read_text()
