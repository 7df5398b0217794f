"""A capture from end to end: its plan's model made ready, and its units run through it."""

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from moedb.capture.conditions import condition_table
from moedb.capture.pipeline.assembly import UnitRows, assemble_unit
from moedb.capture.pipeline.missing_units import (
    EVERYTHING,
    CaptureOutcome,
    Progress,
    Silent,
    run_missing_units,
)
from moedb.capture.pipeline.plan import Batch, CapturedModel, CapturePlan
from moedb.capture.pipeline.units import Shard
from moedb.capture.structure.wiring import BlockWiring
from moedb.schemas import tables
from moedb.schemas.arrays import IMAGES, arrays_of_tokens
from moedb.schemas.manifests import ModelEnd, RunManifest
from moedb.schemas.version import __version__
from moedb.store.arrays.stored import ArrayKey, Rows
from moedb.store.writing.open_run import timestamp
from moedb.store.writing.tables.parquet import Columns

VERSIONED = ("torch", "transformers", "nnsight", "zarr", "pyarrow", "numpy")


def capture(
    planned: CapturePlan,
    store: Path,
    progress: Progress | None = None,
    shard: Shard = EVERYTHING,
    claim: Callable[[RunManifest], None] | None = None,
) -> CaptureOutcome:
    """Run what is missing of a planned capture, or of one shard of it.

    Parameters
    ----------
    planned
        The capture.
    store
        The store's folder; made if need be.
    progress
        Hears how it goes on.
    shard
        Which units are this process's. Whoever commits the last unit of all completes the run.
    claim
        Called with the run's configuration before the run is begun, see
        :func:`~moedb.capture.pipeline.missing_units.run_missing_units`.

    Raises
    ------
    CheckError
        If a batch contradicts the model's own arithmetic.
    CaptureError
        If there is no room on the disk. What was committed stays, and the same capture resumes.
    """
    progress = progress or Silent()

    @contextmanager
    def opened() -> Iterator[_ReadyCapture]:
        with planned.open_model(planned.arrays) as model:
            yield _ReadyCapture(planned, model, progress)

    return run_missing_units(
        planned,
        store,
        opened,
        progress,
        to_write_less="keep less (--arrays, --layers, --tokens last) or name another disk "
        "(--store DIR)",
        shard=shard,
        claim=claim,
    )


class _ReadyCapture:
    """A capture whose model is ready."""

    def __init__(self, planned: CapturePlan, model: CapturedModel, progress: Progress) -> None:
        self._planned, self._model, self._progress = planned, model, progress

    @property
    def manifest(self) -> RunManifest:
        kept = self._model.kept
        return run_manifest(self._planned, self._model.blocks, kept.about if kept else None)

    @property
    def first_tables(self) -> dict[str, Columns]:
        first = {tables.CONDITIONS.name: condition_table(self._planned.conditions)}
        if self._planned.run_labels:
            labels = self._planned.run_labels
            first[tables.RUN_LABELS.name] = {"key": [*labels], "value": [*labels.values()]}
        compared = self._planned.options.expert_similarity
        if compared is not None:
            self._progress.note("comparing the weights of experts, layer by layer")
            first |= self._model.expert_similarity(neurons=compared == "neurons")
        return first | dict(self._model.kept.tables if self._model.kept else {})

    @property
    def first_arrays(self) -> Mapping[ArrayKey, Rows]:
        return self._model.kept.arrays if self._model.kept else {}

    def run_unit(self, unit: int) -> Callable[[], UnitRows]:
        planned = self._planned
        span = planned.units[unit]
        examples = planned.dataset.examples[span.first_example : span.end_example]
        masks = [
            planned.selection.mask(example, span.first_example + index)
            for index, example in enumerate(examples)
        ]
        records = []
        for indices in like_lengths([len(e) for e in examples], planned.options.batch_size):
            batch = Batch(
                examples=tuple(examples[index] for index in indices),
                indices=tuple(indices),
                example_ids=tuple(span.first_example + index for index in indices),
                kept=np.concatenate([masks[index] for index in indices]),
                arrays=arrays_of_tokens(planned.arrays),
            )
            records.append(self._model.record(batch))
            self._progress.advance(sum(len(example) for example in batch.examples))
        first_token = sum(earlier.n_tokens for earlier in planned.units[:unit])
        return partial(
            assemble_unit,
            unit,
            examples,
            records,
            masks,
            first_example=span.first_example,
            first_token=first_token,
            first_row=unit * planned.unit_rows,
        )


def like_lengths(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut examples into batches of like length, so that little is padding."""
    by_length = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]


def run_manifest(
    planned: CapturePlan, blocks: Sequence[BlockWiring], end: ModelEnd | None = None
) -> RunManifest:
    """The run's configuration, with what the probe learned of the model."""
    layers = tuple(
        {
            "layer": found.block.layer,
            "module": found.block.path,
            "n_experts": found.block.n_experts,
            "top_k": found.block.top_k,
            "d_expert": found.block.d_expert,
            "has_shared_expert": int(found.has_shared_expert),
            "norm_topk_prob": int(found.rule.norm_topk_prob),
            "scoring": found.rule.scoring,
            **({"d_shared": found.d_shared} if found.d_shared else {}),
        }
        for found in blocks
    )
    row: Mapping[str, Any] = {
        "job": planned.dataset.job,
        "model": planned.checkpoint.name,
        "model_revision": planned.checkpoint.revision,
        "model_sha256": planned.checkpoint.sha256,
        "architecture": _architecture(planned),
        "dataset": planned.dataset.name,
        "dataset_sha256": planned.dataset.sha256,
        "n_examples": len(planned.dataset.examples),
        "n_tokens": planned.dataset.n_tokens,
        "d_model": planned.shape.d_model,
        "dtype": planned.dtype,
        "seed": int(planned.dataset.config.get("seed", 0)),
        "parent_run_id": None,
        "created_at": timestamp(),
        "moedb_version": __version__,
        "config": json.dumps(planned.config, sort_keys=True),
        "versions": library_versions(),
    }
    return RunManifest(
        run_id=planned.run_id,
        row=dict(row),
        unit_rows=planned.unit_rows,
        units=planned.units,
        layers=layers,
        arrays=planned.arrays,
        model_end=end,
        image_shape=planned.shape.image_shape if IMAGES in planned.arrays else None,
    )


def library_versions() -> str:
    """The versions of Python and of the libraries that shape a result, as JSON."""
    versions = {name: version(name) for name in VERSIONED}
    return json.dumps({"python": platform.python_version(), **versions}, sort_keys=True)


def _architecture(planned: CapturePlan) -> str:
    config = json.loads((planned.checkpoint.folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures") or [config.get("model_type", "unknown")]
    return str(names[0])
