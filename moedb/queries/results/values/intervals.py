"""Estimates with the ends of their intervals in columns beside them, put into one cell each.

An interval is two columns, ``X_low`` and ``X_high``, beside the column ``X`` of the estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moedb.queries.results.cells import Estimate, Kind

Intervals = Literal["brackets", "plus-minus", "columns"]
"""How intervals are shown: as their ends, as half their width, or in columns of their own."""

LOW, HIGH = "_low", "_high"

Places = tuple[tuple[int, ...], ...]
"""For each column that is shown where its values are; of an estimate and of both its ends."""


def estimates_with_ends(names: Sequence[str], kinds: Sequence[Kind]) -> dict[str, tuple[str, str]]:
    """Return for each estimate that has both ends of an interval beside it their names.

    Examples
    --------
    >>> estimates_with_ends(["layer", "cv", "cv_low", "cv_high"], ["integer"] + 3 * ["float"])
    {'cv': ('cv_low', 'cv_high')}
    """
    numbers = [name for name, kind in zip(names, kinds, strict=True) if kind != "text"]
    ends = {name: (f"{name}{LOW}", f"{name}{HIGH}") for name in numbers}
    return {
        name: pair
        for name, pair in ends.items()
        if all(numbers.count(each) == 1 and names.count(each) == 1 for each in (name, *pair))
    }


@dataclass(frozen=True)
class Fold:
    """Which estimates have their interval in their cells.

    Attributes
    ----------
    ends
        For each of them the names of its ends.
    plus_minus
        Whether half the width is printed where that says it all.
    """

    ends: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    plus_minus: bool = False

    @classmethod
    def of(
        cls, known: Mapping[str, tuple[str, str]], named: Sequence[str], intervals: Intervals
    ) -> "Fold":
        """Return the fold of estimates, but those that an end is named of.

        Parameters
        ----------
        known
            For each estimate the names of its ends.
        named
            The columns that are asked for by name.
        intervals
            ``brackets`` or ``plus-minus``.
        """
        ends = {name: pair for name, pair in known.items() if not set(pair) & set(named)}
        return cls(ends, intervals == "plus-minus")

    def with_ends(self, named: Sequence[str] | None) -> tuple[str, ...] | None:
        """Return the names of columns with the ends behind their estimates; None for all."""
        if named is None:
            return None
        every = [each for name in named for each in (name, *self.ends.get(name, ()))]
        return tuple(dict.fromkeys(every)) if self.ends else tuple(named)

    def places(self, names: Sequence[str]) -> Places:
        """Return where the columns are that are shown of those with these names."""
        inside = {end for name, pair in self.ends.items() if name in names for end in pair}
        return tuple(
            (place, *(names.index(end) for end in self.ends.get(name, ())))
            for place, name in enumerate(names)
            if name not in inside
        )

    def row(self, row: Sequence[Any], places: Places) -> tuple[Any, ...]:
        """Return the cells of a row."""
        if not self.ends:
            return tuple(row)
        return tuple(self._cell([row[at] for at in place]) for place in places)

    def _cell(self, values: Sequence[Any]) -> Any:
        if len(values) == 1:
            return values[0]
        value, low, high = values
        found = Estimate(value, low, high, self.plus_minus)
        return value if found.is_empty else found
