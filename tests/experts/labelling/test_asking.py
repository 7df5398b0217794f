"""Asking a server that misbehaves: what is sent again, kept, refused, and where the key is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreError, UsageError
from moedb.experts.labelling.asking.endpoint import Endpoint, completions_url, find_key
from moedb.experts.labelling.asking.journal import Journal, opened
from moedb.store.layout import RunLayout
from moedb.store.reading.additions import additions_of
from moedb.store.reading.snapshot import read_run
from tests.experts.labelling.test_labelling import label, table
from tests.support.models.reader_server import reader_server
from tests.support.stores.made.routed_words import RUN_ID

KEY = "sk-test-7f3a9c51d2"
OPTIONS = ("--window", "5", "--contexts", "8", "--scored", "6", "--batch", "7", "--samples", "100")


def command(store: Path, url: str, *more: str) -> list[str]:
    return [
        *("label-experts", RUN_ID, "--store", str(store), "--endpoint", url, "--model", "m"),
        *OPTIONS,
        *more,
    ]


def holds_key(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and (KEY.encode() in path.read_bytes() or KEY in str(path))
    ]


def test_every_expert_ends_labelled_or_marked_and_nothing_is_paid_twice(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MOEDB_API_KEY", KEY)
    monkeypatch.setenv("MOEDB_CACHE", str(tmp_path / "cache"))
    with reader_server(drops=5, nonsense=10, limits=60, delay=0.01) as reader:
        assert run_cli(["-v", *command(store, reader.url, "-o", str(tmp_path / "x.csv"))]) == 0
    assert reader.keys == {f"Bearer {KEY}"}
    assert reader.answered and set(reader.answered.values()) == {1}
    assert reader.n_requests > reader.answered.total() * 1.2
    assert 1 < reader.most_at_once <= 4
    labels = table(store, "expert_labels")
    assert labels["expert"].tolist() == list(range(12))
    assert (labels["label"].notna() | labels["reason"].notna()).all()
    assert set(labels["status"]) <= {"labelled", "nonsense", "unused"}
    assert (labels["status"] == "labelled").sum() >= 9
    requests = table(store, "label_requests")
    assert {"ok", "nonsense"} == set(requests["status"])
    assert (requests["attempts"] > 1).any()
    # what was answered, and nothing else, is in the table
    assert {row.prompt for row in requests.itertuples()} == {
        json.dumps(body["messages"], ensure_ascii=False) for body in reader.bodies.values()
    }
    said = "".join(capfd.readouterr())
    assert KEY not in said and "with the key in MOEDB_API_KEY" in said
    assert not holds_key(tmp_path)
    # a second time there is nothing to do
    with reader_server() as other:
        assert run_cli(command(store, other.url)) == 0
    assert not other.n_requests
    assert "every expert that was asked for has a label" in capfd.readouterr().err


def test_a_killed_process_has_kept_what_was_answered(store: Path, tmp_path: Path) -> None:
    for hold_after in (3, 40):
        place = tmp_path / f"killed-{hold_after}"
        shutil.copytree(store, place)
        with reader_server(hold_after=hold_after) as reader:
            environment = {**os.environ, "OPENAI_API_KEY": KEY, "MOEDB_CACHE": ""}
            environment.pop("MOEDB_API_KEY", None)
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from moedb.cli import main; main()"),
                    *command(place, reader.url, "--concurrency", "3"),
                ],
                env=environment,
                stderr=subprocess.PIPE,
            )
            until = time.monotonic() + 120
            while reader.n_held < 3 and time.monotonic() < until and process.poll() is None:
                time.sleep(0.01)
            # all that are at work wait for an answer, so all that came are used
            assert reader.n_held == 3
            process.send_signal(signal.SIGKILL)
            assert KEY.encode() not in process.communicate()[1]
            assert reader.answered.total() >= hold_after
            assert not holds_key(place)
            reader.hold_after = None
            reader.release.set()
            found = label(place, reader, samples=100)
        assert set(reader.answered.values()) == {1}
        assert table(place, "expert_labels")["status"].tolist() == ["labelled"] * 11 + ["unused"]
        assert len(found) + (hold_after == 40) >= 12 - 3


def test_labels_after_a_kill_are_those_without_one(store: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for place in (whole, halves):
        shutil.copytree(store, place)
    with reader_server(manner="random") as reader:
        label(whole, reader)
        asked = dict(reader.answered)
        label(halves, reader, max_requests=30, concurrency=1)
        label(halves, reader)
        assert {each - 1 for each in reader.answered.values()} == {1} and len(asked) > 30
    for name in ("expert_labels", "expert_label_scores"):
        assert table(whole, name).equals(table(halves, name)), name


def test_a_torn_line_of_the_journal_costs_one_answer(store: Path) -> None:
    layout = RunLayout(store, RUN_ID)
    with reader_server() as reader:
        label(store, reader, experts=[1, 2])
        path = layout.folder / "answers" / "labels.jsonl"
        n_lines = len(path.read_bytes().splitlines())
        path.write_bytes(path.read_bytes()[:-20])
        assert run_cli(["label-experts", RUN_ID, "--store", str(store), "--remove"]) == 0
        assert not table(store, "expert_labels").size
        label(store, reader, experts=[1, 2])
        assert sorted(reader.answered.values())[-2:] == [1, 2]
        label(store, reader, experts=[1, 2])
    with opened(layout, "labels") as journal:
        assert len(journal) == n_lines


def test_answers_are_kept_with_the_run_and_can_be_forgotten(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = RunLayout(store, RUN_ID).folder / "answers" / "labels.jsonl"
    with reader_server() as reader:
        label(store, reader, experts=[1], baseline=False)
    assert run_cli(["label-experts", RUN_ID, "--store", str(store), "--remove", "--forget"]) == 0
    assert "removed 1 labels of experts" in capfd.readouterr().err
    assert not path.exists()
    assert run_cli(["label-experts", RUN_ID, "--store", str(store), "--remove"]) == 2
    assert "has no addition named 'labels'" in capfd.readouterr().err


def test_one_process_at_a_time(store: Path) -> None:
    with (
        opened(RunLayout(store, RUN_ID), "labels"),
        reader_server() as reader,
        pytest.raises(StoreError, match="another process labels run"),
    ):
        label(store, reader)
    assert not reader.n_requests


def test_no_more_is_sent_than_may_be(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with reader_server() as reader:
        assert run_cli(command(store, reader.url, "--max-requests", "40")) == 0
        err = capfd.readouterr().err
        n_done = len(table(store, "expert_labels"))
        assert reader.n_requests <= 40 and 1 <= n_done < 12
        assert f"{12 - n_done} experts are left, as what may be sent is spent" in err
        with pytest.raises(UsageError, match="too few for one expert, which takes about 18"):
            label(store, reader, max_requests=17, samples=100)
        before = reader.n_requests
        # a hundred and ten tokens each, as the server says
        label(store, reader, max_tokens=6500, samples=100)
        assert (reader.n_requests - before - 4) * 110 < 6500
    with reader_server(drops=1) as deaf:
        deaf.drops = 4
        label(store, deaf, max_requests=60, name="deaf")
        assert deaf.n_requests <= 60


def test_a_dry_run_sends_nothing(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with reader_server() as reader:
        code = run_cli(command(store, reader.url, "--dry-run", "--format", "json", "--n", "3"))
    found = capfd.readouterr()
    (row,) = json.loads(found.out)
    # an explanation, and four batches of each kind with two labels
    assert (code, row["n_experts"], row["n_requests"]) == (0, 3, 3 * 17)
    assert not reader.n_requests and "nothing was sent" in found.err
    assert not (RunLayout(store, RUN_ID).folder / "answers").exists()


@pytest.mark.parametrize(
    ("manner", "wrong"),
    [
        ({"status": 401, "error": f"no such key: {KEY}"}, "HTTP 401: no such key: \\*\\*\\*"),
        ({"status": 404}, "the model's name"),
        ({"status": 400, "error": "temperature"}, "refuses the first request: HTTP 400"),
        ({"status": 307, "headers": {"Location": "http://x.example/"}}, "nothing is sent there"),
        ({"status": 503}, "did not answer a request in 2 attempts; the last: HTTP 503"),
        ({"status": 429, "headers": {"Retry-After": "9999"}}, "asks to wait 9,999 s"),
        ({"drops": 1}, "did not answer a request in 2 attempts"),
    ],
)
def test_a_server_that_cannot_be_asked_ends_it(
    store: Path, manner: dict[str, Any], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOEDB_API_KEY", KEY)
    with reader_server(**manner) as reader:
        if manner.get("drops"):
            reader.hold_after = 0
            reader.release.set()
        with pytest.raises(moedb.MoedbError, match=wrong) as raised:
            label(store, reader, attempts=2)
    assert KEY not in str(raised.value)
    assert not additions_of(read_run(store, RUN_ID))
    assert reader.n_requests <= 8


def test_waiting_as_long_as_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with reader_server(status=429, headers={"Retry-After": "1"}) as reader:
        endpoint = Endpoint(completions_url(reader.url), None, 10.0, 3)
        began = time.monotonic()
        with pytest.raises(moedb.MoedbError):
            endpoint.ask({"model": "m"})
        endpoint.close()
    assert reader.n_requests == 3 and time.monotonic() - began >= 2


def test_a_key_that_a_server_repeats_is_not_kept(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOEDB_API_KEY", KEY)
    with reader_server() as reader:
        reader.said = lambda body: json.dumps({"label": f"the key {KEY} \u0000 \ud800"})
        found = label(store, reader, experts=[3], scored=0)
    assert found["label"].tolist() == ["the key ***"]
    assert not holds_key(store)


def test_addresses_and_keys() -> None:
    assert completions_url("https://h/v1/chat/completions/") == "https://h/v1/chat/completions"
    for wrong in (
        "h:80",
        "ftp://h",
        "http://",
        "https://u:p@h",
        "https://h/v1?key=k",
        "http://h:x",
    ):
        with pytest.raises(UsageError) as raised:
            completions_url(wrong)
        assert "key=k" not in str(raised.value) and "u:p" not in str(raised.value)
    assert find_key({"OPENAI_API_KEY": " b \n", "MOEDB_API_KEY": ""}) == ("OPENAI_API_KEY", "b")
    assert find_key({"OPENAI_API_KEY": "b", "MOEDB_API_KEY": "a"}) == ("MOEDB_API_KEY", "a")
    assert find_key({}) is None
    with pytest.raises(UsageError) as raised:
        find_key({"MOEDB_API_KEY": "secret\nof mine"})
    assert "secret" not in str(raised.value)


def test_labels_made_otherwise_are_not_mixed(store: Path) -> None:
    with reader_server() as reader:
        label(store, reader, experts=[3], scored=0)
        n = reader.n_requests
        with pytest.raises(UsageError, match="with other settings: contexts 8, not 3"):
            label(store, reader, experts=[4], scored=0, contexts=3)
        assert reader.n_requests == n
        label(store, reader, experts=[3], scored=0, contexts=3, name="few")
    labels = table(store, "expert_labels")
    assert dict(zip(labels["label_set"], labels["n_contexts"], strict=True)) == {
        "few": 3,
        "labels": 8,
    }


def test_a_journal_of_somebody_elses(tmp_path: Path) -> None:
    path = tmp_path / "answers" / "x.jsonl"
    path.parent.mkdir()
    path.write_text('[]\n{"sha256": 3}\nnull\n' + "[" * 100_000 + '\n{"sha256": "a", "text": 3}\n')
    journal = Journal(path)
    assert len(journal) == 0
    journal.close()


def test_the_settings_are_checked(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for more, wrong in (
        (("--layers", "7-3"), "--layers '7-3': valid are 3, 0,2 and 4-7"),
        (("--layers", "4"), "layers: the run has none numbered 4"),
        (("--experts", "12"), "valid: 0 to 11"),
        (("--body", "{"), "--body is no JSON"),
        (("--body", '{"messages": []}'), "messages cannot be set"),
        (("--forget",), "--forget goes with --remove"),
    ):
        assert run_cli(command(store, "http://127.0.0.1:9", *more)) == 2
        assert wrong in capfd.readouterr().err
    assert run_cli(["label-experts", RUN_ID, "--store", str(store)]) == 2
    assert "which reader shall label the experts" in capfd.readouterr().err


def test_what_makes_no_sense_is_asked_for_thrice_and_marked(store: Path) -> None:
    with reader_server() as reader:
        sound = reader.said
        reader.said = lambda body: "no"
        label(store, reader, experts=[1], name="no")
        assert reader.n_requests == 3
        asked = [body["messages"] for body in reader.bodies.values()]
        assert sorted(map(len, asked)) == [2, 4, 6]
        # one verdict too many in every batch of detection
        reader.said = lambda body: (
            sound(body).replace("[", "[true, ")
            if "holds something" in body["messages"][1]["content"]
            else sound(body)
        )
        label(store, reader, experts=[1], baseline=False)
    labelled, marked = table(store, "expert_labels").sort_values("label_set").itertuples()
    assert (marked.status, marked.reason) == ("nonsense", "no label in the answer 'no'")
    assert labelled.label == "the words of expert 1"
    assert "detection: 6 contexts without a verdict: 7 verdicts for 6 texts" in labelled.reason
    scores = table(store, "expert_label_scores")
    assert (scores["n"][scores["kind"] == "detection"] == 0).all()
    assert scores["f1"][scores["kind"] == "detection"].isna().all()
    assert (scores["f1"][scores["kind"] == "fuzzing"] == 1).all()


def test_what_a_server_refuses_is_marked(store: Path) -> None:
    with reader_server() as reader:
        label(store, reader, experts=[1], name="first", baseline=False)
        sound = reader.said

        def said(body: dict[str, Any]) -> str:
            # the first answer is sound, whatever comes after it is too long
            reader.status, reader.error = 400, "too long"
            return sound(body)

        reader.said = said
        found = label(store, reader, experts=[2, 3], baseline=False, concurrency=1)
    assert found["status"].tolist() == ["labelled", "refused"]
    assert found["reason"].tolist()[1] == "HTTP 400: too long"
    assert "contexts without a verdict: HTTP 400: too long" in found["reason"].tolist()[0]
    assert set(table(store, "label_requests")["status"]) == {"ok", "refused"}


def test_an_interrupted_process_keeps_what_it_has(store: Path) -> None:
    with reader_server(delay=0.02) as reader:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", STOPPABLE),
                *command(store, reader.url),
            ],
            stderr=subprocess.PIPE,
        )
        until = time.monotonic() + 120
        while reader.answered.total() < 40 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 130 and "interrupted" in said
        assert reader.answered.total() < 150
        label(store, reader, samples=100)
    assert set(reader.answered.values()) == {1}


STOPPABLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from moedb.cli import main; main()"
)
