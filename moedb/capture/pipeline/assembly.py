"""A unit's rows: the records of its batches put together, in the order of the examples."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moedb.capture.examples import Example
from moedb.capture.tracing.batch_records import BatchRecords
from moedb.schemas import tables
from moedb.store.arrays.stored import Activations, ArrayKey
from moedb.store.writing.tables.parquet import Columns


class GatheredRows:
    """Rows that lie in the arrays of several batches, in an order of their own.

    They are the largest thing that a capture holds, so they are never put together as a whole.

    Parameters
    ----------
    parts
        The batches' rows.
    order
        ``order[i]`` is where row i is when the parts are laid end to end.
    memory
        Holds the rows that were handed out last, and is written over by the next. Arrays that are
        written in turn can share it.
    """

    def __init__(
        self,
        parts: Sequence[Activations],
        order: NDArray[np.int64],
        memory: "ReusedMemory | None" = None,
    ) -> None:
        self._parts, self._order = parts, order
        self._memory = memory or ReusedMemory()
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: slice) -> Activations:
        wanted = self._order[rows]
        owners = np.searchsorted(self._ends, wanted, side="right")
        block = self._memory.array((len(wanted), *self._parts[0].shape[1:]), self._parts[0].dtype)
        # an example's rows stand together in its batch: they are copied at once, and only once
        apart = (np.diff(wanted) != 1) | (np.diff(owners) != 0)
        starts = [0, *(np.flatnonzero(apart) + 1).tolist()] if len(wanted) else []
        for begin, end in pairwise([*starts, len(wanted)]):
            part, last = self._parts[owners[begin]], self._ends[owners[begin]]
            first = int(wanted[begin]) - int(last - len(part))
            block[begin:end] = part[first : first + end - begin]
        return block


class ReusedMemory:
    """Memory that one array after another is put into: new pages take longer than to fill them."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array whose content is not defined, in the place of the one before."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if len(self._bytes) < n_bytes:
            self._bytes = np.empty(n_bytes, np.uint8)
        return self._bytes[:n_bytes].view(dtype).reshape(shape)


@dataclass(frozen=True)
class UnitRows:
    """A unit, ready to be committed."""

    unit: int
    tables: dict[str, Columns]
    arrays: dict[ArrayKey, GatheredRows]


def assemble_unit(
    unit: int,
    examples: Sequence[Example],
    batches: Sequence[BatchRecords],
    masks: Sequence[NDArray[np.bool_]],
    *,
    first_example: int,
    first_token: int,
    first_row: int,
) -> UnitRows:
    """Put the batches of a unit together, in the order of its examples.

    Parameters
    ----------
    unit
        The unit's number.
    examples
        Its examples.
    batches
        Their records, batches and examples within them in any order.
    masks
        For each example (token,): which tokens the arrays keep.
    first_example, first_token, first_row
        Numbers of the unit's first example, token and array row within the run.
    """
    # order[i] is where the unit's i-th token stands when the batches are laid end to end.
    order = _order([len(example) for example in examples], [b.examples for b in batches])
    kept_order = _order([int(mask.sum()) for mask in masks], [b.examples for b in batches])
    token_idx = first_token + np.arange(len(order))
    kept = np.concatenate(masks)
    # Where a row is kept, the rows before it are counted; elsewhere there is none.
    array_rows = [
        int(row) if keep else None
        for row, keep in zip(first_row + kept.cumsum() - 1, kept, strict=True)
    ]
    has_arrays = any(batch.arrays for batch in batches)
    columns: dict[str, Columns] = {
        **example_tables(examples, first_example),
        tables.TOKENS.name: {
            "token_idx": token_idx,
            "example_id": _per_token(examples, first_example),
            "position": np.concatenate([np.arange(len(example)) for example in examples]),
            "token_id": [token_id for example in examples for token_id in example.token_ids],
            "token": [token for example in examples for token in example.tokens],
            "next_logprob": _nullable(np.concatenate([b.next_logprobs for b in batches])[order]),
            "array_row": array_rows if has_arrays else [None] * len(order),
        },
        tables.TOKEN_LABELS.name: _token_labels(examples, first_token),
        **_routing_tables(batches, order, token_idx),
        tables.ROUTER_MASS.name: _mass_table(
            batches, [len(example) for example in examples], first_example
        ),
        tables.PREDICTIONS.name: _prediction_table(batches, first_example),
        tables.LOGIT_LENS.name: _lens_table(batches, first_example),
    }
    memory = ReusedMemory()
    arrays = {
        key: GatheredRows([batch.arrays[key] for batch in batches], kept_order, memory)
        for key in (batches[0].arrays if batches else {})
    }
    filled = {name: values for name, values in columns.items() if len(next(iter(values.values())))}
    return UnitRows(unit, filled, arrays)


