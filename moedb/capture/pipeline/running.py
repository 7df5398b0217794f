"""A capture from end to end: plan, run what is missing, commit unit by unit."""

import errno
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from moedb.capture.conditions import condition_table
from moedb.capture.pipeline.assembly import assemble_unit
from moedb.capture.pipeline.background_writer import UnitWriter
from moedb.capture.pipeline.plan import Batch, CapturedModel, CapturePlan
from moedb.capture.pipeline.sharding import Shard
from moedb.capture.structure.model_probe import BlockWiring
from moedb.errors import CaptureError
from moedb.schemas import tables
from moedb.schemas.manifests import RunManifest
from moedb.store.layout import RunLayout
from moedb.store.reading.snapshot import RunSnapshot, check_files, read_run
from moedb.store.writing.open_run import timestamp
from moedb.store.writing.run_writer import RunWriter
from moedb.store.writing.writability import check_writable, is_store
from moedb.version import __version__

EVERYTHING = Shard()

VERSIONED = ("torch", "transformers", "nnsight", "zarr", "pyarrow", "numpy")


class Progress(Protocol):
    """Who wants to hear how a capture goes on."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def begin(self, n_tokens: int, done: int) -> None:
        """The model is about to run: tokens in all, and those committed earlier."""

    def advance(self, n_tokens: int) -> None:
        """A batch went through the model."""


class Silent:
    """Hears nothing."""

    def note(self, text: str) -> None:
        """Pass over."""

    def begin(self, n_tokens: int, done: int) -> None:
        """Pass over."""

    def advance(self, n_tokens: int) -> None:
        """Pass over."""


@dataclass(frozen=True)
class CaptureOutcome:
    """How a capture ended.

    Attributes
    ----------
    run_id
        The run.
    units_before, units_now, units_missing
        Units that were there, that this call wrote, and that are left to other shards.
    """

    run_id: str
    units_before: int
    units_now: int
    units_missing: int = 0

    @property
    def was_complete(self) -> bool:
        """Whether there was nothing to do."""
        return self.units_now == 0 and self.units_missing == 0


def free_bytes(store: Path) -> int:
    """Free bytes on the disk that holds, or will hold, ``store``."""
    folder = store.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def capture(
    planned: CapturePlan,
    store: Path,
    progress: Progress | None = None,
    shard: Shard = EVERYTHING,
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

    Raises
    ------
    CheckError
        If a batch contradicts the model's own arithmetic.
    CaptureError
        If there is no room on the disk. What was committed stays, and the same capture resumes.
    """
    progress = progress or Silent()
    done = committed_run(store, planned.run_id)
    if done is not None and done.is_complete:
        return CaptureOutcome(planned.run_id, len(planned.units), 0)
    check_writable(store, planned.run_id)
    missing = range(len(planned.units)) if done is None else done.missing_units
    needed = planned.estimate.bytes_of([planned.units[unit] for unit in missing])
    free = free_bytes(store)
    if needed > free:
        raise CaptureError(
            f"the capture takes up to {needed / 1e9:.2f} GB, the disk of {store} has "
            f"{free / 1e9:.2f} GB free",
            "keep less (--arrays, --layers, --tokens last) or name another disk (--store DIR)",
        )
    for note in planned.notes:
        progress.note(note)
    with full_disk_explained(planned.run_id), planned.open_model(planned.arrays) as model:
        return _run(planned, store, model, progress, shard)


@contextmanager
def full_disk_explained(run_id: str) -> Iterator[None]:
    """Say what a full disk means for a run that is being written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CaptureError(
                f"no room to write the run {run_id}: {error.strerror}",
                "what was committed stays; free some space and run the same command again",
            ) from error
        raise


def committed_run(store: Path, run_id: str) -> RunSnapshot | None:
    """What the store has of a run, if anything.

    Raises
    ------
    StoreError
        If ``store`` is something else than a store, or the run is damaged.
    """
    if not is_store(store) or not os.path.lexists(RunLayout(store, run_id).manifest):
        return None
    found = read_run(store, run_id)
    check_files(found)
    return found


def _run(
    planned: CapturePlan, store: Path, model: CapturedModel, progress: Progress, shard: Shard
) -> CaptureOutcome:
    writer = RunWriter(store, run_manifest(planned, model.blocks))
    first = {tables.CONDITIONS.name: condition_table(planned.conditions)}
    if planned.run_labels:
        labels = planned.run_labels
        first[tables.RUN_LABELS.name] = {"key": [*labels], "value": [*labels.values()]}
    writer.begin(first)
    units = planned.units
    before = writer.snapshot().missing_units
    mine = shard.units(before)
    share = sum(units[unit].n_tokens for unit in shard.units(range(len(units))))
    progress.begin(share, share - sum(units[unit].n_tokens for unit in mine))
    written = 0
    with UnitWriter() as queue:
        for unit in mine:
            if writer.has_unit(unit):  # another process was faster
                continue
            queue.submit(_captured_unit(planned, model, unit, writer, progress))
            written += 1
    missing = writer.snapshot().missing_units
    if not missing:
        writer.finish()
    return CaptureOutcome(planned.run_id, len(units) - len(before), written, len(missing))


def _captured_unit(
    planned: CapturePlan, model: CapturedModel, unit: int, writer: RunWriter, progress: Progress
) -> Callable[[], object]:
    """Run a unit through the model; return what commits it."""
    span = planned.units[unit]
    examples = planned.dataset.examples[span.first_example : span.end_example]
    masks = [planned.selection.mask(example) for example in examples]
    records = []
    for indices in like_lengths([len(e) for e in examples], planned.options.batch_size):
        batch = Batch(
            examples=tuple(examples[index] for index in indices),
            indices=tuple(indices),
            example_ids=tuple(span.first_example + index for index in indices),
            kept=np.concatenate([masks[index] for index in indices]),
            arrays=planned.arrays,
        )
        records.append(model.record(batch))
        progress.advance(sum(len(example) for example in batch.examples))
    first_token = sum(earlier.n_tokens for earlier in planned.units[:unit])

    def commit() -> None:
        rows = assemble_unit(
            unit,
            examples,
            records,
            masks,
            first_example=span.first_example,
            first_token=first_token,
            first_row=unit * planned.unit_rows,
        )
        writer.commit_unit(unit, rows.tables, rows.arrays)

    return commit


def like_lengths(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut examples into batches of like length, so that little is padding."""
    by_length = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]


def run_manifest(planned: CapturePlan, blocks: Sequence[BlockWiring]) -> RunManifest:
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
    )


def library_versions() -> str:
    """The versions of Python and of the libraries that shape a result, as JSON."""
    versions = {name: version(name) for name in VERSIONED}
    return json.dumps({"python": platform.python_version(), **versions}, sort_keys=True)


def _architecture(planned: CapturePlan) -> str:
    config = json.loads((planned.checkpoint.folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures") or [config.get("model_type", "unknown")]
    return str(names[0])
