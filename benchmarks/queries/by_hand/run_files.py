"""The Parquet files of a run, as one who knows the store's folders finds them by hand."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq


@dataclass(frozen=True)
class Shape:
    """Of a run's model: layers, experts of a layer, experts of a token."""

    layers: int
    experts: int
    top_k: int


@dataclass(frozen=True)
class RunFiles:
    """A run's folder.

    Its layers are numbered from 0, all of one size. A unit's rows of ``routing`` are in the order
    of layer, token and rank, so that one column of it is an array (layer, token, rank); units are
    in the order of their tokens, which are numbered from 0.
    """

    folder: Path

    def of(self, table: str) -> list[Path]:
        """The files of a table, in the order of the units; not those that compacting made."""
        files = sorted((self.folder / "tables" / table).glob("*.parquet"))
        return [path for path in files if not path.name.startswith("compacted-")]

    @property
    def has_units(self) -> bool:
        """Whether units are there: of a run that was compacted they stay for an hour."""
        return bool(self.of("routing"))

    @cached_property
    def shape(self) -> Shape:
        """The shape of the model."""
        rows = pq.read_table(self.of("moe_layers"), columns=["n_experts", "top_k"]).to_pylist()
        return Shape(len(rows), rows[0]["n_experts"], rows[0]["top_k"])
