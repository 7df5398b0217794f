"""Labelling a stored run with a server on this machine: what is asked, stored, and its worth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.support.models.reader_server import ReaderServer, reader_server
from tests.support.stores.made.routed_words import RUN_ID

SMALL: dict[str, Any] = {"window": 5, "contexts": 8, "scored": 6, "batch": 7, "samples": 200}


def label(store: Path, reader: ReaderServer, **settings: Any) -> pd.DataFrame:
    return moedb.label_experts(
        RUN_ID, store, endpoint=reader.url, model="m", **{**SMALL, **settings}
    ).df()


def table(store: Path, name: str) -> pd.DataFrame:
    with moedb.open(store) as db:
        return db.sql(f"select * from {name} order by all").df()


def test_a_reader_that_knows_is_always_right(store: Path) -> None:
    with reader_server() as reader:
        found = label(store, reader)
    assert found["status"].tolist() == ["labelled"] * 11 + ["unused"]
    assert found["label"].tolist()[:11] == [f"the words of expert {e}" for e in range(11)]
    assert found["reason"].tolist()[11] == "no token chose it"
    scores = table(store, "expert_label_scores")
    # the first word of every example: none of the same text is routed elsewhere
    kinds = {(k, a) for k in ("detection", "fuzzing") for a in ("all", "document", "random")}
    last = scores[scores["expert"] == 10]
    assert set(zip(last["kind"], last["against"], strict=True)) == kinds
    assert (scores["routed_share"][scores["kind"] == "detection"] == 0).all()
    for name in ("f1", "precision", "recall", "accuracy", "balanced_accuracy", "f1_low"):
        assert (scores[name] == 1).all(), name
    # half of what is shown is of the expert where the negatives are of one kind
    one = scores[(scores["expert"] == 3) & (scores["against"] == "random")]
    assert one["tp"].tolist() == one["tn"].tolist() == [6, 6]
    assert one["always_yes_f1"].tolist() == pytest.approx([2 / 3] * 2)
    assert (scores["other_balanced_accuracy"][scores["kind"] == "fuzzing"] <= 0.5).all()
    verify_run(read_run(store, RUN_ID))
    with moedb.open(store) as db:
        asked = db.query("labelled-experts", against="random").df()
    assert asked["fuzzing_f1"].tolist()[:11] == [1.0] * 11
    assert asked["label"].isna().tolist() == [False] * 11 + [True]


def test_scores_are_those_of_the_stored_requests(store: Path) -> None:
    """Counted again from what the reader was shown, and what the routing table says."""
    with reader_server(manner="random") as reader:
        label(store, reader, layers=[1], experts=[2, 4])
    requests, scores = table(store, "label_requests"), table(store, "expert_label_scores")
    for expert in (2, 4):
        own = requests[(requests["expert"] == expert) & (requests["purpose"] == "fuzzing")]
        counts = np.zeros(4, int)
        for row in own.sort_values("number").itertuples():
            lines = json.loads(row.prompt)[1]["content"].splitlines()
            texts = [json.loads(line.split(". ", 1)[1]) for line in lines if line[:1].isdigit()]
            for text, said in zip(texts, json.loads(row.answer)["fits"], strict=True):
                truth = ReaderServer()._fits(text, expert, "")
                counts += [
                    truth and said,
                    not truth and said,
                    truth and not said,
                    not (truth or said),
                ]
        tp, fp, fn, tn = counts.tolist()
        row = scores[(scores["expert"] == expert) & (scores["kind"] == "fuzzing")]
        row = row[row["against"] == "all"].iloc[0]
        assert (row.tp, row.fp, row.fn, row.tn, row.n) == (tp, fp, fn, tn, counts.sum())
        assert row.precision == pytest.approx(tp / (tp + fp))
        assert row.recall == pytest.approx(tp / (tp + fn))
        assert row.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert row.balanced_accuracy == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
        assert row.f1_low < row.f1 < row.f1_high


def counted_again() -> str:
    """The SQL of the documentation that counts scores from verdicts."""
    page = (Path(moedb.__file__).parents[1] / "docs/experts.md").read_text(encoding="utf-8")
    return next(code for code in page.split("```sql\n") if "from label_verdicts" in code).split(
        "```"
    )[0]


@pytest.mark.parametrize("against", ["all", "token", "document", "random"])
def test_scores_are_what_the_stored_verdicts_come_to_in_sql(store: Path, against: str) -> None:
    with reader_server(manner="random") as reader:
        label(store, reader, samples=0)
    names = ["label_set", "layer", "expert", "kind", "n", "precision", "recall", "f1", "accuracy"]
    names += ["other_f1"]
    statement = counted_again()
    if against != "all":
        chosen = f"not null and against in ('', '{against}')"
        statement = statement.replace("not null", chosen).replace(
            "group by all", "group by all having min(is_positive) = 0"
        )
    with moedb.open(store) as db:
        counted = db.sql(statement).df()[names]
        stored = db.sql(
            f"select {', '.join(names)} from expert_label_scores where against = '{against}' "
            "order by all"
        ).df()
    assert len(counted) >= 18 and counted["f1"].nunique() > 5
    pd.testing.assert_frame_equal(counted, stored, check_dtype=False)


def test_a_verdict_says_what_it_is_of(store: Path) -> None:
    """Held against the tables of the run, and against what the reader was sent and said."""
    with reader_server(manner="random") as reader:
        label(store, reader, experts=[2, 5])
    verdicts, requests = table(store, "label_verdicts"), table(store, "label_requests")
    routing, tokens = table(store, "routing"), table(store, "tokens")
    chose = {(row.token_idx, row.expert) for row in routing[routing["layer"] == 1].itertuples()}
    example_of = dict(zip(tokens["token_idx"], tokens["example_id"], strict=True))
    for row in verdicts.itertuples():
        assert row.is_positive == ((row.token_idx, row.expert) in chose) == (row.against == "")
        assert row.example_id == example_of[row.token_idx]
    for (expert, kind), rows in verdicts.groupby(["expert", "kind"]):
        assert rows["number"].tolist() == list(range(len(rows)))
        for purpose, column in ((kind, "says_yes"), (f"{kind}-other", "other_says_yes")):
            asked = requests[(requests["expert"] == expert) & (requests["purpose"] == purpose)]
            prompts = [json.loads(prompt)[1]["content"] for prompt in asked["prompt"]]
            lines = [line for text in prompts for line in text.splitlines() if line[:1].isdigit()]
            shown = [json.loads(line.split(". ", 1)[1]) for line in lines]
            said = [fits for answer in asked["answer"] for fits in json.loads(answer)["fits"]]
            assert rows["text"].tolist() == shown
            assert rows[column].tolist() == said


def test_a_context_without_a_verdict_is_a_row_without_one(store: Path) -> None:
    with reader_server(nonsense=8) as reader:
        label(store, reader, experts=list(range(6)), asked_again=0, concurrency=1)
    verdicts, scores = table(store, "label_verdicts"), table(store, "expert_label_scores")
    assert 0 < verdicts["says_yes"].isna().sum() < len(verdicts)
    judged = verdicts[verdicts["says_yes"].notna()].groupby(["expert", "kind"]).size()
    for row in scores[scores["against"] == "all"].itertuples():
        assert row.n == judged.get((row.expert, row.kind), 0)


def test_one_that_says_yes_has_the_score_of_saying_yes(store: Path) -> None:
    with reader_server(manner="yes") as reader:
        label(store, reader)
    scores = table(store, "expert_label_scores")
    assert (scores["f1"] == scores["always_yes_f1"]).all()
    assert (scores["accuracy"] == scores["always_yes_accuracy"]).all()
    assert (scores["f1"] == scores["other_f1"]).all()
    assert (scores["balanced_accuracy"] == 0.5).all() and (scores["recall"] == 1).all()
    assert not scores[["fn", "tn"]].to_numpy().any()


def test_the_intervals_of_one_that_guesses_hold_what_chance_is(store: Path) -> None:
    with reader_server(manner="random") as reader:
        label(store, reader, scored=20, batch=20, samples=500)
    scores = table(store, "expert_label_scores")
    scores = scores[scores["against"] == "all"]
    held = (scores["balanced_accuracy_low"] <= 0.5) & (scores["balanced_accuracy_high"] >= 0.5)
    # 22 intervals of 95 %: fewer than 18 of them once in a thousand times
    assert len(scores) == 22 and held.sum() >= 18
    assert abs(scores["balanced_accuracy"].mean() - 0.5) < 0.1


def test_contexts_that_explain_are_the_top_ones_and_are_not_scored_on(store: Path) -> None:
    with reader_server() as reader:
        label(store, reader, experts=[4], baseline=False)
    requests = table(store, "label_requests")
    shown = json.loads(requests[requests["purpose"] == "explanation"].iloc[0].prompt)[1]["content"]
    with moedb.open(store) as db:
        top = db.query("top-contexts", layer=1, expert=4, n=8, window=5).df()
    for row in top.itertuples():
        text = "".join(
            f"«{token}»" if score is not None else token for token, score in json.loads(row.routed)
        )
        assert json.dumps(text, ensure_ascii=False) in shown
    assert len(top) == 8 and shown.count("\n8. ") == 1 and "\n9. " not in shown
    assert set(requests["purpose"]) == {"explanation", "detection", "fuzzing"}
    used = {row.before + row.token + row.after for row in top.itertuples()}
    for row in requests[requests["purpose"] != "explanation"].itertuples():
        for text in json.loads(row.prompt)[1]["content"].splitlines():
            if text[:1].isdigit():
                seen = json.loads(text.split(". ", 1)[1]).replace("«", "").replace("»", "")
                assert seen not in used


def test_the_same_seed_asks_the_same_and_another_one_does_not(
    routed_words: Path, tmp_path: Path
) -> None:
    import shutil

    asked = []
    for number, seed in enumerate((0, 0, 1)):
        place = tmp_path / str(number)
        shutil.copytree(routed_words / "store", place)
        with reader_server() as reader:
            label(place, reader, seed=seed, experts=[1, 2], body={"seed": None})
            asked.append(set(reader.answered))
    assert asked[0] == asked[1]
    # what explains is not drawn
    assert len(asked[0] & asked[2]) <= 4 < len(asked[0])
