"""Fixtures shared by all tests: a random model, the embedded one, and stores captured from them."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.shared import made_once

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.support.models.cifar_store import CifarStore
    from tests.support.servers.s3_buckets import Bucket, Server

ROOT = Path(__file__).parent.parent

# No test reads, or leaves, answers in the user's cache folder.
os.environ["MOEDB_CACHE"] = ""

# A busy machine is slow; that is no fault of what is tested.
settings.register_profile("moedb", deadline=None)
settings.load_profile("moedb")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Find a file of the development data, or skip: users do not have it."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"development data not here: {name}")
        return path

    return find


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2-MoE: 3 layers of which the first is dense, 12 experts, top 3."""
    return made_once(tmp_path_factory, "random-model", save_random_model)


def save_random_model(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Qwen2MoeConfig, Qwen2MoeForCausalLM

    from moedb.capture.models.checkpoints import find_checkpoint

    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
    config = Qwen2MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
        num_experts=12,
        num_experts_per_tok=3,
        decoder_sparse_step=1,
        mlp_only_layers=[0],
        norm_topk_prob=True,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    Qwen2MoeForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def mini_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs of the embedded model: 40 prompts each, with twins, two seeds."""
    return made_once(tmp_path_factory, "mini", capture_mini) / "store"


def capture_mini(folder: Path) -> None:
    from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi
    from moedb.capture.pipeline.plan import CaptureOptions
    from moedb.capture.pipeline.running import capture

    for seed in (0, 1):
        planned = plan_qwen_ioi(CaptureOptions(model="qwen-moe-mini"), n=40, seed=seed)
        capture(planned, folder / "store")


@pytest.fixture(scope="session")
def cifar_store(tmp_path_factory: pytest.TempPathFactory) -> "CifarStore":
    """A store of small CIFAR MoEs."""
    from tests.support.models.cifar_store import CifarStore, make_cifar_store

    return CifarStore.at(made_once(tmp_path_factory, "cifar", make_cifar_store))


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """A Spark of this process, or skip where it cannot run."""
    from tests.support.servers.spark import start_spark

    session = start_spark()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A server of S3 on this machine, in a process of its own."""
    for package in ("s3fs", "moto"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'moedb[remote]'")
    from tests.support.servers.s3_buckets import serving

    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: "Server", monkeypatch: pytest.MonkeyPatch) -> "Iterator[Bucket]":
    """A new bucket there, and the environment that reaches it."""
    from tests.support.servers.s3_buckets import Bucket

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield Bucket(s3_server)
    s3_server.fail()
