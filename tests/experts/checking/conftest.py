"""A run of a model over texts whose experts have labels of a reader on this machine."""

import json
import shutil
from pathlib import Path

import pytest

import moedb
from tests.support.models.reader_server import reader_server
from tests.support.shared import made_once

SENTENCES = (
    "The cat sat on the mat, and the dog lay beside it in the warm sun.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))",
    "We find that $x^2 + y^2 = 1$ holds for every point on the circle.",
    "In 1987 she moved to Lisbon; by 1992 the shop had closed for good.",
    "Add two eggs, 200 g of flour and a pinch of salt, then stir slowly.",
    'He said: "I never read it." Nobody in the room believed him at all.',
)
N_TEXTS, LABELS = 24, {"contexts": 2, "window": 4, "scored": 8, "samples": 0}


def make_labelled(folder: Path, model: str) -> None:
    texts = [f"{SENTENCES[n % 6]} {SENTENCES[(n * 5 + 1) % 6]} Number {n}." for n in range(N_TEXTS)]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    store = folder / "store"
    run = moedb.capture_text(
        folder / "texts.jsonl", store, model=model, arrays=["none"], name="texts"
    )
    with reader_server(manner="any") as reader:
        moedb.label_experts(run, store, endpoint=reader.url, model="m", layers=[1, 2], **LABELS)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> Path:
    return made_once(
        tmp_path_factory, "labelled-texts", lambda at: make_labelled(at, str(random_model))
    )


@pytest.fixture
def store(labelled: Path, tmp_path: Path) -> Path:
    shutil.copytree(labelled / "store", tmp_path / "store")
    return tmp_path / "store"
