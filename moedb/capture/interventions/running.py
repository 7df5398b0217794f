"""Running a sweep: what is missing of it, unit by unit, each with conditions of its own."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.conditions import condition_table
from moedb.capture.interventions import edit_arithmetic as edits
from moedb.capture.interventions.engine import Engine, Pass, PassOutcome
from moedb.capture.interventions.kinds import Intervention
from moedb.capture.interventions.layer_edits import Edit
from moedb.capture.interventions.planning import JOB, Group, SweepPlan
from moedb.capture.jobs.language import answer, token_ids
from moedb.capture.pipeline.assembly import UnitRows, example_tables, lens_table
from moedb.capture.pipeline.missing_units import (
    CaptureOutcome,
    Progress,
    Silent,
    run_missing_units,
)
from moedb.capture.pipeline.running import library_versions, like_lengths
from moedb.capture.tracing.logit_lens import LensTokens, LogitLens
from moedb.errors import CheckError, ModelError
from moedb.schemas import tables
from moedb.schemas.interventions import RANDOM
from moedb.schemas.manifests import RunManifest
from moedb.schemas.version import __version__
from moedb.store.arrays.stored import ArrayKey, Rows
from moedb.store.writing.open_run import timestamp
from moedb.store.writing.tables.parquet import Columns

N_REHEARSED = 4
"""Examples on which the shortcuts of a pass are tried."""


def run_sweep(planned: SweepPlan, store: Path, progress: Progress | None = None) -> CaptureOutcome:
    """Run what is missing of a planned sweep.

    Parameters
    ----------
    planned
        The sweep.
    store
        The store's folder, which holds the parent run.
    progress
        Hears how it goes on.

    Raises
    ------
    CheckError
        If the untouched model does not answer as the parent run says.
    ModelError
        If experts are to be removed from a choice that is not the top-k of the router's logits. As
        after a CheckError, the store has no new run.
    CaptureError
        If there is no room on the disk. What was committed stays, and the same sweep resumes.
    """
    progress = progress or Silent()

    @contextmanager
    def opened() -> Iterator[_ReadySweep]:
        with planned.open_engine() as engine:
            sweep = _ReadySweep(planned, engine, progress)
            sweep.rehearse()
            yield sweep

    return run_missing_units(
        planned,
        store,
        opened,
        progress,
        to_write_less="free some space, or change less at a time (--layers, --experts, --roles, "
        "--split)",
        # The untouched model is what can be refused. Until it has passed there is no run.
        first_decides=True,
    )


def sweep_manifest(planned: SweepPlan) -> RunManifest:
    """The new run's configuration; what it is about is as in the parent run."""
    parent = planned.parent.snapshot
    row = {
        **parent.manifest.row,
        "job": JOB,
        "model_revision": planned.checkpoint.revision,
        "parent_run_id": parent.run_id,
        "seed": planned.seed,
        "created_at": timestamp(),
        "moedb_version": __version__,
        "config": json.dumps(planned.config, sort_keys=True),
        "versions": library_versions(),
    }
    return RunManifest(planned.run_id, row, 0, planned.units, parent.manifest.layers, {})


class _Rows:
    """The rows that conditions give.

    Attributes
    ----------
    answers
        Those of the table ``predictions``.
    readings
        Those of the table ``logit_lens``, as columns, one set for each batch and condition.
    """

    def __init__(self, planned: SweepPlan, lens: LogitLens | None) -> None:
        self._examples, self._tokenizer, self._lens = planned.examples, planned.tokenizer, lens
        self.answers: list[dict[str, Any]] = []
        self.readings: list[dict[str, NDArray[Any]]] = []

    def add(
        self,
        outcome: PassOutcome,
        rows: slice,
        example_ids: Sequence[int],
        condition_id: int,
        first_layer: int = 0,
    ) -> None:
        """Take what a pass gave for the rows of a condition.

        Before ``first_layer`` the streams are those of condition 0, and are not stored again.
        """
        examples = [self._examples[example_id] for example_id in example_ids]
        for logits, example_id, example in zip(
            outcome.logits[rows], example_ids, examples, strict=True
        ):
            found = answer(logits, example, self._tokenizer, condition_id)
            self.answers.append({"example_id": example_id, **found})
        if self._lens is None:
            return
        streams = {point: each[rows] for point, each in outcome.points(first_layer).items()}
        records = self._lens.records(streams, LensTokens.last(examples, self._tokenizer))
        if records is not None:
            self.readings.append(records.columns(np.array(example_ids), condition_id))


