"""The ablations that a check takes, expert by expert, and what they will take."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moedb.errors import UsageError
from moedb.experts.additions import expect_tokens, parts_there
from moedb.experts.checking.drawing import (
    Chosen,
    Place,
    Verdicts,
    controls_of,
    own_rows,
    read_verdicts,
)
from moedb.experts.checking.settings import CheckSettings
from moedb.experts.labelling.drawing import Corpus, Layer
from moedb.experts.labelling.rows import part_name
from moedb.queries.database import Database, open_database
from moedb.schemas.additions import Addition
from moedb.schemas.interventions import Ablation
from moedb.store.reading.additions import additions_of

COMMAND = "check-labels"


class Look(NamedTuple):
    """A row to come: one token, and one expert that is ablated there.

    Attributes
    ----------
    role, ablated
        As the columns of ``label_effects``.
    place
        The token.
    token_idx, example_id, cluster
        The token, its example, and what that is drawn with.
    chosen
        Whether it chose the ablated expert.
    n_following
        Tokens after it that count.
    ablation, at
        The number of the ablation among those of the check, and of the token there.
    """

    role: str
    ablated: int
    place: Place
    token_idx: int
    example_id: int
    cluster: int
    chosen: bool
    n_following: int
    ablation: int
    at: int


@dataclass
class Check:
    """A labelled expert with all that is to be looked at.

    Attributes
    ----------
    layer, expert
        The expert.
    ablations
        Each an expert and an example, once.
    looks
        What becomes a row.
    """

    layer: int
    expert: int
    ablations: list[Ablation] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def part(self) -> str:
        """The name of its part of the addition."""
        return part_name(self.layer, self.expert)


class Estimate(NamedTuple):
    """What a check takes.

    Attributes
    ----------
    n_experts
        Labelled experts that are not checked by now.
    n_checked
        Those that are.
    n_rows
        Tokens times experts that are ablated there.
    n_ablated
        Examples that are run without an expert: pairs of an example and an expert.
    n_untouched
        Examples that are run as they are, once for predictions and once for attributions.
    n_tokens
        Tokens of all these runs.
    """

    n_experts: int
    n_checked: int
    n_rows: int
    n_ablated: int
    n_untouched: int
    n_tokens: int


@dataclass(frozen=True)
class CheckPlan:
    """A check with every choice made.

    Attributes
    ----------
    run_id, addition
        The run, and what the rows become.
    checks
        The experts that are not checked by now.
    n_checked
        Those that are.
    """

    run_id: str
    addition: Addition
    checks: tuple[Check, ...]
    n_checked: int

    @property
    def ablations(self) -> list[Ablation]:
        """The ablations of all checks."""
        return [ablation for check in self.checks for ablation in check.ablations]

    @property
    def estimate(self) -> Estimate:
        """What it takes."""
        passes = [each for each in self.ablations if each.n_read]
        untouched: dict[int, int] = {}
        for each in passes:
            untouched[each.example_id] = max(untouched.get(each.example_id, 0), max(each.ends))
        return Estimate(
            len(self.checks),
            self.n_checked,
            sum(len(check.looks) for check in self.checks),
            len(passes),
            len(untouched),
            sum(each.n_read for each in passes) + 2 * sum(untouched.values()),
        )


def plan_check(store: Path, settings: CheckSettings) -> CheckPlan:
    """Draw all that is looked at, and put it together into ablations.

    Parameters
    ----------
    store
        The store's folder.
    settings
        What is asked.

    Raises
    ------
    UsageError
        If the run has no such labels, or effects of this name that were made with other settings.
    StoreError
        If the run is incomplete or damaged.
    """
    with open_database(store) as whole:
        run = whole.snapshot.run(settings.run)
        expect_tokens(run, f"moedb {COMMAND}")
        database = whole.of_run(run.run_id)
        verdicts = read_verdicts(database, run.run_id, settings)
        labels = additions_of(run).get(settings.labels)
        addition = settings.addition(labels.about.added_at if labels else "")
        there = parts_there(run, addition, f"moedb {COMMAND}")
        left = [each for each in verdicts if part_name(*each) not in there]
        n_checked = len(verdicts) - len(left)
        wanted = {each: verdicts[each] for each in left[: settings.limit] if verdicts[each]}
        checks = tuple(_checks(database, run.run_id, wanted, settings))
    return CheckPlan(run.run_id, addition, checks, n_checked)


def _checks(
    database: Database, run_id: str, verdicts: Verdicts, settings: CheckSettings
) -> Iterator[Check]:
    """The checks, one layer's decisions in memory at a time."""
    if not verdicts:
        return
    corpus = Corpus(database, run_id, COMMAND)
    for number in sorted({layer for layer, _ in verdicts}):
        layer = Layer(database, run_id, number, corpus)
        chosen = Chosen(layer)
        for expert in sorted(expert for of, expert in verdicts if of == number):
            given = verdicts[number, expert]
            rows = _rows_of(corpus, [token for token, _, _ in given])
            places = [
                Place(row, routed, fits) for row, (_, routed, fits) in zip(rows, given, strict=True)
            ]
            yield _Drawn(layer, chosen, settings).check(expert, places)


