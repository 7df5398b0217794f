"""Whole sentences of the task, answer included, to train a model on."""

from __future__ import annotations

from dataclasses import dataclass

from moedb.capture.jobs.qwen_ioi.drawing import Draw, Order, PairFilter
from moedb.capture.jobs.qwen_ioi.templates import IOITemplates


@dataclass(frozen=True)
class IOISentence:
    """A whole sentence, answer included: ``text[answer_start:]`` is ``" " + io``."""

    text: str
    answer_start: int
    io: str
    s: str
    template: int
    order: Order


def training_sentences(
    templates: IOITemplates,
    n: int,
    *,
    seed: int = 0,
    start: int = 0,
    pair_filter: PairFilter | None = None,
) -> list[IOISentence]:
    """Draw whole sentences, answer included, for training a model on the task.

    The sentences are entries ``start`` to ``start + n`` of one endless list per seed.

    Parameters
    ----------
    templates : IOITemplates
        The material. All its names are used.
    n : int
        Number of sentences.
    seed : int
        Seed of every draw.
    start : int
        Index of the first sentence.
    pair_filter : callable, optional
        Takes two names and says whether they may meet in a sentence.

    Returns
    -------
    list of IOISentence
    """
    return SentenceStream(templates, seed=seed, pair_filter=pair_filter).take(n, start=start)


class SentenceStream:
    """The endless list behind `training_sentences`, kept so that the pairs are filtered once."""

    def __init__(
        self, templates: IOITemplates, *, seed: int = 0, pair_filter: PairFilter | None = None
    ) -> None:
        self._draw = Draw(templates, templates.names, seed, pair_filter)

    def take(self, n: int, *, start: int = 0) -> list[IOISentence]:
        """Return the sentences ``start`` to ``start + n``."""
        sentences = []
        for index in range(start, start + n):
            filled = self._draw(index)
            sentences.append(
                IOISentence(
                    text=f"{filled.text} {filled.io}",
                    answer_start=len(filled.text),
                    io=filled.io,
                    s=filled.s,
                    template=filled.template,
                    order=filled.order,
                )
            )
        return sentences
