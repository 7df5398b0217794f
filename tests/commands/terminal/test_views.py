"""Rows that a terminal shows in another way than as a table: contexts, shaded by their scores."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moedb.cli import run_cli
from moedb.store.writing.run_writer import RunWriter
from tests.commands.terminal.pseudo_terminal import Shown, on_terminal
from tests.support.stores.samples import sample_manifest, unit_rows

TEXTS = (
    "One",
    " fine",
    " day",
    "\n",
    "\x1b[2J",
    " 中文字",
    " \u202e",
    " the",
    " cat",
    " sat",
    "  ",
    ".",
)
SCORES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 5, 1)
ASKED = ("query", "top-contexts", "-p", "layer", "1", "-p", "expert", "0")
CODES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two examples of the same tokens; expert 0 has all but the second, which are scored as above.

    In the second example the scores are halved.
    """
    folder = tmp_path_factory.mktemp("views") / "store"
    manifest = sample_manifest(2, len(TEXTS), arrays=())
    writer = RunWriter(folder, replace(manifest, arrays={}))
    writer.begin({})
    for unit in range(2):
        tables, _ = unit_rows(manifest, unit)
        routing = pd.DataFrame(tables["routing"])
        position = (routing["token_idx"] % len(TEXTS)).to_numpy()
        first = routing["rank"] == 0
        routing["expert"] = np.where(first, 0, 2) + (first & (position == 1))
        routing["weight"] = np.float32(0.5)
        routing["output_norm"] = 2.0 * np.array(SCORES)[position] / (unit + 1)
        changed: dict[str, Any] = {**tables, "routing": routing.to_dict("list")}
        changed["tokens"] = {**tables["tokens"], "token": list(TEXTS)}
        writer.commit_unit(unit, changed, {})
    writer.finish()
    return folder


def plain(shown: Shown) -> list[str]:
    return CODES.sub("", shown.out).splitlines()


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@pytest.mark.parametrize("columns", [24, 40, 80, 120])
def test_contexts_are_texts_that_fit_the_terminal(store: Path, columns: int) -> None:
    shown = on_terminal(store, *ASKED, columns=columns, lines=60)
    assert shown.code == 0 and max(map(width, plain(shown))) <= columns
    # nothing of a store acts on the terminal
    assert "\x1b[2J" not in shown.out and "\u202e" not in shown.out
    said = " ".join(plain(shown)).split()
    text = r"One fine day\n\x1b[2J 中文字 \u202e the cat «sat»␣␣."
    assert " ".join(said).count(text) == 2
    assert "layer 1, expert 0 2 of 22 decisions" in " ".join(said)
    assert "example 0, position 9" in " ".join(said)
    assert "as a table: --columns layer,expert,place,..." in " ".join(shown.err.split())


def test_tokens_are_shaded_in_fifths_of_the_largest_score(store: Path) -> None:
    shown = on_terminal(
        store, *ASKED, lines=60, variables={"TERM": "xterm-256color", "COLORTERM": ""}
    )
    first = shown.out.splitlines()[1]
    pieces = re.findall(r"((?:\x1b\[[0-9;]*m)*)([^\x1b]+)", first)
    backgrounds: list[str | None] = []
    for codes, text in pieces:
        found = re.findall(r"48;5;(\d+)", codes)
        backgrounds += [found[-1] if found else None] * len(text)
    whole = "".join(text for _, text in pieces)

    def shade(text: str) -> str | None:
        at = whole.index(text)
        [found] = {*backgrounds[at : at + len(text)]}
        return found

    # the second token did not choose the expert
    assert shade(" fine") is None and None not in map(shade, ("One", " cat"))
    # scores of 1 | 3 and 4 | 5 and 6 | 7 and 8 | 9 and 10
    fifths = ("One", r" day\n", r"\x1b[2J 中文字", r" \u202e the", " cat «sat»")
    assert len({*map(shade, fifths)}) == 5
    marked = next(codes for codes, text in pieces if "«sat»" in text)
    assert re.search(r"\x1b\[1[;m]", marked)


def test_without_colours_tokens_of_the_expert_are_underlined(store: Path) -> None:
    shown = on_terminal(store, *ASKED, lines=60, variables={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8])", shown.out)
    assert "\x1b[4m" in shown.out and "«sat»" in shown.out
    dumb = on_terminal(store, *ASKED, lines=60, variables={"TERM": "dumb"})
    assert "\x1b" not in dumb.out and "«sat»" in dumb.out


def test_elsewhere_and_where_columns_are_named_they_are_rows(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = on_terminal(store, *ASKED, "--columns", "place,token")
    assert shown.lines[0].split() == ["place", "token"]
    assert [line.split() for line in shown.lines[2:]] == [["1", "␣sat"], ["2", "␣sat"]]
    rows = on_terminal(store, *ASKED, "--format", "csv")
    assert rows.lines[0].startswith("layer,expert,place,quantile,score,before,token")
    assert run_cli([*ASKED, "--store", str(store)]) == 0
    out, _ = capfd.readouterr()
    assert out.split("\n")[0].split()[:4] == ["layer", "expert", "place", "quantile"]


def test_rows_that_were_picked_are_shown_so_too(store: Path) -> None:
    shown = on_terminal(store, *ASKED, "--where", "example_id = 1", lines=60)
    assert "example 1" in " ".join(plain(shown)) and "example 0" not in " ".join(plain(shown))
    none = on_terminal(store, *ASKED, "--where", "example_id = 7")
    assert none.out.strip() == "" and "no rows" in none.err
    cut = on_terminal(store, *ASKED, "--limit", "1")
    assert "only the first 1 rows" in cut.err and "1 of 22 decisions" in " ".join(plain(cut))
