"""The help of one question, and the list of them all."""

import subprocess
import sys

import pytest

from moedb.cli import run_cli
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.questions.catalog import catalog


@pytest.mark.parametrize(
    "question", [*catalog().values(), *ANALYSES.values()], ids=lambda q: q.name
)
def test_help_has_the_question_its_parameters_and_columns(
    question, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["query", question.name, "--help"]) == 0
    out = capfd.readouterr().out
    said = " ".join(out.split())
    assert " ".join(question.answers.split()) in said
    assert f"moedb query {question.name}" in out
    parameters, columns = out.split("\nColumns:\n")
    for parameter in question.parameters:
        assert f"\n  {parameter.name} {parameter.type} " in parameters
        for choice in parameter.choices:
            assert choice in parameters
    for column in question.columns:
        assert f"\n  {column.name} " in f"\n{columns}"


def test_some_of_what_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["query", "--help", "routing_by_class"]) == 0
    out = capfd.readouterr().out
    assert "Usage: moedb query routing-by-class -p key VALUE [OPTIONS]" in out
    assert "In SQL: from routing_by_class(key := ...)" in out
    assert "[required]" in out
    run_cli(["query", "top-tokens", "-h", "-p", "layer", "3"])
    said = " ".join(capfd.readouterr().out.split())
    assert "[default: count; one of count, lift]" in said
    run_cli(["query", "logit-lens", "--help"])
    assert "Computed in Python" in capfd.readouterr().out


def test_without_a_name_it_is_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["query", "--help"]) == 0
    assert "Usage: moedb query [OPTIONS] [NAME]" in capfd.readouterr().out
    assert run_cli(["query", "routing-by-clas", "--help"]) == 2
    assert "did you mean routing-by-class" in capfd.readouterr().err
    assert run_cli(["query", "top-tokens", "--no-such-option"]) == 2
    assert "No such option" in capfd.readouterr().err


def test_the_list_says_where_to_read_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["query"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[0].split() == ["subject", "name", "title", "answers"]
    assert "moedb query NAME --help" in err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from moedb.cli import run_cli; run_cli(['query', 'logit-lens', '--help']);"
        "print({'torch', 'pandas', 'pyarrow', 'numpy', 'rich', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
