"""What the file of a study may say, and what is said where it is wrong."""

from pathlib import Path

import pytest

from moedb.cli import cli, run_cli
from moedb.commands.studies.command_lines import check_options, filled, words_of
from moedb.commands.studies.running import StudyRun
from moedb.commands.studies.study_file import find_study, packaged, read_study
from moedb.errors import UsageError

GOOD = """
about: a study
settings:
  n: {value: 4, about: prompts, rehearsed: [2, 3]}
  label: {about: a label}
steps:
  - name: prompts
    command: moedb capture qwen-ioi --n ${n}
  - name: table
    when: label
    command: moedb export overlap --run ${prompts} -p key ${label} -o ${output}/overlap.md
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", packaged())
def test_studies_that_come_with_moedb(name: str, tmp_path: Path) -> None:
    study = find_study(name)
    assert study.about and study.size is not None
    given = {key: "x" for key, each in study.settings.items() if each.value is None}
    StudyRun(study, study.chosen(given), cli, tmp_path / "store", tmp_path / "files").check()
    assert all(each.about for each in study.settings.values())


def test_settings_are_filled_in_word_by_word(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    assert study.size == "n" and study.settings["n"].rehearsed == (2, 3)
    assert study.chosen({"n": "7"}) == {"n": "7"}
    hostile = "a'; rm -rf ~ $(id) ${n} --format=csv"
    values = {"prompts": "r", "label": hostile, "output": "a b"}
    assert filled(study.steps[1].words, values)[2:] == [
        *("--run", "r", "-p", "key", hostile, "-o", "a b/overlap.md")
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("about: a study", "abuot: a study", "did you mean about"),
        ("steps:", "stpes:", "did you mean steps"),
        ("capture qwen-ioi", "captrue qwen-ioi", "did you mean capture"),
        ("moedb capture", "rm -rf", "a step is a command of moedb"),
        ("moedb capture qwen-ioi", "moedb rm", "moedb rm is no step"),
        ("--n ${n}", "--n ${m}", "${m} is no setting and no step before"),
        ("--run ${prompts}", "--run ${table}", "${table} is no setting and no step before"),
        ("--n ${n}", "--n '${n}", "No closing quotation"),
        ("--n ${n}", "--store other", "--store has no place in a step"),
        ("--n ${n}", "--help", "--help has no place in a step"),
        ("name: table", "name: prompts", "there is a 'prompts' already"),
        ("name: table", "name: ../x", "small letters"),
        ("name: table", "name: here", "there is a 'here' already"),
        ("label: {about", "here: {about", "a setting cannot be called here"),
        ("when: label", "when: lable", "did you mean label"),
        ("rehearsed: [2, 3]", "rehearsed: [3, 2]", "the second larger"),
        ("rehearsed: [2, 3]", "rehearsed: [true, 2]", "the second larger"),
        ("about: a study", "begins_with: iio", "did you mean ioi"),
        ("about: a study", "about: !!python/object/apply:os.getcwd []", "no YAML"),
        (GOOD, "- a list", "expected names with values"),
        (GOOD, "about: nothing", "expected a list of steps"),
    ],
)
def test_a_file_that_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        read_study(written(tmp_path, GOOD.replace(old, new, 1)))
    assert said in str(caught.value) and "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("moedb capture qwen-ioi --m 3", "No such option"),
        ("moedb capture qwen-ioi --n many", "'many' is not a valid integer"),
        ("moedb capture qwen --n 3", "No such command 'qwen'"),
        ("moedb plot overlap -o x.png more", "unexpected extra argument"),
        ("moedb intervene --run x", "Missing option '--kind'"),
    ],
)
def test_options_are_checked_before_anything_runs(command: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_options(cli, words_of(command))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["iio"], "did you mean ioi"),
        (["none.yaml"], "there is no file none.yaml"),
        (["ioi", "--set", "m=3"], "has no setting 'm'"),
        (["ioi", "--set", "n"], "expected NAME=VALUE"),
        (["ioi", "--set", "n=1", "--set", "n=2"], "n is given twice"),
        (["ioi", "--dataset", "x.jsonl"], "has no setting 'dataset'"),
        (["text"], "needs dataset: the texts"),
        (["ioi", "--set", "n=-3"], "step prompts: Invalid value for '--n'"),
        (["ioi", "--model", "a", "--set", "model=b"], "model is given twice"),
    ],
)
def test_what_is_asked_wrongly(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert run_cli(["--store", str(store), "study", *arguments]) == 2
    assert said in capsys.readouterr().err and not store.exists()


def test_a_study_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["study", "ioi", "--show"]) == 0
    copy = read_study(written(tmp_path, capsys.readouterr().out))
    assert copy.steps == find_study("ioi").steps and copy.settings == find_study("ioi").settings


def test_a_study_that_begins_with_another(tmp_path: Path) -> None:
    text = """
begins_with: ioi
settings: {n: 3}
steps:
  - {name: more, command: 'moedb export overlap --run ${prompts} -o ${output}/x.md'}
"""
    study = read_study(written(tmp_path, text))
    assert [step.name for step in study.steps[:-1]] == [s.name for s in find_study("ioi").steps]
    assert study.steps[-1].name == "more" and study.chosen({})["n"] == "3"


def test_the_study_in_the_docs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")
    study = read_study(written(tmp_path, page.split("```yaml\n")[1].split("```")[0]))
    (tmp_path / "page.in.md").write_text("@frequency@\n", encoding="utf-8")
    runs = StudyRun(study, study.chosen({}), cli, tmp_path / "store", tmp_path / "files")
    runs.check()
    assert [step.name for step in runs.steps()] == ["prompts", "frequency", "page"]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "docs" / "results").glob("*.yaml")), ids=str
)
def test_studies_of_the_pages(path: Path, tmp_path: Path) -> None:
    study = read_study(path)
    given = {key: "x" for key, each in study.settings.items() if each.value is None}
    StudyRun(study, study.chosen(given), cli, tmp_path / "store", tmp_path / "files").check()


def test_the_gallery_says_what_drew_its_figures() -> None:
    docs = Path(__file__).parents[3] / "docs"
    page = (docs / "gallery.md").read_text(encoding="utf-8")
    drawn = [
        " ".join(("moedb", *step.words)).replace(" --run ${prompts}", "").replace("${output}/", "")
        for step in read_study(docs / "gallery.yaml").steps
        if step.words[0] == "plot"
    ]
    assert [line for line in page.splitlines() if line.startswith("moedb plot")] == drawn
    figures = [line.split("(gallery/")[1][:-1] for line in page.splitlines() if line[:2] == "!["]
    assert figures == [command.split(" -o ")[1] for command in drawn]
    assert all((docs / "gallery" / figure).is_file() for figure in figures)
