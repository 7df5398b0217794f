"""A study, done step by step, stopped, and gone on with."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

import moedb
from moedb.cli import cli, run_cli
from moedb.commands.studies.rehearsal import rehearse
from moedb.commands.studies.running import StudyRun
from moedb.commands.studies.study_file import read_study

STUDY = """
about: a small study
settings:
  n: {value: 3, about: prompts, rehearsed: [2, 4]}
  top: {value: 5, about: rows}
steps:
  - name: prompts
    command: moedb capture qwen-ioi --n ${n} --arrays router_logits
  - name: rules
    command: moedb label-tokens ${prompts} --key word-piece --name rules
  - name: uniform
    command: moedb intervene --run ${prompts} --kind uniform-weights --layers 0 --split clean
  - name: frequency
    command: >
      moedb export expert-frequency --run ${prompts} --limit ${top} -o ${output}/frequency.md
  - name: effects
    command: moedb export intervention-effect --run ${prompts} -o ${output}/effects.csv
  - name: page
    page: {of: page.in.md, to: page.md}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study, in which commands are typed."""
    (tmp_path / "mine.yaml").write_text(STUDY)
    (tmp_path / "page.in.md").write_text("# Experts\n\n@frequency@\n\nThat was all.\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOEDB_STORE", "store")
    return tmp_path


def typed(*arguments: str) -> int:
    return run_cli(["study", "mine.yaml", "--no-rehearsal", "-o", "files", *arguments])


def statuses(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    capsys.readouterr()
    assert typed("--dry-run", "--format", "json", *arguments) == 0
    return {row["step"]: row["status"] for row in json.loads(capsys.readouterr().out)}


def steps_done(told: str) -> list[str]:
    """The steps that were done, by what was said of them."""
    return [
        line.split("] ")[1].split(":")[0]
        for line in told.splitlines()
        if line.startswith("[") and (": moedb " in line or "with its tables" in line)
    ]


def test_all_steps_then_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(statuses(place, capsys).values()) == {"to do"} and not (place / "store").exists()
    assert typed() == 0
    told = capsys.readouterr()
    assert steps_done(told.err) == ["prompts", "rules", "uniform", "frequency", "effects", "page"]
    with moedb.open("store") as db:
        (prompts,) = [run for run in db.snapshot.runs if run.startswith("qwen-ioi")]
        clean = f"select count(*) from examples where split = 'clean' and run_id = '{prompts}'"
        assert db.sql(clean).fetchall() == [(3,)]
        rows = db.query("expert-frequency", run=prompts).fetchall()[:5]
        parents = db.sql("select parent_run_id from runs where job = 'intervene'").fetchall()
        assert parents == [(prompts,)]
        assert db.sql("select count(*) from labels where key = 'word-piece'").fetchall()[0][0] > 0
    page = (place / "files/page.md").read_text()
    assert page.startswith("# Experts\n\n|") and page.endswith("\n\nThat was all.\n")
    assert page.count("\n|") == len(rows) + 2
    assert prompts in (place / "files/frequency.md.provenance.json").read_text()
    assert set(statuses(place, capsys).values()) == {"done"}
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert typed() == 0
    assert steps_done(capsys.readouterr().err) == []
    assert before == {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}


def test_what_is_gone_is_done_again_and_nothing_else(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def left() -> list[str]:
        return [step for step, status in statuses(place, capsys).items() if status == "to do"]

    assert typed() == 0
    (place / "files/effects.csv").write_text("edited")
    assert left() == ["effects"]
    assert typed() == 0 and left() == []
    changed = statuses(place, capsys, "--set", "top=7")
    assert [step for step, status in changed.items() if status == "to do"] == ["frequency"]
    (prompts,) = (place / "store/runs").glob("qwen-ioi-*")
    assert run_cli(["label-tokens", prompts.name, "--remove", "rules"]) == 0
    # what was read off the run is older than what the run holds now
    assert left() == ["rules", "frequency", "effects"]
    assert typed() == 0 and left() == []
    (interventions,) = (place / "store/runs").glob("intervene-*")
    assert run_cli(["rm", interventions.name, "--yes"]) == 0
    assert left() == ["uniform"]
    assert typed() == 0
    assert steps_done(capsys.readouterr().err) == ["uniform", "frequency", "effects", "page"]


def test_what_reads_the_whole_store_is_done_again_with_more_runs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = """
  - name: runs
    command: moedb export -o ${output}/runs.csv --sql "select run_id from runs order by all"
"""
    (place / "mine.yaml").write_text(STUDY + every)
    assert typed() == 0 and set(statuses(place, capsys).values()) == {"done"}
    assert run_cli(["capture", "qwen-ioi", "--n", "2", "--seed", "5", "--arrays", "none"]) == 0
    left = [step for step, status in statuses(place, capsys).items() if status == "to do"]
    assert left == ["runs"]
    before = (place / "files/runs.csv").read_text().splitlines()
    assert typed() == 0 and set(statuses(place, capsys).values()) == {"done"}
    after = (place / "files/runs.csv").read_text().splitlines()
    assert set(before) < set(after) and len(after) == len(before) + 1


def test_a_study_of_tables_alone_makes_its_folder(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["capture", "qwen-ioi", "--n", "2", "--arrays", "none"]) == 0
    (place / "mine.yaml").write_text("""
