"""What the documentation says holds: its pages are current, its examples run."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from moedb.cli import run_cli
from tests.cifar_store import CifarStore

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
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
    found = [*commands("README.md"), *commands("docs/tutorial.md")]
    assert len(found) > 20
    for arguments in found:
        code = run_cli(arguments)
        out, err = capfd.readouterr()
        assert code == 0, (arguments, err)
        assert out or any(option in arguments for option in ("-o",)), arguments
    for name in ("pairs.csv", "ioi.tex", "frequency.tex", "frequency.pdf", "pairs.png"):
        assert (tmp_path / name).stat().st_size > 500
    for page in ("README.md", "docs/data-model.md", "docs/tutorial.md"):
        for block in blocks(page, "python"):
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
    found = commands("docs/cifar.md")
    assert len(found) > 9
    for arguments in found:
        code = run_cli(arguments)
        out, err = capfd.readouterr()
        assert code == 0, (arguments, err)
        assert out or "-o" in arguments, arguments
    assert len(list(tmp_path.glob("*.provenance.json"))) == 4


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
