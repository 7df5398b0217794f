"""The job ``text``: from files to rows of the store."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from moedb.capture.jobs.text import text_dataset
from moedb.capture.language import plan_language_capture
from moedb.capture.pipeline import capture
from moedb.capture.planning import CaptureOptions
from moedb.capture.text.spool import SpooledExamples
from moedb.cli import run_cli
from moedb.errors import DatasetError
from moedb.queries.database import open_database
from tests.capture.text.sources import dataset_of, write_jsonl, write_parquet
from tests.contents import run_contents

pytestmark = pytest.mark.model

Run = Callable[..., tuple[int, str, str]]

ROWS = [
    {"text": "The king spoke to the queen.", "kind": "drama", "stars": 3},
    {"text": "   ", "kind": "blank", "stars": 0},
    {"text": "def main(): return 1", "kind": "code", "stars": None},
    {"text": "Über die Brücke fährt der Zug, nicht das Schiff.", "kind": "german", "stars": 5},
]


@pytest.fixture
def moedb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(["--store", str(tmp_path / "store"), *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_texts_go_into_the_store_with_their_labels(
    moedb: Run, tmp_path: Path, tokenizer: Any
) -> None:
    path = write_jsonl(tmp_path / "reviews.jsonl", ROWS)
    command = ("capture", "text", "--dataset", str(path), "--label", "kind", "--label", "stars")
    code, out, err = moedb(*command, "--max-length", "8", "--stride", "6")
    assert code == 0, err
    assert "skipped 1 of 4 rows read: no text in them" in err
    run_id = out.strip()
    assert run_id.startswith("text-")
    assert moedb(*command, "--max-length", "8", "--stride", "6")[1].strip() == run_id

    rows = open_database(tmp_path / "store").sql(
        "select kind.value, document.value, count(distinct e.example_id), count(*), "
        "count(t.next_logprob) from tokens t join examples e using (example_id) "
        "join example_labels kind on kind.example_id = e.example_id and kind.key = 'kind' "
        "join example_labels document on document.example_id = e.example_id "
        "and document.key = 'document' group by all order by 2"
    )
    expected = []
    for number, row in enumerate(ROWS):
        n = len(tokenizer(row["text"])["input_ids"])
        if row["kind"] != "blank":
            windows = 1 + max(0, -(-(n - 8) // 6))
            tokens = n + 2 * (windows - 1)
            expected.append((row["kind"], str(number), windows, tokens, tokens - windows))
    assert rows.fetchall() == expected
    stars = open_database(tmp_path / "store").sql(
        "select distinct value from example_labels where key = 'stars' order by 1"
    )
    assert [row[0] for row in stars.fetchall()] == ["3", "5"]
    (run,) = open_database(tmp_path / "store").snapshot.runs.values()
    assert run.manifest.row["dataset"] == "reviews.jsonl"
    config = json.loads(run.manifest.row["config"])["dataset"]
    assert config["source"]["files"][0]["name"] == "reviews.jsonl"
    assert (config["max_length"], config["stride"], config["labels"]) == (8, 6, ["kind", "stars"])
    code, _, err = moedb("verify")
    assert code == 0, err


def test_a_spool_and_a_tuple_give_the_same_run(tmp_path: Path) -> None:
    """What is captured of examples in a file is what is captured of those in memory."""
    from dataclasses import replace
    from functools import partial

    from moedb.capture.jobs.text import TextOptions
    from moedb.capture.text.reading import open_source

    source = open_source(str(write_parquet(tmp_path / "a.parquet", ROWS * 3)))
    make = partial(text_dataset, source=source, options=TextOptions(max_length=7))

    def in_memory(tokenizer: Any) -> Any:
        made = make(tokenizer)
        assert isinstance(made.examples, SpooledExamples)
        return replace(made, examples=tuple(made.examples))

    contents = []
    for index, each in enumerate((make, in_memory)):
        planned = plan_language_capture(CaptureOptions("qwen-moe-mini", tokens="last"), each)
        capture(planned, tmp_path / str(index))
        contents.append(run_contents(tmp_path / str(index), planned.run_id))
    assert contents[0] == contents[1]


def texts(dataset: Any) -> list[str]:
    return [example.text for example in dataset.examples]


def test_limits_and_windows(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": f"Number {i} is here. " * 9} for i in "123"])

    def made(**options: Any) -> list[Mapping[str, str]]:
        found = dataset_of(tokenizer, path, max_length=20, **options)
        assert all(len(example) <= 20 for example in found.examples)
        return [dict(example.labels) for example in found.examples]

    whole = made()
    assert [e["document"] for e in whole] == sorted(e["document"] for e in whole)
    assert made(truncate=True) == [{"document": str(i), "window": "0"} for i in range(3)]
    assert made(max_examples=4) == whole[:4]
    lengths = [len(e) for e in dataset_of(tokenizer, path, max_length=20).examples]
    assert made(max_tokens=sum(lengths[:4])) == whole[:4]
    assert made(max_tokens=sum(lengths[:4]) - 1) == whole[:3]
    assert "".join(texts(dataset_of(tokenizer, path, max_length=20))[: len(whole) // 3]) == (
        "Number 1 is here. " * 9
    )
    with pytest.raises(DatasetError, match=r"--max-tokens: the first example has 20 tokens"):
        made(max_tokens=19)


def test_shuffling_is_by_the_seed(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": f"Text {i}."} for i in range(30)])
    plain, first, again, other = (
        dataset_of(tokenizer, path, **options)
        for options in ({"seed": 1}, *({"shuffle": True, "seed": seed} for seed in (1, 1, 2)))
    )
    assert texts(plain) == [f"Text {i}." for i in range(30)]
    assert texts(first) == texts(again) != texts(other)
    assert sorted(texts(first)) == sorted(texts(plain))
    assert first.sha256 == again.sha256 != other.sha256 and first.config == again.config
    # A seed that nothing is drawn by makes no other run.
    assert plain.config == dataset_of(tokenizer, path, seed=2).config
    row = {example.text: example.labels["document"] for example in first.examples}
    assert row["Text 7."] == "7"


def test_nothing_to_capture(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(DatasetError, match=r"a.jsonl is empty: it has no rows"):
        dataset_of(tokenizer, write_jsonl(tmp_path / "a.jsonl", []))
    with pytest.raises(DatasetError, match=r"no text: all 2 rows read are blank(.|\n)*--text-col"):
        dataset_of(tokenizer, write_jsonl(tmp_path / "a.jsonl", [{"text": ""}, {"text": " "}]))
    (tmp_path / "a.csv").write_text("text,kind\n")
    with pytest.raises(DatasetError, match=r"a.csv is empty"):
        dataset_of(tokenizer, tmp_path / "a.csv")


WORDS = [
    {"text": "Er geht zum Zug.", "words": ["Er", "geht", "zu", "dem", "Zug", "."]},
    {"text": "No words here."},
    {"text": "Stimmt nicht!", "words": ["Stimmt", "doch", "!"]},
]


def test_words_that_are_not_in_the_text(tmp_path: Path, tokenizer: Any) -> None:
    tags = [["PRON", "VERB", "ADP", "DET", "NOUN", "PUNCT"], None, ["VERB", "ADV", "PUNCT"]]
    rows = [{**row, "upos": values} for row, values in zip(WORDS, tags, strict=True)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)

    def made(unaligned: str) -> Any:
        return dataset_of(tokenizer, path, token_labels=["upos"], unaligned=unaligned)

    with pytest.raises(DatasetError, match=r"a.jsonl, line 1: word 3, 'dem'(.|\n)*--unaligned"):
        made("fail")
    skipped, joined = made("skip"), made("join")
    assert [dict(e.token_labels) for e in skipped.examples] == [{}, {}, {}]
    assert skipped.notes[-1].startswith("2 documents get no token labels")
    assert [bool(e.token_labels) for e in joined.examples] == [True, False, False]
    first = joined.examples[0]
    found = list(zip(first.tokens, first.token_labels["upos"], strict=True))
    assert {label for _, label in found} == {"PRON", "VERB", "ADP+DET", "NOUN", "PUNCT"}
    assert "".join(token for token, label in found if label == "ADP+DET").strip() == "zum"
    # A row without words is no error, whatever is to be done with those that have some.
    path = write_jsonl(tmp_path / "b.jsonl", [WORDS[1], {**rows[0], "text": None}])
    assert [dict(e.token_labels) for e in made("fail").examples] == [{}]


def test_conllu_sentences_with_all_their_tags(tmp_path: Path, tokenizer: Any) -> None:
    from tests.capture.text.test_reading import CONLLU

    path = tmp_path / "x.conllu"
    path.write_text(CONLLU)
    made = dataset_of(tokenizer, path, labels=["sent_id"], token_labels=["upos", "deprel"])
    first = made.examples[0]
    assert first.labels["sent_id"] == "fr-1" and "sent_id" not in made.examples[1].labels
    pairs = zip(first.tokens, *(first.token_labels[key] for key in ("upos", "deprel")), strict=True)
    by_tag: dict[tuple[Any, Any], str] = {}
    for token, *tags in pairs:
        by_tag[(tags[0], tags[1])] = by_tag.get((tags[0], tags[1]), "") + token
    assert by_tag[("ADP+DET", "case+det")].strip() == "au"
    assert by_tag[("ADV", "advmod")].strip() == "vite"


def test_bad_input_gets_one_clear_line(moedb: Run, tmp_path: Path, random_model: Path) -> None:
    path = str(write_jsonl(tmp_path / "reviews.jsonl", ROWS))
    small = tmp_path / "small"
    config = json.loads((random_model / "config.json").read_text())
    small.mkdir()
    for file in random_model.iterdir():
        (small / file.name).write_bytes(file.read_bytes())
    (small / "config.json").write_text(json.dumps({**config, "vocab_size": 50}))
    text = ("capture", "text")
    cases: list[tuple[tuple[str, ...], str]] = [
        ((), "Missing option '--dataset'"),
        (("--dataset", str(tmp_path / "review.jsonl")), "did you mean reviews.jsonl?"),
        (("--dataset", path, "--text-column", "txt"), "did you mean text?"),
        (("--dataset", path, "--label", "star"), "did you mean stars?"),
        (("--dataset", path, "--max-length", "1025"), "takes in 1024 tokens at most"),
        (("--dataset", path, "--stride", "0"), "'--stride': 0 is not in the range x>=1"),
        (("--dataset", path, "--stride", "9", "--max-length", "8"), "--stride 9: expected 8"),
        (("--dataset", path, "--split", "train"), "is for datasets of the hub"),
        (("--dataset", path, "--unaligned", "perhaps"), "'fail', 'skip', 'join'"),
        (("--dataset", path, "--tokens", "label:kidn=code", "--label", "kind"), "mean kind?"),
        (("--dataset", path, "--model", str(small)), "but the model's vocabulary has 50"),
    ]
    for arguments, message in cases:
        code, out, err = moedb(*text, *arguments)
        assert code == 2 and not out, (arguments, err)
        assert message in err and "Traceback" not in err, (message, err)
    assert not (tmp_path / "store").exists()


def test_dry_run_says_what_would_be_written(moedb: Run, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "reviews.jsonl", ROWS)
    code, out, err = moedb(
        "capture", "text", "--dataset", str(path), "--dry-run", "--format", "json"
    )
    assert code == 0 and "3 examples" in err and "skipped 1 of 4" in err
    rows = {row["name"]: row["rows"] for row in json.loads(out)}
    assert rows["examples"] == 3 and rows["example_labels"] == 6 and rows["predictions"] == 0


@pytest.mark.slow
def test_gold_parts_of_speech_of_the_corpus(
    shared_data: Callable[[str], Path], tmp_path: Path, tokenizer: Any
) -> None:
    corpus = pq.read_table(shared_data("corpus/corpus.parquet")).to_pylist()
    web = [row for row in corpus if row["words"]]
    rows = [
        row
        for language in ("en", "de", "fr")
        for row in [row for row in web if row["language"] == language][:10]
    ]
    path = write_parquet(tmp_path / "web.parquet", rows)
    options = {"token_labels": ["upos"], "labels": ["language"], "unaligned": "join"}
    planned = plan_language_capture(
        CaptureOptions("qwen-moe-mini", arrays=("none",)),
        lambda own: dataset_of(own, path, max_length=200, truncate=True, **options),
    )
    capture(planned, tmp_path / "store")
    assert len(planned.dataset.examples) == 30 and not planned.dataset.notes
    tables = tmp_path / "store" / "runs" / planned.run_id / "tables"
    found = duckdb.sql(
        "select example_id, position, value from "
        f"read_parquet('{tables}/tokens/*.parquet') left join "
        f"(from read_parquet('{tables}/token_labels/*.parquet') where key = 'upos') "
        "using (token_idx) order by all"
    ).fetchall()
    labels: dict[int, list[str | None]] = {}
    for example_id, _, value in found:
        labels.setdefault(example_id, []).append(value)
    n_checked = n_joined = 0
    for example_id, row in enumerate(rows):
        encoded = tokenizer(row["text"], add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"][:200]
        assert len(labels[example_id]) == len(offsets)
        tagged = tags_by_character(row["text"], row["words"], row["upos"])
        for (start, end), label in zip(offsets, labels[example_id], strict=True):
            own = [tag for tag in tagged[start:end] if tag is not None]
            assert label == (own[0] if own else None), (row["text"][start:end], label)
            n_checked += 1
            n_joined += "+" in (label or "")
    assert n_checked > 3000 and n_joined > 30


CONTRACTIONS = {
    **{"du": "de le", "des": "de les", "au": "à le", "aux": "à les", "im": "in dem"},
    **{"am": "an dem", "zum": "zu dem", "zur": "zu der", "vom": "von dem", "beim": "bei dem"},
    **{"ins": "in das", "aufs": "auf das", "duquel": "de lequel", "auquel": "à lequel"},
    **{"ums": "um das", "ans": "an das", "fürs": "für das", "übers": "über das"},
}


def tags_by_character(text: str, words: list[str], tags: list[str]) -> list[str | None]:
    """Recomputed with a list of contractions, which the capture does not know."""
    found: list[str | None] = [None] * len(text)
    position = word = 0
    while word < len(words):
        while text[position].isspace():
            position += 1
        run = position
        while run < len(text) and text[run].isalnum():
            run += 1
        parts = CONTRACTIONS.get(text[position:run].lower(), "").split()
        if parts and [each.lower() for each in words[word : word + 2]] == parts:
            length, count = run - position, 2
        else:
            assert text.startswith(words[word], position)
            length, count = len(words[word]), 1
        for index in range(position, position + length):
            found[index] = "+".join(tags[word : word + count])
        position += length
        word += count
    return found
