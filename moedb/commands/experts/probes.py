"""Probes of neurons."""

from typing import TYPE_CHECKING, Any

import click

from moedb.commands.options import (
    COUNT,
    SEED,
    output_options,
    read_numbers,
    store_folder,
    store_option,
)
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError
from moedb.experts.probing.settings import KIND, NEURONS, PROTOCOLS, SIZES, ProbeSettings

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
    callback=read_numbers,
    metavar="K",
    help="Neurons of a probe: 1,2,4-8.  [default: 1,2,4,8,16,32,64]",
)
@click.option(
    "--layers", callback=read_numbers, metavar="LAYERS", help="Layers: 0,4-7.  [default: all]"
)
@click.option(
    "--array",
    type=click.Choice(NEURONS),
    default=ProbeSettings.array,
    show_default=True,
    help="The neurons.",
)
@click.option(
    "--groups",
    type=click.IntRange(0),
    default=ProbeSettings.groups,
    metavar="N",
    help="Divide a layer of one candidate (a dense model's, the shared expert) at random into N, "
    "so that there are as many candidates as experts elsewhere.",
)
@click.option("--width", type=COUNT, help="Neurons of such a group.  [default: all/N]")
@click.option(
    "--tokens-of",
    metavar="RUN2",
    shell_complete=complete_runs,
    help="With --groups: for each expert of RUN2, a run of the same texts, a group that sees the "
    "tokens which chose the expert at that layer, so that both are asked about the same tokens.",
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(PROTOCOLS),
    help="documents: fitted, chosen and scored on documents of their own; herbst2026: by token, "
    "the best chosen on what it is scored on.  [default: both]",
)
@click.option(
    "--permutations",
    type=click.IntRange(0),
    default=ProbeSettings.permutations,
    show_default=True,
    help="How often all is done with shuffled labels too.",
)
@click.option(
    "--min-tokens",
    type=click.IntRange(2),
    default=ProbeSettings.min_tokens,
    show_default=True,
    help="A candidate with fewer tokens of the concept, or of none, is passed over.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(2),
    default=ProbeSettings.max_tokens,
    show_default=True,
    help="Tokens of each kind that a probe is fitted on, at most.",
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=ProbeSettings.resamples,
    show_default=True,
    help="Bootstrap samples of the documents.",
)
@click.option(
    "--cluster", metavar="KEY", help="The label that tells documents.  [default: document]"
)
@click.option(
    "--seed",
    type=SEED,
    default=ProbeSettings.seed,
    show_default=True,
    help="Seed of what is drawn.",
)
@click.option(
    "--name",
    default=ProbeSettings.name,
    show_default=True,
    help="What the probes are called together.",
)
@click.option("--remove", metavar="NAME", help="Take the probes of this name out of RUN.")
@output_options
@store_option
def probe(
    run: str,
    concepts: tuple[str, ...],
    sizes: tuple[int, ...] | None,
    layers: tuple[int, ...] | None,
    protocols: tuple[Any, ...],
    remove: str | None,
    *,
    array: str,
    groups: int,
    width: int | None,
    tokens_of: str | None,
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
      moedb probe text-3f --key upos=NOUN --key 'latex-*' --k 1,8
      moedb probe dense --key upos --groups 60 --width 32 --tokens-of text-3f
      moedb probe text-3f --remove probe
      moedb query probe-curves
    """
    from moedb.commands.api.experts.probing import best_of, shown_probing

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
        layers or (),
        name,
        tokens_of,
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
    from moedb.experts.additions import remove

    removed = remove(store_folder(), run, name, KIND)
    say(f"removed {removed.n_rows.get('probe_scores', 0):,} probes: {name}")
