"""Fixtures of the tests of text data."""

from typing import Any

import pytest

from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.models.loading.pretrained import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return load_tokenizer(find_checkpoint("qwen-moe-mini"))