def _rows_of(corpus: Corpus, tokens: list[int]) -> list[int]:
    wanted = np.array(tokens, dtype=np.int64)
    known = np.isin(wanted, corpus.token_idx)
    if not known.all():
        raise UsageError(
            f"a verdict is of token {int(wanted[~known][0])}, which no example has that labels "
            "are judged on (corrupted twins are left out)"
        )
    return [int(row) for row in corpus.rows_of(wanted)]


@dataclass
class _Drawn:
    """Puts the tokens of an expert and of its controls together."""

    layer: Layer
    chosen: Chosen
    settings: CheckSettings

    def check(self, expert: int, places: list[Place]) -> Check:
        found = Check(self.layer.layer, expert)
        self._add(found, expert, {"own": places})
        n_routed = sum(place.routed for place in places)
        is_routed = self.chosen.mask(expert)
        for control in controls_of(self.layer, expert, self.settings):
            rows = own_rows(self.layer, control, n_routed, self.settings)
            own = [Place(row, bool(is_routed[row]), None) for row in rows]
            self._add(found, control, {"control": places, "control-own": own})
        return found

    def _add(self, check: Check, ablated: int, by_role: Mapping[str, Iterable[Place]]) -> None:
        """Add the ablation of one expert at some tokens, each example once."""
        corpus, mask = self.layer.corpus, self.chosen.mask(ablated)
        looked: dict[int, list[tuple[str, Place]]] = {}
        for role, places in by_role.items():
            for place in places:
                looked.setdefault(int(corpus.example_id[place.row]), []).append((role, place))
        for example_id, looks in sorted(looked.items()):
            start, end = np.searchsorted(corpus.example_id, [example_id, example_id + 1]).tolist()
            rows = sorted({place.row for _, place in looks})
            ends = [min(row + self.settings.follow, end - 1) for row in rows]
            chose = [bool(mask[row]) for row in rows]
            first = int(mask[start:end].argmax()) if mask[start:end].any() else None
            for role, place in looks:
                at = rows.index(place.row)
                check.looks.append(
                    Look(
                        role,
                        ablated,
                        place,
                        int(corpus.token_idx[place.row]),
                        example_id,
                        int(corpus.cluster[place.row]),
                        chose[at],
                        ends[at] - place.row,
                        len(check.ablations),
                        at,
                    )
                )
            check.ablations.append(
                Ablation(
                    check.layer,
                    ablated,
                    example_id,
                    tuple(row - start for row in rows),
                    tuple(each - start for each in ends),
                    tuple(chose),
                    first,
                )
            )
