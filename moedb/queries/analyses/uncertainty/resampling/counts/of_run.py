"""What a query reads of one run, cluster by cluster."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.clusters import Clusters, clusters_of
from moedb.queries.analyses.uncertainty.resampling.counts.cluster_counts import (
    ClusterCounts,
    by_layer,
)
from moedb.queries.analyses.uncertainty.resampling.counts.of_examples import (
    OF_EXAMPLES,
    means_of_sums,
)
from moedb.queries.analyses.uncertainty.resampling.counts.of_pairs import (
    FEWEST_GROUPS,
    OF_PAIRS,
    chances_of_pairs,
    count_pairs,
    groups_for,
)
from moedb.queries.analyses.uncertainty.resampling.draws import (
    Drawn,
    numbered_groups,
    one_below_the_other,
)
from moedb.queries.analyses.uncertainty.resampling.replicates import STATICS
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.counting.decisions.layers import layers_of
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.counting.decisions.layers import Layer
    from moedb.queries.counting.decisions.rows import Rows
    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery
    from moedb.queries.reading.reader import SnapshotReader
    from moedb.queries.results.result import Result

DERIVED: Mapping[str, str] = MappingProxyType({"pair_chances": "expert_usage"})
"""The views that follow from the rows of another one."""

SELECTIONS = "selections"
"""The view of the examples that are read: joined with, it gives one as often as it is drawn."""

KEYED = ("class_routing", "class_sizes", "class_router_stats")
"""The views that hold the classes of a label's key."""

_MEANS = ("class_router_stats", "selection_router_stats")
_EXAMPLES = f"""
select examples.example_id
from examples
where examples.run_id = cast($run as varchar) and examples.example_id in {SELECTED_EXAMPLES}
order by examples.example_id
"""  # noqa: S608
_TOKENS = """
select tokens.token_idx, tokens.example_id
from tokens
where tokens.run_id = cast($run as varchar)
order by tokens.token_idx
"""
# of values that are as frequent queries take the first
_VALUES = f"""
select labels.value
from labels
where
    labels.run_id = cast($run as varchar)
    and labels.key = cast($key as varchar)
    and labels.example_id in {SELECTED_EXAMPLES}
group by labels.value
order by try_cast(labels.value as double) nulls last, labels.value
"""  # noqa: S608


