"""Counted rows in the place of a view, while a named query runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moedb.queries.counting.classes import class_pairs, class_routing, class_sizes
from moedb.queries.counting.confidence import (
    class_router_stats,
    expert_mass,
    selection_router_stats,
)
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.counting.experts import (
    adjacent_pairs,
    expert_pairs,
    expert_usage,
    layer_pairs,
    pair_chances,
    rank_usage,
    usage_of_pairs,
)
from moedb.queries.counting.sharing import shared_decisions
from moedb.queries.counting.tokens import EVERYTHING
from moedb.queries.counting.vocabulary import Leading, vocabulary_routing, vocabulary_usage
from moedb.queries.questions.parameters import RUN_PARAMETERS
from moedb.queries.reading.selection import selected_splits, selects_everything
from moedb.store.engine.quoting import literal, quoted

if TYPE_CHECKING:
    import duckdb

    from moedb.queries.counting.decisions.rows import Rows
    from moedb.queries.questions.parameters import Value
    from moedb.queries.questions.query_file import NamedQuery
    from moedb.queries.reading.memo import Memo
    from moedb.queries.reading.references import SplitSizes
    from moedb.store.engine.views import Views
    from moedb.store.reading.snapshot import RunSnapshot, Snapshot

logger = logging.getLogger(__name__)

_TYPES = {
    "layer": "integer",
    "next_layer": "integer",
    "rank": "integer",
    "expert": "integer",
    "expert_a": "integer",
    "expert_b": "integer",
    "next_expert": "integer",
    "token_id": "integer",
    "value": "varchar",
    "expected": "double",
    "probability": "double",
    "weight": "double",
    "mean_entropy": "double",
    "mean_margin": "double",
    "mean_topk_mass": "double",
    "sd_entropy": "double",
    "mean_logsumexp": "double",
}
"""The SQL types of the columns; the rest are counts and numbers of tokens."""

_PIECE = 122_880
"""Rows that DuckDB reads at once."""

_READ = "selections labels example_values example_routing expert_usage tokens token_labels"
"""The views that counting reads beside the files of one table, which are checked with its view."""

_KEPT_ROWS = 1_000_000
"""Larger counts are not kept for the next query."""


@dataclass(frozen=True)
class Count:
    """What is counted of one run.

    Attributes
    ----------
    view
        The view whose rows are counted.
    run
        The run.
    selection
        The selection.
    of
        The label's key (``class_...``), which token (``vocabulary_routing``,
        ``vocabulary_usage``), or the other run (``shared_decisions``).
    least
        How often a token id must occur to be counted.
    leading
        Which rows of each expert are wanted (``vocabulary_routing``); None for all.
    weighted
        Whether the sums of weights are wanted (``class_routing``); else the column may be missing.
    has_pairs
        Whether all pairs of experts are counted anyway, from which their usage follows
        (``expert_usage``, ``pair_chances``).
    """

    view: str
    run: str
    selection: str
    of: str | None = None
    least: int = 0
    leading: Leading | None = None
    weighted: bool = False
    has_pairs: bool = False

    @property
    def split(self) -> str | None:
        """The parameter ``split`` that reads the selection."""
        return None if self.selection == "default" else self.selection


_COUNTERS: dict[str, Callable[[duckdb.DuckDBPyConnection, Snapshot, Count], Rows]] = {
    "adjacent_pairs": lambda c, snapshot, count: adjacent_pairs(
        c, snapshot.runs[count.run], count.selection
    ),
    "class_pairs": lambda c, snapshot, count: class_pairs(
        c, snapshot.runs[count.run], count.selection, str(count.of)
    ),
    "class_routing": lambda c, snapshot, count: class_routing(
        c, snapshot.runs[count.run], count.selection, str(count.of), count.weighted
    ),
    "class_router_stats": lambda c, snapshot, count: class_router_stats(
        c, snapshot.runs[count.run], count.selection, str(count.of)
    ),
    "expert_mass": lambda c, snapshot, count: expert_mass(
        c, snapshot.runs[count.run], count.selection
    ),
    "expert_pairs": lambda c, snapshot, count: expert_pairs(
        c, snapshot.runs[count.run], count.selection
    ),
    "expert_usage": lambda c, snapshot, count: expert_usage(
        c, snapshot.runs[count.run], count.selection
    ),
    "layer_pairs": lambda c, snapshot, count: layer_pairs(
        c, snapshot.runs[count.run], count.selection
    ),
    "rank_usage": lambda c, snapshot, count: rank_usage(
        c, snapshot.runs[count.run], count.selection
    ),
    "selection_router_stats": lambda c, snapshot, count: selection_router_stats(
        c, snapshot.runs[count.run], count.selection
    ),
    "shared_decisions": lambda c, snapshot, count: shared_decisions(
        c, snapshot.runs[count.run], snapshot.runs[str(count.of)], count.selection
    ),
    "vocabulary_routing": lambda c, snapshot, count: vocabulary_routing(
        c, snapshot.runs[count.run], count.selection, str(count.of), count.least, count.leading
    ),
    "vocabulary_usage": lambda c, snapshot, count: vocabulary_usage(
        c, snapshot.runs[count.run], count.selection, str(count.of), count.least
    ),
}
_DERIVED: dict[str, tuple[str, Callable[[Rows, RunSnapshot], Rows]]] = {
    "class_sizes": ("class_routing", class_sizes),
    "expert_usage": ("expert_pairs", usage_of_pairs),
    "pair_chances": ("expert_usage", pair_chances),
}
"""What can be worked out from the rows that were counted for another view."""

_OF_USAGE = ("expert_usage", "pair_chances")

COUNTED = frozenset({*_COUNTERS, *_DERIVED, "selection_sizes"})
"""The views that counted rows can stand for."""

_TABLES = {
    "class_router_stats": "router_stats",
    "expert_mass": "router_mass",
    "selection_router_stats": "router_stats",
}
"""What is counted where it is not decisions."""

_OF_LABELS = ("class_pairs", "class_router_stats", "class_routing", "class_sizes")
_COLUMN_OF = {
    **dict.fromkeys(_OF_LABELS, "key"),
    "shared_decisions": "run_b",
    "vocabulary_routing": "of",
    "vocabulary_usage": "of",
}


def counts_of(query: NamedQuery, values: Mapping[str, Value]) -> list[Count]:
    """What a named query reads of the counted views.

    Parameters
    ----------
    query
        The query.
    values
        The values of its parameters, runs by their whole names.
    """
    runs = [str(values[name]) for name in RUN_PARAMETERS if values.get(name)]
    selection = str(values.get("split") or "default")
    counts = []
    for view in COUNTED & query.relations:
        if view == "shared_decisions":
            counts.append(Count(view, runs[0], selection, runs[-1]))
        elif view in _OF_LABELS:
            if values.get("key") is not None:  # no label, no class
                key, weighted = str(values["key"]), "class_routing.weight" in query.sql
                counts += [Count(view, run, selection, key, weighted=weighted) for run in runs]
        elif view in ("vocabulary_routing", "vocabulary_usage"):
            of, least = str(values.get("of", "input")), int(values.get("min_count") or 0)
            n, by = values.get("n"), str(values.get("by"))
            leading = (
                Leading(by, int(n)) if n is not None and view == "vocabulary_routing" else None
            )
            counts += [Count(view, run, selection, of, least, leading) for run in runs]
        elif view != "selection_router_stats" or values.get("key") is None:
            counts += [Count(view, run, selection) for run in runs]
    return counts


def _merged(counts: Iterable[Count]) -> Iterator[Count]:
    """One count in the place of several that differ in which rows are wanted."""
    alike: dict[Count, list[Count]] = {}
    for count in counts:
        alike.setdefault(replace(count, least=0, leading=None, weighted=False), []).append(count)
    for whole, several in alike.items():
        least = min(count.least for count in several)
        # the first of all token ids need not be among them the first of the frequent ones
        leading = several[0].leading if len(set(several)) == 1 else None
        weighted = any(count.weighted for count in several)
        yield replace(whole, least=least, leading=leading, weighted=weighted)


class StandIns:
    """Counts decisions, and lets the counts stand for views while a query runs.

    Parameters
    ----------
    connection
        Reads the snapshot.
    views
        Its views; those that counting reads are defined.
    snapshot
        What is read.
    memo
        Keeps counts for the next query.
    splits
        Returns for each run the sizes of its splits.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        views: Views,
        snapshot: Snapshot,
        memo: Memo,
        splits: Callable[[], SplitSizes],
    ) -> None:
        self._connection = connection
        self._views = views
        self._snapshot = snapshot
        self._memo = memo
        self._splits = splits

    @contextmanager
    def standing(self, counts: Iterable[Count]) -> Iterator[None]:
        """Let the rows that are named stand for their views; there are no others meanwhile.

        The usage of experts follows from pairs of them where these are counted.
        """
        by_view: dict[str, list[Count]] = {}
        for count in _merged(counts):
            by_view.setdefault(count.view, []).append(count)
        standing: list[str] = []
        try:
            for view, of_view in by_view.items():
                has_pairs = "expert_pairs" in by_view
                if view in _OF_USAGE:
                    of_view = [replace(count, has_pairs=has_pairs) for count in of_view]
                self._stand(view, of_view, standing)
            yield
        finally:
            for statement in standing:
                self._connection.execute(statement)

    def _stand(self, view: str, counts: Iterable[Count], standing: list[str]) -> None:
        import pyarrow as pa

        branches = []
        for number, count in enumerate(counts):
            try:
                rows = self._rows(count)
            except UnorderedError:
                logger.info("%s: counted by SQL, as run %s is not in order", view, count.run)
                return
            name = f"moedb_{view}_{number}"
            # in pieces, which DuckDB reads side by side
            pieces = pa.table(rows).to_batches(max_chunksize=_PIECE)
            self._connection.register(name, pa.Table.from_batches(pieces, pa.table(rows).schema))
            standing.append(f"drop view if exists temp.{quoted(name)}")
            constants = {"run_id": count.run, "selection": count.selection}
            if view in _COLUMN_OF:
                constants[_COLUMN_OF[view]] = str(count.of)
            chosen = [f"{literal(value)} as {quoted(key)}" for key, value in constants.items()]
            chosen += [
                f"cast({quoted(column)} as {_TYPES.get(column, 'bigint')}) as {quoted(column)}"
                for column in rows
            ]
            branches.append(f"select {', '.join(chosen)} from {quoted(name)}")  # noqa: S608
        body = " union all ".join(branches)
        self._connection.execute(f"create temp view {quoted(view)} as {body}")
        standing.insert(0, f"drop view if exists temp.{quoted(view)}")

    def _rows(self, count: Count) -> Rows:
        def compute() -> Rows:
            if count.view == "selection_sizes":
                return self._selection_size(count)
            if count.view not in _COUNTERS or (count.has_pairs and count.view in _DERIVED):
                view, derive = _DERIVED[count.view]
                has_pairs = count.has_pairs and view in _OF_USAGE
                counted = self._rows(replace(count, view=view, has_pairs=has_pairs))
                return derive(counted, self._snapshot.runs[count.run])
            table = _TABLES.get(count.view, "routing")
            self._views.define(f"{_READ} {table}")
            sizes = self._splits().get(count.run)
            is_all = bool(sizes) and selects_everything(sizes or (), count.split)
            asked = replace(count, selection=EVERYTHING) if is_all else count
            return _COUNTERS[count.view](self._connection, self._snapshot, asked)

        def is_small(rows: Rows) -> bool:
            return len(next(iter(rows.values()))) <= _KEPT_ROWS

        return self._memo.of_runs([self._snapshot.runs[count.run]], count, compute, is_small)

    def _selection_size(self, count: Count) -> Rows:
        """Add up as the view ``selection_sizes`` does."""
        import numpy as np

        sizes = self._splits().get(count.run, {})
        n_tokens = [sizes[split].n_tokens for split in selected_splits(sizes, count.split)]
        return {"n_tokens": np.array([sum(n_tokens)] if n_tokens else [], np.int64)}