def _order(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    laid = [example for batch in batches for example in batch]
    starts = dict(zip(laid, np.cumsum([0, *(lengths[e] for e in laid)])[:-1], strict=True))
    parts = [starts[example] + np.arange(length) for example, length in enumerate(lengths)]
    return np.concatenate(parts).astype(np.int64)


def _per_token(examples: Sequence[Example], first_example: int) -> NDArray[np.int64]:
    ids = first_example + np.arange(len(examples))
    return np.repeat(ids, [len(example) for example in examples])


def _nullable(values: NDArray[Any]) -> NDArray[Any]:
    return np.ma.masked_invalid(values)


def example_tables(examples: Sequence[Example], first_example: int) -> dict[str, Columns]:
    """The rows of ``examples`` and ``example_labels``; ids count from ``first_example``."""
    labels = [
        (first_example + index, key, value)
        for index, example in enumerate(examples)
        for key, value in example.labels.items()
    ]
    return {
        tables.EXAMPLES.name: {
            "example_id": first_example + np.arange(len(examples)),
            "split": [example.split for example in examples],
            "text": [example.text for example in examples],
            "n_tokens": [len(example) for example in examples],
        },
        tables.EXAMPLE_LABELS.name: {
            "example_id": [example_id for example_id, _, _ in labels],
            "key": [key for _, key, _ in labels],
            "value": [value for _, _, value in labels],
        },
    }


def _token_labels(examples: Sequence[Example], first_token: int) -> Columns:
    rows = []
    start = first_token
    for example in examples:
        for key, values in example.token_labels.items():
            for position, value in enumerate(values):
                if value is not None:
                    rows.append((start + position, key, value))
        start += len(example)
    return {
        "token_idx": [token for token, _, _ in rows],
        "key": [key for _, key, _ in rows],
        "value": [value for _, _, value in rows],
    }


def _routing_tables(
    batches: Sequence[BatchRecords], order: NDArray[np.int64], token_idx: NDArray[np.int64]
) -> dict[str, Columns]:
    routing: dict[str, list[Any]] = {name: [] for name in tables.ROUTING.column_names[1:]}
    stats: dict[str, list[Any]] = {name: [] for name in tables.ROUTER_STATS.column_names[1:]}
    for layer in sorted(batches[0].layers):
        records = [batch.layers[layer] for batch in batches]
        experts = np.concatenate([record.experts for record in records])[order]
        n_tokens, top_k = experts.shape
        routing["token_idx"].append(np.repeat(token_idx, top_k))
        routing["layer"].append(np.full(n_tokens * top_k, layer))
        routing["rank"].append(np.tile(np.arange(top_k), n_tokens))
        routing["expert"].append(experts.reshape(-1))
        for name, values in (
            ("weight", [record.weights for record in records]),
            ("output_norm", [record.output_norms for record in records]),
        ):
            routing[name].append(np.concatenate(values)[order].reshape(-1))
        stats["token_idx"].append(token_idx)
        stats["layer"].append(np.full(n_tokens, layer))
        for name in tables.ROUTER_STATS.column_names[3:]:
            if name in records[0].stats:
                stats[name].append(np.concatenate([r.stats[name] for r in records])[order])
            else:
                stats[name].append(np.full(n_tokens, np.nan))
    joined = {name: np.concatenate(parts) for name, parts in stats.items()}
    router_stats: dict[str, Any] = {**joined, "shared_gate": _nullable(joined["shared_gate"])}
    return {
        tables.ROUTING.name: {name: np.concatenate(parts) for name, parts in routing.items()},
        tables.ROUTER_STATS.name: router_stats,
    }


def _mass_table(
    batches: Sequence[BatchRecords], lengths: Sequence[int], first_example: int
) -> Columns:
    """The router's probability, and what it decided, over the tokens of each example."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in tables.ROUTER_MASS.column_names[1:]
    }
    for batch in batches:
        owners = np.repeat(np.arange(len(batch.examples)), [lengths[i] for i in batch.examples])
        for layer, record in batch.layers.items():
            n_examples, n_experts = record.mass.shape
            n_cells = n_examples * n_experts
            cells = (owners[:, None] * n_experts + record.experts).reshape(-1)
            weights = record.weights.reshape(-1).astype(np.float64)
            parts["example_id"].append(
                np.repeat(first_example + np.array(batch.examples), n_experts)
            )
            parts["layer"].append(np.full(n_cells, layer))
            parts["expert"].append(np.tile(np.arange(n_experts), n_examples))
            parts["probability"].append(record.mass.reshape(-1))
            parts["n_decisions"].append(np.bincount(cells, minlength=n_cells))
            parts["weight"].append(np.bincount(cells, weights, minlength=n_cells))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _prediction_table(batches: Sequence[BatchRecords], first_example: int) -> Columns:
    rows = [
        {"example_id": first_example + index, **prediction}
        for batch in batches
        for index, predictions in zip(batch.examples, batch.predictions, strict=True)
        for prediction in predictions
    ]
    names = tables.PREDICTIONS.column_names[1:]
    return {name: [row[name] for row in rows] for name in names}


def _lens_table(batches: Sequence[BatchRecords], first_example: int) -> Columns:
    return lens_table(
        batch.lens.columns(first_example + np.array(batch.examples), 0)
        for batch in batches
        if batch.lens is not None
    )


def lens_table(parts: Iterable[Mapping[str, NDArray[Any]]]) -> Columns:
    """The rows of ``logit_lens``, put together."""
    found = list(parts)
    names = tables.LOGIT_LENS.column_names[1:]
    return {name: np.concatenate([p[name] for p in found]) if found else [] for name in names}
