"""A named query asked of what chance gives: of shuffled labels, or of experts chosen alike."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.uncertainty.resampling.null.chances import Chances, chances_of
from moedb.queries.analyses.uncertainty.resampling.null.even_counts import EvenCounts
from moedb.queries.analyses.uncertainty.resampling.null.halved_counts import (
    HALVES,
    HalvedCounts,
    is_one_class,
)
from moedb.queries.analyses.uncertainty.resampling.null.shuffled_counts import ShuffledCounts
from moedb.queries.analyses.uncertainty.resampling.null.shuffled_labels import ShuffledLabels
from moedb.queries.analyses.uncertainty.resampling.null.shuffled_statistics import (
    ShuffledStatistics,
)
from moedb.queries.analyses.uncertainty.resampling.replicates import (
    STATICS,
    Replicates,
    chunks_of,
    each_layer,
    numbers_of,
)
from moedb.queries.analyses.uncertainty.resampling.settings import Null

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery
    from moedb.queries.reading.reader import SnapshotReader

_FIXED = """
select * exclude (run_id)
from {view}
where {view}.run_id = cast($run as varchar)
    and {view}.selection = coalesce(cast($split as varchar), 'default')
"""
"""What chance leaves as it is."""


Counts = EvenCounts | HalvedCounts | ShuffledCounts | ShuffledLabels | ShuffledStatistics
_SHUFFLED: Mapping[str, type[ShuffledLabels | ShuffledStatistics]] = MappingProxyType(
    {"ioi-logit-diff": ShuffledLabels, "router-confidence": ShuffledStatistics}
)
"""What is shuffled for queries that read no decisions of classes."""


class AskedOfChance:
    """A named query, and what chance gives in the place of what it reads.

    Parameters
    ----------
    reader
        Reads the store.
    query
        The query.
    values
        The values of its parameters, runs by their whole names.
    given
        The rows that it gave.
    null
        How what chance gives is asked for.

    Raises
    ------
    UsageError
        If there is no label to shuffle, or the query compares two runs.
    """

    def __init__(
        self,
        reader: "SnapshotReader",
        query: "NamedQuery",
        values: "Mapping[str, Value]",
        given: "pa.Table",
        null: Null,
    ) -> None:
        self._reader, self._query, self._values, self._given = reader, query, values, given
        self._null = null
        self.columns: Sequence[str] = query.shuffled or query.even
        if values.get("run_b") is not None:
            raise UsageError(
                f"{query.name}: labels are shuffled within one run, and there are two",
                f"moedb query {query.name} --null -p key KEY -p value_a A -p value_b B",
            )
        self._is_halved = query.name == "overlap" and is_one_class(values)
        if self._is_halved:
            self._counts: Counts = HalvedCounts(reader, query, values, null)
            self._values = {**values, **HALVES}
            return
        if query.shuffled and values.get("key") is None:
            raise UsageError(
                f"{query.name}: there is no label to shuffle without its key",
                f"moedb query {query.name} --null -p key KEY",
            )
        make = EvenCounts if query.even else _SHUFFLED.get(query.name, ShuffledCounts)
        self._counts = make(reader, query.name, values, null)

    @property
    def title(self) -> str:
        """What chance is."""
        return self._null.title(self._counts.title)

    def chances(self) -> "dict[str, Chances]":
        """Find for each column how its rows stand among what chance gives."""
        import numpy as np

        shape = self._given.num_rows, len(self.columns)
        estimates = np.column_stack([numbers_of(self._given, name) for name in self.columns])
        found = np.full((len(Chances._fields), *shape), np.nan)
        fixed = self._fixed()

        def of_layer(
            layer: int | None, places: "NDArray[np.int64]", threads: int | None
        ) -> "tuple[NDArray[np.int64], Chances]":
            replicates = Replicates(self._query, self._values, self.columns, threads)
            with closing(replicates):
                replicates.ask_about(self._given.take(places))
                for relation, rows in fixed.items():
                    replicates.let_stand(relation, {"run": at_layer(rows, layer)})
                drawn = self._at(replicates, layer)
            n_estimates = len(places) * len(self.columns)
            of_draws = drawn.reshape(len(drawn), n_estimates)
            return places, chances_of(estimates[places].ravel(), of_draws)

        for places, chances in each_layer(self._given, self._query, of_layer):
            found[:, places] = np.reshape(chances, (len(chances), -1, len(self.columns)))
        if self._is_halved:  # that a class is like itself is no finding
            found[Chances._fields.index("p_value")] = np.nan
        return {name: Chances(*found[:, :, at]) for at, name in enumerate(self.columns)}

    def _fixed(self) -> "dict[str, pa.Table]":
        """What chance leaves as it is, by its relation."""
        given = {"run": self._values["run"], "split": self._values.get("split")}
        found = {}
        for relation in self._query.relations - set(self._counts.views):
            statement = STATICS.get(relation) or _FIXED.format(view=relation)
            asked = {"run": given["run"]} if relation in STATICS else given
            found[relation] = self._reader.sql(statement, asked).arrow()
        return found

    def _at(self, replicates: Replicates, layer: int | None) -> "NDArray[np.float64]":
        import numpy as np

        views = self._query.relations & set(self._counts.views)
        constants = {"key": str(self._values["key"])} if self._query.shuffled else {}
        if "example_labels" not in views:
            constants["selection"] = str(self._values.get("split") or "default")
        found = []
        for chunk in chunks_of(self._null.samples, self._counts.n_cells(layer)):
            for view in sorted(views):
                rows_of = {"run": self._counts.rows(view, layer, chunk)}
                replicates.let_draws_stand(view, rows_of, constants)
            found.append(replicates.run(chunk.stop - chunk.start))
        return np.concatenate(found)


def at_layer(rows: "pa.Table", layer: int | None) -> "pa.Table":
    """Return those of the rows that are of a layer; all where they are of none."""
    import pyarrow.compute as pc

    if layer is None or "layer" not in rows.column_names:
        return rows
    return rows.filter(pc.equal(rows["layer"], layer))