steps:
  - name: runs
    command: moedb export -o ${output}/runs.csv --sql "select job, n_examples from runs"
""")
    assert typed() == 0
    assert (place / "files/runs.csv").read_text().splitlines() == [
        "job,n_examples",
        "qwen-ioi,4",
    ]  # with twins
    assert set(statuses(place, capsys).values()) == {"done"}
    shutil.rmtree(place / "files")
    (place / "files").write_text("in the way")
    assert typed("-o", "files/inner") == 1
    assert "the folder files/inner cannot be made" in capsys.readouterr().err


def test_a_page_is_made_again_of_what_changed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.yaml").write_text(STUDY.replace("to: page.md", "to: ../page.md"))
    assert typed() == 0 and set(statuses(place, capsys).values()) == {"done"}
    (place / "page.in.md").write_text("Other words.\n\n@frequency@\n")
    assert typed() == 0
    assert steps_done(capsys.readouterr().err) == ["page"]
    page = (place / "page.md").read_text()
    assert page.startswith("Other words.\n\n|") and "page.md" not in page
    (place / "page.md").unlink()
    (place / "page.in.md").write_text("@frequencies@\n")
    assert typed() == 2
    assert "there is no files/frequencies.md" in capsys.readouterr().err


def test_what_lies_beside_the_file_is_read_from_there(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = f"""{STUDY}  - name: lengths
    command: >
      moedb export -f ${{here}}/lengths.sql -p split clean -p run ${{prompts}}
      -o ${{output}}/lengths.csv
"""
    elsewhere = place / "a place"
    elsewhere.mkdir()
    (elsewhere / "mine.yaml").write_text(study)
    (elsewhere / "page.in.md").write_text("@frequency@\n")
    arguments = ["study", "a place/mine.yaml", "--no-rehearsal", "-o", "files"]
    assert run_cli(arguments) == 2
    assert "step lengths: there is no file a place/lengths.sql" in capsys.readouterr().err
    assert not (place / "store").exists()
    sql = "select sum(n_tokens) as n from examples where split = $split and run_id = $run"
    (elsewhere / "lengths.sql").write_text(sql)
    assert run_cli(arguments) == 0
    with moedb.open("store") as db:
        runs = "select run_id from runs where job = 'qwen-ioi'"
        clean = f"select n_tokens from examples where split = 'clean' and run_id in ({runs})"
        n = sum(n_tokens for (n_tokens,) in db.sql(clean).fetchall())
    assert (place / "files/lengths.csv").read_text() == f"n\n{n}\n"
    capsys.readouterr()
    assert run_cli(arguments) == 0
    assert steps_done(capsys.readouterr().err) == []
    (elsewhere / "lengths.sql").write_text(sql.replace("sum", "max"))
    assert run_cli(arguments) == 0
    assert steps_done(capsys.readouterr().err) == ["lengths"]


def test_a_step_that_fails_is_named_and_gone_on_with(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = STUDY.replace("--key word-piece", "--key word-pieces")
    (place / "mine.yaml").write_text(study)
    assert typed() == 2
    told = capsys.readouterr().err
    assert "step rules failed" in told and "word-pieces" in told
    assert list(statuses(place, capsys).values()).count("done") == 1
    (place / "mine.yaml").write_text(STUDY)
    assert typed() == 0
    assert steps_done(capsys.readouterr().err)[0] == "rules"


def test_a_journal_that_is_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "files").mkdir()
    for text in ("{", "[]", '{"version": 9, "steps": {}}', '{"version": 1, "steps": {"x": 3}}'):
        (place / "files/study.json").write_text(text)
        assert typed() == 2
        assert "is no journal of a study" in capsys.readouterr().err


def test_a_rehearsal_foresees_tokens_and_bytes(place: Path) -> None:
    study = read_study(place / "mine.yaml")
    settings: Mapping[str, str] = {**study.chosen({}), "n": "24"}
    planned = StudyRun(study, settings, cli, place / "store", place / "files")
    expected = rehearse(planned)
    assert not (place / "store").exists() and not (place / "files").exists()
    for _ in planned.do():
        pass
    with moedb.open("store") as db:
        runs = db.snapshot.runs
        (prompts,) = [run for name, run in runs.items() if name.startswith("qwen-ioi")]
    assert expected["prompts"].n_tokens == pytest.approx(prompts.n_rows("tokens"), rel=0.15)
    assert expected["prompts"].n_bytes == pytest.approx(prompts.n_bytes(), rel=0.25)
    assert expected["frequency"].n_bytes == 0 and expected["page"].seconds is not None
    assert all(each.problem is None for each in expected.values())


def test_nothing_is_rehearsed_that_is_no_larger(place: Path) -> None:
    study = read_study(place / "mine.yaml")
    planned = StudyRun(study, study.chosen({}), cli, place / "store", place / "files")
    assert rehearse(planned) == {}
