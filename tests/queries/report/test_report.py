"""The report on IOI: its files, the order of its page, and what it says is missing."""

import json
import re
import shutil
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import RunNotFoundError, UsageError
from moedb.queries.report.ioi import IOI_SECTIONS
from moedb.queries.report.writing import PAGE, write_ioi_report
from tests.queries.analyses.test_ioi_analyses import make_settings
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.samples import unfinish, write_sample
from tests.support.stores.synthetic_ioi import CAPTURED, INTERVENED, Setting


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "store"
    prompts = ioi.write_captured(folder)
    settings = make_settings(prompts)
    # a single form of ablation, so that there is one figure of it
    kept = [each for each in settings if each.params.get("form") != "remove"]
    splits = {p.example_id: p.split for p in prompts}
    twins = {e: e + 1 for e in splits if e % 9 % 2 == 0}
    ioi.write_interventions(folder, kept, splits, twins, with_lens=True)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "store"
    ioi.write_captured(folder, arrays={"residual_pre": (0, 1, 2, 3)})
    write_sample(folder)
    return folder


def linked(page: str) -> set[str]:
    return set(re.findall(r"\]\(([^)]+)\)", page))


def test_writes_all_figures_and_tables_and_a_page(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    with moedb.open(store) as database:
        written = write_ioi_report(database, folder)
    assert written.missing == ()
    assert {path.name for path in written.files} == {path.name for path in folder.iterdir()}
    page = (folder / PAGE).read_text()
    assert linked(page) <= {path.name for path in written.files}
    for section in IOI_SECTIONS:
        for part in section.parts:
            for ending, made in (
                (".pdf", part.figure and not part.by_kind),
                (".png", part.figure and not part.by_kind),
                (".csv", part.table),
                (".tex", part.table and part.latex),
            ):
                path = folder / f"{part.stem}{ending}"
                assert path.exists() == made
                if made:
                    sidecar = json.loads(Path(f"{path}.provenance.json").read_text())
                    assert sidecar["name"] == part.query
                    runs = [run["run_id"] for run in sidecar["runs"]]
                    assert INTERVENED in runs or not part.of_interventions
    titles = re.findall(r"^## \d+\. (.+)$", page, re.MULTILINE)
    # the order of the poster
    assert titles[1:6] == [
        "Which experts are active",
        "Interventions in routing, by layer",
        "Logit difference by layer",
        "Logit difference after intervention",
        "Patching",
    ]
    assert f"run {CAPTURED}, 10 examples and their 8 corrupted twins; moedb" in page
    assert "The corrupted twins count in the section on patching alone." in page
    tex = (folder / "logit-diff.tex").read_text()
    assert f"run {CAPTURED}, 10 examples without their 8 corrupted twins; moedb" in tex
    patching = json.loads((folder / "patching.csv.provenance.json").read_text())["runs"][0]
    assert patching["splits"] == {"clean": 10, "corrupted": 8}
    assert patching["splits_read"] == ["clean", "corrupted"]
    assert f"Interventions: run {INTERVENED}." in page
    assert "Missing" not in page
    assert "\n\n\n" not in page


def test_a_run_of_interventions_that_is_named_is_drawn_whole(store: Path, tmp_path: Path) -> None:
    with moedb.open(store) as database:
        written = write_ioi_report(database, tmp_path, interventions=INTERVENED)
    assert written.missing == ()
    assert any(path.name.startswith("lens-effect") for path in written.files)


def test_names_interventions_that_were_not_finished(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    unfinished = tmp_path / "store"
    shutil.copytree(store, unfinished)
    unfinish(unfinished, INTERVENED)
    assert run_cli(["report", "ioi", "--store", str(unfinished), "-o", str(tmp_path / "x")]) == 0
    err = capsys.readouterr().err
    assert f"{INTERVENED} is incomplete (0 of 2 units are missing) and not read" in err
    assert run_cli(["query", "expert-effect", "--store", str(unfinished)]) == 2
    assert f"{INTERVENED} is incomplete" in capsys.readouterr().err


def test_says_what_is_missing(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_cli(["report", "ioi", "--store", str(bare), "-o", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    page = (tmp_path / PAGE).read_text()
    assert "missing: Normalized logit difference after patching, by layer: no complete run" in err
    assert "- Logit difference written by each expert: run qwen-ioi-0123456789 lacks arrays" in page
    assert "capture again with --tokens last --arrays logit_direction" in page
    assert page.count("It needs a run of interventions.") == 6
    names = {path.name for path in tmp_path.iterdir()}
    assert "logit-lens.pdf" in names
    assert not any(name.startswith(("patching", "expert-attribution")) for name in names)
    assert linked(page) <= names


@pytest.mark.parametrize("with_others", [True, False])
def test_a_run_of_interventions_that_was_cut_short_is_named(
    with_others: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store, cut_short = tmp_path / "store", "intervene-fffffffff0"
    prompts = ioi.write_captured(store)
    splits = {p.example_id: p.split for p in prompts}
    ablations = [s for s in make_settings(prompts) if s.kind in ("none", "ablate-experts")]
    others = [s for s in make_settings(prompts) if s.kind != "ablate-experts"]
    assert len(ablations) > 1 < len(others)
    ioi.write_interventions(store, ablations, splits, {}, run_id=cut_short, day=3)
    if with_others:
        ioi.write_interventions(store, others, splits, {})
    units = sorted((store / "runs" / cut_short / "segments").glob("0*.json"))
    unfinish(store, cut_short, *(unit.stem for unit in units[1:]))
    assert run_cli(["report", "ioi", "--store", str(store), "-o", str(tmp_path / "out")]) == 0
    err = " ".join(capsys.readouterr().err.split())
    said = f"{cut_short} is incomplete ({len(units) - 1} of {len(units)} units are missing)"
    assert "missing: Ablation of each expert, and what it writes: no " in err
    assert said in err and said in (tmp_path / "out" / PAGE).read_text()
    assert re.search(r"parts are missing, see above", err)
    assert ("Interventions: run" in (tmp_path / "out" / PAGE).read_text()) == with_others


def test_many_interventions_have_a_figure_for_each_kind(tmp_path: Path) -> None:
    store = tmp_path / "store"
    prompts = ioi.write_captured(store)
    answers = {p.example_id: (p.logit_diff, -0.5, 1) for p in prompts}
    settings = [Setting("none", answers=answers)]
    for kind in ("uniform-weights", "knock-out-shared"):
        settings += [Setting(kind, 0, None, {"roles": [r]}, answers) for r in "abcde"]
    splits = {p.example_id: p.split for p in prompts}
    ioi.write_interventions(store, settings, splits, {})
    with moedb.open(store) as database:
        written = write_ioi_report(database, tmp_path / "out")
    names = {path.name for path in written.files}
    assert "routing-interventions-knock-out-shared.pdf" in names
    assert "routing-interventions.pdf" not in names
    assert "routing-interventions.csv" in names
    assert any("Patching" in each or "patching" in each for each in written.missing)


def test_refuses_another_job_and_unknown_runs(store: Path, bare: Path, tmp_path: Path) -> None:
    with moedb.open(bare) as database:
        with pytest.raises(UsageError, match="is of the job text"):
            write_ioi_report(database, tmp_path, "text-0123456789")
        with pytest.raises(RunNotFoundError, match="no run named 'absent'"):
            write_ioi_report(database, tmp_path, interventions="absent")
    with moedb.open(store) as database, pytest.raises(UsageError, match="cannot make the folder"):
        (tmp_path / "file").write_text("")
        write_ioi_report(database, tmp_path / "file" / "x", INTERVENED)
    assert not (tmp_path / PAGE).exists()
