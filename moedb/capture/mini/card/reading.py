"""What the cards of trained models say, read back from the files that were measured."""

import json
from pathlib import Path
from typing import Any

from moedb.errors import UsageError

EVALUATION = "evaluation.json"

COLUMNS = {
    "model": "VARCHAR",
    "parameters": "BIGINT",
    "active_parameters": "BIGINT",
    "perplexity": "DOUBLE",
    "perplexity_ngram": "DOUBLE",
    "ioi_accuracy": "DOUBLE",
    "ioi_accuracy_other": "DOUBLE",
    "minutes": "DOUBLE",
    "seed": "BIGINT",
    "weights_sha256": "VARCHAR",
}
"""What is told of a model, with its type in SQL: ``active_parameters`` are those that a token
meets, ``perplexity`` is on held-out documents, ``perplexity_ngram`` that of the largest n-gram
model beside it, ``ioi_accuracy`` on the templates of the training sentences and
``ioi_accuracy_other`` on others, ``minutes`` are of the training."""


def read_card(folder: Path) -> list[Any]:
    """Read what a model's card measured, in the order of :data:`COLUMNS`.

    Parameters
    ----------
    folder
        The model's folder.

    Raises
    ------
    UsageError
        If it has no card, or one that says something else.
    """
    file = folder / EVALUATION
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        model, ioi, training = told["model"], told["ioi"], told["training"]
        perplexity = told["held_out"]["perplexity"]["all"]
        other = ioi["published"]
        return [
            model["name"],
            model["parameters"],
            model["active_parameters"],
            perplexity["model"],
            perplexity[max(name for name in perplexity if name.endswith("-gram"))],
            ioi["own"]["accuracy"],
            None if other is None else other["accuracy"],
            training["seconds"] / 60,
            training["config"]["seed"],
            model["weights_sha256"],
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} has no card of a model that moedb trained: {file.name}: "
            f"{type(error).__name__}: {error}",
            f"python -m moedb.capture.mini.card.measuring --model {folder} --corpus FILE",
        ) from error
