"""How often experts are chosen where each decision takes any expert alike."""

from typing import TYPE_CHECKING

from moedb.queries.analyses.uncertainty.resampling.draws import Drawn, one_below_the_other
from moedb.queries.analyses.uncertainty.resampling.settings import Null
from moedb.queries.counting.decisions.layers import layers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_TOTALS = """
select expert_usage.layer, cast(sum(expert_usage.n_decisions) as bigint) as n_decisions
from expert_usage
where
    expert_usage.run_id = cast($run as varchar)
    and expert_usage.selection = coalesce(cast($split as varchar), 'default')
group by expert_usage.layer
"""


class EvenCounts:
    """The usage of experts as a multinomial of as many decisions as a layer has.

    Parameters
    ----------
    reader
        Reads the store.
    name
        The query.
    values
        The values of its parameters: run and split.
    null
        How often it is drawn.
    """

    views = ("expert_usage",)
    title = "each decision takes any expert of the layer alike"

    def __init__(
        self, reader: "SnapshotReader", name: str, values: "Mapping[str, Value]", null: Null
    ) -> None:
        import numpy as np

        run = reader.snapshot.run(str(values["run"]))
        given = {"run": run.run_id, "split": values.get("split")}
        totals = dict(reader.sql(_TOTALS, given).fetchall())
        self._counts = {}
        for layer in layers_of(run):
            rng = np.random.default_rng([null.seed, layer.layer])
            even = np.full(layer.n_experts, 1 / layer.n_experts)
            n_decisions = totals.get(layer.layer, 0)
            self._counts[layer.layer] = rng.multinomial(n_decisions, even, null.samples)

    def rows(self, view: str, layer: int | None, draws: slice) -> Drawn:
        """Return the rows of a view at a layer."""
        import numpy as np

        parts = []
        for each, counts in self._counts.items():
            if layer in (None, each):
                n = counts[draws].T
                cells = {"layer": np.full(len(n), each), "expert": np.arange(len(n))}
                parts.append(Drawn(cells, {"n_decisions": n}, n > 0))
        return one_below_the_other(parts)

    def n_cells(self, layer: int | None) -> int:
        """How many rows a view may have at a layer."""
        return sum(of.shape[1] for each, of in self._counts.items() if layer in (None, each))
