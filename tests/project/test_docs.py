"""What the documentation says holds: its pages are current, its examples run."""

import ast
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from moedb.cli import cli, run_cli
from moedb.queries.questions.catalog import catalog
from tests.support.models.cifar_store import BASE, SHORT, CifarStore

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "docs" / "demo.sh"

IN_ORDER = (
    "README.md",
    "docs/data-model.md",
    "docs/tutorial.md",
    "docs/experts.md",
    "docs/studies.md",
)
"""Pages whose examples run one after the other, on the store that the demo writes."""

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if not path.name.endswith(".in.md")
)


def blocks(page: str, languages: str) -> list[tuple[str, str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```({languages})\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def steps(block: str) -> Iterator[str]:
    """A shell block's commands of moedb one by one, and what is between them."""
    between: list[str] = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("moedb "):
            if between:
                yield "\n".join(between) + "\n"
            between = []
            yield line
        else:
            between.append(line)
    if between:
        yield "\n".join(between) + "\n"


def commands_of(block: str) -> list[list[str]]:
    words = [shlex.split(step, comments=True)[1:] for step in steps(block) if step[:6] == "moedb "]
    # what comes after > is the shell's
    return [each[: each.index(">")] if ">" in each else each for each in words]


def examples() -> list[tuple[str, str, str]]:
    """(page, language, code) of all that runs in order; of a shell block each step."""
    found = []
    for page in IN_ORDER:
        for language, block in blocks(page, "sh|python|sql"):
            codes = steps(block) if language == "sh" else [block]
            found += [(page, language, code) for code in codes]
    return found


EXAMPLES = examples()


@dataclass(frozen=True)
class Outcome:
    """What an example did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Followed:
    """The README and the tutorial, followed to the letter in one folder."""

    folder: Path
    demo: "subprocess.CompletedProcess[str]"
    outcomes: list[Outcome]


@pytest.fixture(scope="session")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Run the demo as `make demo` does, then every example in order."""
    folder = tmp_path_factory.mktemp("reader")
    programs = tmp_path_factory.mktemp("bin")
    program = programs / "moedb"
    program.write_text(f"#!{sys.executable}\nfrom moedb.cli import main\n\nmain()\n")
    program.chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PATH": path, "PYTHONPATH": packages, "MOEDB_STORE": "moedb-store"}
    demo = subprocess.run(
        ["sh", str(DEMO)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MOEDB_STORE", raising=False)
        outcomes = [followed_example(language, code) for _, language, code in EXAMPLES]
    return Followed(folder, demo, outcomes)


def followed_example(language: str, code: str) -> Outcome:
    if language == "sh" and not code.startswith("moedb "):
        # `make demo` is the demo; `make test` is what runs here.
        lines = [line for line in code.splitlines(keepends=True) if not line.startswith("make ")]
        shell = ["sh", "-eu", "-c", "".join(lines)]
        done = subprocess.run(shell, capture_output=True, text=True, check=False)
        return Outcome(done.returncode, done.stdout or "nothing to say", done.stderr)
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if language == "python":
            try:
                run_python(code)
            except Exception as error:
                status = 1
                err.write(f"{type(error).__name__}: {error}")
        else:
            status = run_cli(["sql", code] if language == "sql" else commands_of(code)[0])
    return Outcome(status, written(out), written(err))


def written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def run_python(block: str) -> None:
    """Run a block as a notebook does: a bare expression is shown."""
    namespace: dict[str, Any] = {}
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), "docs", "eval"), namespace)  # noqa: S307
            shown = value is not None and (not hasattr(value, "__len__") or len(value) > 0)
            sys.stdout.write(repr(value) if shown else "")
            if value is not None and not shown:
                raise AssertionError(f"{ast.unparse(statement)} is empty")
        else:
            exec(compile(ast.Module([statement], []), "docs", "exec"), namespace)  # noqa: S102
    if not sys.stdout.tell():
        # What such a block is for is what it has in the end.
        last = [value for name, value in namespace.items() if not name.startswith("__")][-1]
        sys.stdout.write(repr(last) if len(last) else "")


@pytest.mark.parametrize("page", ["data-model.md", "cli.md"])
def test_the_generated_pages_are_current(page: str) -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == pages[page]().rstrip() + "\n", "run make docs"


@pytest.mark.model
def test_the_demo_runs(followed: Followed) -> None:
    assert followed.demo.returncode == 0, followed.demo.stderr
    shown = followed.demo.stdout.split("\n$ moedb ")[1:]
    assert len(shown) == len(re.findall(r"^show ", DEMO.read_text(), flags=re.MULTILINE)) > 7
    for command in shown:
        _, _, answer = command.partition("\n")
        assert answer.strip() or " -o " in command, command
    for name in ("ioi-logit-diff.tex", "expert-frequency.png"):
        assert (followed.folder / "demo" / name).stat().st_size > 500


@pytest.mark.model
@pytest.mark.parametrize(
    "number",
    range(len(EXAMPLES)),
    ids=[f"{Path(page).stem}-{code.splitlines()[0][:60]}" for page, _, code in EXAMPLES],
)
def test_an_example_runs_in_its_turn(number: int, followed: Followed) -> None:
    _, _, code = EXAMPLES[number]
    outcome = followed.outcomes[number]
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() or " -o " in code, "nothing came out"
    assert "missing:" not in outcome.err


@pytest.mark.model
def test_the_examples_write_their_files(followed: Followed) -> None:
    names = re.findall(r" -o (\S+)", "\n".join(code for _, _, code in EXAMPLES))
    assert len(names) > 10 and {"pairs.csv", "ioi.tex", "report", "end.md"} <= {*names}
    for name in names:
        path = followed.folder / name
        files = [*path.iterdir()] if path.is_dir() else [path]
        assert files and all(file.stat().st_size > 100 for file in files), name
    assert (followed.folder / "report" / "ioi.md").stat().st_size > 5000


@pytest.mark.model
def test_the_ablations_of_the_readme_are_in_the_report(followed: Followed) -> None:
    """The model's layers have ties; what is ablated must be found and compared all the same."""
    rows = (followed.folder / "report" / "expert-effect.csv").read_text().splitlines()
    assert len(rows) > 6 * 8
    store = followed.folder / "moedb-store" / "runs"
    kinds = {
        kind
        for run in store.glob("intervene-*/run.json")
        for kind in json.loads(json.loads(run.read_text())["row"]["config"])["kinds"]
    }
    assert kinds == {"knock-out-shared", "swap-routing", "ablate-experts", "patch"}
    assert len(list(store.glob("intervene-*"))) == len(list(store.glob("intervene-*/heads/*.json")))


@pytest.mark.model
def test_the_questions_of_the_cifar_page_have_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    cifar_store: CifarStore,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOEDB_STORE", str(cifar_store.folder))
    found = [line for _, block in blocks("docs/cifar.md", "sh") for line in commands_of(block)]
    assert len(found) > 9
    small = {"base": BASE, "short": SHORT}  # the store's models are smaller than the page's
    for line in found:
        arguments = [small.get(argument, argument) for argument in line]
        code = run_cli(arguments)
        out, err = capfd.readouterr()
        assert code == 0, (arguments, err)
        assert out or "-o" in arguments, arguments
    assert len(list(tmp_path.glob("*.provenance.json"))) == 4


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command as click does, without running it; return its path and its values."""
    context = cli.make_context("moedb", list(arguments))
    command: click.Command = cli
    path: list[str] = []
    while isinstance(command, click.Group):
        held = vars(context)  # click 8.2 gave the first of them another name
        rest = [*held.get("_protected_args", held.get("protected_args", ())), *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None and name is not None
        context = found.make_context(name, rest, parent=context)
        command = found
        path.append(name)
    return " ".join(path), context.params


def every_command() -> list[tuple[str, list[str]]]:
    """Every command that a page shows, in blocks of whatever language and in the help."""
    found = []
    for page in PAGES:
        for _, block in blocks(page, "[a-z]*"):
            lines = re.sub(r"^ {0,4}(\$ )?(?=moedb )", "", block, flags=re.MULTILINE)
            found += [(page, arguments) for arguments in commands_of(lines) if arguments]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_can_be_typed(page: str) -> None:
    """Those that need the hub or large data too: their options exist, and take what they get."""
    for _, arguments in (each for each in every_command() if each[0] == page):
        path, values = parsed([each for each in arguments if each != "--help"])
        name = values.get("name")
        if path in ("query", "export", "plot") and name is not None:
            assert name.replace("_", "-") in known_queries(), (page, arguments)


def known_queries() -> set[str]:
    from moedb.queries.analyses.registry import ANALYSES

    return {*catalog(), *ANALYSES}


def test_the_pages_show_commands() -> None:
    shown = every_command()
    assert len(shown) > 90
    assert {"README.md", "docs/cifar.md", "docs/cli.md", "docs/results/ioi.md"} <= {
        page for page, _ in shown
    }
    with pytest.raises(click.UsageError):
        parsed(["capture", "qwen-ioi", "--no-such-option"])
    with pytest.raises(click.UsageError):
        parsed(["train", "nothing"])


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
