"""Documents as tokens with their characters, some documents at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from moedb.capture.jobs.text.documents import Document
from moedb.capture.jobs.text.windows import Offsets
from moedb.capture.models.loading.safe_config import read_config
from moedb.errors import ModelError

BATCH_DOCUMENTS = 64
BATCH_CHARACTERS = 1 << 18
"""What goes through the tokenizer at a time, whichever is reached first."""


@dataclass(frozen=True)
class TokenizedDocument:
    """A document and its tokens.

    Attributes
    ----------
    document
        The document.
    token_ids
        The tokens.
    offsets
        For each token its characters in the text.
    """

    document: Document
    token_ids: list[int]
    offsets: Offsets


class TokenTexts(dict[int, str]):
    """The text of each token id, decoded when it is first asked for."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token_id: int) -> str:
        text = self[token_id] = str(self._tokenizer.decode([token_id]))
        return text


def tokenize(tokenizer: Any, documents: Iterable[Document]) -> Iterator[TokenizedDocument]:
    """Tokenize documents, without the special tokens that a model may begin or end texts with.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    documents
        The documents.
    """
    batch: list[Document] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document.text)
        if len(batch) >= BATCH_DOCUMENTS or held >= BATCH_CHARACTERS:
            yield from _tokenized(tokenizer, batch)
            batch, held = [], 0
    if batch:
        yield from _tokenized(tokenizer, batch)


def _tokenized(tokenizer: Any, batch: list[Document]) -> Iterator[TokenizedDocument]:
    encoded = tokenizer(
        [document.text for document in batch],
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    for document, token_ids, offsets in zip(
        batch, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        yield TokenizedDocument(document, token_ids, offsets)


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
