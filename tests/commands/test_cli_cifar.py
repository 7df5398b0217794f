"""CIFAR MoEs from the command line: train, capture, ask, draw."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moedb.cli import run_cli
from tests.capture.jobs.cifar_moe.test_cifar_images import write_parquet
from tests.support.models.cifar_images import make_image_sets
from tests.support.models.cifar_store import CifarStore

pytestmark = pytest.mark.model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def moedb(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("MOEDB_STORE", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    train, test = make_image_sets(1300, 120, seed=4)
    write_parquet(folder / "train-0.parquet", train)
    write_parquet(folder / "test-0.parquet", test)
    return folder


def test_train_then_capture_then_ask(
    moedb: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", "cifar-moe", "--variant", "short", "--filters", "4", "--epochs", "2"]
    train += ["--experts", "2", "--experts", "3", "--aux-coefficient", "0.1", "--data", str(data)]
    train += ["--gate", "unweighted", "--balance", "count"]
    code, out, err = moedb(*train)
    assert code == 0, err
    names = [f"cifar-moe-short-{n}-unweighted-count-0.1-trial-0" for n in (2, 3)]
    folders = [f"cifar-moe/{name}" for name in names]
    assert out.split() == folders
    assert err.count("test accuracy") == 2
    assert "epoch 2" in err
    for folder in folders:
        summary = json.loads(Path(folder, "training.json").read_text())
        assert summary["config"]["aux_coefficient"] == 0.1
        config = json.loads(Path(folder, "config.json").read_text())
        chosen = config["gate"], config["balance"], config["aux_coefficient"]
        assert chosen == ("unweighted", "count", 0.1)

    code, again, err = moedb(*train)
    assert (code, again) == (0, out)
    assert "epoch" not in err  # nothing was trained anew

    capture = ["capture", "cifar-moe", "--data", str(data), "--draws", "2"]
    code, dry, err = moedb(*capture, "--dry-run", "--format", "csv")
    assert code == 0, err
    # conditions: none, 2 x (random, untrained), 2 or 3 forced experts
    assert f"{names[0]},table,predictions,{120 * 7}" in dry
    assert f"{names[1]},table,predictions,{120 * 8}" in dry
    assert not (tmp_path / "moedb-store").exists()

    code, out, err = moedb(*capture)
    assert code == 0, err
    runs = out.split()
    assert len(runs) == 2
    code, out, err = moedb(*capture)
    assert out.split() == runs
    assert err.count("nothing to do") == 2

    code, out, _ = moedb("query", "router-ablation", "--format", "csv")
    assert code == 0
    rows = [line.split(",")[:6] for line in out.split()[1:]]
    training = ["unweighted", "count", "0.1", ""]
    assert rows == [["short-4-2-epochs", n, *training] for n in ("2", "3")]
    code, out, err = moedb("query", "router-ablation", "-p", "gate", "weighted")
    assert code == 2 and out == ""
    assert "no trial with gate 'weighted'" in err and "valid: unweighted" in err
    code, _, err = moedb("query", "router-ablation", "-p", "gate", "heavy")
    assert code == 2
    assert "one of weighted, unweighted" in err
    code, out, _ = moedb("verify")
    assert out.count("sound") == 2

    # a language model's run lives beside them
    code, _, err = moedb("capture", "qwen-ioi", "--n", "2", "--arrays", "none")
    assert code == 0, err
    code, out, _ = moedb("sql", "select job, count(*) from runs group by all order by all")
    assert code == 0
    assert "cifar-moe" in out
    assert "qwen-ioi" in out


def test_a_folder_of_another_run_is_not_trained_into(
    moedb: Run, data: Path, tmp_path: Path, cifar_store: CifarStore
) -> None:
    train = ["train", "cifar-moe", "--balance", "mean", "--data", str(data)]
    code, out, err = moedb(*train, "-o", str(cifar_store.models))
    assert (code, out) == (2, "")
    assert "holds a run with" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "cifar-moe", "--data", "nowhere"], "nowhere does not exist"),
        (["train", "cifar-moe", "--filters", "8,16", "--data", "."], "2 numbers of filters"),
        (["train", "cifar-moe", "--filters", "8,x,1,1", "--data", "."], "invalid literal"),
        (["train", "cifar-moe", "--experts", "1", "--data", "."], "1 is not in the range"),
        (
            ["train", "cifar-moe", "--aux-coefficient", "-1"],
            "-1.0 is not in the range 0<=x<=1000000",
        ),
        (["train", "cifar-moe", "--aux-coefficient", "nan"], "nan is no number in the range"),
        (["train", "cifar-moe", "--gate", "shut"], "'weighted', 'unweighted'"),
        (["train", "cifar-moe", "--balance", "batch"], "'mean', 'count', 'sum'"),
        (["train", "cifar-moe", "--device", "warp", "--data", "."], "no device 'warp'"),
        (["capture", "cifar-moe", "--data", "."], "cifar-moe does not exist"),
        (["capture", "cifar-moe", "--model", ".", "--data", "."], "holds no trained CIFAR MoE"),
        (["capture", "cifar-moe", "--shard", "3/2"], "shard 3 of 2"),
        (["query", "routing-by-class-over-trials", "--show-sql"], "computed in Python"),
    ],
)
def test_bad_input(
    moedb: Run,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = moedb(*arguments)
    assert code in (1, 2)
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
