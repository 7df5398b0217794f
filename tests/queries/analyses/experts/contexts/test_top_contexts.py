"""The contexts of experts, against a pass over the raw Parquet in numpy and cases by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import moedb
from moedb.queries.analyses.experts.contexts.choosing import Choice, choose
from moedb.queries.analyses.experts.contexts.reading import expert_contexts, window_sides
from moedb.queries.database import Database
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.samples import sample_manifest, unit_rows

TEXTS = ("<s>", " caf", "\ufffd", "\ufffd", "\n", "中", "<|end|>")
RUN_ID = "text-00000c0de5"


def table(database: Database, run_id: str, name: str) -> pd.DataFrame:
    """A table of a run, from its files."""
    folder = database.snapshot.run(run_id).layout.tables / name
    return pd.concat(pq.ParquetFile(file).read().to_pandas() for file in folder.glob("*.parquet"))


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three examples of seven tokens, the last two of one document; every token at expert 0.

    Scores are 1, 2, 2, 3, 3, 3, 1 in the first, twice that in the second, 0.5 in the third; but
    the second token of each chose experts 1 and 2.
    """
    store = tmp_path_factory.mktemp("contexts") / "store"
    manifest = sample_manifest(3, len(TEXTS), RUN_ID, ())
    writer = RunWriter(store, replace(manifest, arrays={}))
    writer.begin({})
    for unit in range(3):
        tables, _ = unit_rows(manifest, unit)
        routing = pd.DataFrame(tables["routing"])
        position = (routing["token_idx"] % len(TEXTS)).to_numpy()
        factor = (1.0, 2.0, 0.5)[unit]
        own = np.array([1, 2, 2, 3, 3, 3, 1])[position]
        first = routing["rank"] == 0
        routing["expert"] = np.where(first, 0, 2) + (first & (position == 1))
        routing["weight"] = np.float32(0.5)
        routing["output_norm"] = 2.0 * (own * factor if unit < 2 else 0.5)
        tables["routing"] = routing.to_dict("list")
        tables["tokens"] = {**tables["tokens"], "token": list(TEXTS)}
        tables["example_labels"] = {
            "example_id": [unit],
            "key": ["document"],
            "value": ["a" if unit == 0 else "b"],
        }
        writer.commit_unit(unit, tables, {})
    writer.finish()
    return store


def rows(store: Path, **asked: Any) -> pd.DataFrame:
    with moedb.open(store) as database:
        return database.query("top-contexts", **{"layer": 1, "expert": 0, **asked}).df()


def test_ties_are_broken_by_the_number_of_the_token(hand_made: Path) -> None:
    found = rows(hand_made, per_cluster=0, n=8)
    assert found["token_idx"].tolist() == [10, 11, 12, 9, 3, 4, 5, 2]
    assert found["score"].tolist() == [6, 6, 6, 4, 3, 3, 3, 2]
    assert found["place"].tolist() == list(range(1, 9))
    assert found["n_decisions"].tolist() == [18] * 8


def test_a_document_has_as_many_contexts_as_are_allowed(hand_made: Path) -> None:
    assert rows(hand_made)["token_idx"].tolist() == [10, 3]
    assert rows(hand_made, per_cluster=2)["token_idx"].tolist() == [10, 11, 3, 4]


def test_windows_end_where_the_example_does(hand_made: Path) -> None:
    assert window_sides(5) == (3, 1)
    found = rows(hand_made, per_cluster=0, n=99, window=5).set_index("token_idx")
    assert tuple(found.loc[0, ["before", "token", "after"]]) == ("", "<s>", " caf")
    assert tuple(found.loc[13, ["before", "token", "after"]]) == ("\ufffd\n中", "<|end|>", "")
    assert json.loads(found.loc[3, "routed"]) == [
        ["<s>", 1.0],
        [" caf", None],
        ["\ufffd", 2.0],
        ["\ufffd", 3.0],
        ["\n", 3.0],
    ]
    alone = rows(hand_made, window=1).iloc[0]
    assert (alone["before"], alone["token"], alone["after"]) == ("", "\ufffd", "")


