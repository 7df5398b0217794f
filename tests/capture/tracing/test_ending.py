"""Logits that are made of the last stream in pieces."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moedb.capture.models.checkpoints import local_checkpoint
from moedb.capture.models.loading.pretrained import load_model
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing import model_end as ending
from moedb.capture.tracing import traced_model as trace
from moedb.capture.tracing.activations import BatchActivations
from moedb.capture.tracing.rehearsal import traced
from moedb.capture.tracing.traced_model import TracedModel
from moedb.errors import CheckError

pytestmark = pytest.mark.model

PROMPTS = [[5, 17, 43, 8], [9, 30], [7], [3, 4, 5, 6, 7, 8]]


class Nothing:
    def stream(self, layer: int, residual: torch.Tensor) -> None:
        pass

    def layer(self, layer: int, activations: Any) -> None:
        pass


def made(model: TracedModel) -> torch.Tensor:
    return torch.cat([piece for _, piece in model.read(PROMPTS, Nothing()).pieces()])


@pytest.fixture
def model(random_model: Path) -> Any:
    return load_model(local_checkpoint(random_model), "float32", "cpu")


def test_pieces_are_the_models_logits(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST_LOGITS", 0)
    monkeypatch.setattr(ending, "PIECE_ROWS", 3)
    with traced(model, find_blocks(model)) as ready:
        assert ready.end is not None
        expected: BatchActivations = ready.run(PROMPTS)
        np.testing.assert_allclose(made(ready), expected.logits, rtol=1e-4, atol=1e-6)


def test_a_model_that_does_more_at_its_end_makes_its_own_logits(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "MOST_LOGITS", 0)
    forward = model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = torch.tanh(output.logits * 4)
        return output

    monkeypatch.setattr(model, "forward", capped)
    with traced(model, find_blocks(model)) as ready:
        assert ready.end is None
        assert torch.equal(made(ready), ready.run(PROMPTS).logits)


def test_other_logits_than_the_models_are_refused(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "MOST_LOGITS", 0)
    with traced(model, find_blocks(model)) as ready:
        assert ready.end is not None
        ready.end.factor = 1.01
        with pytest.raises(CheckError, match="logits of the last tokens differ by"):
            ready.read(PROMPTS, Nothing())
