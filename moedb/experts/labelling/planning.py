"""Which experts are to be labelled, and what that will take."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from moedb.errors import UsageError
from moedb.experts.additions import expect_tokens, parts_there
from moedb.experts.labelling.asking.endpoint import completions_url
from moedb.experts.labelling.asking.journal import answers_path, read_answers
from moedb.experts.labelling.asking.reader import rough_tokens
from moedb.experts.labelling.drawing import KINDS, NEGATIVES
from moedb.experts.labelling.rows import part_name
from moedb.experts.labelling.settings import LabelSettings
from moedb.queries.database import Database, open_database
from moedb.store.layout import RunLayout
from moedb.store.reading.additions import additions_of

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

_PROMPT_CHARACTERS, _CHARACTERS_PER_TOKEN = 1000, 5
"""Of a question without its texts, and of a token of the run in one: for the estimate."""


class Estimate(NamedTuple):
    """What labelling will take, roughly.

    Attributes
    ----------
    n_experts
        Experts that have no label by now.
    n_requests
        Requests, if all are answered at once; what the journal holds is not sent again.
    n_tokens
        Tokens of these, prompts and answers.
    n_answers
        Answers that the journal holds.
    n_labelled
        Experts that were labelled before.
    """

    n_experts: int
    n_requests: int
    n_tokens: int
    n_answers: int
    n_labelled: int


def estimate_labels(store: Path, settings: LabelSettings) -> tuple[str, Estimate]:
    """Say which run it is, and what labelling its experts will take; nothing is sent.

    Raises
    ------
    UsageError, StoreError
        As of :func:`~.running.label_experts`.
    """
    if settings.endpoint is not None:
        completions_url(settings.endpoint)
    with open_database(store) as whole:
        run = whole.snapshot.run(settings.run)
        wanted = experts_left(whole.of_run(run.run_id), run, settings)
        n_answers = len(read_answers(answers_path(RunLayout(store, run.run_id), settings.name)))
        return run.run_id, estimate_of(wanted, run, settings, n_answers)


def experts_left(
    database: Database, run: "RunSnapshot", settings: LabelSettings
) -> dict[int, list[int]]:
    """For each layer the experts that are to be labelled, and are not yet."""
    expect_tokens(run, "moedb label-experts")
    done = parts_there(run, settings.addition, "moedb label-experts")
    statement = "select any_value(token) from tokens where run_id = $run"
    if database.sql(statement, {"run": run.run_id}).fetchall() == [(None,)]:
        raise UsageError(
            f"run {run.title} has no texts that a reader could read: its examples are of the job "
            f"{run.row['job']}"
        )
    sizes = {int(row["layer"]): int(row["n_experts"]) for row in run.manifest.layers}
    _expect_known("layers", settings.layers, sizes)
    _expect_known("experts", settings.experts, range(max(sizes.values())))
    left = [
        (layer, expert)
        for layer, n_experts in sizes.items()
        if settings.layers is None or layer in settings.layers
        for expert in range(n_experts)
        if (settings.experts is None or expert in settings.experts)
        and part_name(layer, expert) not in done
    ]
    found: dict[int, list[int]] = {}
    for layer, expert in left[: settings.limit]:
        found.setdefault(layer, []).append(expert)
    return found


def _expect_known(name: str, given: Iterable[int] | None, known: Iterable[int]) -> None:
    numbers = sorted(known)
    unknown = sorted(set(given or ()) - set(numbers))
    if unknown:
        raise UsageError(
            f"{name}: the run has none numbered {', '.join(map(str, unknown))}; "
            f"valid: {numbers[0]} to {numbers[-1]}"
        )


def cost_of(settings: LabelSettings) -> tuple[int, int]:
    """Requests and tokens of an expert, roughly, if its layer's others are not labelled yet."""
    n_contexts = settings.scored * (1 + len(NEGATIVES))
    n_batches = math.ceil(n_contexts / settings.batch)
    n_sets = len(KINDS) * (2 if settings.baseline else 1)
    text = settings.window * _CHARACTERS_PER_TOKEN
    judged = n_batches * _PROMPT_CHARACTERS + n_contexts * (text + 2 * _CHARACTERS_PER_TOKEN)
    named = settings.promoted * 2 * _CHARACTERS_PER_TOKEN
    explained = _PROMPT_CHARACTERS + settings.contexts * text + named
    return 1 + n_sets * n_batches, rough_tokens(explained + 100 + n_sets * judged)


def estimate_of(
    wanted: dict[int, list[int]], run: "RunSnapshot", settings: LabelSettings, n_answers: int
) -> Estimate:
    """What labelling the experts that are left will take; the journal has ``n_answers``."""
    there = additions_of(run).get(settings.name)
    n_experts = sum(map(len, wanted.values()))
    requests, tokens = cost_of(settings)
    n_labelled = len(there.about.parts) if there else 0
    return Estimate(n_experts, n_experts * requests, n_experts * tokens, n_answers, n_labelled)


def expect_enough(settings: LabelSettings, cost: tuple[int, int]) -> None:
    """Check that one expert can be labelled with what may be sent.

    Raises
    ------
    UsageError
        If it can't.
    """
    for name, given, needed in (
        ("max-requests", settings.max_requests, cost[0] + settings.baseline),
        ("max-tokens", settings.max_tokens, cost[1]),
    ):
        if given is not None and given < needed:
            raise UsageError(
                f"--{name} {given} is too few for one expert, which takes about {needed:,}",
                f"--{name} {needed} or more; or score fewer contexts: --scored N",
            )
