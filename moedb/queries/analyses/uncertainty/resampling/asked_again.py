"""A named query asked again of drawn clusters, for the intervals of what it gave."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from moedb.queries.analyses.uncertainty.resampling.counts.answers.registry import (
    ANSWERS,
    LEFT_OUT_ALONE,
)
from moedb.queries.analyses.uncertainty.resampling.counts.of_examples import OF_EXAMPLES
from moedb.queries.analyses.uncertainty.resampling.counts.of_pairs import OF_PAIRS
from moedb.queries.analyses.uncertainty.resampling.counts.of_run import (
    DERIVED,
    KEYED,
    SELECTIONS,
    OfRun,
)
from moedb.queries.analyses.uncertainty.resampling.draws import drawn_again, left_out
from moedb.queries.analyses.uncertainty.resampling.ends import Ends, Kinds, ends_of
from moedb.queries.analyses.uncertainty.resampling.replicates import (
    STATICS,
    Replicates,
    chunks_of,
    each_layer,
    numbers_of,
    rows_by_layer,
)
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.counting.decisions.files import side_by_side
from moedb.queries.questions.parameters import RUN_PARAMETERS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.resampling.counts.answers.answer import Answer
    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery
    from moedb.queries.reading.reader import SnapshotReader

_LEAVES_OUT = ("min_decisions",)
"""Parameters that leave out rows of which there is little."""


T = TypeVar("T")


def can_be_asked_again(query: "NamedQuery") -> bool:
    """Whether all that a query reads is known cluster by cluster."""
    known = {*STATICS, *OF_EXAMPLES, *OF_PAIRS, *DERIVED, SELECTIONS}
    return bool(query.estimates) and (query.name in ANSWERS or query.relations <= known)


@dataclass(frozen=True)
class Intervals:
    """The ends of the intervals of a query's rows.

    Attributes
    ----------
    low, high
        By the name of an estimate, (row,): NaN where there is no interval.
    title
        How they were found.
    """

    low: "Mapping[str, NDArray[np.float64]]"
    high: "Mapping[str, NDArray[np.float64]]"
    title: str


class AskedAgain:
    """A named query, and the runs that it was asked of, cluster by cluster.

    Parameters
    ----------
    reader
        Reads the store.
    query
        The query; see :func:`can_be_asked_again`.
    values
        The values of its parameters, runs by their whole names.
    given
        The rows that it gave.
    resampling
        How intervals are asked for.
    counted
        The same question about other rows, which has counted already; None to count.

    Attributes
    ----------
    resampling
        How intervals are found.
    sides
        What it reads of each run, by the parameter that names it.
    """

    def __init__(
        self,
        reader: "SnapshotReader",
        query: "NamedQuery",
        values: "Mapping[str, Value]",
        given: "pa.Table",
        resampling: Resampling,
        counted: "AskedAgain | None" = None,
    ) -> None:
        self._query, self._given = query, given
        # a row that is asked about stays, however little a draw has of it
        least = {name: 0 for name in _LEAVES_OUT if name in values}
        self._values = {**values, **least}
        self.resampling = resampling
        if query.name in LEFT_OUT_ALONE:
            self.resampling = replace(resampling, method="jackknife")
        self.sides: dict[str, OfRun] = {}
        # what clusters share with another run is counted with their own
        names = RUN_PARAMETERS[:1] if query.name in ANSWERS else RUN_PARAMETERS
        for name in names if counted is None else ():
            if values.get(name) is not None:
                self.sides[name] = OfRun(reader, query, values, name, resampling)
        if counted is not None:
            self.sides = counted.sides

    def intervals(self) -> Intervals:
        """Find the ends of the intervals of all estimates."""
        import numpy as np

        estimates = self.estimates()
        shape = estimates.shape
        low, high = np.full((2, *shape), np.nan)
        n_samples = self.n_samples
        kinds = self.kinds

        def of_layer(
            places: "NDArray[np.int64]", drawn: "NDArray[np.float64]", behind: "NDArray[np.int64]"
        ) -> "tuple[NDArray[np.int64], Ends]":
            # column by column, as the draws lie in memory
            by_column = drawn.transpose(0, 2, 1).reshape(len(drawn), -1)
            return places, ends_of(
                self.resampling.method,
                estimates[places].T.ravel(),
                by_column[:n_samples],
                by_column[n_samples:],
                kinds.repeated(len(places)),
                np.tile(behind, shape[1]),
            )

        for places, ends in self._of_layers(of_layer):
            low[places] = ends.low.reshape(shape[1], -1).T
            high[places] = ends.high.reshape(shape[1], -1).T
        names = self._query.estimates
        return Intervals(
            {name: low[:, at] for at, name in enumerate(names)},
            {name: high[:, at] for at, name in enumerate(names)},
            self.title,
        )

    def estimates(self) -> "NDArray[np.float64]":
        """(row, estimate): what the query gave."""
        import numpy as np

        columns = [numbers_of(self._given, name) for name in self._query.estimates]
        return np.column_stack(columns).reshape(-1, len(columns))

    @property
    def key(self) -> str | None:
        """The label that tells clusters; None where each example is one of its own."""
        return next(iter(self.sides.values())).key

    @property
    def n_clusters(self) -> int:
        """How many clusters there are, of two runs of other examples together."""
        return sum(side.n_clusters for side in self._apart)

    @property
    def title(self) -> str:
        """How intervals are found, and of what."""
        n_drawn = sum(side.n_drawn for side in self._apart)
        return self.resampling.title(self.key, self.n_clusters, n_drawn)

    @property
    def _apart(self) -> "list[OfRun]":
        sides = list(self.sides.values())
        return sides[:1] if self._are_paired else sides

    @cached_property
    def weights(self) -> "Mapping[str, NDArray[np.float64]]":
        """By the parameter that names a run, (draw, cluster): draws, then all but one group.

        Two runs of the same examples have the same draws.
        """
        import numpy as np

        settings, samples = self.resampling, self.n_samples
        found: dict[str, NDArray[np.float64]] = {}
        without = {name: left_out(side.n_drawn, settings.seed) for name, side in self.sides.items()}
        for stream, (name, side) in enumerate(self.sides.items()):
            if stream and self._are_paired:
                found[name] = next(iter(found.values()))
                continue
            parts = [drawn_again(side.n_drawn, samples, settings.seed, stream)]
            for other, weights in without.items():
                if self._are_paired and other != name:
                    continue
                whole = np.ones((len(weights), side.n_drawn))
                parts.append(weights if other == name else whole)
            found[name] = np.concatenate(parts)
        return found

    @property
    def n_samples(self) -> int:
        """How many of the draws are of clusters drawn again; the rest leave some out."""
        return 0 if self.resampling.method == "jackknife" else self.resampling.samples

    @cached_property
    def kinds(self) -> Kinds:
        """What the estimates are like."""
        import numpy as np

        query = self._query
        below_zero = query.signed | query.negative
        least = [-np.inf if name in below_zero else 0.0 for name in query.estimates]
        most = [
            1.0 if name in query.shares else 0.0 if name in query.negative else np.inf
            for name in query.estimates
        ]
        in_steps, kinked = (
            np.array([name in names for name in query.estimates])
            for names in (query.steps, query.kinks)
        )
        return Kinds(np.array(least), np.array(most), in_steps, kinked)

    @property
    def _are_paired(self) -> bool:
        sides = list(self.sides.values())
        return all(
            side.examples_sha256 == sides[0].examples_sha256 and side.names == sides[0].names
            for side in sides[1:]
        )

    def drawn(
        self,
    ) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]":
        """For some of the rows their places, (draw, row, estimate), and (row,) clusters of each."""
        return self._of_layers(lambda *found: found)

    def _of_layers(
        self,
        then: "Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]], T]",
    ) -> "Iterator[T]":
        """Go through the layers, with what is made of the places, the draws and the clusters."""
        import numpy as np

        query, n_samples = self._query, self.n_samples
        n_estimates = len(query.estimates)
        sizes = () if query.size is None else (query.size,)
        columns = (*query.estimates, *sizes)

        def told(places: "NDArray[np.int64]", drawn: "NDArray[np.float64]") -> "T":
            without = drawn[n_samples:]
            behind = np.full(len(places), len(without))
            if query.size is not None:
                whole = numbers_of(self._given, query.size)[places]
                behind = (without[:, :, n_estimates] != whole).sum(axis=0)
            return then(places, drawn[:, :, :n_estimates], behind)

        def of_layer(layer: int | None, places: "NDArray[np.int64]", threads: int | None) -> "T":
            replicates = Replicates(query, self._values, columns, threads)
            with closing(replicates):
                replicates.ask_about(self._given.take(places))
                drawn = self._at(replicates, layer)
            return told(places, drawn)

        if not self._given.num_rows:
            return iter(())
        if query.name in ANSWERS:
            return self._answered(columns, told)
        # what layers have in common is read before they are worked on side by side
        for side in self.sides.values():
            side.read(query.relations)
        self.weights  # noqa: B018
        return each_layer(self._given, query, of_layer)

    def _answered(
        self,
        columns: "Sequence[str]",
        told: "Callable[[NDArray[np.int64], NDArray[np.float64]], T]",
    ) -> "Iterator[T]":
        from threadpoolctl import threadpool_limits

        ((name, side),) = self.sides.items()
        answers = ANSWERS[self._query.name](side, self._values)
        weights = self.weights[name]

        def of_layer(answer: "Answer", places: "NDArray[np.int64]") -> "T":
            import numpy as np

            found = np.empty((len(columns), len(places), len(weights)))
            for chunk in chunks_of(len(weights), answer.n_cells):
                of_chunk = answer.ask(weights[chunk])
                for of_column, name in zip(found, columns, strict=True):
                    of_column[:, chunk] = of_chunk[name].T
            return told(places, found.transpose(2, 1, 0))

        # the store is read by one thread, and layers side by side keep all cores busy
        with threadpool_limits(1, "blas"):
            yield from side_by_side(
                partial(of_layer, answers(self._given.take(places), layer), places)
                for layer, places in rows_by_layer(self._given, self._query)
                if layer is not None and len(places)
            )

    def _at(self, replicates: Replicates, layer: int | None) -> "NDArray[np.float64]":
        import numpy as np

        n_static = 0
        for view in self._query.relations & set(STATICS):
            rows = {name: side.static(view, layer) for name, side in self.sides.items()}
            replicates.let_stand(view, rows)
            n_static = max(n_static, *(len(of) for of in rows.values()))
        counted = sorted(self._query.relations - set(STATICS))
        n_cells = max(
            (side.n_cells(view, layer) for side in self.sides.values() for view in counted),
            default=1,
        )
        n_draws = len(next(iter(self.weights.values())))
        found = []
        for chunk in chunks_of(n_draws, max(n_cells, n_static, replicates.n_rows)):
            for view in counted:
                rows_of = {
                    name: side.drawn(view, layer, self.weights[name][chunk])
                    for name, side in self.sides.items()
                }
                replicates.let_draws_stand(view, rows_of, self._constants(view))
            found.append(replicates.run(chunk.stop - chunk.start))
        return np.concatenate(found)

    def _constants(self, view: str) -> "dict[str, str]":
        found = {"selection": str(self._values.get("split") or "default")}
        if view in KEYED:
            found["key"] = str(self._values.get("key") or "")
        return found
