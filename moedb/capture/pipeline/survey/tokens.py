"""Which tokens the arrays keep: all, each example's last, or those with a label, or some of these.

A sample is drawn by numbers that the seed, the example and the position give a token, so it does
not depend on how the examples are divided.
"""

import heapq
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moedb.capture.examples import Example
from moedb.errors import UsageError


@dataclass(frozen=True)
class TokenSelection:
    """Which tokens the arrays keep.

    Attributes
    ----------
    text
        As the user said it.
    key, value
        The label that kept tokens have; without a value, any value of the key.
    per_value
        The most tokens of each value; None for all.
    drawn
        The positions that were drawn, by example; None unless ``per_value`` was applied.
    """

    text: str
    key: str | None = None
    value: str | None = None
    per_value: int | None = None
    drawn: Mapping[int, tuple[int, ...]] | None = None

    @classmethod
    def parse(cls, text: str, per_value: int | None = None) -> "TokenSelection":
        """Parse ``all``, ``last``, ``label:KEY`` or ``label:KEY=VALUE``.

        Raises
        ------
        UsageError
            If it is something else, or ``per_value`` has no label to count by or is below 1.
        """
        if per_value is not None and per_value < 1:
            raise UsageError(f"--per-value {per_value}: expected 1 or more")
        match = re.fullmatch(r"label:([^=]+)(?:=(.*))?", text)
        if match is None and text not in ("all", "last"):
            raise UsageError(
                f"--tokens {text!r}: valid are all, last, label:KEY and label:KEY=VALUE"
            )
        if match is None and per_value is not None:
            raise UsageError(
                f"--per-value {per_value} counts by a label, and --tokens is {text}",
                f"--tokens label:KEY --per-value {per_value}",
            )
        if match is None:
            return cls(text)
        return cls(text, match.group(1), match.group(2), per_value)

    def mask(self, example: Example, index: int) -> NDArray[np.bool_]:
        """(token,): which of the example's tokens are kept; ``index`` is its place among all."""
        if self.text == "all":
            return np.ones(len(example), dtype=bool)
        if self.text == "last":
            return np.equal(np.arange(len(example)), len(example) - 1)
        if self.drawn is not None:
            kept = np.zeros(len(example), dtype=bool)
            kept[list(self.drawn.get(index, ()))] = True
            return kept
        return np.array([value is not None for value in self._values(example)], dtype=bool)

    def draw(self, examples: Iterable[Example], seed: int) -> "TokenSelection":
        """The selection with its tokens drawn, if it takes some of them only.

        Of each value as many tokens are taken as ``per_value`` says, and from the examples they
        are in as many tokens of none of these values as were taken of all together.

        Parameters
        ----------
        examples
            All examples, in their order; gone through twice.
        seed
            Seed of the draw.
        """
        if self.per_value is None:
            return self
        best: dict[str, _Smallest] = {}
        for index, example in enumerate(examples):
            priorities = _priorities(example, index, seed)
            for position, value in enumerate(self._values(example)):
                if value is not None:
                    smallest = best.setdefault(value, _Smallest(self.per_value))
                    smallest.add(priorities[position], index, position)
        taken = [place for value in sorted(best) for place in best[value].places()]
        within = {index for index, _ in taken}
        others = _Smallest(len(taken))
        for index, example in enumerate(examples):
            if index in within:
                priorities = _priorities(example, index, seed)
                for position, value in enumerate(self._values(example)):
                    if value is None:
                        others.add(priorities[position], index, position)
        drawn: dict[int, list[int]] = {}
        for index, position in (*taken, *others.places()):
            drawn.setdefault(index, []).append(position)
        return replace(self, drawn={index: tuple(sorted(at)) for index, at in drawn.items()})

    def _values(self, example: Example) -> list[str | None]:
        """For each token the value that it is kept for; None where it is not kept."""
        key = self.key or ""
        values: Iterable[str | None]
        if key in example.token_labels:
            values = example.token_labels[key]
        else:
            values = [example.labels.get(key)] * len(example)
        return [value if self.value in (None, value) else None for value in values]


def _priorities(example: Example, index: int, seed: int) -> list[float]:
    """For each token a number; those with the smallest are drawn."""
    found: list[float] = np.random.default_rng((seed, index)).random(len(example)).tolist()
    return found


class _Smallest:
    """The places with the smallest numbers of those that were added, a few at most."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._heap: list[tuple[float, int, int]] = []

    def add(self, priority: float, index: int, position: int) -> None:
        entry = (-priority, -index, -position)  # the heap's first is the largest that is held
        if len(self._heap) < self._n:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def places(self) -> list[tuple[int, int]]:
        """(example, position) of each, in their order."""
        return sorted((-index, -position) for _, index, position in self._heap)
