"""A captured run as the source of interventions: its examples, routing and residual streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.examples import Example, hash_examples
from moedb.capture.jobs.tasks import TASKS, Task
from moedb.capture.models.checkpoints import EMBEDDED_MODEL, Checkpoint, find_checkpoint
from moedb.errors import DatasetError, ModelError, ModelNotFoundError, UsageError
from moedb.store.arrays.stored import ArrayKey, open_array
from moedb.store.engine.connection import connect
from moedb.store.reading.snapshot import RunSnapshot, Snapshot, take_snapshot, warn_of_damage


@dataclass(frozen=True)
class ParentRun:
    """The run whose examples are run again.

    Attributes
    ----------
    snapshot
        What is committed of it.
    task
        What its job asks of the examples.
    examples
        Its examples without targets; an example's id is its index.
    rows
        For each example the rows of its tokens in the run's arrays; empty where a token has none.
    logit_diffs
        (example,): what the run stored of the untouched model.
    """

    snapshot: RunSnapshot
    task: Task
    examples: tuple[Example, ...]
    rows: tuple[NDArray[np.int64], ...]
    logit_diffs: NDArray[np.float64]

    @property
    def layers(self) -> tuple[dict[str, Any], ...]:
        """Its MoE layers: the rows of the table ``moe_layers``."""
        return self.snapshot.manifest.layers

    @property
    def twins(self) -> dict[int, int]:
        """For each example its twin: of a prompt the corrupted one, and the reverse."""
        found = {}
        for example_id, example in enumerate(self.examples):
            twin = self.task.twin_of(example)
            if twin is not None:
                found[example_id] = twin
        return found

    @cached_property
    def stored_streams(self) -> tuple[int, ...]:
        """The layers whose entering residual stream is kept for every token."""
        if not all(len(rows) for rows in self.rows):
            return ()
        return tuple(self.snapshot.manifest.arrays.get("residual_pre", ()))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that its tokens have."""
        roles = (example.token_labels[self.task.role] for example in self.examples)
        return tuple(sorted({role for each in roles for role in each if role is not None}))

    def streams(self, layer: int) -> list[torch.Tensor]:
        """For each example the residual stream entering a layer, (position, d_model)."""
        array = open_array(self.snapshot, ArrayKey("residual_pre", layer))
        values = torch.from_numpy(np.asarray(array[: 1 + max(int(r.max()) for r in self.rows)]))
        return [values[torch.from_numpy(rows)] for rows in self.rows]

    def with_targets(self, tokenizer: Any) -> tuple[Example, ...]:
        """The examples, with the tokens that are right and wrong answers.

        Raises
        ------
        DatasetError
            If they are not the examples that the run was captured from.
        """
        answers = self.task.answers(self.examples, tokenizer)
        examples = tuple(
            replace(example, target_id=target, foil_id=foil)
            for example, (target, foil) in zip(self.examples, answers, strict=True)
        )
        found, expected = hash_examples(examples), self.snapshot.manifest.row["dataset_sha256"]
        if found != expected:
            raise DatasetError(
                f"the examples of run {self.snapshot.run_id} and their answers, read from its "
                f"tables, have the SHA-256 {found[:12]}..., captured were {expected[:12]}...",
                f"the tokenizer may have changed: --model FOLDER, or moedb verify "
                f"{self.snapshot.run_id}",
            )
        return examples

    def expert_counts(self) -> dict[int, list[tuple[int, int]]]:
        """For each layer its experts and how many tokens chose them, the most frequent first."""
        with connect(_alone(self.snapshot)) as connection:
            rows = connection.execute(
                "select layer, expert, count(*) from routing group by layer, expert "
                "order by layer, count(*) desc, expert"
            ).fetchall()
        found: dict[int, list[tuple[int, int]]] = {}
        for layer, expert, count in rows:
            found.setdefault(layer, []).append((expert, count))
        return found


def open_parent(store: Path, run: str) -> ParentRun:
    """Read a run that interventions are to be made on.

    Parameters
    ----------
    store
        The store's folder.
    run
        The run, or an unambiguous beginning of its name.

    Raises
    ------
    RunNotFoundError, StoreError
        If there is no such run, or it cannot be read.
    UsageError
        If it is not complete, its job is no task, or its model is dense.
    """
    snapshot = take_snapshot(store)
    warn_of_damage(snapshot)
    found = snapshot.run(run)
    job = found.manifest.row["job"]
    if job not in TASKS:
        known = sorted(r.run_id for r in snapshot.runs.values() if r.manifest.row["job"] in TASKS)
        raise UsageError(
            f"run {found.run_id} is of the job {job}; interventions take runs of "
            f"{', '.join(TASKS)}, here: {', '.join(known) or 'none'}",
            " or ".join(task.capture for task in TASKS.values()),
        )
    if not found.is_complete:
        raise UsageError(
            f"run {found.run_id} is incomplete: {len(found.missing_units)} of "
            f"{len(found.manifest.units)} units are missing",
            "resume it by running its capture command again",
        )
    if any(row["scoring"] == "none" for row in found.manifest.layers):
        raise UsageError(
            f"run {found.run_id} is of a dense model (--dense); interventions change which experts "
            "run and what they add, and it has one for every token",
            "take a run of an MoE model: moedb runs lists them",
        )
    return _read(found)


