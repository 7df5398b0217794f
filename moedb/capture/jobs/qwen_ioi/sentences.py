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


class SentenceStream:
    """An endless list of whole sentences, answer included, for training a model on the task.

    Parameters
    ----------
    templates : IOITemplates
        The material. All its names are used.
    seed : int
        Seed of every draw.
    pair_filter : callable, optional
        Takes two names and says whether they may meet in a sentence.
    """

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
