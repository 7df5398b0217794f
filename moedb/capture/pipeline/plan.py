"""A capture with every choice made: what the user chose, resolved against model and dataset."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import comb
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from moedb.capture.conditions import UNTOUCHED, Condition
from moedb.capture.examples import Dataset, Example
from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.placement import check_placement
from moedb.capture.pipeline.array_selection import (
    budgeted_arrays,
    describe_selection,
    parse_arrays,
    parse_layers,
)
from moedb.capture.pipeline.sizes import Estimate, ModelShape, array_bytes, estimate
from moedb.capture.pipeline.survey.counting import survey
from moedb.capture.pipeline.survey.tokens import TokenSelection
from moedb.capture.pipeline.units import UNIT_TOKENS, divide
from moedb.capture.structure.wiring import BlockWiring
from moedb.capture.tracing.batch_records import BatchRecords
from moedb.errors import UsageError
from moedb.schemas.arrays import arrays_of_tokens
from moedb.schemas.manifests import ModelEnd, UnitRange
from moedb.schemas.run_names import RunName, check_name, check_note
from moedb.store.arrays.stored import ArrayKey, Rows
from moedb.store.files import sha256_of_json
from moedb.store.writing.tables.parquet import Columns

DEFAULT_BUDGET = 4 << 30
"""Bytes of arrays, before compression, that a capture keeps when not told which to keep."""


Similarity = Literal["weights", "neurons"]


@dataclass(frozen=True)
class CaptureOptions:
    """What a user can choose about a capture, whatever the job.

    Attributes
    ----------
    model
        The embedded model's name, a hub id, or a folder.
    layers
        Layers whose arrays are kept; the tables hold every MoE layer.
    arrays
        Arrays to keep, as ``NAME`` or ``NAME@LAYERS``; empty for what fits the budget.
    tokens
        Tokens the arrays keep: ``all``, ``last``, ``label:KEY`` or ``label:KEY=VALUE``.
    per_value
        Of the tokens with that label the most of each value, drawn by ``seed``, and from the same
        examples as many with none of the values; None for all with the label.
    seed
        Seed of that draw.
    batch_size
        Examples of a forward pass.
    dtype, device
        None for what suits the checkpoint and the machine.
    budget
        Bytes of arrays to keep where ``arrays`` is empty.
    max_bytes
        Bytes of weights to hold in memory at most; None for what the machine has free.
    device_map
        How transformers spreads the layers over several devices; None for one device.
    expert_similarity
        What of every two experts of a layer is compared, once: their ``weights``, or their
        ``neurons`` one by one too; None for nothing.
    name, note
        What the run is called, and what it is, in the user's words; they change nothing of it.
    """

    model: str
    layers: str = "all"
    arrays: tuple[str, ...] = ()
    tokens: str = "all"
    per_value: int | None = None
    seed: int = 0
    batch_size: int = 16
    dtype: str | None = None
    device: str | None = None
    budget: int = DEFAULT_BUDGET
    max_bytes: int | None = None
    device_map: str | None = None
    expert_similarity: Similarity | None = None
    name: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_note(self.note)
        check_placement(self.device, self.max_bytes, self.device_map)
        if self.expert_similarity not in (None, *get_args(Similarity)):
            raise UsageError(
                f"--expert-similarity {self.expert_similarity}: expected weights or neurons"
            )
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: expected 1 or more")


@dataclass(frozen=True)
class Batch:
    """Examples that go through the model together.

    Attributes
    ----------
    examples
        The examples.
    indices
        Their places in their unit.
    example_ids
        Their numbers in the run.
    kept
        (token,): which of their tokens the arrays keep.
    arrays
        For each array name the layers it is kept for.
    """

    examples: tuple[Example, ...]
    indices: tuple[int, ...]
    example_ids: tuple[int, ...]
    kept: NDArray[np.bool_]
    arrays: Mapping[str, tuple[int, ...]]


class KeptOfModel(Protocol):
    """What a run keeps of a model as a whole, to read outputs as tokens."""

    @property
    def about(self) -> ModelEnd:
        """What the run's configuration says of it."""

    @property
    def arrays(self) -> Mapping[ArrayKey, Rows]:
        """The arrays whose rows are no tokens of the run's texts."""

    @property
    def tables(self) -> Mapping[str, Columns]:
        """The rows that name theirs."""


class CapturedModel(Protocol):
    """A model that is ready to be captured."""

    @property
    def kept(self) -> KeptOfModel | None:
        """What the run keeps of it as a whole; None where it keeps nothing."""

    @property
    def blocks(self) -> tuple[BlockWiring, ...]:
        """Its MoE blocks."""

    def expert_similarity(self, *, neurons: bool) -> Mapping[str, Columns]:
        """The table ``expert_cosines``, computed from its weights now."""

    def record(self, batch: Batch) -> BatchRecords:
        """Run a batch, check it, and reduce it to what is stored."""


