"""Labelling with a chat model on this machine, loaded by transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import UsageError
from moedb.experts.labelling.asking.answering import StoppedError
from moedb.experts.labelling.asking.local import LocalReader
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.experts.labelling.test_labelling import SMALL, table
from tests.support.models.chat_models import plain_answer, save_chat_model
from tests.support.stores.made.routed_words import RUN_ID


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chat")


def label(store: Path, chat: Path, **settings: Any) -> Any:
    given = {**SMALL, "answer_tokens": 12, "asked_again": 1, "baseline": False, **settings}
    return moedb.label_experts(RUN_ID, store, local=chat, device="cpu", **given)


def test_every_expert_ends_labelled_or_with_the_reason_why_not(store: Path, chat: Path) -> None:
    found = label(store, chat, experts=[0, 3, 11]).df()
    labels, requests = table(store, "expert_labels"), table(store, "label_requests")
    assert labels["expert"].tolist() == found["expert"].tolist() == [0, 3, 11]
    assert set(labels["status"]) <= {"labelled", "nonsense", "unused"}
    assert (labels["label"].notna() | labels["reason"].notna()).all()
    assert labels["model"].str.fullmatch(r"chat@[0-9a-f]{12}").all()
    assert (requests["endpoint"] == "local").all() and (requests["seconds"] > 0).all()
    assert (requests["model"] == labels["model"][0]).all() and (requests["attempts"] == 1).all()
    # each answer is what transformers says to the same messages
    for row in requests.head(3).itertuples():
        prompt = "".join(f"[{m['role']}] {m['content']}\n" for m in json.loads(row.prompt))
        text, n_prompt, n_answer = plain_answer(chat, f"{prompt}[assistant] ", 12)
        assert (row.answer, row.prompt_tokens, row.completion_tokens) == (text, n_prompt, n_answer)
    verify_run(read_run(store, RUN_ID))


def test_the_same_again_asks_nothing_and_answers_outlive_the_labels(
    store: Path, chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(store, chat, experts=[3])
    before = table(store, "label_requests").drop(columns="run_id")
    assert not len(label(store, chat, experts=[3]).df())
    assert run_cli(["label-experts", RUN_ID, "--store", str(store), "--remove"]) == 0
    label(store, chat, experts=[3])
    # with the same seconds: they are from the journal
    assert table(store, "label_requests").drop(columns="run_id").equals(before)


def test_what_may_be_asked_is_held_to(store: Path, chat: Path) -> None:
    label(store, chat, max_requests=14)
    assert len(table(store, "label_requests")) <= 14
    assert len(table(store, "expert_labels")) < 12


def test_the_command_reads_here_and_says_so(
    store: Path, chat: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["label-experts", RUN_ID, "--store", str(store), "--local", str(chat)]
    assert run_cli([*command, "--dry-run", "--experts", "3"]) == 0
    assert not len(table(store, "label_requests"))
    assert run_cli([*command, "--experts", "3", "--answer-tokens", "8", "--scored", "0"]) == 0
    assert "read by chat@" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoint": "http://127.0.0.1:1"}, "--local and --endpoint"),
        ({"model": "m"}, "--local and --model"),
        ({"body": {"top_p": 0.5}}, "chat_template_kwargs alone.*not top_p"),
        ({"body": {"chat_template_kwargs": 3}}, "chat_template_kwargs alone"),
    ],
)
def test_what_cannot_be_is_refused(
    store: Path, chat: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        label(store, chat, **given)


def test_a_device_goes_with_a_local_model_and_a_reader_has_to_be_named(store: Path) -> None:
    with pytest.raises(UsageError, match="--device is of a model"):
        moedb.label_experts(RUN_ID, store, endpoint="http://127.0.0.1:1", model="m", device="cpu")
    with pytest.raises(UsageError, match="which reader"):
        moedb.label_experts(RUN_ID, store)
    with pytest.raises(moedb.MoedbError, match="does not exist") as caught:
        moedb.label_experts(RUN_ID, store, local="./nowhere")
    assert caught.value.hint is not None and caught.value.hint.startswith("--local FOLDER")


def test_it_answers_nothing_more_once_it_is_stopped(chat: Path) -> None:
    from moedb.capture.models.checkpoints import find_checkpoint
    from moedb.capture.models.loading.chat import ChatModel

    reader = LocalReader("chat", ChatModel(find_checkpoint(str(chat)), "cpu"))
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4}
    assert reader.ask(body).completion_tokens == 4 and reader.n_understood == 1
    reader.stop()
    with pytest.raises(StoppedError):
        reader.ask(body)