class _ReadySweep:
    """A sweep whose model is ready."""

    def __init__(self, planned: SweepPlan, engine: Engine, progress: Progress) -> None:
        self._planned, self._engine, self._progress = planned, engine, progress
        self._twins = planned.parent.twins
        self._layers = {row["layer"]: row for row in planned.parent.layers}
        self._last_streams: tuple[int, list[torch.Tensor]] = (0, [])

    @property
    def manifest(self) -> RunManifest:
        return sweep_manifest(self._planned)

    @property
    def first_arrays(self) -> dict[ArrayKey, Rows]:
        return {}

    @property
    def first_tables(self) -> dict[str, Columns]:
        return {tables.CONDITIONS.name: condition_table(self._planned.conditions)}

    def run_unit(self, unit: int) -> Callable[[], UnitRows]:
        columns: dict[str, Columns] = {}
        if unit == 0:
            columns |= example_tables(self._planned.examples, 0)
            found = self._untouched()
        else:
            found = self._group(self._planned.groups[unit - 1])
        names = tables.PREDICTIONS.column_names[1:]
        columns[tables.PREDICTIONS.name] = {
            name: [row[name] for row in found.answers] for name in names
        }
        if found.readings:
            columns[tables.LOGIT_LENS.name] = lens_table(found.readings)
        rows = UnitRows(unit, columns, {})
        return lambda: rows

    def _batches(self, example_ids: Sequence[int], n_copies: int) -> list[list[int]]:
        """Batches of examples of like length, as large as that many copies of each allow.

        Where an example and its twin are both among them, they are in one batch.
        """
        among = set(example_ids)
        members: dict[int, list[int]] = {}
        for example_id in example_ids:
            twin = self._twins.get(example_id, example_id)
            first = min(example_id, twin) if twin in among else example_id
            members.setdefault(first, []).append(example_id)
        together = list(members.values())
        lengths = [len(self._planned.examples[first]) for first in members]
        largest = max(map(len, together))
        size = max(1, self._planned.resources.batch_size // (n_copies * largest))
        return [[e for i in batch for e in together[i]] for batch in like_lengths(lengths, size)]

    def _token_ids(self, example_ids: Sequence[int]) -> tuple[list[int], ...]:
        return tuple(token_ids(self._planned.examples[example_id]) for example_id in example_ids)

    def _advance(self, example_ids: Sequence[int], n_copies: int = 1) -> None:
        n_tokens = sum(len(self._planned.examples[example_id]) for example_id in example_ids)
        self._progress.advance(n_copies * n_tokens)

    def _untouched(self) -> "_Rows":
        """Condition 0: the parent run's predictions again, from the tokens."""
        removing = {layer for i in self._planned.interventions if i.removes for layer in i.layers}
        rows = _Rows(self._planned, self._engine.lens)
        for example_ids in self._batches(range(len(self._planned.examples)), 1):
            batch = Pass(
                self._token_ids(example_ids), watched=frozenset(removing), lens=self._planned.lens
            )
            outcome = self._engine.run(batch)
            self._check_choices(outcome.not_top_k)
            rows.add(outcome, slice(None), example_ids, 0)
            self._advance(example_ids)
        self._check_answers(rows.answers)
        return rows

    def _check_choices(self, not_top_k: "dict[int, int] | Any") -> None:
        for layer, count in not_top_k.items():
            if count:
                raise ModelError(
                    f"ablate-experts: at layer {layer} {count} tokens go to experts that are not "
                    "the top-k of the router's logits, by more than rounding (a bias, or groups of "
                    "experts), so the next best cannot be told from the logits",
                    "--form zero takes the experts' outputs away instead",
                )

    def _check_answers(self, rows: Sequence[dict[str, Any]]) -> None:
        """Hold the rerun against what the parent run stored."""
        found = np.array([row["logit_diff"] for row in sorted(rows, key=lambda r: r["example_id"])])
        stored = self._planned.parent.logit_diffs
        gaps = np.abs(found - stored)
        dtype = self._planned.dtype
        # In a short format a near tie between two experts may fall either way.
        gap = float(gaps.max() if dtype == "float32" else np.median(gaps))
        eps = torch.finfo(getattr(torch, dtype)).eps
        allowed = eps**0.5 * max(1.0, float(np.abs(stored).max()))
        if not gap <= allowed:
            worst = int(gaps.argmax())
            raise CheckError(
                f"the untouched model's logit differences are not those of run "
                f"{self._planned.parent.snapshot.run_id}: at example {worst} {found[worst]:.5g}, "
                f"stored is {stored[worst]:.5g}; rounding explains {allowed:.3g}",
                "capture the run again with this version of the libraries",
            )

    def rehearse(self) -> None:
        """See whether a pass from a stored stream ends as one from the tokens does."""
        starts = [group.start for group in self._planned.groups]
        start = max(starts, default=0)
        example_ids = list(self._planned.changed[:N_REHEARSED])
        ids = self._token_ids(example_ids)
        with self._engine.whole():
            expected = self._engine.run(Pass(ids)).logits.double()
        stream = self._streams(start, example_ids)
        try:
            found = self._engine.run(Pass(ids, (), start, stream)).logits.double()
            gaps = (found - expected).abs().amax(dim=-1)
            short = self._planned.dtype != "float32"
            gap = float(gaps.median() if short else gaps.max())
            eps = torch.finfo(getattr(torch, self._planned.dtype)).eps
            fits = gap <= eps**0.5 * float(expected.abs().max())
            reason = f"the logits differ by {gap:.3g}"
        except Exception as error:  # a model that takes its layers for granted fails in its own way
            fits, reason = False, str(error).strip().splitlines()[-1][:200]
        if not fits:
            self._engine.takes_shortcuts = False
            self._progress.note(
                f"passes start from the tokens: from the stored stream entering layer {start} the "
                f"model ends elsewhere ({reason})"
            )

    def _streams(self, start: int, example_ids: Sequence[int]) -> tuple[torch.Tensor, ...] | None:
        if not start:
            return None
        if self._last_streams[0] != start:
            self._last_streams = (start, self._planned.parent.streams(start))
        return tuple(self._last_streams[1][example_id] for example_id in example_ids)

    def _group(self, group: Group) -> "_Rows":
        """What a group of conditions gives, all in the same passes."""
        numbered = [
            (number, self._planned.interventions[number - 1]) for number in group.conditions
        ]
        with_twins = self._planned.split == "all"
        sourced = any(intervention.needs_sources(with_twins) for _, intervention in numbered)
        n_copies = len(numbered) + sourced
        rows = _Rows(self._planned, self._engine.lens)
        for example_ids in self._batches(self._planned.changed, n_copies):
            n = len(example_ids)
            sources = [self._twins[example_id] for example_id in example_ids] if sourced else []
            every = [*sources, *example_ids * len(numbered)]
            made, first = [], len(sources)
            for _, intervention in numbered:
                twins = None
                if intervention.needs_twins and sourced:
                    twins = torch.arange(n)
                elif intervention.needs_twins:
                    twins = first + torch.tensor(
                        [example_ids.index(self._twins[example_id]) for example_id in example_ids]
                    )
                rows_here = slice(first, first + n)
                made.append(self._edit(intervention, example_ids, rows_here, twins))
                first += n
            batch = Pass(
                self._token_ids(every),
                tuple(made),
                group.start,
                self._streams(group.start, every),
                lens=self._planned.lens,
            )
            outcome = self._engine.run(batch)
            for (number, intervention), edit in zip(numbered, made, strict=True):
                rows.add(outcome, edit.rows, example_ids, number, intervention.first_layer)
            self._advance(example_ids, len(numbered))
        return rows

    def _edit(
        self,
        intervention: Intervention,
        example_ids: Sequence[int],
        rows: slice,
        twins: torch.Tensor | None,
    ) -> Edit:
        examples = [self._planned.examples[example_id] for example_id in example_ids]
        role_key = self._planned.parent.task.role
        # Wide enough for the examples; twins are as long.
        width = max(map(len, examples))
        marks = [
            [not intervention.roles or role in intervention.roles for role in roles]
            for roles in (example.token_labels[role_key] for example in examples)
        ]
        tokens = torch.tensor([row + [False] * (width - len(row)) for row in marks])
        drawn = {}
        if intervention.kind == RANDOM:
            for layer in intervention.layers:
                sizes = self._layers[layer]
                drawn[layer] = torch.zeros(*tokens.shape, sizes["top_k"], dtype=torch.long)
                # Padding may go anywhere; it is not changed.
                for row, example_id in enumerate(example_ids):
                    chosen = edits.drawn_experts(
                        intervention.params["seed"],
                        intervention.params["draw"],
                        layer,
                        example_id,
                        len(examples[row]),
                        sizes["n_experts"],
                        sizes["top_k"],
                    )
                    drawn[layer][row, : len(chosen)] = chosen
        return Edit(intervention, rows, twins, tokens, drawn)
