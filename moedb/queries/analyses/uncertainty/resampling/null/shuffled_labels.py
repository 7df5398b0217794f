"""Which label each example has where labels are shuffled."""

from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.settings import Null
from moedb.queries.analyses.uncertainty.shuffled_labels import labelled_units

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moedb.queries.counting.decisions.rows import Rows
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader


class ShuffledLabels:
    """The labels of examples, shuffled.

    Parameters
    ----------
    reader
        Reads the store.
    name
        The query.
    values
        The values of its parameters: run, split and key.
    null
        How often labels are shuffled.

    Raises
    ------
    UsageError
        If no example has the label.
    """

    views = ("example_labels",)

    def __init__(
        self, reader: "SnapshotReader", name: str, values: "Mapping[str, Value]", null: Null
    ) -> None:
        import numpy as np

        selection = {each: values.get(each) for each in ("run", "split", "key")}
        self._labelled = labelled_units(reader, selection, name, null.cluster)
        if self._labelled.on_tokens or not len(self._labelled.units):
            raise UsageError(
                f"{name}: no example has the label {values['key']!r}, and there is nothing to "
                "shuffle",
                f"moedb query {name} --null -p key KEY",
            )
        rng = np.random.default_rng(null.seed)
        self._sets = np.stack([self._labelled.permuted(rng) for _ in range(null.samples)])

    @property
    def title(self) -> str:
        """What is shuffled."""
        return f"labels shuffled over {self._labelled.permuted_over}"

    def rows(self, view: str, layer: int | None, draws: slice) -> "Rows":
        """Return the rows of the table, with the column ``draw`` from 0 on."""
        import numpy as np

        labelled = self._labelled
        stops = [*labelled.starts[1:], len(labelled.members)]
        parts = []
        sets = self._sets[draws]
        for value, (start, stop) in enumerate(zip(labelled.starts, stops, strict=True)):
            carried = np.nonzero(np.isin(sets, labelled.members[start:stop]))
            parts.append((*carried, np.full(len(carried[0]), value)))
        draws_of, unit, number = (np.concatenate(of) for of in zip(*parts, strict=True))
        return {
            "draw": draws_of,
            "example_id": labelled.units[unit],
            "value": labelled.values[number],
        }

    def n_cells(self, layer: int | None) -> int:
        """How many rows the table has."""
        return len(self._labelled.units)
