"""A chat model that answers, against transformers' own ``generate`` on the prompt written out."""

from pathlib import Path

import pytest

from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.models.loading.chat import ChatModel
from moedb.errors import ModelError, UsageError
from tests.support.models.chat_models import WITHOUT_SYSTEM, plain_answer, save_chat_model

MESSAGES = [
    {"role": "system", "content": "You read."},
    {"role": "user", "content": "What do these have in common? 1. ga« bu» 2. zo« bu»"},
]


def model_in(folder: Path) -> ChatModel:
    return ChatModel(find_checkpoint(str(folder)), "cpu")


def test_it_says_what_transformers_says(tmp_path: Path) -> None:
    folder = save_chat_model(tmp_path / "chat")
    prompt = f"[system] You read.\n[user] {MESSAGES[1]['content']}\n[assistant] "
    text, n_prompt, n_answer = plain_answer(folder, prompt, 24)
    found = model_in(folder).answer(MESSAGES, 24)
    assert found is not None and found.text == text and len(text) > 10
    assert (found.prompt_tokens, found.completion_tokens) == (n_prompt, n_answer)
    assert found.finish == ("length" if n_answer == 24 else "stop")
    # and again, although the checkpoint asks for sampling
    assert model_in(folder).answer(MESSAGES, 24) == found


def test_values_for_the_template_are_handed_on(tmp_path: Path) -> None:
    folder = save_chat_model(tmp_path / "chat")
    prompt = f"[system] You read.\n[user] {MESSAGES[1]['content']}\n[assistant], gladly "
    found = model_in(folder).answer(MESSAGES, 8, {"mood": ", gladly"})
    assert found is not None and found.text == plain_answer(folder, prompt, 8)[0]


def test_where_a_template_takes_no_system_its_words_come_first_in_the_question(
    tmp_path: Path,
) -> None:
    folder = save_chat_model(tmp_path / "chat", WITHOUT_SYSTEM)
    prompt = f"[user] You read.\n\n{MESSAGES[1]['content']}\n[assistant] "
    found = model_in(folder).answer(MESSAGES, 8)
    assert found is not None and found.text == plain_answer(folder, prompt, 8)[0]


def test_a_context_that_is_full_is_said(tmp_path: Path) -> None:
    model = model_in(save_chat_model(tmp_path / "chat", context=40))
    long = [{"role": "user", "content": "word " * 200}]
    with pytest.raises(UsageError, match=r"tokens, and the context of chat 40"):
        model.answer(long, 8)
    short = model.answer([{"role": "user", "content": "a"}], 500)
    assert short is not None and short.prompt_tokens + short.completion_tokens <= 40


def test_it_gives_up_when_it_is_told_to(tmp_path: Path) -> None:
    model = model_in(save_chat_model(tmp_path / "chat"))
    asked = []

    def is_stopped() -> bool:
        asked.append(1)
        return len(asked) > 3

    assert model.answer(MESSAGES, 500, is_stopped=is_stopped) is None
    assert len(asked) < 10


def test_a_model_that_is_not_one_to_chat_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        model_in(save_chat_model(tmp_path / "plain", None))
    broken = save_chat_model(tmp_path / "broken", "{{ raise_exception('never') }}")
    with pytest.raises(UsageError, match=r"refuses the messages.*never"):
        model_in(broken).answer(MESSAGES, 8)
