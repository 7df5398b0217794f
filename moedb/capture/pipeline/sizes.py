"""The sizes of a model, known without its weights, and what a capture of it will write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from moedb.capture.pipeline.survey.counting import Survey
from moedb.capture.structure.blocks import MoEBlock
from moedb.schemas import tables
from moedb.schemas.arrays import UNEMBEDDING, array_spec, arrays_of_tokens
from moedb.schemas.manifests import UnitRange
from moedb.store.arrays.stored import ArrayKey, row_shape


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, known without its weights, and the arrays it can give."""

    blocks: tuple[MoEBlock, ...]
    n_layers: int
    d_model: int
    itemsize: int
    arrays: tuple[str, ...]
    n_vocabulary: int = 0
    image_shape: tuple[int, ...] | None = None

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
            "s": block.d_shared if block else 0,
            "d": self.d_model,
            "p": prod(self.image_shape or (0,)),
        }
        return int(np.prod(row_shape(array_spec(key.name), sizes))) * self.itemsize


def array_bytes(
    arrays: Mapping[str, tuple[int, ...]], shape: ModelShape, n_rows: int
) -> dict[str, int]:
    """Bytes of each kind of array over its layers, before compression."""
    return {
        name: array_rows(name, shape, n_rows)
        * sum(shape.row_bytes(ArrayKey(name, layer)) for layer in layers)
        for name, layers in arrays.items()
    }


def array_rows(name: str, shape: ModelShape, n_rows: int) -> int:
    """Rows of an array: ``n_rows`` where they are tokens."""
    return {"T": n_rows, "V": shape.n_vocabulary, "d": shape.d_model}[array_spec(name).first]


@dataclass(frozen=True)
class Estimate:
    """What a capture will write, before compression."""

    n_examples: int
    n_tokens: int
    n_rows: int
    table_rows: dict[str, int]
    table_bytes: dict[str, int]
    array_rows: dict[str, int]
    array_bytes: dict[str, int]

    @property
    def n_bytes(self) -> int:
        """All bytes together."""
        return sum(self.table_bytes.values()) + sum(self.array_bytes.values())

    def bytes_of(self, units: Sequence[UnitRange]) -> int:
        """The bytes of some of the units; with the first what is of no unit."""
        tokens, rows = sum(unit.n_tokens for unit in units), sum(unit.n_rows for unit in units)
        own = sum(self.table_bytes.get(name, 0) for name in _OF_RUN)
        of_tables = (sum(self.table_bytes.values()) - own) * tokens / max(self.n_tokens, 1)
        of_tokens = sum(
            n_bytes for name, n_bytes in self.array_bytes.items() if not array_spec(name).is_of_run
        )
        own += sum(self.array_bytes.values()) - of_tokens
        of_arrays = of_tokens * rows / max(self.n_rows, 1)
        begins = any(unit.first_example == 0 for unit in units)
        return ceil(of_tables + of_arrays + (own if begins else 0))

    def rows(self) -> list[tuple[str, str, int, int]]:
        """One row for each table and each kind of array: kind, name, rows, bytes."""
        found = [
            ("table", name, self.table_rows[name], self.table_bytes[name])
            for name in self.table_rows
        ]
        return found + [
            ("array", name, self.array_rows[name], n_bytes)
            for name, n_bytes in self.array_bytes.items()
        ]


_OF_RUN = (tables.VOCABULARY.name, tables.EXPERT_COSINES.name)
"""The tables that a run has once, whatever its examples."""

_WIDTHS = {"int32": 4, "int64": 8, "float": 4, "double": 8}

_TEXTS = {
    tables.EXAMPLE_LABELS.name: 12,
    tables.TOKEN_LABELS.name: 8,
    tables.PREDICTIONS.name: 16,
    tables.LOGIT_LENS.name: 16,
    tables.VOCABULARY.name: 8,
}
"""Bytes of the texts of a row, about; those of examples and tokens are counted."""


def table_bytes(name: str, n_rows: int) -> int:
    """Bytes of a table's rows, before compression, without the texts of examples and tokens."""
    numbers = sum(_WIDTHS.get(column.type, 0) for column in tables.table(name).columns)
    return n_rows * (numbers + _TEXTS.get(name, 0))


def lens_rows(n_tokens: int, n_layers: int, n_moe_layers: int) -> int:
    """Rows of ``logit_lens`` for as many tokens: two for each point of the stream."""
    return 2 * n_tokens * (1 + n_layers + n_moe_layers)


def estimate(
    found: Survey,
    shape: ModelShape,
    arrays: Mapping[str, tuple[int, ...]],
    n_conditions: int = 1,
    n_lens_tokens: int = 0,
    n_pairs: int = 0,
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
    n_pairs
        Pairs of experts whose weights are compared.
    """
    n_examples, n_tokens, n_layers = found.n_examples, found.n_tokens, len(shape.blocks)
    n_rows = found.n_kept if arrays_of_tokens(arrays) else 0
    rows = {
        tables.EXAMPLES.name: n_examples,
        tables.EXAMPLE_LABELS.name: found.n_labels,
        tables.TOKENS.name: n_tokens,
        tables.TOKEN_LABELS.name: found.n_token_labels,
        tables.ROUTING.name: n_tokens * sum(block.top_k for block in shape.blocks),
        tables.ROUTER_STATS.name: n_tokens * n_layers,
        tables.ROUTER_MASS.name: n_examples * sum(block.n_experts for block in shape.blocks),
        tables.PREDICTIONS.name: n_conditions * found.n_targets,
        tables.LOGIT_LENS.name: lens_rows(n_lens_tokens, shape.n_layers, n_layers),
    }
    if n_pairs:
        rows[tables.EXPERT_COSINES.name] = n_pairs
    if UNEMBEDDING in arrays:
        rows[tables.VOCABULARY.name] = shape.n_vocabulary
    text_bytes = {
        tables.EXAMPLES.name: found.text_bytes,
        tables.TOKENS.name: found.token_bytes,
    }
    n_bytes = {name: table_bytes(name, n) + text_bytes.get(name, 0) for name, n in rows.items()}
    return Estimate(
        n_examples,
        n_tokens,
        n_rows,
        rows,
        n_bytes,
        {name: array_rows(name, shape, n_rows) for name in arrays},
        array_bytes(arrays, shape, n_rows),
    )
