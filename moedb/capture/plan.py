"""What a capture will write, decided before anything runs: layers, arrays, tokens, units."""

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moedb.capture.blocks import MoEBlock
from moedb.capture.examples import Dataset, Example
from moedb.errors import UsageError, did_you_mean
from moedb.schemas import tables
from moedb.schemas.arrays import ARRAY_NAMES, DEFAULT_ARRAYS, SHARD_ROWS, array_spec
from moedb.schemas.manifests import UnitRange
from moedb.store.arrays import ArrayKey, row_shape

UNIT_TOKENS = 8192
"""Tokens of a unit at most, where its arrays allow: what a kill can cost."""

UNIT_BATCHES = 4
"""Batches that a unit with arrays is made for: its last batch is seldom a whole one."""

UNIT_BYTES = 2**28
"""Bytes of a unit's arrays at most, unless one batch has more: a few units are in memory."""

BUDGET_ORDER = (
    "router_logits",
    "residual_pre",
    "logit_direction",
    "residual_mid",
    "router_input",
    "shared_outputs",
    "expert_outputs",
    "all_expert_outputs",
)
"""Which arrays are kept first where the budget does not hold all."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, known without its weights, and the arrays it can give."""

    blocks: tuple[MoEBlock, ...]
    n_layers: int
    d_model: int
    itemsize: int
    arrays: tuple[str, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The MoE layers."""
        return tuple(block.layer for block in self.blocks)

    def row_bytes(self, key: ArrayKey) -> int:
        """Bytes of one row of an array, before compression."""
        block = next((b for b in self.blocks if b.layer == key.layer), None)
        sizes = {
            "E": block.n_experts if block else 0,
            "k": block.top_k if block else 0,
            "h": block.d_expert if block else 0,
            "d": self.d_model,
        }
        return int(np.prod(row_shape(array_spec(key.name), sizes))) * self.itemsize


@dataclass(frozen=True)
class TokenSelection:
    """Which tokens the arrays keep: all, each example's last, or those with a label."""

    text: str
    key: str | None = None
    value: str | None = None

    @classmethod
    def parse(cls, text: str) -> "TokenSelection":
        """Parse ``all``, ``last`` or ``label:KEY=VALUE``.

        Raises
        ------
        UsageError
            If it is something else.
        """
        if text in ("all", "last"):
            return cls(text)
        match = re.fullmatch(r"label:([^=]+)=(.*)", text)
        if match is None:
            raise UsageError(f"--tokens {text!r}: valid are all, last and label:KEY=VALUE")
        return cls(text, match.group(1), match.group(2))

    def mask(self, example: Example) -> NDArray[np.bool_]:
        """(token,): which of the example's tokens are kept."""
        if self.text == "all":
            return np.ones(len(example), dtype=bool)
        if self.text == "last":
            return np.equal(np.arange(len(example)), len(example) - 1)
        key = self.key or ""
        if key in example.token_labels:
            return np.array([value == self.value for value in example.token_labels[key]])
        return np.full(len(example), example.labels.get(key) == self.value)


@dataclass(frozen=True)
class Survey:
    """What one pass over a dataset's examples finds out: all that a plan has to know of them.

    Attributes
    ----------
    lengths
        (example,): tokens.
    kept
        (example,): tokens that the arrays keep.
    n_labels, n_token_labels
        Labels of the examples, and of their tokens.
    n_targets
        Examples with a right answer.
    text_bytes, token_bytes
        Bytes of the examples' texts, and of the tokens'.
    """

    lengths: NDArray[np.int64]
    kept: NDArray[np.int64]
    n_labels: int
    n_token_labels: int
    n_targets: int
    text_bytes: int
    token_bytes: int

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    @property
    def n_tokens(self) -> int:
        """Tokens over all examples."""
        return int(self.lengths.sum())

    @property
    def n_kept(self) -> int:
        """Tokens that the arrays keep."""
        return int(self.kept.sum())


def survey(dataset: Dataset, selection: TokenSelection) -> Survey:
    """Walk over the examples once and count.

    Parameters
    ----------
    dataset
        The examples.
    selection
        The tokens that the arrays keep.

    Raises
    ------
    UsageError
        If no token has the label that is selected; the message names the keys or values there are.
    """
    # Eight bytes a number, where lists of int objects would take some forty.
    lengths, kept = array("q"), array("q")
    n_labels = n_token_labels = n_targets = text_bytes = token_bytes = 0
    for example in dataset.examples:
        lengths.append(len(example))
        kept.append(int(selection.mask(example).sum()))
        n_labels += len(example.labels)
        for values in example.token_labels.values():
            n_token_labels += len(values) - values.count(None)
        n_targets += example.has_target
        text_bytes += len((example.text or "").encode())
        token_bytes += len("".join(filter(None, example.tokens)).encode())
    found = Survey(
        np.frombuffer(lengths, dtype=np.int64),
        np.frombuffer(kept, dtype=np.int64),
        n_labels,
        n_token_labels,
        n_targets,
        text_bytes,
        token_bytes,
    )
    if selection.key is not None and found.n_kept == 0:
        raise _nothing_selected(dataset, selection)
    return found


def _nothing_selected(dataset: Dataset, selection: TokenSelection) -> UsageError:
    """Say which keys or values there are."""
    key = selection.key or ""
    keys: set[str] = set()
    values: set[str] = set()
    for example in dataset.examples:
        keys.update((*example.labels, *example.token_labels))
        given = (example.labels.get(key), *example.token_labels.get(key, ()))
        values.update(value for value in given if value is not None)
    if key not in keys:
        return UsageError(f"--tokens {selection.text}: no such key; {did_you_mean(key, keys)}")
    known = did_you_mean(str(selection.value), sorted(values)[:20])
    return UsageError(f"--tokens {selection.text}: no such value; {known}")


def parse_layers(text: str, layers: Sequence[int]) -> tuple[int, ...]:
    """Parse a selection of layers such as ``all``, ``3``, ``0,2`` or ``4-7,9``.

    Raises
    ------
    UsageError
        If it is malformed or names a layer without an MoE block.
    """
    if text == "all":
        return tuple(layers)
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise UsageError(f"layers {text!r}: valid are all, 3, 0,2 and 4-7")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        wanted = set(range(first, last + 1))
        unknown = sorted(wanted - set(layers))
        if unknown or not wanted:
            span = f"{layers[0]} to {layers[-1]}" if layers else "none"
            raise UsageError(
                f"layers {text!r}: no MoE block at {unknown or part}; MoE layers are {span}"
            )
        chosen |= wanted
    return tuple(sorted(chosen))


def parse_arrays(
    choices: Sequence[str], layers: Sequence[int], shape: ModelShape
) -> dict[str, tuple[int, ...]]:
    """Resolve ``--arrays`` choices to layers for each array.

    Parameters
    ----------
    choices
        Each ``all``, ``none``, or ``NAME`` or ``NAME@LAYERS``; names may be joined by commas
        where no layers are given.
    layers
        The layers of an array that names none.
    shape
        The model.

    Raises
    ------
    UsageError
        If a name or a layer is unknown.
    """
    kept: dict[str, tuple[int, ...]] = {}
    for choice in choices:
        names, at, layer_text = choice.partition("@")
        for name in names.split(","):
            if name == "none":
                continue
            chosen = parse_layers(layer_text, shape.layers) if at else tuple(layers)
            if name == "all":
                kept |= {each: chosen for each in DEFAULT_ARRAYS if each in shape.arrays}
            elif name in ARRAY_NAMES and name not in shape.arrays:
                raise UsageError(
                    f"--arrays: this model gives no {name}; it gives {', '.join(shape.arrays)}"
                )
            elif name in ARRAY_NAMES:
                kept[name] = chosen
            else:
                valid = did_you_mean(name, (*ARRAY_NAMES, "all", "none"))
                raise UsageError(f"--arrays: no array named {name!r}; {valid}")
    return _with_neighbours(kept, shape)


def _with_neighbours(
    kept: Mapping[str, tuple[int, ...]], shape: ModelShape
) -> dict[str, tuple[int, ...]]:
    """Add the streams that a layer's write is the difference of."""
    arrays = dict(kept)
    if "residual_pre" in arrays:
        wanted = {next_ for layer in arrays["residual_pre"] for next_ in (layer, layer + 1)}
        arrays["residual_pre"] = tuple(sorted(wanted | {shape.n_layers}))
    if "logit_direction" in arrays:
        arrays["logit_direction"] = (shape.n_layers,)
    return {name: layers for name, layers in arrays.items() if layers}


def budgeted_arrays(
    layers: Sequence[int], shape: ModelShape, n_rows: int, budget: int
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Choose the arrays that fit a budget of bytes.

    Returns
    -------
    arrays, left_out
        The arrays kept, and the names of those that would not fit.
    """
    kept: dict[str, tuple[int, ...]] = {}
    left_out = []
    for name in (name for name in BUDGET_ORDER if name in shape.arrays):
        candidate = _with_neighbours({**kept, name: tuple(layers)}, shape)
        if sum(array_bytes(candidate, shape, n_rows).values()) <= budget:
            kept = {**kept, name: tuple(layers)}
        else:
            left_out.append(name)
    return _with_neighbours(kept, shape), left_out


def array_bytes(
    arrays: Mapping[str, tuple[int, ...]], shape: ModelShape, n_rows: int
) -> dict[str, int]:
    """Bytes of each kind of array over its layers, before compression."""
    return {
        name: n_rows * sum(shape.row_bytes(ArrayKey(name, layer)) for layer in layers)
        for name, layers in arrays.items()
    }


def divide(found: Survey, row_bytes: int, batch_size: int) -> tuple[tuple[UnitRange, ...], int]:
    """Divide the examples into units of whole examples, each large enough for a whole batch.

    Parameters
    ----------
    found
        The examples' sizes.
    row_bytes
        Bytes of a token's rows in all arrays; 0 without arrays.
    batch_size
        Examples of a forward pass.

    Returns
    -------
    units, unit_rows
        The units, and the array rows that each owns (whole shards).
    """
    n_batch = min(batch_size, found.n_examples)
    in_batch = -(-n_batch * found.n_kept // found.n_examples)
    needed = max(int(found.kept.max()), in_batch) if row_bytes else 0
    if row_bytes:
        affordable = UNIT_BYTES // row_bytes // SHARD_ROWS * SHARD_ROWS
        wanted = min(UNIT_BATCHES * in_batch, found.n_kept, UNIT_TOKENS)
        needed = max(needed, min(wanted, affordable))
    unit_rows = SHARD_ROWS * max(1, -(-needed // SHARD_ROWS))
    unit_tokens = max(UNIT_TOKENS, -(-n_batch * found.n_tokens // found.n_examples))
    units = []
    first = n_tokens = n_rows = 0
    for index in range(found.n_examples):
        length, kept = int(found.lengths[index]), int(found.kept[index])
        over = n_tokens + length > unit_tokens or (row_bytes > 0 and n_rows + kept > unit_rows)
        if over and index > first:
            units.append(UnitRange(first, index, n_tokens, n_rows))
            first, n_tokens, n_rows = index, 0, 0
        n_tokens += length
        n_rows += kept
    units.append(UnitRange(first, found.n_examples, n_tokens, n_rows))
    return tuple(units), unit_rows


@dataclass(frozen=True)
class Estimate:
    """What a capture will write, before compression."""

    n_examples: int
    n_tokens: int
    n_rows: int
    table_rows: dict[str, int]
    table_bytes: dict[str, int]
    array_bytes: dict[str, int]

    @property
    def n_bytes(self) -> int:
        """All bytes together."""
        return sum(self.table_bytes.values()) + sum(self.array_bytes.values())

    def rows(self) -> list[tuple[str, str, int, int]]:
        """One row for each table and each kind of array: kind, name, rows, bytes."""
        found = [
            ("table", name, self.table_rows[name], self.table_bytes[name])
            for name in self.table_rows
        ]
        return found + [
            ("array", name, self.n_rows, n_bytes) for name, n_bytes in self.array_bytes.items()
        ]


_WIDTHS = {"int32": 4, "int64": 8, "float": 4}


def estimate(
    found: Survey,
    shape: ModelShape,
    arrays: Mapping[str, tuple[int, ...]],
    n_conditions: int = 1,
    n_lens_tokens: int = 0,
) -> Estimate:
    """Work out rows and bytes of every table and array, before compression.

    Parameters
    ----------
    found, shape, arrays
        The examples, the model, and the arrays kept.
    n_conditions
        Conditions that predictions are stored for.
    n_lens_tokens
        Tokens whose residual stream is read through the logit lens.
    """
    n_examples, n_tokens, n_layers = found.n_examples, found.n_tokens, len(shape.blocks)
    n_rows = found.n_kept if arrays else 0
    rows = {
        tables.EXAMPLES.name: n_examples,
        tables.EXAMPLE_LABELS.name: found.n_labels,
        tables.TOKENS.name: n_tokens,
        tables.TOKEN_LABELS.name: found.n_token_labels,
        tables.ROUTING.name: n_tokens * sum(block.top_k for block in shape.blocks),
        tables.ROUTER_STATS.name: n_tokens * n_layers,
        tables.ROUTER_MASS.name: n_examples * sum(block.n_experts for block in shape.blocks),
        tables.PREDICTIONS.name: n_conditions * found.n_targets,
        tables.LOGIT_LENS.name: 2 * n_lens_tokens * (1 + shape.n_layers + n_layers),
    }
    text_bytes = {
        tables.EXAMPLES.name: found.text_bytes,
        tables.TOKENS.name: found.token_bytes,
        tables.EXAMPLE_LABELS.name: 12 * found.n_labels,
        tables.TOKEN_LABELS.name: 8 * found.n_token_labels,
        tables.PREDICTIONS.name: 16 * rows[tables.PREDICTIONS.name],
        tables.LOGIT_LENS.name: 16 * rows[tables.LOGIT_LENS.name],
    }
    n_bytes = {
        name: count * sum(_WIDTHS.get(column.type, 0) for column in tables.table(name).columns)
        + text_bytes.get(name, 0)
        for name, count in rows.items()
    }
    return Estimate(n_examples, n_tokens, n_rows, rows, n_bytes, array_bytes(arrays, shape, n_rows))


def describe_selection(arrays: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The arrays and layers in a form for the run's configuration."""
    return {name: list(layers) for name, layers in sorted(arrays.items())}
