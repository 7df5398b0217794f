"""Which words fill which template: seeded draws, and the pairs of names kept out of training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moedb.capture.jobs.qwen_ioi.templates import SLOT, IOITemplates
from moedb.errors import DatasetError

Order = Literal["BABA", "ABBA"]
Span = tuple[int, int]
PairFilter = Callable[[str, str], bool]

ORDERS: tuple[Order, ...] = ("BABA", "ABBA")


def is_held_out_pair(first: str, second: str, fraction: float = 0.1) -> bool:
    """Whether an unordered pair of names is kept out of training.

    The answer depends on the two names alone (a hash of them), so that training and evaluation
    agree on it without a list.

    Parameters
    ----------
    first, second : str
        The names, in any order.
    fraction : float
        Expected share of the pairs that is held out.
    """
    joined = "\0".join(sorted((first, second)))
    digest = hashlib.sha256(joined.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


@dataclass(frozen=True)
class Filled:
    """A template with its slots filled, up to the answer; the fields are those of `IOIPrompt`."""

    text: str
    io: str
    s: str
    template: int
    order: Order
    place: str | None
    object: str | None
    io_span: Span
    s1_span: Span
    s2_span: Span


class Draw:
    """Entry i of an endless list of filled templates, a function of the seed and i alone."""

    def __init__(
        self,
        templates: IOITemplates,
        names: Sequence[str],
        seed: int,
        pair_filter: PairFilter | None,
    ) -> None:
        self._templates = templates
        self._names = tuple(names)
        self._seed = seed
        self._pairs: list[tuple[str, str]] | None = None
        self._block: tuple[int, list[tuple[int, Order]]] = (-1, [])
        if pair_filter is not None:
            self._pairs = [
                (a, b)
                for i, a in enumerate(self._names)
                for b in self._names[i + 1 :]
                if pair_filter(a, b)
            ]
            if not self._pairs:
                raise DatasetError(
                    f"no pair of the {len(self._names)} names passes the pair filter"
                )

    def _rng(self, what: str, index: int) -> random.Random:
        return random.Random(f"moedb ioi {self._seed} {what} {index}")

    def _form(self, index: int) -> tuple[int, Order]:
        """Each block of 2 x templates entries holds every template in both orders once."""
        size = 2 * len(self._templates.templates_baba)
        number, position = divmod(index, size)
        if self._block[0] != number:
            forms = [(t, order) for t in range(size // 2) for order in ORDERS]
            self._rng("block", number).shuffle(forms)
            self._block = (number, forms)
        return self._block[1][position]

    def __call__(self, index: int) -> Filled:
        """Return entry ``index``."""
        template, order = self._form(index)
        rng = self._rng("entry", index)
        if self._pairs is None:
            io, s = rng.sample(self._names, 2)
        else:
            io, s = rng.sample(rng.choice(self._pairs), 2)
        text = self._templates.templates_baba[template]
        place = rng.choice(self._templates.places) if "[PLACE]" in text else None
        thing = rng.choice(self._templates.objects) if "[OBJECT]" in text else None
        return _fill(text, template, order, io, s, place, thing)

    def third_name(self, index: int, filled: Filled) -> str:
        """Return the name that stands in the twin of entry ``index`` for the second S."""
        others = [name for name in self._names if name not in (filled.io, filled.s)]
        return self._rng("twin", index).choice(others)


def _fill(
    text: str, template: int, order: Order, io: str, s: str, place: str | None, thing: str | None
) -> Filled:
    mentions = iter([s, io, s, io] if order == "BABA" else [io, s, s, io])
    pieces: list[str] = []
    spans: list[Span] = []
    length = cursor = 0
    for match in SLOT.finditer(text):
        slot = match.group()
        word = {"[PLACE]": place, "[OBJECT]": thing}.get(slot) or next(mentions)
        pieces += [text[cursor : match.start()], word]
        length += match.start() - cursor
        if slot in ("[A]", "[B]"):
            spans.append((length, length + len(word)))
        length += len(word)
        cursor = match.end()
    whole = "".join(pieces)
    first, second, s2_span, answer_span = spans
    s1_span, io_span = (first, second) if order == "BABA" else (second, first)
    return Filled(
        text=whole[: answer_span[0] - 1],
        io=io,
        s=s,
        template=template,
        order=order,
        place=place,
        object=thing,
        io_span=io_span,
        s1_span=s1_span,
        s2_span=s2_span,
    )