class OfRun:
    """The counts of a run's clusters.

    Parameters
    ----------
    reader
        Reads the store.
    query
        The query that is asked.
    values
        The values of its parameters.
    side
        The parameter that names the run.
    resampling
        How intervals are asked for.

    Attributes
    ----------
    reader, run
        What reads the store, and the run.
    """

    def __init__(
        self,
        reader: "SnapshotReader",
        query: "NamedQuery",
        values: "Mapping[str, Value]",
        side: str,
        resampling: Resampling,
    ) -> None:
        self.reader, self._name = reader, query.name
        self.run = reader.snapshot.run(str(values[side]))
        self._asked = {"run": self.run.run_id, "split": values.get("split")}
        self._key, self._layer = values.get("key"), values.get("layer")
        self._settings = resampling
        self._pairs = sorted(query.relations & set(OF_PAIRS))
        self._has_class_pairs = "class_pairs" in query.relations
        self._statics: dict[str, pa.Table] = {}
        self._counted: dict[str, dict[int | None, ClusterCounts]] = {}

    @property
    def examples_sha256(self) -> str:
        """The hash over its examples: two runs of the same may be compared example by example."""
        return str(self.run.row["dataset_sha256"])

    @property
    def key(self) -> str | None:
        """The label that tells its clusters; None where each example is one of its own."""
        return self._clusters.key

    @cached_property
    def n_clusters(self) -> int:
        """How many clusters its examples are of."""
        _, of_example = self._of_example
        return int(of_example.max()) + 1 if len(of_example) else 0

    @cached_property
    def names(self) -> list[str | int]:
        """What tells its clusters, in the order of their numbers."""
        examples, _ = self._of_example
        return list(dict.fromkeys(self._clusters.names_of(examples)))

    @cached_property
    def n_drawn(self) -> int:
        """How many are drawn: fewer where pairs of decisions are counted for groups of them."""
        most = self.n_clusters
        if self._pairs:
            most = max(FEWEST_GROUPS, groups_for(layers_of(self.run)))
        elif self._has_class_pairs:
            most = groups_for(self.layers, len(self.class_values))
        if most < min(FEWEST_GROUPS, self.n_clusters):
            raise UsageError(
                f"{self._name}: the pairs of {len(self.class_values)} values at "
                f"{len(self.layers)} layers are more than can be counted for intervals",
                "-p layer LAYER" if len(self.layers) > 1 else "a label of fewer values",
            )
        return min(self.n_clusters, most)

    @cached_property
    def class_values(self) -> list[str]:
        """The values of the label, in the order of queries."""
        return [value for (value,) in self.ask(_VALUES, key=self._key).fetchall()]

    @property
    def layers(self) -> "list[Layer]":
        """The layers that are asked about."""
        return [each for each in layers_of(self.run) if self._layer in (None, each.layer)]

    def added(self, sql: str, **more: "Value") -> "tuple[Rows, NDArray[np.int64]]":
        """Return what examples that are read add to something, and the cluster drawn of each row.

        Parameters
        ----------
        sql
            A statement whose rows have ``example_id``, with the parameters run and split.
        **more
            Its other parameters.
        """
        import numpy as np

        table = self.ask(sql, **more).arrow()
        rows = {name: table[name].to_numpy() for name in table.column_names}
        examples, of_example = self._of_example
        places = np.searchsorted(examples, rows["example_id"])
        return rows, self._group_of_cluster[of_example[places]]

    def ask(self, sql: str, **more: "Value") -> "Result":
        """Run a statement with the parameters run and split, and more of them."""
        return self.reader.sql(sql, {**self._asked, **more})

    @contextmanager
    def in_order(self) -> "Iterator[None]":
        """Say what to do where decisions that are counted are not in order.

        Raises
        ------
        UsageError
            In the place of an UnorderedError.
        """
        try:
            yield
        except UnorderedError as error:
            raise UsageError(
                f"{self._name} has intervals only where the decisions of run "
                f"{self.run.title} are in order, on this machine",
                f"moedb copy the store here, or moedb compact {self.run.run_id}",
            ) from error

    def read(self, relations: Iterable[str]) -> None:
        """Read and count what is known of the run: from then on several threads may ask for it."""
        for name in sorted(relations):
            if name in STATICS:
                self._statics[name] = self.reader.sql(
                    STATICS[name], {"run": self.run.run_id}
                ).arrow()
            else:
                self.n_cells(name, None)
        _ = self._group_of_cluster

    def static(self, name: str, layer: int | None) -> "pa.Table":
        """Return what does not depend on the examples, at a layer and the one after it."""
        import pyarrow.compute as pc

        rows = self._statics[name]
        if layer is None or "layer" not in rows.column_names:
            return rows
        return rows.filter(pc.is_in(rows["layer"], _among(self._at(layer))))

    def n_cells(self, view: str, layer: int | None) -> int:
        """How many rows a view may have at a layer."""
        if view == SELECTIONS:
            return len(self._of_example[0])
        if view in DERIVED:
            return self.n_cells(DERIVED[view], layer) ** 2 // 2
        return sum(counts.n_cells for counts in self._counts(view, layer))

    def drawn(self, view: str, layer: int | None, weights: "NDArray[np.float64]") -> Drawn:
        """Return the rows of a view at a layer for draws (draw, cluster)."""
        if view == SELECTIONS:
            return self._examples_drawn(weights)
        if view == "pair_chances":
            top_k = {each.layer: each.top_k for each in layers_of(self.run)}
            return _chances(self.drawn("expert_usage", layer, weights), top_k)
        found = one_below_the_other([each.drawn(weights) for each in self._counts(view, layer)])
        if view in _MEANS:
            return Drawn(found.cells, means_of_sums(found.sums), found.times)
        return found

    def _examples_drawn(self, weights: "NDArray[np.float64]") -> Drawn:
        """Each example as often as its cluster counts."""
        import numpy as np

        examples, of_example = self._of_example
        times = weights[:, self._group_of_cluster[of_example]].astype(np.int64).T
        return Drawn({"example_id": examples}, {}, times)

    def counts_at(self, view: str, layer: int | None) -> ClusterCounts:
        """Return what clusters add to the rows of a view at a layer."""
        for counts in self._counts(view, layer):
            if layer is None or layer in counts.cells.get("layer", ()):
                return counts
        return _without_cells(self._counts(view, layer)[0])

    def _counts(self, view: str, layer: int | None) -> list[ClusterCounts]:
        if view not in self._counted:
            self._counted[view] = self._count(view)
        tables = self._counted[view]
        if None in tables:
            return [tables[None]]
        wanted = tables if layer is None else self._at(layer)
        found = [tables[each] for each in wanted if each in tables]
        return found or [_without_cells(next(iter(tables.values())))]

    def _at(self, layer: int) -> list[int]:
        """The layer, and where a query is about two of them the next."""
        numbers = [each.layer for each in layers_of(self.run)]
        if "layer_pairs" not in self._pairs:
            return [layer]
        return numbers[numbers.index(layer) :][:2] if layer in numbers else []

    def _count(self, view: str) -> dict[int | None, ClusterCounts]:
        import numpy as np
        import pyarrow as pa

        if view in OF_PAIRS:
            with self.in_order():
                return count_pairs(self.run, view, self.group_of_token, self.n_drawn)
        added = OF_EXAMPLES[view]
        table = self.ask(added.sql, **({"key": self._key} if view in KEYED else {})).arrow()
        examples, of_example = self._of_example
        places = np.searchsorted(examples, table["example_id"].to_numpy())
        clusters = self._group_of_cluster[of_example[places]]
        rows, texts = {}, {}
        for name in (*added.keys, *added.sums):
            if pa.types.is_integer(table[name].type) or pa.types.is_floating(table[name].type):
                rows[name] = table[name].to_numpy()
            else:
                rows[name], texts[name] = _coded_texts(table[name])
        del table
        found = by_layer(rows, added.keys, added.sums, clusters, self.n_drawn)
        for counts in found.values():
            counts.cells.update({name: of[counts.cells[name]] for name, of in texts.items()})
        return found

    @cached_property
    def _clusters(self) -> Clusters:
        key, run = self._settings.cluster, self.run.run_id
        return clusters_of(self.reader, run, self._name, key, "--ci --cluster KEY")

    @cached_property
    def _of_example(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """The examples that are read, ascending, and the cluster of each."""
        examples = self.reader.sql(_EXAMPLES, self._asked).arrow()["example_id"].to_numpy()
        return examples, self._clusters.of(examples)

    @cached_property
    def _group_of_cluster(self) -> "NDArray[np.int64]":
        return numbered_groups(self.n_clusters, self.n_drawn, self._settings.seed)

    @cached_property
    def group_of_token(self) -> "NDArray[np.int32]":
        """(token,): the group of each token of the run; -1 for those that are not read."""
        import numpy as np

        tokens = self.reader.sql(_TOKENS, {"run": self.run.run_id}).arrow()
        numbers, of = tokens["token_idx"].to_numpy(), tokens["example_id"].to_numpy()
        found = np.full(int(numbers.max()) + 1 if len(numbers) else 0, -1, np.int32)
        examples, of_example = self._of_example
        places = np.minimum(np.searchsorted(examples, of), max(len(examples) - 1, 0))
        if len(examples):
            is_read = examples[places] == of
            found[numbers[is_read]] = self._group_of_cluster[of_example[places[is_read]]]
        return found


def _chances(usage: Drawn, top_k: Mapping[int, int]) -> Drawn:
    """The rows of ``pair_chances`` for the usage of each draw."""
    import numpy as np

    parts = []
    layers = np.asarray(usage.cells["layer"])
    for layer in np.unique(layers):
        rows = np.flatnonzero(layers == layer)
        rows = rows[np.argsort(usage.cells["expert"][rows])]
        expert = usage.cells["expert"][rows]
        a, b = np.triu_indices(len(expert), 1)
        expected = chances_of_pairs(usage.sums["n_decisions"][rows].T, top_k[int(layer)], a, b)
        cells = {"layer": np.full(len(a), layer), "expert_a": expert[a], "expert_b": expert[b]}
        is_there = usage.times[rows[a]] & usage.times[rows[b]]
        parts.append(Drawn(cells, {"expected": expected.T}, is_there))
    return one_below_the_other(parts)


def _without_cells(counts: ClusterCounts) -> ClusterCounts:
    """The same columns without a row."""
    cells = {name: values[:0] for name, values in counts.cells.items()}
    return ClusterCounts(cells, {name: of[:0] for name, of in counts.added.items()})


def _coded_texts(
    column: "pa.ChunkedArray",
) -> "tuple[NDArray[np.int32], NDArray[np.object_]]":
    """(row,) numbers in the order of the texts, and (number,) the texts: never one for each row."""
    import numpy as np

    encoded = column.combine_chunks().dictionary_encode()
    texts = np.array(encoded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(texts)
    place = np.empty(len(texts), np.int32)
    place[order] = np.arange(len(texts), dtype=np.int32)
    return place[encoded.indices.to_numpy()], texts[order]


def _among(layers: list[int]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(layers, pa.int32())
