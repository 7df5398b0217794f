"""How sure of its choice the router is, by the classes of shuffled labels."""

from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.counts.of_examples import (
    OF_EXAMPLES,
    means_of_sums,
)
from moedb.queries.analyses.uncertainty.resampling.draws import Drawn
from moedb.queries.analyses.uncertainty.resampling.settings import Null
from moedb.queries.analyses.uncertainty.shuffled_labels import labelled_units
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_VIEW = "class_router_stats"
_SUMS = OF_EXAMPLES[_VIEW].sums
_OF_TOKENS = f"""
select
    router_stats.token_idx,
    router_stats.layer,
    1 as n_tokens,
    cast(router_stats.entropy as double) as entropy,
    power(cast(router_stats.entropy as double), 2) as squares,
    cast(router_stats.margin as double) as margin,
    cast(router_stats.topk_mass as double) as topk_mass,
    cast(router_stats.logsumexp as double) as logsumexp
from router_stats
where
    router_stats.run_id = cast($run as varchar)
    and router_stats.layer = cast($layer as integer)
    and router_stats.token_idx in (
        select labels.token_idx
        from labels
        where
            labels.run_id = cast($run as varchar)
            and labels.key = cast($key as varchar)
            and labels.example_id in {SELECTED_EXAMPLES}
    )
"""  # noqa: S608


class ShuffledStatistics:
    """The view of classes' router statistics where labels are shuffled.

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
    """

    views = (_VIEW,)

    def __init__(
        self, reader: "SnapshotReader", name: str, values: "Mapping[str, Value]", null: Null
    ) -> None:
        self._reader, self._null = reader, null
        self._selection = {each: values.get(each) for each in ("run", "split", "key")}
        self._labelled = labelled_units(reader, self._selection, name, null.cluster)
        self._lock = Lock()
        self._of_layer: dict[int | None, NDArray[np.float64]] = {}

    @property
    def title(self) -> str:
        """What is shuffled."""
        return f"labels shuffled over {self._labelled.permuted_over}"

    def rows(self, view: str, layer: int | None, draws: slice) -> Drawn:
        """Return the rows of a view at a layer."""
        import numpy as np

        with self._lock:  # several layers are asked about side by side
            if layer not in self._of_layer:
                self._of_layer[layer] = self._shuffled(layer)
            sums = self._of_layer[layer][draws].T
        values = self._labelled.values
        cells = {"value": values, "layer": np.full(len(values), layer)}
        of_sums = {name: sums[at] for at, name in enumerate(_SUMS)}
        return Drawn(cells, means_of_sums(of_sums), sums[0] > 0)

    def n_cells(self, layer: int | None) -> int:
        """How many rows a view may have at a layer."""
        return len(self._labelled.values)

    def _shuffled(self, layer: int | None) -> "NDArray[np.float64]":
        """(shuffling, value, sum): the same shufflings at every layer."""
        import numpy as np

        labelled = self._labelled
        own = self._sums(layer)
        n_sets = int(labelled.members.max()) + 1
        found = np.zeros((self._null.samples, len(labelled.values), len(_SUMS)))
        rng = np.random.default_rng(self._null.seed)
        for at in each_part(range(self._null.samples), "shufflings"):
            sets = labelled.permuted(rng)
            of_sets = np.stack([np.bincount(sets, of, n_sets) for of in own.T], axis=1)
            found[at] = np.add.reduceat(of_sets[labelled.members], labelled.starts, axis=0)
        return found

    @cached_property
    def _of_examples(self) -> "pa.Table":
        given = {name: self._selection[name] for name in ("run", "split")}
        return self._reader.sql(OF_EXAMPLES["selection_router_stats"].sql, given).arrow()

    def _sums(self, layer: int | None) -> "NDArray[np.float64]":
        """(unit, sum): the statistics of each unit's tokens, added up."""
        import numpy as np

        if self._labelled.on_tokens:
            rows = self._reader.sql(_OF_TOKENS, {**self._selection, "layer": layer}).arrow()
            units = rows["token_idx"].to_numpy()
        else:
            rows = self._of_examples
            rows = rows.filter(np.asarray(rows["layer"]) == layer)
            units = rows["example_id"].to_numpy()
        places = np.searchsorted(self._labelled.units, units)
        places = np.minimum(places, len(self._labelled.units) - 1)
        is_labelled = self._labelled.units[places] == units
        found = np.zeros((len(self._labelled.units), len(_SUMS)))
        values = np.column_stack([rows[name].to_numpy() for name in _SUMS])
        found[places[is_labelled]] = values[is_labelled]
        return found
