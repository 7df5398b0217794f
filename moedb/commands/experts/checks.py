"""Checks of experts' labels by ablation."""

from typing import TYPE_CHECKING, Any

import click

from moedb.commands.options import (
    COUNT,
    SEED,
    output_options,
    placement_options,
    read_numbers,
    store_folder,
    store_option,
)
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError
from moedb.experts.checking.settings import KIND, VERDICT_KINDS, CheckSettings

if TYPE_CHECKING:
    from moedb.experts.checking.running import Checked


@click.command("check-labels", short_help="See whether a label is true: take its expert out.")
@click.argument("run", shell_complete=complete_runs)
@click.option("--labels", metavar="NAME", help="The labels, as label-experts called them.")
@click.option(
    "--name", metavar="NAME", help="What the effects are called.  [default: LABELS-effects]"
)
@click.option(
    "--kind",
    type=click.Choice(VERDICT_KINDS),
    default=CheckSettings.kind,
    show_default=True,
    help="The verdicts whose tokens are taken, and that say where the label fits.",
)
@click.option(
    "--follow",
    type=COUNT,
    default=CheckSettings.follow,
    show_default=True,
    help="Tokens after each token that are looked at.",
)
@click.option(
    "--controls",
    type=click.IntRange(0),
    default=CheckSettings.controls,
    show_default=True,
    help="Experts of the layer, about as often chosen, that are ablated besides.",
)
@click.option(
    "--quantiles",
    type=COUNT,
    default=CheckSettings.quantiles,
    show_default=True,
    help="Groups by score that the controls' own tokens are drawn from.",
)
@click.option(
    "--seed", type=SEED, default=CheckSettings.seed, show_default=True, help="Seed of the drawing."
)
@click.option(
    "--layers", callback=read_numbers, metavar="LAYERS", help="Layers: 0,4-7.  [default: all]"
)
@click.option(
    "--experts", callback=read_numbers, metavar="EXPERTS", help="Experts of each.  [default: all]"
)
@click.option(
    "--n",
    "limit_",
    type=click.IntRange(0),
    metavar="N",
    help="Experts at most, of those that are not checked by now.",
)
@click.option("--model", help="Where the run's model is.  [default: where the run says]")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: what there is]")
@placement_options
@click.option(
    "--batch-size",
    type=COUNT,
    default=32,
    show_default=True,
    help="Rows of a forward pass: examples without an expert.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would take; run nothing.")
@click.option("--remove", metavar="NAME", help="Take the effects of this name out of RUN.")
@output_options
@store_option
def check_labels(
    run: str,
    labels: str | None,
    remove: str | None,
    limit_: int | None,
    dry_run: bool,
    model: str | None,
    device: str | None,
    device_map: str | None,
    max_memory: float | None,
    batch_size: int,
    *,
    name: str | None,
    kind: Any,
    follow: int,
    controls: int,
    quantiles: int,
    seed: int,
    layers: tuple[int, ...] | None,
    experts: tuple[int, ...] | None,
    **output: Any,
) -> None:
    """Take each labelled expert of RUN out of its model, and see where that hurts what follows.

    At the tokens that the reader of the labels judged, the log-probability of the next token (and
    the mean over --follow tokens) without the expert is held against the untouched model's. So are
    other experts of the layer that are chosen about as often, on the same tokens and on tokens of
    their own. The rows are added to the run as label_effects, expert by expert; the same command
    again goes on where it was stopped.

    \b
    Example:
      moedb check-labels text-3f --labels labels --dry-run
      moedb check-labels text-3f --labels labels --layers 3 --n 8
      moedb check-labels text-3f --remove labels-effects
      moedb query label-effects
    """
    from moedb.commands.api.experts.label_checks import (
        ModelPlace,
        effects_of,
        plan_model,
        rows_of_estimate,
        shown_check,
    )
    from moedb.experts.checking.planning import plan_check

    if remove is not None:
        if labels is not None:
            raise UsageError(
                "--remove takes a run and a name", f"moedb check-labels {run} --remove NAME"
            )
        _remove(run, remove)
        return
    chosen = (name, kind, follow, controls, quantiles, seed, layers, experts, limit_)
    settings = CheckSettings(run, labels or "", *chosen)
    where = ModelPlace(model, batch_size, device, max_memory, device_map)
    planned = plan_check(store_folder(), settings)
    if dry_run:
        plan_model(store_folder(), planned.run_id, where)
        emit(rows_of_estimate(planned.run_id, planned.estimate), **output)
        return
    _tell(shown_check(store_folder(), planned, settings, where))
    emit(effects_of(store_folder(), planned.run_id, settings), **output)


def _tell(found: "Checked") -> None:
    if found.n_there:
        say(f"{found.n_there:,} experts were checked already")
    say(f"{found.n_experts:,} experts of run {found.run_id} checked: {found.n_rows:,} rows")
    say(f"they are called {found.name}: moedb check-labels {found.run_id} --remove {found.name}")


def _remove(run: str, name: str) -> None:
    from moedb.experts.additions import remove

    removed = remove(store_folder(), run, name, KIND)
    say(f"removed {removed.n_rows.get('label_effects', 0):,} effects: {name}")
