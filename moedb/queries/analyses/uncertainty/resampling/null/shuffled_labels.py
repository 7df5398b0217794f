"""Which label each example has where labels are shuffled."""

from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.draws import Drawn
from moedb.queries.analyses.uncertainty.resampling.settings import Null
from moedb.queries.analyses.uncertainty.shuffled_labels import labelled_units

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    def rows(self, view: str, layer: int | None, draws: slice) -> Drawn:
        """Return the rows of the table."""
        import numpy as np

        labelled = self._labelled
        stops = [*labelled.starts[1:], len(labelled.members)]
        sets = self._sets[draws].T
        carried = [
            np.isin(sets, labelled.members[start:stop])
            for start, stop in zip(labelled.starts, stops, strict=True)
        ]
        cells = {
            "example_id": np.tile(labelled.units, len(carried)),
            "value": np.repeat(labelled.values, len(labelled.units)),
        }
        return Drawn(cells, {}, np.concatenate(carried))

    def n_cells(self, layer: int | None) -> int:
        """How many rows the table may have."""
        return len(self._labelled.units) * len(self._labelled.values)
