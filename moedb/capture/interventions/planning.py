"""An intervention sweep with every choice made, before anything is run."""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from moedb.capture.conditions import UNTOUCHED, Condition
from moedb.capture.examples import Example
from moedb.capture.interventions.choices import Choices, interventions_of
from moedb.capture.interventions.engine import Engine
from moedb.capture.interventions.kinds import Intervention
from moedb.capture.interventions.parent_run import ParentRun, check_twins, find_model
from moedb.capture.jobs.language import open_language_model
from moedb.capture.jobs.model_outline import ModelOutline
from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.device import chosen_device, use_large_pages
from moedb.capture.models.placement import Placement, check_placement
from moedb.capture.pipeline.sizes import lens_rows, table_bytes
from moedb.capture.tracing.logit_lens import Positions
from moedb.errors import ModelError, UsageError
from moedb.schemas import tables
from moedb.schemas.interventions import ATTENTION, EXPERT
from moedb.schemas.manifests import UnitRange
from moedb.schemas.run_names import RunName
from moedb.store.files import sha256_of_json

JOB = "intervene"

UNIT_CONDITIONS = 8
"""Conditions that are run and committed together, at most: what a kill can cost."""


@dataclass(frozen=True)
class Resources:
    """What a sweep runs on.

    Attributes
    ----------
    model
        Where the model is; None to look where the run says.
    batch_size
        Rows of a forward pass: examples, times the conditions that share it.
    device, max_bytes, device_map
        As in a capture.
    """

    model: str | None = None
    batch_size: int = 128
    device: str | None = None
    max_bytes: int | None = None
    device_map: str | None = None

    def __post_init__(self) -> None:
        check_placement(self.device, self.max_bytes, self.device_map)
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: expected 1 or more")


@dataclass(frozen=True)
class Group:
    """Conditions that are run and committed together.

    Attributes
    ----------
    start
        The layer whose stored residual stream they start from; 0 for the tokens.
    conditions
        Their numbers.
    """

    start: int
    conditions: tuple[int, ...]


@dataclass(frozen=True)
class SweepPlan:
    """A sweep with every choice made.

    Attributes
    ----------
    parent, checkpoint, tokenizer, n_layers
        The run, its model, and the model's layers.
    examples
        The run's examples, with their targets.
    changed
        The examples that are changed; condition 0 has all of them.
    interventions
        The conditions from 1 on.
    groups
        The conditions by unit; unit 0 is condition 0, unit u the group u - 1.
    seed, split, lens, resources, dtype, device
        As chosen.
    open_engine
        Makes the model ready.
    notes
        What the user should know.
    named
        What the run is called.
    """

    parent: ParentRun
    checkpoint: Checkpoint
    tokenizer: Any
    n_layers: int
    examples: tuple[Example, ...]
    changed: tuple[int, ...]
    interventions: tuple[Intervention, ...]
    groups: tuple[Group, ...]
    seed: int
    split: str
    lens: bool
    resources: Resources
    dtype: str
    device: str
    open_engine: Callable[[], AbstractContextManager[Engine]]
    notes: tuple[str, ...]
    named: RunName

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition; the first is the untouched model."""
        return (UNTOUCHED, *(each.condition for each in self.interventions))

    @property
    def units(self) -> tuple[UnitRange, ...]:
        """The units; each holds every example, under conditions of its own."""
        n_tokens = sum(len(example) for example in self.examples)
        n_changed = sum(len(self.examples[index]) for index in self.changed)
        sizes = [n_tokens, *(len(group.conditions) * n_changed for group in self.groups)]
        return tuple(UnitRange(0, len(self.examples), size, 0) for size in sizes)

    def bytes_of(self, units: Sequence[int]) -> int:
        """Bytes that these units take at most, before compression."""
        n_readings = lens_rows(1, self.n_layers, len(self.parent.layers)) if self.lens else 0
        answer_bytes = table_bytes(tables.PREDICTIONS.name, 1)
        answer_bytes += table_bytes(tables.LOGIT_LENS.name, n_readings)
        n_bytes = 0
        for unit in units:
            if unit:
                n_answers = len(self.groups[unit - 1].conditions) * len(self.changed)
            else:
                n_answers = len(self.examples)
                n_bytes += table_bytes(tables.EXAMPLES.name, n_answers)
                for example in self.examples:
                    n_bytes += len((example.text or "").encode())
                    n_bytes += table_bytes(tables.EXAMPLE_LABELS.name, len(example.labels))
            n_bytes += n_answers * answer_bytes
        return n_bytes

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; what it leaves out does not change a result."""
        # An option that came later: without it the configuration is what it was.
        lens = {"lens": "last"} if self.lens else {}
        return lens | {
            "job": JOB,
            "parent": self.parent.snapshot.run_id,
            "model_sha256": self.checkpoint.sha256,
            "dataset_sha256": self.parent.snapshot.manifest.row["dataset_sha256"],
            "kinds": sorted({each.kind for each in self.interventions}),
            "conditions_sha256": sha256_of_json(
                [[c.kind, c.layer, c.expert, dict(c.params)] for c in self.conditions]
            ),
            "starts": sorted({group.start for group in self.groups}),
            "unit_conditions": UNIT_CONDITIONS,
            "split": self.split,
            "batch_size": self.resources.batch_size,
            "dtype": self.dtype,
            "device": self.device.partition(":")[0],
        }

    @property
    def run_id(self) -> str:
        """The job and a hash of the configuration."""
        return f"{JOB}-{sha256_of_json(self.config)[:10]}"