def test_groups_of_equal_size_are_drawn_from(hand_made: Path) -> None:
    # by score: 10 11 12 9 3 4 | 5 2 7 13 0 6 | 14 16 17 18 19 20, as token 2 of each is elsewhere
    groups = {1: {10, 11, 12, 9, 3, 4}, 2: {5, 2, 7, 13, 0, 6}, 3: {14, 16, 17, 18, 19, 20}}
    drawn = set()
    for seed in range(20):
        found = rows(hand_made, by="quantile", quantiles=3, n=4, per_cluster=0, seed=seed)
        assert found["quantile"].tolist() == [1, 1, 2, 3]
        for row in found.itertuples():
            assert row.token_idx in groups[row.quantile]
        drawn.add(tuple(found["token_idx"]))
    assert len(drawn) > 10
    again = [rows(hand_made, by="quantile", seed=3)["token_idx"].tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_random_contexts_are_drawn_uniformly() -> None:
    counts = np.zeros(10)
    for seed in range(4000):
        choice = Choice(by="random", n=3, per_cluster=0, seed=seed)
        chosen, groups = choose(
            np.arange(10.0), np.arange(10), np.zeros(10, dtype=int), choice, (1, 2)
        )
        assert len(set(chosen.tolist())) == 3 and not groups.any()
        counts[chosen] += 1
    # 1,200 expected of each; five standard deviations are 145
    assert abs(counts - 1200).max() < 145


@pytest.mark.model
@pytest.mark.parametrize(("split", "per_cluster"), [(None, 1), ("all", 0), ("all", 2)])
def test_equals_a_pass_over_the_files(
    mini_store: Path, split: str | None, per_cluster: int
) -> None:
    with moedb.open(mini_store) as database:
        run_id = min(database.snapshot.runs)
        routing, tokens, examples, labels = (
            table(database, run_id, name)
            for name in ("routing", "tokens", "examples", "example_labels")
        )
        found = database.query(
            "top-contexts", run=run_id, layer=2, n=4, window=9, split=split, per_cluster=per_cluster
        ).df()
        many = list(
            expert_contexts(
                database, run_id, [2], Choice(n=4, per_cluster=per_cluster), 9, split=split
            )
        )
    twins = labels[labels["key"] == "twin_of"].set_index("example_id")["value"].astype(int)
    if split is None:
        examples = examples[examples["split"] != "corrupted"]
    own = routing[routing["layer"] == 2].merge(tokens, on="token_idx")
    own = own[own["example_id"].isin(examples["example_id"])]
    at = {(row.example_id, row.position): row for row in tokens.itertuples()}
    expected = []
    for expert, group in own.groupby("expert"):
        scores = dict(
            zip(
                group["token_idx"],
                group["weight"].astype(float) * group["output_norm"].astype(float),
                strict=True,
            )
        )
        ordered = sorted(group.itertuples(), key=lambda r: (-scores[r.token_idx], r.token_idx))
        used: dict[int, int] = {}
        place = 0
        for row in ordered:
            cluster = min(row.example_id, twins.get(row.example_id, row.example_id))
            if place == 4 or (per_cluster and used.get(cluster, 0) == per_cluster):
                continue
            used[cluster] = used.get(cluster, 0) + 1
            place += 1
            around = [
                at[row.example_id, position]
                for position in range(row.position - 6, row.position + 3)
                if (row.example_id, position) in at
            ]
            expected.append(
                (
                    expert,
                    place,
                    row.token_idx,
                    scores[row.token_idx],
                    "".join(each.token for each in around if each.position < row.position),
                    row.token,
                    "".join(each.token for each in around if each.position > row.position),
                    [[each.token, scores.get(each.token_idx)] for each in around],
                )
            )
    assert len(expected) > 60
    given = [
        (r.expert, r.place, r.token_idx, r.score, r.before, r.token, r.after, json.loads(r.routed))
        for r in found.itertuples()
    ]
    assert given == expected
    assert [
        [each.tokens[each.at], each.scores[each.at]] for own in many for each in own.contexts
    ] == [[row[5], row[3]] for row in expected]


@pytest.mark.parametrize("per_cluster", [1, 3])
def test_a_large_document_in_front_hides_no_other(per_cluster: int) -> None:
    # the 9,000 largest scores are of one document, then come forty small ones in turn
    clusters = np.r_[np.zeros(9000, dtype=np.int64), np.tile(np.arange(1, 41), 30)]
    scores = np.arange(len(clusters), 0, -1).astype(np.float64)
    token_idx = np.arange(len(clusters))
    expected: list[int] = []
    seen: dict[int, int] = {}
    for row, cluster in enumerate(clusters.tolist()):
        seen[cluster] = seen.get(cluster, 0) + 1
        if seen[cluster] <= per_cluster and len(expected) < 60:
            expected.append(row)
    choice = Choice(n=60, per_cluster=per_cluster)
    chosen, _ = choose(scores, token_idx, clusters, choice, (0, 0))
    assert chosen.tolist() == expected
    assert len(expected) == (41 if per_cluster == 1 else 60)
