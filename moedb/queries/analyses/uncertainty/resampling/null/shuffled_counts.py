"""How often experts are chosen by the classes of shuffled labels."""

from functools import partial
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.draws import Drawn, one_below_the_other
from moedb.queries.analyses.uncertainty.resampling.settings import Null
from moedb.queries.analyses.uncertainty.shuffled_labels import (
    Decisions,
    Labelled,
    decisions_of,
    labelled_units,
)
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.counting.decisions.files import side_by_side
from moedb.queries.counting.decisions.layers import layers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_MOST_COUNTS = 1 << 29
"""Counts that are held at once."""


class ShuffledCounts:
    """The views of classes where labels are shuffled.

    Parameters
    ----------
    reader
        Reads the store.
    name
        The query.
    values
        The values of its parameters: run, split, key, and layer where it has one.
    null
        How often labels are shuffled.

    Raises
    ------
    UsageError
        If there are more counts than can be held.
    """

    views = ("class_routing", "class_sizes")

    def __init__(
        self, reader: "SnapshotReader", name: str, values: "Mapping[str, Value]", null: Null
    ) -> None:
        selection = {each: values.get(each) for each in ("run", "split", "key")}
        self._labelled = labelled_units(reader, selection, name, null.cluster)
        decisions = decisions_of(reader, selection, self._labelled, values.get("layer"))
        widths = [sum(c.stop - c.start for c in each.layers.values()) for each in decisions]
        n_counts = null.samples * len(self._labelled.values) * sum(widths)
        if n_counts > _MOST_COUNTS:
            raise UsageError(
                f"{name}: {null.samples} shufflings of {len(self._labelled.values)} values are "
                "more counts than are held at once",
                f"--samples {max(1, null.samples * _MOST_COUNTS // n_counts)}, or -p layer LAYER",
            )
        self._top_k = {
            layer.layer: layer.top_k for layer in layers_of(reader.snapshot.run(str(values["run"])))
        }
        self._counts = _shuffled(decisions, self._labelled, null)

    @property
    def title(self) -> str:
        """What is shuffled."""
        return f"labels shuffled over {self._labelled.permuted_over}"

    def rows(self, view: str, layer: int | None, draws: slice) -> Drawn:
        """Return the rows of a view at a layer."""
        import numpy as np

        values = self._labelled.values
        if view == "class_sizes":
            first = min(self._counts)
            of_values = self._counts[first][draws].sum(axis=2, dtype=np.int64).T
            n_tokens = of_values // self._top_k[first]
            return Drawn({"value": values}, {"n_tokens": n_tokens}, of_values > 0)
        parts = []
        for each, counts in self._counts.items():
            if layer in (None, each):
                n_draws, n_values, n_experts = counts[draws].shape
                n = counts[draws].reshape(n_draws, -1).T.astype(np.int64)
                cells = {
                    "value": np.repeat(values, n_experts),
                    "layer": np.full(len(n), each),
                    "expert": np.tile(np.arange(n_experts), n_values),
                }
                sums = {"n_decisions": n, "weight": np.zeros(n.shape)}
                parts.append(Drawn(cells, sums, n > 0))
        return one_below_the_other(parts)

    def n_cells(self, layer: int | None) -> int:
        """How many rows a view may have at a layer."""
        return sum(
            of.shape[1] * of.shape[2] for each, of in self._counts.items() if layer in (None, each)
        )


def _shuffled(
    decisions: list[Decisions], labelled: Labelled, null: Null
) -> "dict[int, NDArray[np.int32]]":
    """For each layer (shuffling, value, expert): the decisions."""
    import numpy as np

    n_values = len(labelled.values)
    counts = {
        layer: np.zeros((null.samples, n_values, columns.stop - columns.start), np.int32)
        for each in decisions
        for layer, columns in each.layers.items()
    }
    rng = np.random.default_rng(null.seed)

    def tasks() -> "Iterator[Callable[[], tuple[int, dict[int, NDArray[np.float64]]]]]":
        for at in range(null.samples):
            sets = labelled.permuted(rng)
            for each in decisions:
                yield partial(_of_shuffling, at, each, labelled, sets)

    found = side_by_side(tasks())
    for _ in each_part(range(null.samples), "shufflings"):
        for _ in decisions:
            at, of_layers = next(found)
            for layer, joint in of_layers.items():
                counts[layer][at] = joint
    return counts


def _of_shuffling(
    at: int, decisions: Decisions, labelled: Labelled, sets: "NDArray[np.int32]"
) -> "tuple[int, dict[int, NDArray[np.float64]]]":
    return at, decisions.by_value(labelled, sets)
