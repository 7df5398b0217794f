"""Two runs side by side."""

import click

from moedb.commands.asking.doubt import draw_options, with_chosen_doubt
from moedb.commands.options import COUNT, open_store, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say, say_sources
from moedb.errors import UsageError


@click.command(short_help="Say what two runs differ in, and where their routing does most.")
@click.argument("run_a", shell_complete=complete_runs)
@click.argument("run_b", shell_complete=complete_runs)
@click.option("--split", help="The examples' split.  [default: all but corrupted]")
@click.option(
    "-n", "--top", type=COUNT, default=10, show_default=True, help="Differences in routing to list."
)
@draw_options
@store_option
def compare(run_a: str, run_b: str, split: str | None, top: int) -> None:
    """Print what RUN_A and RUN_B differ in, and the experts whose share differs most.

    First model, data, settings, versions and labels; then shares of a layer's decisions, with the
    95 % intervals of their differences. Where both are of the same examples these are drawn
    together. Experts are told by their numbers, which mean nothing between two trainings.

    \b
    Example:
      moedb compare first second
    """
    from moedb.queries.guidance.run_differences import largest_differences, run_differences

    database = with_chosen_doubt(open_store(), always=True)
    one, other = (database.snapshot.run(run) for run in (run_a, run_b))
    if one.run_id == other.run_id:
        raise UsageError(f"{run_a} and {run_b} are the same run, {one.title}", "moedb runs")
    emit(run_differences(one, other), None, None, None)
    sides = (f"run={run.run_id}" for run in (one, other))
    result = database.compare("expert-frequency", *sides, split=split)
    click.echo()
    say_sources(emit(largest_differences(result, "share", top), None, None, None))
    say(f"all of them: moedb query expert-frequency --compare run={run_a} run={run_b}")
