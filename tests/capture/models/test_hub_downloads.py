"""Models and CIFAR-10 from a hub: fetched once, named by their commit, and what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moedb.capture.jobs.cifar_moe.images import HUB_ID
from moedb.queries.database import open_database
from tests.capture.jobs.cifar_moe.test_cifar_images import write_parquet
from tests.support.models.cifar_images import make_image_sets
from tests.support.models.hub_server import Done, Hub, Repository, run_moedb, running_hub

pytestmark = pytest.mark.model

MODEL = "owner/tiny-moe"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def capture(store: Path, model: str, *more: str) -> list[str]:
    arguments = ["capture", "qwen-ioi", "--store", str(store), "--model", model, "--n", "2"]
    return [*arguments, "--arrays", "router_logits", *more]


def row_of_run(store: Path, done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    return dict(open_database(store).snapshot.runs[done.out.strip()].manifest.row)


def test_a_model_of_the_hub_is_fetched_once(hub: Hub, tmp_path: Path, random_model: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "hub"
    files = files_of(random_model)
    copies = {"original/model.safetensors": b"again", "pytorch_model.bin": b"pickle"}
    hub.models[MODEL] = Repository({**files, **copies, "consolidated.safetensors": b"again"})

    hub.bytes_left = len(files["model.safetensors"]) // 2
    (died,) = run_moedb(hub, home, capture(store, MODEL), without_waiting=True)
    assert died.code == 1
    assert f"cannot fetch the model '{MODEL}'" in died.err
    assert "Traceback" not in died.err
    assert not store.exists()

    hub.bytes_left = None
    other = tmp_path / "other"
    fetched, local = run_moedb(hub, home, capture(store, MODEL), capture(other, str(random_model)))
    found, expected = row_of_run(store, fetched), row_of_run(other, local)
    assert "Fetching" not in fetched.err
    assert (found["model"], found["model_revision"]) == (MODEL, hub.models[MODEL].commit)
    assert expected["model_revision"] is None
    assert found["model_sha256"] == expected["model_sha256"]
    assert not {f"{MODEL}/{name}" for name in (*copies, "consolidated.safetensors")} & set(hub.sent)

    hub.asked.clear()
    again, seeded = run_moedb(
        hub, home, capture(store, MODEL), capture(store, MODEL, "--seed", "1"), offline=True
    )
    assert "is complete already" in again.err
    assert row_of_run(store, seeded)["model_revision"] == hub.models[MODEL].commit
    assert hub.asked == []


def test_models_that_the_hub_does_not_give(hub: Hub, tmp_path: Path, random_model: Path) -> None:
    files = files_of(random_model)
    pickled = {**files, "pytorch_model.bin": files["model.safetensors"]}
    del pickled["model.safetensors"]
    hub.models = {
        "owner/gated": Repository(files, gated=403),
        "owner/pickled": Repository(pickled),
        "owner/gguf": Repository({"README.md": b"GGUF", "model.gguf": b"GGUF"}),
    }
    cases = {
        "owner/nothing": (
            "the hub has no model owner/nothing that you can see",
            "check OWNER/NAME",
        ),
        "owner/gated": (
            "owner/gated is gated",
            f"ask for it at {hub.url}/owner/gated; then hf auth",
        ),
        "owner/pickled": (
            "the hub's owner/pickled has no *.safetensors",
            "save_pretrained(FOLDER)",
        ),
        "owner/gguf": ("the hub's owner/gguf has no *.safetensors", "were not downloaded"),
    }
    store, home = tmp_path / "store", tmp_path / "hub"
    commands = [capture(store, name) for name in cases]
    for name, done in zip(cases, run_moedb(hub, home, *commands), strict=True):
        assert done.code == 1, (name, done.err)
        for part in cases[name]:
            assert part in done.err, (name, done.err)
        assert "Traceback" not in done.err, name
        assert "Client Error" not in done.err, name
    assert not store.exists()
    assert not {name for name in hub.sent if name.endswith((".bin", ".gguf"))}
    assert not list(home.rglob("*.bin"))

    (offline,) = run_moedb(hub, home, capture(store, "owner/other"), offline=True)
    assert offline.code == 1
    assert "HF_HUB_OFFLINE is set, and owner/other is not in the hub's cache" in offline.err


def test_cifar_comes_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    train, test = make_image_sets(1100, 20)
    local, home, trained = tmp_path / "local", tmp_path / "hub", tmp_path / "trained"
    for split, images in (("train", train), ("test", test)):
        write_parquet(local / "plain_text" / f"{split}-00000-of-00001.parquet", images)
    hub.datasets[HUB_ID] = Repository({**files_of(local), "README.md": b"CIFAR-10"})

    training = ["train", "cifar-moe", "--experts", "2", "--epochs", "1", "--filters", "2,2,2,2"]
    store = ["--store", str(tmp_path / "store"), "--draws", "1", "--model", str(trained)]
    by_hub, captured = run_moedb(
        hub,
        home,
        [*training, "-o", str(trained)],
        ["capture", "cifar-moe", *store],
    )
    assert by_hub.code == 0, by_hub.err
    assert [folder.name for folder in trained.iterdir()] == ["cifar-moe-base-2-sum-trial-0"]
    row = row_of_run(tmp_path / "store", captured)
    assert row["n_examples"] == 20
    assert {name.rpartition("/")[2] for name in hub.sent} == {
        "train-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    }

    hub.asked.clear()
    (again,) = run_moedb(hub, home, ["capture", "cifar-moe", *store], offline=True)
    assert "is complete already" in again.err
    assert hub.asked == []

    shutil.rmtree(home)
    del hub.datasets[HUB_ID]
    (gone,) = run_moedb(hub, home, ["capture", "cifar-moe", *store])
    assert gone.code == 2
    assert f"the hub has no dataset {HUB_ID} that you can see" in gone.err
    assert "--data FOLDER" in gone.err
