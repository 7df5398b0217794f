"""Files that anybody may have written."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import moedb
from moedb.errors import UsageError
from moedb.experts.importing import files as given
from moedb.store.reading.additions import additions_of
from moedb.store.reading.snapshot import read_run
from tests.experts.labelling.test_labelling import table
from tests.support.stores.made.routed_words import RUN_ID


def refused(store: Path, path: Path, match: str, **more: Any) -> UsageError:
    with pytest.raises(UsageError, match=match) as caught:
        moedb.import_labels(RUN_ID, path, store, name="theirs", **more)
    assert not additions_of(read_run(store, RUN_ID))
    return caught.value


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


GOOD = {"layer": 1, "expert": 0, "label": "zero"}
VERDICT = {"layer": 1, "expert": 0, "kind": "fuzzing", "is_positive": 1, "says_yes": 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**GOOD, "expert": 0}, r"two labels: x.jsonl, line 1 and x.jsonl, line 2"),
        ({**GOOD, "layer": "layers.1.mlp"}, r"two labels: x.jsonl, line 1 and x.jsonl, line 2"),
        ("{", r"line 2: no JSON"),
        ("[" * 100_000, r"line 2: no JSON"),
        ("[1]", r"line 2: no JSON object"),
        ({**GOOD, "expert": -1}, r"line 2: expert is no number from 0 on: -1"),
        ({**GOOD, "expert": True}, r"line 2: expert is no number"),
        ({**GOOD, "expert": 1.5}, r"line 2: expert is no number"),
        ('{"layer": 1, "expert": ' + "9" * 5000 + ', "label": "x"}', r"line 2: no JSON"),
        ({**GOOD, "layer": None}, r"line 2: layer is no number"),
        ({**GOOD, "label": 7}, r"line 2: the label is no text: 7"),
        ({"layer": 1, "expert": 5}, r"line 2: neither a label .* nor a verdict"),
        ({**VERDICT, "kind": "simulation"}, r"kind is 'simulation'; valid: detection, fuzzing"),
        ({**VERDICT, "is_positive": None}, r"line 2: a verdict without is_positive"),
        ({**VERDICT, "says_yes": "perhaps"}, r"says_yes is neither true nor false: 'perhaps'"),
        ({**VERDICT, "says_yes": {}}, r"says_yes is neither"),
        ({**VERDICT, "against": "random"}, r"against 'random' of a positive context"),
        ({**VERDICT, "is_positive": 0, "against": "me"}, r"against is 'me'; valid: token"),
        ({**VERDICT, "expert": 6}, r"a verdict on layer 1, expert 6, of which there is no label"),
        ({**VERDICT, "token_idx": 10**30}, r"token_idx is no number"),
        ({**VERDICT, "token_idx": 10**6}, r"has no token 1000000"),
    ],
)
def test_a_row_that_is_none_is_named(store: Path, tmp_path: Path, row: Any, said: str) -> None:
    refused(store, lines(tmp_path / "x.jsonl", GOOD, row), said)


def test_a_verdict_that_the_routing_contradicts_is_refused(store: Path, tmp_path: Path) -> None:
    routing = table(store, "routing")
    token = int(routing[routing["expert"] != 0]["token_idx"].iloc[0])
    path = lines(tmp_path / "x.jsonl", GOOD, {**VERDICT, "token_idx": token})
    refused(store, path, f"is_positive is true, but .* did not give token {token} to expert 0")


def test_what_has_no_place_is_counted_and_nothing_at_all_is_an_error(
    store: Path, tmp_path: Path
) -> None:
    rows = [{**GOOD, "expert": 12}, {**GOOD, "layer": 2}, {**GOOD, "layer": "lm_head"}]
    error = refused(store, lines(tmp_path / "x.jsonl", *rows), "no label has a place in run")
    assert "1 labels of experts of layer 1 beyond its 12" in error.message
    assert "1 labels of layer lm_head, which the run does not have" in error.message
    assert error.hint == "its layers are 1 of 12 experts"


def test_controls_do_not_come_through(store: Path, tmp_path: Path) -> None:
    label, text = "a\x1b]0;x\x07\u202eb\nc\x00" + "d" * 5000, "\x1b[2J\x00\ud800 ok\n"
    path = lines(tmp_path / "x.jsonl", {**GOOD, "label": label}, {**VERDICT, "text": text})
    moedb.import_labels(RUN_ID, path, store, name="theirs")
    found = table(store, "expert_labels")["label"][0]
    assert found.startswith("a ]0;x b c ddd") and found.isprintable() and len(found) == 2000
    seen = table(store, "label_verdicts")["text"][0]
    assert seen == "\ufffd[2J\ufffd? ok\n"


def test_no_link_is_followed_and_no_pipe_waited_for(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "explanations"
    folder.mkdir(parents=True)
    (tmp_path / "secret_latent0.txt").write_text('"secret"')
    (folder / "layers.1_latent0.txt").symlink_to(tmp_path / "secret_latent0.txt")
    refused(store, tmp_path / "results", "is a link; links in a folder are not followed")
    os.mkfifo(tmp_path / "pipe")
    refused(store, tmp_path / "pipe", "is no plain file")
    refused(store, tmp_path / "nowhere", "there is no file")


def test_what_is_too_large_is_not_read(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "MOST_BYTES", 1000)
    refused(store, lines(tmp_path / "x.jsonl", *[GOOD] * 100), "more than 0.0 GB in all")
    monkeypatch.setattr(given, "MOST_FILES", 3)
    (tmp_path / "many").mkdir()
    for number in range(5):
        (tmp_path / "many" / f"{number}.txt").write_text("")
    refused(store, tmp_path / "many", "more than 3 files")


def test_what_is_of_no_form_is_said_to_be(store: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00pickle")
    refused(store, tmp_path / "x", "no text in UTF-8")
    error = refused(store, lines(tmp_path / "y", "hello"), "y is of no form that is known")
    assert error.hint is not None and "--from herbst2026|delphi|neuronpedia|moedb" in error.hint
    refused(store, tmp_path / "y", "no format named 'delfi'.*delphi", form="delfi")
    refused(store, lines(tmp_path / "z.json", {"0": {"hypothesis": "a"}}), "which layer z.json is")
    broken = {"0": {"hypothesis": "a", "labels": [1, 7], "scores": [1, 0]}}
    refused(store, lines(tmp_path / "z.json", broken), "label is neither true nor false", layer=1)


def test_verdicts_that_are_not_as_many_as_contexts_are_left_out(
    store: Path, tmp_path: Path
) -> None:
    uneven = {"0": {"hypothesis": "a", "labels": [1, 0, 1], "scores": [1, 0]}}
    path = lines(tmp_path / "z.json", uneven)
    moedb.import_labels(RUN_ID, path, store, name="theirs", layer=1)
    assert len(table(store, "expert_labels")) == 1 and not len(table(store, "label_verdicts"))