def _alone(run: RunSnapshot) -> Snapshot:
    return Snapshot(run.layout.store, {run.run_id: run})


def _read(run: RunSnapshot) -> ParentRun:
    task = TASKS[run.manifest.row["job"]]
    with connect(_alone(run)) as connection:

        def rows(statement: str, values: Mapping[str, str] | None = None) -> list[tuple[Any, ...]]:
            return connection.execute(statement, values or {}).fetchall()

        found = rows("select example_id, split, text from examples order by example_id")
        labels: dict[int, dict[str, str]] = {}
        for example_id, key, value in rows("select example_id, key, value from example_labels"):
            labels.setdefault(example_id, {})[key] = value
        tokens: dict[int, list[tuple[Any, ...]]] = {}
        for example_id, *token in rows(
            "select example_id, token_id, token, array_row, value from tokens left join "
            "(select token_idx, value from token_labels where key = $role) using (token_idx) "
            "order by example_id, position",
            {"role": task.role},
        ):
            tokens.setdefault(example_id, []).append(tuple(token))
        diffs = rows(
            "select logit_diff from predictions where condition_id = 0 order by example_id"
        )
    examples = []
    for example_id, split, text in found:
        ids, texts, _, roles = zip(*tokens[example_id], strict=True)
        examples.append(
            Example(split, text, ids, texts, labels.get(example_id, {}), {task.role: roles})
        )
    array_rows = [[row for _, _, row, _ in tokens[i]] for i in range(len(examples))]
    return ParentRun(
        snapshot=run,
        task=task,
        examples=tuple(examples),
        rows=tuple(np.array([] if None in own else own, dtype=np.int64) for own in array_rows),
        logit_diffs=np.array([diff for (diff,) in diffs], dtype=np.float64),
    )


def find_model(run: RunSnapshot, model: str | None) -> Checkpoint:
    """Find the model that a run was captured from.

    Parameters
    ----------
    run
        The run.
    model
        Where the user says that it is; None to look where the run says.

    Raises
    ------
    ModelNotFoundError, ModelError
        If it isn't there, or is not the same.
    """
    row: Mapping[str, Any] = run.manifest.row
    name, sha256 = str(row["model"]), str(row["model_sha256"])
    from_hub = row["model_revision"] is not None
    if model is None and not from_hub and name != EMBEDDED_MODEL and not Path(name).is_dir():
        raise ModelNotFoundError(
            f"run {run.run_id} was captured from a folder named {name!r}; a run does "
            "not keep where it was",
            "say it: --model FOLDER",
        )
    try:
        checkpoint = find_checkpoint(model or name)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"the model of run {run.run_id}: {error.message}",
            f"--model FOLDER, with the SHA-256 {sha256[:12]}...",
        ) from error
    if checkpoint.sha256 != sha256:
        raise ModelError(
            f"{model or name} is not the model of run {run.run_id}: its SHA-256 is "
            f"{checkpoint.sha256[:12]}..., captured was {name} with {sha256[:12]}...",
            "name the folder of the right one: --model FOLDER",
        )
    return checkpoint


def check_twins(parent: ParentRun, example_ids: Sequence[int]) -> None:
    """Check that each example has a twin that matches it token by token.

    Raises
    ------
    UsageError
        If one has none, or one of another number of tokens.
    """
    twins = parent.twins
    lonely = [example_id for example_id in example_ids if example_id not in twins]
    if lonely:
        raise UsageError(
            f"run {parent.snapshot.run_id} has no corrupted twins ({len(lonely)} of "
            f"{len(example_ids)} examples lack one), and this kind takes values from them",
            parent.task.capture_twins,
        )
    for example_id in example_ids:
        example, twin = parent.examples[example_id], parent.examples[twins[example_id]]
        if len(example) != len(twin):
            raise UsageError(
                f"example {example_id} of run {parent.snapshot.run_id} has {len(example)} tokens, "
                f"its twin {twins[example_id]} has {len(twin)}: their positions do not match",
                "take templates in which every name follows a space",
            )
