"""Labelling a stored run: what is written, refused, and left by a kill."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreError, UsageError
from moedb.experts.concepts import labelling
from moedb.experts.concepts.rule_file import read_rules
from moedb.schemas.additions import Addition
from moedb.store.reading.additions import additions_of
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from moedb.store.writing.complete.additions import add
from tests.support.stopping import killed_at_each_call
from tests.support.stores.samples import RUN_ID, tokens_of, write_sample, write_texts

TEXTS = [
    'In 1984 she (so they say) said "go".',
    "café 12 and 12",
    "One. Two 7\nthree",
]
LABELS = "select token_idx, key, value from token_labels order by all"


def in_bytes(text: str) -> list[str]:
    """The tokens of a text, those with an accent in two that decode to nothing."""
    found: list[str] = []
    for token in tokens_of(text):
        if "é" in token:
            before, _, after = token.partition("é")
            found += [*filter(None, [before]), "�", "�", *filter(None, [after])]
        else:
            found.append(token)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_texts(tmp_path / "store", TEXTS, in_bytes)
    return tmp_path / "store"


def labels_of(store: Path, key: str) -> list[tuple[str, str]]:
    """The labelled tokens' texts, and their values."""
    with moedb.open(store) as db:
        return db.sql(
            "select tokens.token, token_labels.value from token_labels "
            "join tokens using (run_id, token_idx) where key = $key order by token_idx",
            {"key": key},
        ).fetchall()


def test_labels_are_added_and_can_be_asked_about(store: Path) -> None:
    found = moedb.label_tokens(RUN_ID, store)
    counts = {(key, value): n for key, value, n, _ in found.fetchall()}
    assert labels_of(store, "digit") == [
        *((digit, "yes") for digit in (" 1", "9", "8", "4")),
        *((digit, "yes") for digit in (" 1", "2", " 1", "2", " 7")),
    ]
    assert labels_of(store, "year") == [(t, "yes") for t in (" 1", "9", "8", "4")]
    assert labels_of(store, "quoted") == [("go", "straight")]
    pieces = ["9", "8", "4", "�", "�", "2", "2"]
    assert labels_of(store, "word-piece") == [(token, "yes") for token in pieces]
    assert [v for _, v in labels_of(store, "bracket-depth")] == ["1"] * 5
    # seen within an example, never across two
    assert labels_of(store, "repeat") == [(t, "yes") for t in ("�", " 1", "2")]
    assert labels_of(store, "induction") == [("2", "yes")]
    assert counts["digit", "yes"] == 9 and counts["emoji", None] == 0
    run = read_run(store, RUN_ID)
    verify_run(run)
    (about,) = [each.about for each in additions_of(run).values()]
    assert (about.name, about.kind) == ("builtin", "concepts")
    config, rules = json.loads(about.config), read_rules()
    assert config["text"] == rules.text and config["sha256"] == rules.sha256
    assert tuple(config["keys"]) == rules.keys

    # token i chooses experts i and i + 1, modulo 4
    with moedb.open(store) as db:
        rows = db.sql("select token_idx from token_labels where key = 'digit'").fetchall()
        tokens = np.array([row[0] for row in rows])
        expected = np.bincount(np.concatenate([tokens % 4, (tokens + 1) % 4]), minlength=4)
        asked = db.query("routing-by-class", key="digit").df()
        assert asked["value"].eq("yes").all() and asked["n_tokens"].eq(len(tokens)).all()
        assert asked.sort_values("expert")["n_decisions"].tolist() == expected.tolist()


def test_pieces_give_what_the_whole_gives(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = moedb.label_tokens(RUN_ID, store).fetchall()
    with moedb.open(store) as db:
        rows = db.sql(LABELS).fetchall()
    monkeypatch.setattr(labelling, "PIECE_TOKENS", 1)
    assert moedb.label_tokens(RUN_ID, store, replace=True).fetchall() == whole
    with moedb.open(store) as db:
        assert db.sql(LABELS).fetchall() == rows and len(rows) > 100


def test_keys_names_and_other_additions_are_kept_apart(store: Path, tmp_path: Path) -> None:
    moedb.label_tokens(RUN_ID, store, keys=["digit"])
    before = take_snapshot(store).sha256
    mine = tmp_path / "mine.toml"
    mine.write_text("[[rule]]\nkey = 'digit'\npattern = '7'\nvalue = 'seven'\n")
    for match, settings in (
        ("has an addition named 'builtin' already\n.*--replace", {}),
        (
            "has labels with the key digit already\n.*--name builtin --replace",
            {"rules": mine},
        ),
        ("no name for an addition: 'a b'", {"rules": mine, "name": "a b"}),
        ("no rule 'digits' in builtin; did you mean digit", {"keys": ["digits"]}),
        (r"keys: expected a list, got 'digit'", {"keys": "digit"}),
    ):
        with pytest.raises(UsageError, match=match):
            moedb.label_tokens(RUN_ID, store, **settings)  # type: ignore[arg-type]
    moedb.label_tokens(RUN_ID, store, rules=mine, name="builtin", replace=True, dry_run=True)
    assert take_snapshot(store).sha256 == before
    moedb.label_tokens(RUN_ID, store, rules=mine, name="builtin", replace=True)
    assert labels_of(store, "digit") == [(" 7", "seven")]
    moedb.remove_addition(RUN_ID, "builtin", store)
    assert labels_of(store, "digit") == []
    add(store, RUN_ID, Addition("mine", "probe"), {})
    with pytest.raises(UsageError, match="an addition named 'mine' that is of probe"):
        moedb.label_tokens(RUN_ID, store, rules=mine, replace=True)


def test_runs_that_cannot_be_labelled(tmp_path: Path) -> None:
    def refused(match: str, error: type[Exception], **made: Any) -> None:
        store = tmp_path / str(len([*tmp_path.iterdir()]))
        write_texts(store, ["one 2"], **made)
        with pytest.raises(error, match=match):
            moedb.label_tokens(RUN_ID, store, keys=["digit"])

    refused("incomplete; only complete runs are added to", StoreError, finish=False)
    refused("has no texts: its examples are of the job text", UsageError, has_texts=False)
    own = {"digit": "many"}
    refused("has labels with the key digit already", UsageError, example_labels=own)


def test_texts_that_the_tokens_are_not_of_are_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path, n_units=2, arrays=())  # tokens " t0", text "number 0"
    assert run_cli(["label-tokens", RUN_ID, "--key", "digit", "--store", str(tmp_path)]) == 0
    assert not additions_of(read_run(tmp_path, RUN_ID))
    said = "left out: 2 examples (10 tokens) whose tokens do not add up to their text"
    assert said in capfd.readouterr().err


