"""Shuffling a stream that does not fit into memory."""

import random
from collections.abc import Iterable, Iterator

from moedb.capture.jobs.text.documents import Document

BUFFER_DOCUMENTS = 10_000
BUFFER_CHARACTERS = 1 << 26
"""What the buffer holds at most, whichever is reached first."""


def shuffled(
    documents: Iterable[Document],
    seed: int,
    *,
    n_documents: int = BUFFER_DOCUMENTS,
    n_characters: int = BUFFER_CHARACTERS,
) -> Iterator[Document]:
    """Shuffle documents through a buffer.

    The buffer is filled; from then on a document is drawn from it whenever the next one comes in,
    and the rest at the end. A dataset that fits into the buffer is shuffled evenly; in a larger one
    a document may come as late as it likes, but not much earlier than it stands. The same documents
    and seed give the same order.

    Parameters
    ----------
    documents
        The documents.
    seed
        Seed of the order.
    n_documents, n_characters
        What the buffer holds at most.
    """
    draw = random.Random(seed)
    buffer: list[Document] = []
    held = 0
    for document in documents:
        buffer.append(document)
        held += len(document.text)
        while len(buffer) > n_documents or (held > n_characters and len(buffer) > 1):
            chosen = _take(buffer, draw)
            held -= len(chosen.text)
            yield chosen
    while buffer:
        yield _take(buffer, draw)


def _take(buffer: list[Document], draw: random.Random) -> Document:
    index = draw.randrange(len(buffer))
    buffer[index], buffer[-1] = buffer[-1], buffer[index]
    return buffer.pop()
