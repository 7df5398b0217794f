import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moedb.capture.jobs.qwen_ioi import load_ioi_templates
from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.tokenizer import train_tokenizer
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def shared_data():
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder


def make_corpus(path, n=40):
    rng = random.Random(0)
    words = {
        "fruit": ["apple", "pear", "plum", "grape", "cherry", "melon"],
        "metal": ["iron", "zinc", "copper", "silver", "lead", "tin"],
    }
    rows = []
    for index in range(n):
        domain = ("fruit", "metal")[index % 2]
        text = " ".join(rng.choices(words[domain], k=rng.randint(3, 60)))
        rows.append({"text": f"{text} {index}.", "domain": domain, "source": f"made/{index}"})
        rows[-1]["license"] = "CC0"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus") / "corpus.parquet")


@pytest.fixture
def write_corpus():
    return make_corpus


@pytest.fixture(scope="session", autouse=True)
def few_name_repeats():
    """Small corpora need fewer repeats of the names for them to become tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moedb.capture.mini.tokenizer.NAME_REPEATS", 20)
        yield


@pytest.fixture(scope="session")
def tiny_config():
    return MiniTrainingConfig(
        vocab_size=1600,
        n_layers=2,
        d_model=16,
        n_heads=2,
        n_experts=6,
        top_k=2,
        d_expert=8,
        d_shared=8,
        max_length=32,
        held_out_fraction=0.2,
        steps=8,
        corpus_tokens_per_step=64,
        ioi_rows_per_step=4,
        warmup_steps=2,
        log_every=3,
        evaluate_every=5,
        checkpoint_every=2,
    )


@pytest.fixture(scope="session")
def tiny_tokenizer(few_name_repeats):
    return train_tokenizer(["apple pear plum"] * 3, load_ioi_templates().names, 1600)
