"""How many tokens a model takes in at once."""

from typing import Any

from moedb.capture.safe_config import read_config
from moedb.errors import ModelError

_UNKNOWN = 1 << 30
"""Tokenizers that know of no limit give a number beyond any."""


def context_length(tokenizer: Any) -> int | None:
    """Tokens that the model of a tokenizer takes in at most; None where nothing says.

    What the model's configuration beside the tokenizer says counts; the tokenizer's own word only
    where there is none, for it is often far above what the model was trained for.

    Parameters
    ----------
    tokenizer
        As ``load_tokenizer`` gives it.
    """
    try:
        config = read_config(tokenizer.name_or_path)
        stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    except (OSError, ValueError, KeyError, ModelError):
        stated = None
    if isinstance(stated, int) and stated > 0:
        return stated
    own = getattr(tokenizer, "model_max_length", _UNKNOWN)
    return int(own) if own < _UNKNOWN else None
