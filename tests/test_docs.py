"""What the documentation says holds: its pages are current, its examples run."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from moedb.cli import run_cli
from tests.cifar_store import BASE, SHORT, CifarStore

ROOT = Path(__file__).parent.parent


WORDS = list(enumerate(("good", "bad", "long", "wet", "warm", "cold", "fine", "dull") * 4))


def blocks(page: str, languages: str) -> list[tuple[str, str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```({languages})\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands_of(block: str) -> list[list[str]]:
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("moedb ")]


@pytest.mark.parametrize("page", ["data-model.md", "cli.md"])
def test_the_generated_pages_are_current(page: str) -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == pages[page]().rstrip() + "\n", "run make docs"


@pytest.mark.model
def test_the_examples_of_readme_and_tutorial_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOEDB_STORE", raising=False)
    reviews = [f'{{"text": "It was a {w} day at the sea.", "stars": {i % 5}}}' for i, w in WORDS]
    (tmp_path / "reviews.jsonl").write_text("\n".join(reviews), encoding="utf-8")
    n_commands = 0
    for page in ("README.md", "docs/data-model.md", "docs/tutorial.md"):
        for language, block in blocks(page, "sh|python"):
            if language == "python":
                run_python(page, block)
                continue
            for arguments in commands_of(block):
                code = run_cli(arguments)
                out, err = capfd.readouterr()
                assert code == 0, (arguments, err)
                assert out or "-o" in arguments, arguments
                n_commands += 1
    assert n_commands > 20
    for name in ("pairs.csv", "ioi.tex", "frequency.tex", "frequency.pdf", "pairs.png"):
        assert (tmp_path / name).stat().st_size > 500


def run_python(page: str, block: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(block, page, "exec"), namespace)  # noqa: S102
    if "array" in namespace:
        found_outputs = namespace["found"]
        assert found_outputs.values.shape == (100, 4, 128)  # type: ignore[attr-defined]
    if "files" in namespace:
        assert len(namespace["files"]) > 1  # type: ignore[arg-type]


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


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
