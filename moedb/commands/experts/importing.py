"""What others made and published: labels of experts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moedb.commands.options import SEED, output_options, store_folder, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say

if TYPE_CHECKING:
    from moedb.experts.importing.adding import Imported, ImportRequest


@click.group("import", short_help="Add to a run what others published.")
def import_() -> None:
    """Add to a complete run what others made of its model and published."""


@import_.command("labels", short_help="Labels of experts, and verdicts on them.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--run",
    required=True,
    shell_complete=complete_runs,
    help="The run, or the beginning of its name.",
)
@click.option("--name", required=True, help="What the labels are called.")
@click.option(
    "--from",
    "form",
    type=click.Choice(["herbst2026", "delphi", "neuronpedia", "moedb"]),
    help="What the files are.  [default: as their content says]",
)
@click.option(
    "--layer", type=click.IntRange(0), help="The layer that they are of.  [default: as they say]"
)
@click.option("--model", metavar="NAME", help="Of files with several models: whose labels.")
@click.option(
    "--samples",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Draws of the bootstrap behind the intervals.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Their seed.")
@click.option("--dry-run", is_flag=True, help="Say what would be added; add nothing.")
@output_options
@store_option
def labels(
    files: tuple[Path, ...],
    run: str,
    name: str,
    form: str | None,
    layer: int | None,
    model: str | None,
    samples: int,
    seed: int,
    dry_run: bool,
    **output: Any,
) -> None:
    """Add the labels of experts that FILES have to a run, and score their verdicts.

    FILES are files of Herbst et al. 2026, a folder of results of delphi, an export of Neuronpedia,
    or JSON lines or CSV with layer, expert and label. Layers are numbers or names of modules. What
    has no place in the run is counted and left out. The labels are taken out by moedb label-experts
    RUN --remove --name NAME.

    \b
    Example:
      moedb import labels labels.jsonl --run text-3f --name theirs --dry-run
      moedb import labels OLMoE-1B-7B-0125_L*_auto_interp.json --run text-3f --name herbst
      moedb import labels results/ --run text-3f --name delphi
      moedb query labelled-experts --run text-3f
    """
    from moedb.commands.api.experts.importing import rows_of_imported
    from moedb.experts.importing.adding import ImportRequest, import_labels
    from moedb.experts.importing.found import Choices

    paths = [path.expanduser() for path in files]
    request = ImportRequest(run, paths, name, form, Choices(layer, model), samples, seed, dry_run)
    found = import_labels(store_folder(), request)
    emit(rows_of_imported(found, seed), **output)
    _tell(found, request)


def _tell(found: "Imported", request: "ImportRequest") -> None:
    """Say what became of the labels."""
    for what, n in found.passed_over.most_common(10):
        say(f"left out: {n:,} {what}")
    if len(found.passed_over) > 10:
        rest = found.passed_over.most_common()[10:]
        say(f"left out: {sum(n for _, n in rest):,} for {len(rest):,} other reasons")
    if found.about is not None:
        say(f"the labels are of {found.about}, says {found.form}; the run is of {found.model}")
    n_verdicts = sum(len(each.contexts) for e in found.experts for each in e.verdicts.values())
    said = f"{len(found.experts):,} labels with {n_verdicts:,} verdicts, read as {found.form}"
    if request.is_dry:
        say(f"{said}; nothing was added, as --dry-run asks")
        return
    say(f"{said}, added to run {found.run_id}")
    say(f"moedb label-experts {found.run_id} --remove --name {request.name} takes them out")
