"""How often experts are chosen by two random halves of one class."""

from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import by_layer
from moedb.queries.analyses.uncertainty.resampling.counts.of_examples import OF_EXAMPLES
from moedb.queries.analyses.uncertainty.resampling.counts.of_run import OfRun
from moedb.queries.analyses.uncertainty.resampling.draws import Drawn, one_below_the_other
from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import ClusterCounts
    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery
    from moedb.queries.reading.reader import SnapshotReader

HALVES: "Mapping[str, str]" = {"key": "half", "value_a": "one", "value_b": "other"}
"""The parameters by which a query finds the two halves."""


def is_one_class(values: "Mapping[str, Value]") -> bool:
    """Whether both groups of a query are the same class of one run, or all tokens of it."""
    if "value_a" not in values or values.get("run_b") is not None:
        return False
    return values["value_a"] == values["value_b"]


class HalvedCounts:
    """The views of classes where the clusters of one class are split at random.

    Parameters
    ----------
    reader
        Reads the store.
    query
        The query.
    values
        The values of its parameters: run, split, and key and value_a of the class.
    null
        How often it is split.

    Raises
    ------
    UsageError
        If there are no two clusters.
    """

    views = ("class_routing", "class_sizes")

    def __init__(
        self,
        reader: "SnapshotReader",
        query: "NamedQuery",
        values: "Mapping[str, Value]",
        null: Null,
    ) -> None:
        import numpy as np

        side = OfRun(reader, query, values, "run", Resampling(cluster=null.cluster))
        value = values["value_a"]
        self.title = "two random halves of " + (
            "all tokens" if value is None else f"{values['key']} {value}"
        )
        own = ("expert_usage", "selection_sizes") if value is None else self.views
        self._counts: dict[str, dict[int | None, ClusterCounts]] = {}
        for view, of in zip(self.views, own, strict=True):
            added = OF_EXAMPLES[of]
            more = {} if value is None else {"key": values["key"]}
            rows, clusters = side.added(added.sql, **more)
            if value is not None:
                is_own = rows["value"] == value
                rows = {name: of_rows[is_own] for name, of_rows in rows.items()}
                clusters = clusters[is_own]
            keys = [name for name in added.keys if name != "value"]
            self._counts[view] = by_layer(rows, keys, added.sums[:1], clusters, side.n_drawn)
        members = np.unique(clusters)
        if len(members) < 2:
            raise UsageError(
                f"{query.name}: there are no two halves, as all tokens are of one cluster of "
                "examples",
                f"moedb query {query.name} --null --cluster KEY",
            )
        is_in = np.zeros((null.samples, len(members)))
        is_in[:, : len(members) // 2] = 1
        is_in = np.random.default_rng(null.seed).permuted(is_in, axis=1)
        self._halves = np.zeros((2, null.samples, side.n_drawn))
        self._halves[:, :, members] = is_in, 1 - is_in

    def rows(self, view: str, layer: int | None, draws: slice) -> Drawn:
        """Return the rows of a view at a layer."""
        import numpy as np

        parts = []
        for value, half in zip((HALVES["value_a"], HALVES["value_b"]), self._halves, strict=True):
            for counts in self._at(view, layer):
                drawn = counts.drawn(half[draws])
                cells = {**drawn.cells, "value": np.full(len(drawn.times), value, dtype=object)}
                none = {"weight": np.zeros(drawn.times.shape)} if view == "class_routing" else {}
                parts.append(Drawn(cells, {**drawn.sums, **none}, drawn.times))
        return one_below_the_other(parts)

    def n_cells(self, layer: int | None) -> int:
        """How many rows a view may have at a layer."""
        return 2 * sum(counts.n_cells for counts in self._at("class_routing", layer))

    def _at(self, view: str, layer: int | None) -> "list[ClusterCounts]":
        tables = self._counts[view]
        return [of for at, of in tables.items() if None in (at, layer) or at == layer]
