"""Files after those that were published: what is read of each form, and what becomes of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import UsageError
from moedb.store.reading.additions import additions_of
from moedb.store.reading.snapshot import read_run
from moedb.store.verification.run import verify_run
from tests.experts.labelling.test_labelling import table
from tests.support.models.reader_server import reader_server
from tests.support.stores.made.routed_words import RUN_ID

TRUTHS, SAID = [1, 0, 0, 1, 1, 0, 0, 1], [1, 0, 1, 1, 0, 0, 0, 1]


def snippets(n: int) -> str:
    return "".join(
        f'<example id="{i + 1}">\n    <snippet> ant** bee** {i}</snippet>\n</example>'
        for i in range(n)
    )


def herbst_file(folder: Path, layer: int = 1) -> Path:
    expert: dict[str, Any] = {
        "hypothesis": "Animals that\nfollow\x1b[31m insects.",
        "explainer_prompt": "<data>",
        "scores": SAID,
        "labels": TRUTHS,
        "metrics": {"recall": 0.75, "precision": 0.75, "f1_score": 0.75, "accuracy": 0.75},
        "scorer_prompt": f"<examples>\n{snippets(len(SAID))}\n</examples>",
    }
    path = folder / f"Some-MoE-1B_L{layer}_auto_interp.json"
    without = {**expert, "hypothesis": None, "scores": []}
    path.write_text(json.dumps({"0": expert, "3": without, "99": expert}))
    return path


def imported(store: Path, files: Any, name: str = "theirs", **more: Any) -> pd.DataFrame:
    return moedb.import_labels(RUN_ID, files, store, name=name, samples=200, **more).df()


def by_hand(truths: list[int], said: list[int]) -> dict[str, float]:
    truth, yes = np.array(truths, bool), np.array(said, bool)
    tp, fp = int((truth & yes).sum()), int((~truth & yes).sum())
    fn, tn = int((truth & ~yes).sum()), int((~truth & ~yes).sum())
    return {
        "f1": 2 * tp / (2 * tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
        "always_yes_f1": 2 * truth.sum() / (truth.sum() + len(truth)),
    }


def test_a_file_of_herbst_gives_labels_verdicts_and_our_scores(store: Path, tmp_path: Path) -> None:
    imported(store, herbst_file(tmp_path))
    labels = table(store, "expert_labels")
    assert labels["expert"].tolist() == [0, 3] and (labels["source"] == "herbst2026").all()
    assert labels["label"][0] == "Animals that follow [31m insects."
    assert labels["status"].tolist() == ["labelled", "nonsense"]
    routed = table(store, "routing")["expert"].value_counts()
    assert labels["n_decisions"].tolist() == [routed[0], routed[3]]
    verdicts = table(store, "label_verdicts")
    assert verdicts["is_positive"].tolist() == TRUTHS and verdicts["says_yes"].tolist() == SAID
    assert verdicts["text"].tolist() == [f" ant** bee** {i}" for i in range(8)]
    assert set(verdicts["against"]) == {"", "imported"} and (verdicts["cluster"] < 0).all()
    scores = table(store, "expert_label_scores")
    assert scores["against"].tolist() == ["all", "imported"]
    for name, value in by_hand(TRUTHS, SAID).items():
        assert scores[name].tolist() == pytest.approx([value] * 2), name
    # what the file itself says
    assert scores["f1"][0] == 0.75 and (scores["f1_low"] < 0.75).all()
    verify_run(read_run(store, RUN_ID))
    with moedb.open(store) as db:
        asked = db.query("labelled-experts", run=RUN_ID, against="imported").df()
    assert asked["fuzzing_f1"][0] == 0.75


def test_a_list_of_labels_of_several_models(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(
        "Model A Layer 1, Expert 0: Insects.\nModel B 7x8 Layer 1, Expert 0: Birds: small.\n"
        "Model A Layer 1, Expert 4: Mammals.\nModel A Layer 5, Expert 4: No such layer.\n"
    )
    with pytest.raises(UsageError, match="labels of several models: A, B 7x8"):
        imported(store, path)
    assert imported(store, path, model="A")["label"].tolist() == ["Insects.", "Mammals."]
    assert imported(store, path, "b", model="B 7x8")["label"].tolist() == ["Birds: small."]
    assert not len(table(store, "label_verdicts"))


def delphi_folder(folder: Path, hookpoint: str = "model.layers.1.mlp") -> Path:
    results = folder / "results"
    for kind in ("explanations", "scores/detection", "scores/fuzz", "scores/surprisal"):
        (results / kind).mkdir(parents=True)
    (results / "run_config.json").write_text("{}")
    for latent in (2, 5):
        name = f"{hookpoint}_latent{latent}.txt"
        (results / "explanations" / name).write_text(json.dumps(f"words of {latent}"))
        contexts = [
            {
                "str_tokens": ["ant", " bee", f" {i}"],
                "activations": [0.0, 1.5 * truth, 0.0],
                "distance": 3 if truth else -1,
                "activating": bool(truth),
                "prediction": None if i == 7 else bool(said),
                "probability": None,
                "correct": truth == said,
            }
            for i, (truth, said) in enumerate(zip(TRUTHS, SAID, strict=True))
        ]
        (results / "scores/detection" / name).write_text(json.dumps(contexts))
        older = [{**c, "ground_truth": c.pop("activating")} for c in contexts]
        (results / "scores/fuzz" / name).write_text(json.dumps(older[::-1]))
        (results / "scores/surprisal" / name).write_text("[]")
    (results / "scores/fuzz" / f"{hookpoint}_latent8.txt").write_text("[]")
    return results


@pytest.mark.parametrize("hookpoint", ["model.layers.1.mlp", "layers.1", "gpt.h.1.mlp.router"])
def test_a_folder_of_delphi(
    store: Path, tmp_path: Path, hookpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    results = delphi_folder(tmp_path, hookpoint)
    command = ["import", "labels", str(results), "--run", RUN_ID, "--store", str(store)]
    assert run_cli([*command, "--name", "latents"]) == 0
    said = capfd.readouterr().err
    assert "1 scores of a latent without an explanation" in said
    assert "2 scores of another kind (surprisal)" in said
    labels, verdicts = table(store, "expert_labels"), table(store, "label_verdicts")
    assert labels["expert"].tolist() == [2, 5]
    assert labels["label"].tolist() == ["words of 2", "words of 5"]
    assert verdicts.groupby(["expert", "kind"]).size().tolist() == [8] * 4
    assert verdicts["says_yes"].isna().sum() == 4
    detection = verdicts[(verdicts["kind"] == "detection") & (verdicts["expert"] == 2)]
    assert detection["text"].tolist() == [f"ant bee {i}" for i in range(8)]
    scores = table(store, "expert_label_scores")
    expected = by_hand(TRUTHS[:7], SAID[:7])
    assert scores["f1"].tolist() == pytest.approx([expected["f1"]] * 8)
    assert (scores["n"] == 7).all()


def test_an_export_of_neuronpedia(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "batch-0.jsonl"
    rows = [
        {
            "modelId": "some-moe",
            "layer": "1-router",
            "index": str(index),
            "description": f" words of {index}",
            "explanationModelName": "gpt-4o-mini",
            "typeName": "oai_token-act-pair",
        }
        for index in (0, 7)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert imported(store, path)["label"].tolist() == ["words of 0", "words of 7"]
    assert (table(store, "expert_labels")["model"] == "gpt-4o-mini").all()


def test_what_moedb_itself_gives_comes_back_the_same(store: Path, tmp_path: Path) -> None:
    """Labels and verdicts as ``moedb sql --format jsonl`` writes them, tokens included."""
    with reader_server(manner="random") as reader:
        moedb.label_experts(
            RUN_ID, store, endpoint=reader.url, model="m", experts=[1, 4], window=5, contexts=8,
            scored=6, batch=7, samples=200,
        )  # fmt: skip
    names = ["labels.jsonl", "verdicts.jsonl"]
    for name, asked in zip(names, ("expert_labels", "label_verdicts"), strict=True):
        rows = table(store, asked).drop(columns=["run_id", "label_set"])
        rows.to_json(tmp_path / name, orient="records", lines=True)
    imported(store, [tmp_path / name for name in names])
    for name in ("label_verdicts", "expert_label_scores"):
        rows = table(store, name).drop(columns=["run_id"])
        own, theirs = (
            rows[rows["label_set"] == each].drop(columns="label_set").reset_index(drop=True)
            for each in ("labels", "theirs")
        )
        pd.testing.assert_frame_equal(own, theirs)


def test_csv_with_verdicts(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(
        "layer,expert,label,kind,is_positive,says_yes,against,text\r\n"
        'layers.1.mlp,4,"four, or ""so""",,,,,\r\n'
        "1,4,,detection,true,yes,,one\r\n1,4,,detection,0,no,random,two\r\n"
        "1,4,,detection,false,,random,three\r\n"
    )
    with pytest.raises(UsageError, match="line 3: a verdict on layer 1, expert 4, of which there"):
        imported(store, path)  # a layer has one name in a file
    path.write_text(path.read_text().replace("layers.1.mlp", "1"))
    found = imported(store, path)
    assert found["label"].tolist() == ['four, or "so"']
    assert found[["detection_n", "detection_f1"]].values.tolist() == [[2, 1.0]]
    assert table(store, "expert_label_scores")["against"].tolist() == ["all", "random"]


def test_it_is_told_from_the_labels_of_readers_and_taken_out(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = herbst_file(tmp_path)
    assert imported(store, path, dry_run=True)["label"].notna().sum() == 1
    assert not additions_of(read_run(store, RUN_ID))
    imported(store, path)
    (addition,) = additions_of(read_run(store, RUN_ID)).values()
    config = json.loads(addition.about.config)
    assert config["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (config["source"], config["about"]) == ("herbst2026", "Some-MoE-1B")
    with pytest.raises(UsageError, match="has labels named 'theirs' already"):
        imported(store, path)
    remove = ["label-experts", RUN_ID, "--store", str(store), "--name", "theirs", "--remove"]
    assert run_cli(remove) == 0
    assert "removed 2 labels" in capfd.readouterr().err
    for name in ("expert_labels", "label_verdicts", "expert_label_scores"):
        assert not len(table(store, name))
