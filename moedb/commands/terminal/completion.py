"""What the shell offers after TAB: names of questions, runs, parameters and their values.

Nothing is said where something is wrong: the command that is typed will say it.
"""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from moedb.queries.questions.parameters import Parameter

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _quietly(offer: Callable[[click.Context], Iterable[str]]) -> Complete:
    def complete(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
        try:
            return sorted({each for each in offer(context) if each.startswith(incomplete)})
        except Exception:
            return []

    return complete


@_quietly
def complete_questions(context: click.Context) -> Iterable[str]:
    """The named queries and the analyses."""
    from moedb.queries.analyses.registry import ANALYSES
    from moedb.queries.questions.catalog import catalog

    return [*catalog(), *ANALYSES]


@_quietly
def complete_figures(context: click.Context) -> Iterable[str]:
    """The questions that have a figure."""
    from moedb.queries.figures.registry import PLOTS

    return PLOTS


@_quietly
def complete_runs(context: click.Context) -> Iterable[str]:
    """The runs of the store, by what they are stored as and by the names given to them."""
    from moedb.store.reading.snapshot import take_snapshot

    runs = take_snapshot(_store(context)).runs.values()
    return [name for run in runs for name in (run.run_id, run.named.name) if name is not None]


@_quietly
def complete_parameters(context: click.Context) -> Iterable[str]:
    """The parameters of the question that is asked; after one of them its values."""
    from moedb.queries.analyses.registry import ANALYSES
    from moedb.queries.questions.catalog import catalog

    # an option that lacks its second value keeps click from reading what stands before it
    questions = {**catalog(), **ANALYSES}
    *_, before = words = _words_before()
    question = next(questions[word] for word in words if word in questions)
    parameters = {each.name: each for each in question.parameters}
    if before not in parameters:
        return parameters
    return _values(context, parameters[before])


def _values(context: click.Context, parameter: "Parameter") -> Iterable[str]:
    if parameter.choices:
        return parameter.choices
    if parameter.name in ("run", "run_b"):
        return complete_runs(context, click.Option(["--run"]), "")
    from moedb.queries.database import open_database
    from moedb.queries.reading.run_contents import contents

    with open_database(_store(context)) as database:
        newest = database.snapshot.newest_complete()
        run = context.params.get("run") or (newest.run_id if newest else "")
        held = contents(database, run)
        offered: dict[str, Callable[[], Iterable[Any]]] = {
            "key": held.label_keys,
            "split": lambda: [*held.splits(), "all"],
            "layer": lambda: held.experts,
        }
        return [str(value) for value in offered.get(parameter.name, tuple)()]


def _store(context: click.Context) -> Any:
    from moedb.queries.database import default_store
    from moedb.store.layout import store_path

    given = context.find_root().params.get("store")
    # a key that is pressed reaches for no network
    return default_store() if given is None else store_path(given)


def _words_before() -> list[str]:
    """The words before the one that is being typed, as the shell tells them."""
    words = os.environ["COMP_WORDS"].split()
    place = os.environ.get("COMP_CWORD", "")
    return words[: int(place)] if place.isdigit() else words
