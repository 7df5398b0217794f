"""Datasets of a hub, through the library that users have: streamed, and all that can go wrong."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moedb.queries.database import open_database
from tests.support.models.hub_server import Done, Hub, Repository, run_moedb, running_hub

pytest.importorskip("datasets", reason="datasets is not installed: pip install 'moedb[hub]'")
pytestmark = pytest.mark.model

ROWS: list[dict[str, Any]] = [
    {
        "text": f"The shop in street {number} was closed.",
        "topic": number % 2,
        "stars": None if number % 7 == 3 else number % 5,
        "day": f"2024-03-{1 + number % 28:02d}",
    }
    for number in range(240)
]
CARD = """---
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: topic, dtype: {class_label: {names: {'0': town, '1': law}}}}
  - {name: stars, dtype: int64}
  - {name: day, dtype: string}
---
"""
SUBSETS = """---
configs:
- {config_name: en, data_files: en.jsonl}
- {config_name: fr, data_files: fr.jsonl}
---
"""
LABELS = ("--label", "topic", "--label", "stars", "--label", "day")


def parquet(rows: Sequence[Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


def jsonl(rows: Sequence[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


PARQUET = {
    **{f"data/train-{i:05d}-of-00003.parquet": parquet(ROWS[80 * i :][:80]) for i in range(3)},
    "data/test-00000-of-00001.parquet": parquet(ROWS[:7]),
}
JSONL = {f"train-{i:05d}-of-00002.jsonl": jsonl(ROWS[120 * i :][:120]) for i in range(2)}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.datasets = {
            "owner/shops": Repository(PARQUET),
            "owner/named": Repository({**PARQUET, "README.md": CARD.encode()}),
            "owner/lines": Repository(JSONL),
            "owner/languages": Repository(
                {
                    "README.md": SUBSETS.encode(),
                    "en.jsonl": jsonl(ROWS),
                    "fr.jsonl": jsonl(ROWS[:9]),
                }
            ),
            "owner/gated": Repository(PARQUET, gated=401),
            "owner/refused": Repository(PARQUET, gated=403),
            "owner/broken": Repository({"train.parquet": parquet(ROWS)[:-100]}),
        }
        yield hub


def capture(store: Path, dataset: str | Path, *more: str) -> list[str]:
    arguments = ["capture", "text", "--store", str(store), "--dataset", str(dataset)]
    return [*arguments, "--arrays", "router_logits@1", *more]


def run_id(done: Done) -> str:
    assert done.code == 0, done.err
    return done.out.strip()


def rows_of(store: Path, run: str) -> dict[str, list[Any]]:
    """What a run holds of its texts, without the name of the split."""
    database = open_database(store)
    return {
        table: database.sql(
            f"select {columns} from {table} where run_id = '{run}' order by all"
        ).fetchall()
        for table, columns in {
            "examples": "example_id, text, n_tokens",
            "example_labels": "example_id, key, value",
            "tokens": "token_idx, example_id, token_id",
            "routing": "token_idx, layer, rank, expert",
        }.items()
    }


def row_of_run(store: Path, run: str) -> dict[str, Any]:
    return dict(open_database(store).snapshot.runs[run].manifest.row)


def test_a_dataset_of_the_hub_is_what_its_files_are(hub: Hub, tmp_path: Path) -> None:
    for folder, files in (("parquet", list(PARQUET)[:3]), ("jsonl", list(JSONL))):
        (tmp_path / folder).mkdir()
        for name in files:
            content = {**PARQUET, **JSONL}[name]
            (tmp_path / folder / Path(name).name).write_bytes(content)
    store = tmp_path / "store"
    runs = [
        run_id(done)
        for done in run_moedb(
            hub,
            tmp_path / "hub",
            capture(store, "owner/shops", *LABELS),
            capture(store, tmp_path / "parquet", *LABELS),
            capture(store, "owner/lines", *LABELS[:-2]),
            capture(store, tmp_path / "jsonl", *LABELS[:-2]),
            capture(store, "owner/shops", "--split", "test"),
            capture(store, "owner/languages", "--subset", "fr"),
            capture(store, "owner/named", "--label", "topic", "--max-examples", "4"),
            capture(store, "owner/lines", "--label", "day", "--max-examples", "1"),
        )
    ]
    found = [rows_of(store, run) for run in runs]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0]["tokens"] == found[2]["tokens"]
    assert [text for _, text, _ in found[0]["examples"]] == [row["text"] for row in ROWS]
    assert [len(each["examples"]) for each in found[4:]] == [7, 9, 4, 1]
    labels = [value for _, key, value in found[6]["example_labels"] if key == "topic"]
    assert labels == ["town", "law", "town", "law"]
    assert (0, "day", "2024-03-01T00:00:00") in found[7]["example_labels"], "datasets made a date"

    shops = row_of_run(store, runs[0])
    assert shops["dataset"] == "owner/shops"
    assert json.loads(shops["config"])["dataset"]["source"] == {
        "hub": "owner/shops",
        "subset": None,
        "split": "train",
        "revision": hub.datasets["owner/shops"].commit,
    }
    assert row_of_run(store, runs[5])["dataset"] == "owner/languages fr"
    splits = open_database(store).sql("select distinct run_id, split from examples").fetchall()
    assert dict(splits)[runs[4]] == "test"


def test_no_more_is_fetched_than_is_needed(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "hub"
    store = tmp_path / "store"
    (done,) = run_moedb(hub, home, capture(store, "owner/shops", "--max-examples", "5"))
    assert "5 examples" in done.err
    assert "Warning" not in done.err
    first, *others = PARQUET
    assert set(hub.sent) == {f"owner/shops/{first}"}
    assert not any(path.endswith(other) for _, path in hub.asked for other in others)
    assert not list(home.rglob("*.parquet"))

    hub.datasets["owner/shops"] = Repository({**PARQUET, "README.md": b"Another commit."})
    again, changed = run_moedb(
        hub,
        home,
        capture(store, "owner/shops", "--max-examples", "5", "--split", "train"),
        capture(store, "owner/shops", "--max-examples", "5", "--shuffle"),
    )
    assert run_id(again) != run_id(done), "another commit is another run"
    assert run_id(changed) not in (run_id(again), run_id(done))
    assert set(hub.sent) >= {f"owner/shops/{name}" for name in others[:2]}


def test_what_the_hub_does_not_give(hub: Hub, tmp_path: Path) -> None:
    cases = {
        ("owner/nothing",): (2, "the hub has no dataset owner/nothing that you can see", "check"),
        ("owner/gated",): (2, "owner/gated is gated", f"ask for it at {hub.url}/datasets/owner/"),
        ("owner/refused",): (2, "owner/refused is gated", "hf auth login, or set HF_TOKEN"),
        ("owner/shops", "--split", "tset"): (2, "split tset", "['train', 'test']"),
        ("owner/languages",): (2, "Config name is missing", "['en', 'fr']"),
        ("owner/languages", "--subset", "de"): (2, "split train of subset de", "['en', 'fr']"),
        ("owner/shops", "--label", "topc"): (
            2,
            "--label topc: owner/shops has no column",
            "topic?",
        ),
        ("owner/lines", "--label", "topc"): (
            2,
            "--label topc: owner/lines has no column",
            "topic?",
        ),
        ("owner/lines", "--text-column", "txt"): (2, "owner/lines", "did you mean text?"),
        ("owner/broken",): (2, "owner/broken", "ArrowInvalid"),
    }
    store = tmp_path / "store"
    commands = [capture(store, *case) for case in cases]
    for case, done in zip(cases, run_moedb(hub, tmp_path / "hub", *commands), strict=True):
        code, *parts = cases[case]
        assert done.code == code, (case, done.err)
        assert done.out == ""
        for part in parts:
            assert part in done.err, (case, done.err)
        assert "Traceback" not in done.err, case
        assert "None" not in done.err, case
    assert not store.exists()


def test_a_hub_that_dies_in_the_middle(hub: Hub, tmp_path: Path) -> None:
    """Nothing is written; when the hub is back, the same command does it all."""
    store, home = tmp_path / "store", tmp_path / "hub"
    hub.bytes_left = int(2.5 * len(next(iter(PARQUET.values()))))
    command = capture(store, "owner/shops")
    died, dead = run_moedb(hub, home, command, command, without_waiting=True)
    assert hub.is_dead
    assert died.code == 1, died.err
    assert f"owner/shops, split train, row 80: {hub.url} cannot be reached" in died.err
    assert "try again, or download it" in died.err
    assert dead.code == 1, dead.err
    assert f"owner/shops is no file here, and {hub.url} cannot be reached" in dead.err
    assert "Traceback" not in died.err + dead.err
    assert not store.exists()
    warnings = [line for line in died.err.splitlines() if "Retrying in 5sec [1/20]" in line]
    assert len(warnings) == 1

    hub.bytes_left = None
    (done,) = run_moedb(hub, home, command)
    assert len(rows_of(store, run_id(done))["examples"]) == len(ROWS)


def test_offline(hub: Hub, tmp_path: Path) -> None:
    (done,) = run_moedb(
        hub, tmp_path / "hub", capture(tmp_path / "store", "owner/shops"), offline=True
    )
    assert done.code == 1
    assert "HF_HUB_OFFLINE is set, and owner/shops is not in the hub's cache" in done.err
    assert "unset HF_HUB_OFFLINE" in done.err
    assert hub.asked == []
