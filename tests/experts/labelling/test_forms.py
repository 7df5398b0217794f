"""A reader that makes sense only where a JSON schema holds it, on servers of several kinds."""

import json
from pathlib import Path

import pytest

import moedb
from moedb.errors import UsageError
from tests.experts.labelling.test_labelling import label, table
from tests.support.models.reader_server import reader_server

SCHEMA, OBJECT = "json_schema", "json_object"


@pytest.mark.parametrize(
    ("forms", "refusal", "attempts"),
    [((SCHEMA,), 400, 1), ((OBJECT,), 500, 2), ((OBJECT,), 422, 2)],
)
def test_what_makes_no_sense_is_asked_for_again_in_a_form_that_the_server_takes(
    store: Path, forms: tuple[str, ...], refusal: int, attempts: int
) -> None:
    with reader_server(only_formed=True, forms=forms, refusal=refusal) as reader:
        found = label(store, reader, experts=[1, 2], concurrency=1, attempts=1)
    assert found["status"].tolist() == ["labelled"] * 2
    requests = table(store, "label_requests").sort_values(["expert", "number"])
    assert requests["status"].tolist() == ["nonsense", "ok"] * (len(requests) // 2)
    # the server is tried for what it takes once
    assert requests["attempts"].tolist()[:4] == [1, attempts, 1, 1]
    assert requests["attempts"].sum() == len(requests) + attempts - 1
    for body in reader.bodies.values():
        form = body.get("response_format")
        if form is not None:
            schema = form["schema"] if form["type"] == OBJECT else form[SCHEMA]["schema"]
            shown = body["messages"][1]["content"]
            if '{"label"' in shown:
                assert schema["required"] == ["label"]
            else:
                n = sum(line[:1].isdigit() for line in shown.splitlines())
                fits = schema["properties"]["fits"]
                assert fits["minItems"] == fits["maxItems"] == n


def test_a_server_that_takes_none_is_asked_without(store: Path) -> None:
    with reader_server(only_formed=True, forms=()) as reader:
        found = label(store, reader, experts=[1], attempts=1, asked_again=1)
    assert found["status"].tolist() == ["nonsense"]
    assert reader.n_requests == 1 + 3  # the first, and the second in both forms and without


def test_a_schema_may_be_asked_for_from_the_first(store: Path) -> None:
    with reader_server(only_formed=True, forms=(SCHEMA,)) as reader:
        found = label(store, reader, experts=[1, 2], schema=True)
        assert found["status"].tolist() == ["labelled"] * 2
        assert all("response_format" in body for body in reader.bodies.values())
        with pytest.raises(UsageError, match=r"other settings: schema True, not None"):
            label(store, reader, experts=[3])
    assert (table(store, "label_requests")["status"] == "ok").all()


def test_a_form_of_the_users_own_stays(store: Path) -> None:
    own = {"type": "json_object"}
    with reader_server() as reader:
        label(store, reader, experts=[1], scored=0, baseline=False, body={"response_format": own})
    assert [body["response_format"] for body in reader.bodies.values()] == [own]


def test_what_is_asked_for_comes_after_the_texts(store: Path) -> None:
    with reader_server() as reader:
        label(store, reader, experts=[1], baseline=False)
    for prompt in table(store, "label_requests")["prompt"]:
        assert json.loads(prompt)[1]["content"].splitlines()[-1].startswith("Answer with JSON")


def test_a_local_model_takes_no_schema(store: Path) -> None:
    with pytest.raises(UsageError, match="cannot be held to a JSON schema"):
        moedb.label_experts("x", store, local="qwen-moe-mini", schema=True)