@dataclass(frozen=True)
class CapturePlan:
    """A capture with every choice made, before anything is written."""

    options: CaptureOptions
    checkpoint: Checkpoint
    dataset: Dataset
    shape: ModelShape
    selection: TokenSelection
    arrays: dict[str, tuple[int, ...]]
    units: tuple[UnitRange, ...]
    unit_rows: int
    dtype: str
    device: str
    estimate: Estimate
    open_model: Callable[[Mapping[str, tuple[int, ...]]], AbstractContextManager[CapturedModel]]
    conditions: tuple[Condition, ...]
    run_labels: Mapping[str, str]
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def named(self) -> RunName:
        """What the run is called."""
        return RunName(self.options.name, self.options.note)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; what it leaves out does not change a result."""
        compared = self.options.expert_similarity
        return {
            "job": self.dataset.job,
            "model_sha256": self.checkpoint.sha256,
            "dataset": dict(self.dataset.config),
            "dataset_sha256": self.dataset.sha256,
            "arrays": describe_selection(self.arrays),
            "tokens": self.options.tokens,
            **self._sample,
            "batch_size": self.options.batch_size,
            "dtype": self.dtype,
            "device": self.device.partition(":")[0],
            "unit_rows": self.unit_rows,
            "unit_tokens": UNIT_TOKENS,
            **({"expert_similarity": compared} if compared else {}),
            **self.settings,
        }

    @property
    def _sample(self) -> dict[str, int]:
        """What the draw of tokens depends on; nothing where none is drawn."""
        per_value = self.options.per_value
        return (
            {} if per_value is None else {"per_value": per_value, "tokens_seed": self.options.seed}
        )

    def bytes_of(self, units: Sequence[int]) -> int:
        """Bytes that these units take, before compression."""
        return self.estimate.bytes_of([self.units[unit] for unit in units])

    @property
    def run_id(self) -> str:
        """The job and a hash of the configuration."""
        return f"{self.dataset.job}-{sha256_of_json(self.config)[:10]}"


def complete_plan(
    options: CaptureOptions,
    checkpoint: Checkpoint,
    dataset: Dataset,
    shape: ModelShape,
    *,
    dtype: str,
    device: str,
    open_model: Callable[[Mapping[str, tuple[int, ...]]], AbstractContextManager[CapturedModel]],
    conditions: Sequence[Condition] = (UNTOUCHED,),
    run_labels: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    n_lens_tokens: int = 0,
) -> CapturePlan:
    """Make the choices that are left once model and dataset are known: tokens, arrays, units.

    Parameters
    ----------
    options
        What the user chose.
    checkpoint, dataset, shape
        The model and the examples.
    dtype, device
        What the model runs in and on.
    open_model
        Given the arrays that are kept, makes the model ready; its context ends with the capture.
    conditions
        What predictions are stored for; the first is the untouched model.
    run_labels
        Labels of the run.
    settings
        What else changes a result, for the run's configuration.
    n_lens_tokens
        Tokens whose residual stream is read through the logit lens.

    Raises
    ------
    UsageError
        If an option does not fit the model or the dataset.
    """
    n_pairs = sum(comb(block.n_experts, 2) for block in shape.blocks)
    if options.expert_similarity and not n_pairs:
        raise UsageError(
            f"--expert-similarity {options.expert_similarity}: no layer of this model has two "
            "experts to compare",
            "leave --expert-similarity out",
        )
    selection = TokenSelection.parse(options.tokens, options.per_value)
    selection = selection.draw(dataset.examples, options.seed)
    found = survey(dataset, selection)
    layers = parse_layers(options.layers, shape.layers)
    notes = [*dataset.notes]
    if options.arrays:
        arrays = parse_arrays(options.arrays, layers, shape)
    else:
        arrays, left_out = budgeted_arrays(layers, shape, found.n_kept, options.budget)
        if left_out:
            notes.append(
                f"arrays kept within {options.budget / 1e9:.1f} GB: {', '.join(arrays) or 'none'}; "
                f"left out: {', '.join(left_out)}; --budget, --arrays, --layers, --tokens choose"
            )
    row_bytes = sum(array_bytes(arrays_of_tokens(arrays), shape, 1).values())
    units, unit_rows = divide(found, row_bytes, options.batch_size)
    return CapturePlan(
        options=options,
        checkpoint=checkpoint,
        dataset=dataset,
        shape=shape,
        selection=selection,
        arrays=arrays,
        units=units,
        unit_rows=unit_rows,
        dtype=dtype,
        device=device,
        estimate=estimate(
            found,
            shape,
            arrays,
            len(conditions),
            n_lens_tokens,
            n_pairs if options.expert_similarity else 0,
        ),
        open_model=open_model,
        conditions=tuple(conditions),
        run_labels=dict(run_labels or {}),
        settings=dict(settings or {}),
        notes=tuple(notes),
    )
