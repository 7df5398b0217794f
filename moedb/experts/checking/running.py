"""Running a check: each labelled expert measured, and its rows added to the run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moedb.experts.checking.planning import CheckPlan
from moedb.experts.checking.rows import table_of
from moedb.experts.checking.settings import CheckSettings
from moedb.schemas.interventions import Ablation, AblationEffect
from moedb.schemas.tables import LABEL_EFFECTS
from moedb.store.writing.complete.additions import append
from moedb.store.writing.writability import check_writable

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Is told what is counted and how many there are; gives what is called after each."""


class Measure(Protocol):
    """Runs ablations; gives the number of each with its effects at each of its tokens."""

    def __call__(
        self, ablations: Sequence[Ablation], /
    ) -> Iterator[tuple[int, list[AblationEffect]]]:
        """Run some ablations."""


OpenMeasure = Callable[[Sequence[Ablation]], AbstractContextManager[Measure]]
"""Makes the model ready, given all ablations that will be asked for."""


@dataclass
class Checked:
    """What a check gave.

    Attributes
    ----------
    run_id, name
        The run, and what the effects are called together.
    n_experts, n_rows
        Experts that were checked now, and their rows.
    n_there
        Experts that were checked before.
    """

    run_id: str
    name: str
    n_experts: int
    n_rows: int
    n_there: int


def run_check(
    store: Path,
    planned: CheckPlan,
    settings: CheckSettings,
    open_measure: OpenMeasure,
    progress: Progress,
) -> Checked:
    """Measure what is planned, and add it to the run expert by expert.

    Parameters
    ----------
    store
        The store's folder.
    planned
        What is measured; nothing that is there by now.
    settings
        What was asked.
    open_measure
        Makes the model ready.
    progress
        Is told how far it is.

    Raises
    ------
    StoreError
        If the store cannot be written.
    CheckError
        If the untouched model is not as the run says; what was added before stays.
    """
    check_writable(store, planned.run_id)
    found = Checked(planned.run_id, settings.called, 0, 0, planned.n_checked)
    if not planned.checks:
        return found
    with open_measure(planned.ablations) as measure:
        estimate = planned.estimate
        with progress("examples without an expert", estimate.n_ablated) as advance:
            for check in planned.checks:
                effects: dict[int, list[AblationEffect]] = {}
                for number, each in measure(check.ablations):
                    effects[number] = each
                    if check.ablations[number].n_read:
                        advance()
                table = table_of(check, effects, settings)
                rows = {LABEL_EFFECTS.name: [table]}
                append(store, planned.run_id, planned.addition, check.part, rows)
                found.n_experts += 1
                found.n_rows += len(table)
    return found
