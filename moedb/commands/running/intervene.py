"""Intervening: a captured run's examples again, through a changed model."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from moedb.commands.api.plans import in_bytes
from moedb.commands.options import (
    COUNT,
    OUTPUT,
    SEED,
    mirror_of,
    mirror_option,
    name_options,
    open_store,
    output_options,
    placement_options,
    store_folder,
    store_option,
)
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say, say_of_mirror
from moedb.errors import UsageError
from moedb.schemas.interventions import FORMS, KINDS, SITES

if TYPE_CHECKING:
    from moedb.capture.interventions.planning import SweepPlan


@click.command(short_help="Run examples again while something changes in the model.")
@click.option(
    "-r",
    "--run",
    required=True,
    shell_complete=complete_runs,
    help="The run, or the beginning of its name.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    required=True,
    help="What is changed, see above; may be repeated.",
)
@click.option(
    "--layers", default="all", show_default=True, help="0,4-7. Each is a condition of its own."
)
@click.option("--together", is_flag=True, help="Change all these layers in one condition.")
@click.option(
    "--roles",
    metavar="ROLE,...",
    help="Change only these tokens: io, s1, s2, end, other. Each is a condition of its own; "
    "s2+end changes both in one.  [default: every token]",
)
@click.option(
    "--split",
    type=click.Choice(["all", "clean", "corrupted"]),
    default="all",
    show_default=True,
    help="Which examples are changed.",
)
@click.option("--experts", metavar="LIST", help="The experts 3 or 0,2,8-11 of each layer.")
@click.option("--most-frequent", type=COUNT, metavar="M", help="The M most chosen of each layer.")
@click.option(
    "--experts-sql", metavar="SELECT", help="Experts that a query gives: select layer, expert ..."
)
@click.option("--each", is_flag=True, help="Each of these experts is a condition of its own.")
@click.option(
    "--form",
    type=click.Choice(FORMS),
    help="ablate-experts: the next best take over, or nothing does.  [default: remove]",
)
@click.option(
    "--site", "sites", type=click.Choice(SITES), multiple=True, help="patch: what; repeatable."
)
@click.option(
    "--draws",
    type=click.IntRange(1, 10_000),
    help="random-routing: conditions of each layer.  [default: 1]",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of random-routing.")
@click.option(
    "--lens", is_flag=True, help="Read the changed residual stream through the logit lens, too."
)
@click.option("--model", help="Where the run's model is.  [default: where the run says]")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: what there is]")
@placement_options
@click.option(
    "--batch-size",
    type=COUNT,
    default=128,
    show_default=True,
    help="Rows of a forward pass: examples times the conditions that share it.",
)
@name_options
@click.option("--dry-run", is_flag=True, help="List the conditions, and stop.")
@mirror_option
@output_options
@store_option
def intervene(
    run: str,
    experts_sql: str | None,
    lens: bool,
    model: str | None,
    device: str | None,
    device_map: str | None,
    max_memory: float | None,
    batch_size: int,
    name: str | None,
    note: str | None,
    dry_run: bool,
    **choices: Any,
) -> None:
    """Run a qwen-ioi run's examples again while something is changed in the model.

    Makes a run of its own, linked by runs.parent_run_id, with a row of conditions for each change
    and one of predictions for each example under it; condition 0 is the untouched model. With
    --lens there are rows of logit_lens too, from the first changed layer on. Prints the new run's
    name. The same command again resumes, or says that there is nothing to do.

    \b
    ablate-experts    experts leave the router's choice, or (--form zero) write nothing
    random-routing    experts drawn uniformly, weights by the router's own rule
    uniform-weights   the chosen experts, their weights all equal, their sum kept
    force-experts     the same experts for every token, weights by the router's own rule
    swap-routing      experts and weights of the example's twin
    patch             activations of the example's twin, at a --site:
                        block-output      what the MoE block adds to the residual stream
                        expert-output     what single experts add to it, weight times output;
                                          nothing where the expert was not chosen
                        shared-output     the shared expert's output, before its gate
                        attention-output  what attention adds to the residual stream
                        residual          the residual stream entering the layer
    knock-out-shared  the shared expert writes nothing

    The twin of a clean prompt is the corrupted one, and the reverse.

    \b
    Example:
      moedb intervene --run qwen-ioi-3f --kind knock-out-shared --kind uniform-weights
      moedb intervene --run qwen-ioi-3f --kind ablate-experts --most-frequent 8 --each
      moedb intervene --run qwen-ioi-3f --kind ablate-experts --form zero --together \\
        --experts-sql "select distinct layer, expert from routing where weight > 0.5"
      moedb intervene --run qwen-ioi-3f --kind patch --site residual --roles s1,s2,end
    """
    from moedb.capture.interventions.choices import Choices
    from moedb.capture.interventions.parent_run import open_parent
    from moedb.capture.interventions.planning import Resources, plan_sweep
    from moedb.schemas.run_names import RunName

    output = {key: choices.pop(key) for key in OUTPUT}
    pairs = None if experts_sql is None else _expert_pairs(experts_sql)
    asked = Choices(pairs=pairs, **choices)
    resources = Resources(model, batch_size, device, in_bytes(max_memory), device_map)
    planned = plan_sweep(
        open_parent(store_folder(), run), asked, resources, lens, RunName(name, note)
    )
    _announce(planned)
    if dry_run:
        _list_conditions(planned, **output)
    else:
        _run(planned)


def _expert_pairs(statement: str) -> tuple[tuple[int, int], ...]:
    """The layers and experts that a query gives."""
    with open_store() as database:
        found = database.sql(statement)
        names = [name.lower() for name in found.columns]
        if sorted(names) != ["expert", "layer"]:
            raise UsageError(
                f"--experts-sql: expected the columns layer and expert, got {', '.join(names)}",
                "--experts-sql 'select layer, expert from ...'",
            )
        rows = found.fetchall()
    layer, expert = names.index("layer"), names.index("expert")
    try:
        return tuple(sorted({(int(row[layer]), int(row[expert])) for row in rows}))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--experts-sql: expected whole numbers: {error}") from error


def _announce(planned: "SweepPlan") -> None:
    n_examples = len(planned.changed)
    say(
        f"model {planned.checkpoint.name}, {planned.dtype} on {planned.device}: "
        f"{len(planned.interventions):,} conditions on {n_examples:,} examples of run "
        f"{planned.parent.snapshot.run_id}, in {len(planned.units)} units"
    )


def _list_conditions(planned: "SweepPlan", **output: Any) -> None:
    from moedb.capture.conditions import condition_table
    from moedb.queries.results.rows.given import result_of_rows

    for note in planned.notes:
        say(note)
    table = dict(condition_table(planned.conditions))
    starts = {number: group.start for group in planned.groups for number in group.conditions}
    table["starts_at"] = [starts.get(number, 0) for number in table["condition_id"]]
    types = {"condition_id": "INTEGER", "kind": "VARCHAR", "layer": "INTEGER"}
    types |= {"expert": "INTEGER", "params": "VARCHAR", "starts_at": "INTEGER"}
    rows = list(zip(*(table[name] for name in types), strict=True))
    emit(result_of_rows(types, rows), **output)


def _run(planned: "SweepPlan") -> None:
    from moedb.capture.interventions.running import run_sweep
    from moedb.commands.api.progress import RichProgress

    mirror = mirror_of(planned.run_id)
    with RichProgress() as progress, mirror or nullcontext():
        outcome = run_sweep(planned, store_folder(), progress)
    if outcome.was_complete:
        say(f"run {outcome.run_id} is complete already: nothing to do")
    elif outcome.units_missing:
        say(f"run {outcome.run_id}: {outcome.units_missing} units are left to other processes")
    else:
        resumed = f", {outcome.units_before} were there" if outcome.units_before else ""
        say(f"run {outcome.run_id} is complete: {outcome.units_now} units written{resumed}")
    say_of_mirror(mirror)
    click.echo(outcome.run_id)