def plan_sweep(
    parent: ParentRun,
    choices: Choices,
    resources: Resources,
    lens: bool = False,
    named: RunName | None = None,
) -> SweepPlan:
    """Resolve every choice of a sweep, without loading weights.

    Parameters
    ----------
    parent
        The run.
    choices
        What is to be changed.
    resources
        What it runs on.
    lens
        Whether the changed streams are read through the logit lens.
    named
        What the run of the sweep is called; None for nothing.

    Raises
    ------
    UsageError
        If the run, its layers or experts do not fit what is asked for.
    ModelError
        If the model is not found, is not the run's, or cannot be changed in this way.
    """
    use_large_pages()
    device = chosen_device(resources.device)
    model = ModelOutline.of(find_model(parent.snapshot, resources.model))
    interventions = interventions_of(choices, parent, model.n_layers)
    dtype = str(parent.snapshot.manifest.row["dtype"])
    placement = Placement(dtype, device, resources.max_bytes, resources.device_map)
    in_list = {layer for layer, form in model.forms(placement).items() if form == "list"}
    for intervention in interventions:
        _check(intervention, parent, in_list)
    wanted = (choices.split,) if choices.split != "all" else ("clean", "corrupted")
    changed = tuple(i for i, e in enumerate(parent.examples) if e.split in wanted)
    if not changed:
        raise UsageError(
            f"--split {choices.split}: run {parent.snapshot.run_id} has no such examples",
            parent.task.capture_twins,
        )
    if any(intervention.needs_twins for intervention in interventions):
        check_twins(parent, changed)
    notes = []
    if not parent.stored_streams and any(each.first_layer for each in interventions):
        notes.append(
            f"run {parent.snapshot.run_id} does not keep residual_pre for every token: every pass "
            "starts from the tokens; after moedb capture qwen-ioi --arrays residual_pre ... it "
            "starts at the layer that is changed"
        )
    return SweepPlan(
        parent=parent,
        checkpoint=model.checkpoint,
        tokenizer=model.tokenizer,
        n_layers=model.n_layers,
        examples=parent.with_targets(model.tokenizer),
        changed=changed,
        interventions=interventions,
        groups=grouped(interventions, parent.stored_streams, choices.split == "all", in_list),
        seed=choices.seed,
        split=choices.split,
        lens=lens,
        resources=resources,
        dtype=dtype,
        device=device,
        open_engine=partial(
            _open,
            model,
            placement,
            interventions,
            "last" if lens else "none",
        ),
        notes=tuple(notes),
        named=named or RunName(),
    )


