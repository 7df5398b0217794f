"""Probes of neurons."""

from typing import TYPE_CHECKING, Any

import click

from moedb.commands.options import output_options, store_folder, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.experts.probing.running import Probed


@click.command(short_help="Ask whether a few neurons of an expert tell a concept.")
@click.argument("run", shell_complete=complete_runs)
@click.option(
    "--key",
    "concepts",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="A label of tokens: all its values, or one; * is any text; repeatable.",
)
@click.option(
    "--k",
    "sizes",
    multiple=True,
    type=click.IntRange(1),
    help="Neurons of a probe; repeatable.  [default: 1 2 4 8 16 32 64]",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=click.IntRange(0),
    help="A layer; repeatable.  [default: all that have neurons]",
)
@click.option(
    "--array",
    type=click.Choice(["expert_neurons", "shared_neurons"]),
    default="expert_neurons",
    show_default=True,
    help="The neurons.",
)
@click.option(
    "--groups",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Divide a layer of one candidate (a dense model's, the shared expert) at random into N, "
    "so that there are as many candidates as experts elsewhere.",
)
@click.option("--width", type=click.IntRange(1), help="Neurons of such a group.  [default: all/N]")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["documents", "herbst2026"]),
    help="documents: fitted, chosen and scored on documents of their own; herbst2026: by token, "
    "the best chosen on what it is scored on.  [default: both]",
)
@click.option(
    "--permutations",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="How often all is done with shuffled labels too.",
)
@click.option(
    "--min-tokens",
    type=click.IntRange(2),
    default=50,
    show_default=True,
    help="A candidate with fewer tokens of the concept, or of none, is passed over.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(2),
    default=2500,
    show_default=True,
    help="Tokens of each kind that a probe is fitted on, at most.",
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="Bootstrap samples of the documents.",
)
@click.option(
    "--cluster", metavar="KEY", help="The label that tells documents.  [default: document]"
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of what is drawn."
)
@click.option(
    "--name", default="probe", show_default=True, help="What the probes are called together."
)
@click.option("--remove", metavar="NAME", help="Take the probes of this name out of RUN.")
@output_options
@store_option
def probe(
    run: str,
    concepts: tuple[str, ...],
    sizes: tuple[int, ...],
    layers: tuple[int, ...],
    protocols: tuple[Any, ...],
    remove: str | None,
    *,
    array: str,
    groups: int,
    width: int | None,
    permutations: int,
    min_tokens: int,
    max_tokens: int,
    resamples: int,
    cluster: str | None,
    seed: int,
    name: str,
    **output: Any,
) -> None:
    """Fit k-sparse probes on the neurons of RUN's experts, and add their scores to it.

    A probe is a logistic regression on the k neurons of an expert that differ most between the
    tokens of a concept and others. The scores are rows of probe_scores; printed are those of the
    best expert of all layers. The same command again goes on where it was stopped.

    \b
    Example:
      moedb probe text-3f --key upos
      moedb probe text-3f --key upos=NOUN --key 'latex-*' --k 1 --k 8
      moedb probe text-3f --remove probe
      moedb query probe-curves
    """
    from moedb.commands.api.probing import best_of, shown_probing
    from moedb.experts.probing.settings import PROTOCOLS, SIZES, ProbeSettings

    if remove is not None:
        if concepts:
            raise UsageError("--remove takes a run and a name", f"moedb probe {run} --remove NAME")
        _remove(run, remove)
        return
    settings = ProbeSettings(
        run,
        concepts,
        sizes or SIZES,
        array,
        groups,
        width,
        protocols or PROTOCOLS,
        permutations,
        min_tokens,
        max_tokens,
        resamples,
        cluster,
        seed,
        layers,
        name,
    )
    found = shown_probing(store_folder(), settings)
    _tell(found)
    emit(best_of(store_folder(), found), **output)


def _tell(found: "Probed") -> None:
    if found.n_there:
        say(f"{found.n_there} layers times concepts were there already")
    for why, n in sorted(found.passed_over.items()):
        say(f"passed over {n:,} times a candidate and a concept: {why}")
    say(f"{found.n_probes:,} probes added to run {found.run_id}")
    say(f"they are called {found.name}: moedb probe {found.run_id} --remove {found.name}")


def _remove(run: str, name: str) -> None:
    from moedb.commands.api.labelling import remove_addition

    remove_addition(run, name, store_folder())
    say(f"removed the probes: {name}")