def test_a_pattern_that_does_not_end_is_stopped(store: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text(
        "[[rule]]\nkey = 'slow'\npattern = '(?:.?.?.?)*(?:.?.?.?)*(?:.+)*x!'\nflags = 's'"
    )
    before = take_snapshot(store).sha256
    with pytest.raises(UsageError, match=r"rule 'slow': its pattern took more than 0\.5 s"):
        moedb.label_tokens(RUN_ID, store, rules=slow, time_limit=0.5)
    assert take_snapshot(store).sha256 == before


def test_the_command(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(["label-tokens", *arguments, "--store", str(store)])
        out, err = capfd.readouterr()
        return code, out, err

    code, out, _ = run("--format", "csv", "--columns", "key,values")
    assert code == 0 and 'bracket-depth,"1, 2, 3+"' in out
    code, out, err = run(RUN_ID, "--key", "digit", "--key", "emoji", "--format", "csv", "--dry-run")
    assert (code, out.splitlines()[:2]) == (0, ["key,value,n_tokens,share", "digit,yes,9,0.3"])
    assert out.splitlines()[2] == "emoji,,0,0.0"
    assert "9 labels; nothing was added, as --dry-run asks" in err
    assert run(RUN_ID, "--list")[2].startswith("no rows: no rules have labelled run")
    code, _, err = run(RUN_ID, "--key", "digit", "--name", "marks")
    assert code == 0 and f"moedb label-tokens {RUN_ID} --remove marks" in err
    code, out, _ = run(RUN_ID, "--list", "--format", "csv", "--columns", "name,rules,n_labels,keys")
    assert out.splitlines() == ["name,rules,n_labels,keys", "marks,builtin,9,digit"]
    code, _, err = run(RUN_ID, "--key", "digit")
    assert code == 2 and "in the place of those labels: --name marks --replace" in err
    code, _, err = run(RUN_ID, "--key", "digit", "--dry-run")
    assert code == 0 and "keys that the run has already: digit" in err
    code, _, err = run(RUN_ID, "--key", "emoji")
    assert code == 0 and "no token of run" in err and "nothing was added" in err
    assert run(RUN_ID, "--list", "--dry-run")[0] == 2 and run("--dry-run")[0] == 2
    code, _, err = run(RUN_ID, "--remove", "mark")
    assert code == 2 and "did you mean marks?" in err
    assert run(RUN_ID, "--remove", "marks")[2] == "removed 9 labels: marks\n"
    assert run("nothing", "--key", "digit")[0] == 2


_KILLED = killed_at_each_call(
    "from pathlib import Path\n"
    "import moedb.experts.concepts.labelling as labelling, moedb.queries.counting.engine\n"
    "from moedb.experts.concepts.rule_file import read_rules\n"
    "import moedb.store.verification.run, pyarrow.parquet\n"
    "from moedb.experts.concepts.labelling import Progress, Request, label_tokens\n"
    "RULES = read_rules().only(['repeat', 'position'])\n"
    "NOBODY = Progress(lambda n: None, lambda n: None)",
    "label_tokens(store, Request(run, RULES), NOBODY)",
    ("fsync", "rename", "replace", "link", "unlink", "rmdir", "mkdir"),
)


def test_killed_at_any_moment_all_labels_are_there_or_none(tmp_path: Path) -> None:
    whole, copies = tmp_path / "whole", tmp_path / "copies"
    write_texts(whole, ["a one two one"])
    copies.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(whole), str(copies), RUN_ID],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen = set()
    for n in range(1, int(done.stdout) + 1):
        store = copies / str(n)
        with moedb.open(store) as db:
            rows = db.sql(LABELS).fetchall()
        seen.add(len(rows))
        moedb.label_tokens(RUN_ID, store, keys=["repeat", "position"], replace=True)
        verify_run(read_run(store, RUN_ID))
        with moedb.open(store) as db:
            assert len(db.sql(LABELS).fetchall()) == 5
        shutil.rmtree(store)
    assert seen == {0, 5}