def grouped(
    interventions: Sequence[Intervention],
    stored: Sequence[int],
    with_twins: bool,
    in_list: Set[int] = frozenset(),
) -> tuple[Group, ...]:
    """Put conditions together that start at the same layer, a few at a time.

    Parameters
    ----------
    interventions
        The conditions from 1 on.
    stored
        The layers whose entering residual stream is stored.
    with_twins
        Whether every example is changed beside its twin.
    in_list
        The layers whose experts are called one by one from a list. Such a block runs again where
        its experts' outputs are edited, without any other edit in it, so those are kept apart.
    """
    by_start: dict[tuple[int, bool, bool], list[int]] = {}
    for number, intervention in enumerate(interventions, start=1):
        start = max((layer for layer in stored if layer <= intervention.first_layer), default=0)
        runs_again = "expert_outputs" in intervention.values and not in_list.isdisjoint(
            intervention.layers
        )
        key = (start, intervention.needs_sources(with_twins), runs_again)
        by_start.setdefault(key, []).append(number)
    return tuple(
        Group(start, tuple(numbers[first : first + UNIT_CONDITIONS]))
        for (start, _, _), numbers in sorted(by_start.items())
        for first in range(0, len(numbers), UNIT_CONDITIONS)
    )


def _check(intervention: Intervention, parent: ParentRun, in_list: set[int]) -> None:
    """Refuse what a layer does not allow, as far as it is known without the weights."""
    rows = {row["layer"]: row for row in parent.layers}
    what = _named(intervention)
    for layer in intervention.layers:
        if layer not in rows:
            continue  # only the residual stream is changed there
        if layer in in_list and (intervention.reroutes or intervention.site == EXPERT):
            raise ModelError(
                f"{what}: layer {layer} calls its experts one by one from a list, and takes no "
                "routing from outside",
                "there, ablate-experts --form zero, knock-out-shared, and patch at the other "
                "sites are possible",
            )
        if intervention.makes_weights and rows[layer]["scoring"] == "other":
            raise ModelError(
                f"{what}: the weights of layer {layer} follow no rule that moedb knows, so it "
                "cannot make those of other experts",
                "there, ablate-experts --form zero, uniform-weights and swap-routing are possible",
            )
        if intervention.needs_shared_expert and not rows[layer]["has_shared_expert"]:
            having = [row["layer"] for row in parent.layers if row["has_shared_expert"]]
            raise UsageError(
                f"{what}: layer {layer} has no shared expert; layers that have one: "
                f"{', '.join(map(str, having)) or 'none'}"
            )


def _named(intervention: Intervention) -> str:
    choice = intervention.site or intervention.form
    option = "--site" if intervention.site else "--form"
    return f"{intervention.kind} {option} {choice}" if choice else intervention.kind


@contextmanager
def _open(
    outline: ModelOutline,
    placement: Placement,
    interventions: Sequence[Intervention],
    positions: Positions,
) -> Iterator[Engine]:
    with open_language_model(outline, placement, {}, positions=positions) as model:
        wiring = model.traced.wiring
        found = {read.layer for read in wiring.attention}
        for intervention in interventions:
            hidden = sorted(set(intervention.layers) - found)
            if intervention.site == ATTENTION and hidden:
                raise ModelError(
                    f"patch --site {ATTENTION}: {type(model.traced.model).__name__} has no module "
                    f"at layer {hidden[0]} whose output is what attention adds to the residual "
                    "stream",
                    "take --site residual or block-output",
                )
        yield Engine(model.traced, model.lens)
