"""The command that does a whole study."""

import shlex
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from moedb.commands.options import store_folder, store_option
from moedb.commands.studies.rehearsal import Estimate, rehearse
from moedb.commands.studies.running import StudyRun, Task
from moedb.commands.studies.study_file import PAGE, Study, find_study, packaged, read_study
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import answer, say
from moedb.errors import MoedbError, UsageError
from moedb.queries.results.result import Result
from moedb.schemas.formats import FORMATS


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = [name for name in packaged() if name.startswith(incomplete)]
    files = [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in found] or files


def _read_settings(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """Read ``KEY=VALUE``."""
    found: dict[str, str] = {}
    for each in given:
        name, is_there, value = each.partition("=")
        if not is_there or not name:
            raise click.BadParameter(f"{each!r}: expected NAME=VALUE, such as n=100")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = value
    return found


@click.command(short_help="Do a whole study: captures, interventions, probes, report.")
@click.argument("name", required=False, metavar="[NAME|FILE]", shell_complete=_complete)
@click.option("--model", help="The model: a name, a folder or a hub id; as --set model=...")
@click.option("--dataset", help="The data: a file, a folder or a hub id; as --set dataset=...")
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_read_settings,
    help="Choose a setting of the study; repeatable.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for its files.  [default: study-NAME]",
)
@click.option("--show", is_flag=True, help="Print the study's file, to copy and change.")
@click.option("--dry-run", is_flag=True, help="List the steps and what they will take, and stop.")
@click.option(
    "--rehearsal/--no-rehearsal",
    default=True,
    show_default=True,
    help="Do it twice at small sizes first, to say what it will take.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Format of the lists of studies and of steps.  [default: table]",
)
@store_option
def study(
    name: str | None,
    model: str | None,
    dataset: str | None,
    given: dict[str, str],
    folder: Path | None,
    show: bool,
    dry_run: bool,
    rehearsal: bool,
    format_: str | None,
) -> None:
    """Do all steps of a study, NAME or that of a YAML file; without it, list those there are.

    A step is a command of moedb. Steps that were done are not done again while what they made is
    there; the same command again goes on where it was stopped.

    \b
    Example:
      moedb study
      moedb study ioi --dry-run
      moedb study ioi --set n=100 -o ioi
      moedb study text --dataset reviews.jsonl --set label=stars
      moedb study ioi --show > mine.yaml
      moedb study mine.yaml
    """
    if name is None:
        emit(_list(), format_, None, None)
        return
    found = find_study(name)
    if show:
        click.echo(found.source, nl=False)
        return
    for key, value in (("model", model), ("dataset", dataset)):
        if value is not None and given.setdefault(key, value) != value:
            raise UsageError(f"{key} is given twice: {given[key]!r} and {value!r}")
    root = click.get_current_context().find_root().command
    planned = StudyRun(
        found, found.chosen(given), root, store_folder(), folder or Path(f"study-{found.name}")
    )
    planned.check()
    tasks = planned.tasks()
    estimates = {}
    if rehearsal and not all(task.is_done for task in tasks):
        estimates = _rehearse(planned)
    if dry_run:
        emit(_plan(tasks, estimates), format_, None, None)
        return
    _summarize(found, tasks, estimates)
    _do(planned, estimates)


def _list() -> Result:
    from moedb.queries.results.rows.given import result_of_rows

    columns = dict.fromkeys(("study", "asks", "settings"), "VARCHAR")
    studies = [read_study(path) for path in packaged().values()]
    return result_of_rows(
        columns,
        [(each.name, " ".join(each.about.split()), ", ".join(each.settings)) for each in studies],
    )


def _rehearse(planned: StudyRun) -> dict[str, Estimate]:
    if planned.study.size is not None:
        say("rehearsing at small sizes, in a temporary store (--no-rehearsal begins at once)")
    return rehearse(planned)


def _plan(tasks: list[Task], estimates: dict[str, Estimate]) -> Result:
    from moedb.queries.results.rows.given import result_of_rows

    columns = {
        **dict.fromkeys(("step", "status"), "VARCHAR"),
        **dict.fromkeys(("tokens", "bytes"), "BIGINT"),
        "seconds": "DOUBLE",
        "command": "VARCHAR",
    }
    rows = []
    for task in tasks:
        estimate = estimates.get(task.step.name, Estimate())
        status = "done" if task.is_done else "to do"
        if estimate.problem is not None:
            say(f"{task.step.name} could not be rehearsed: {estimate.problem}")
        told = (estimate.n_tokens, estimate.n_bytes, estimate.seconds)
        rows.append((task.step.name, status, *told, _typed(task)))
    return result_of_rows(columns, rows)


def _typed(task: Task) -> str:
    """What a step does, as it is typed where it is a command."""
    if task.words[0] == PAGE:
        return f"{task.words[1]} with its tables"
    return shlex.join(["moedb", *task.words])


def _summarize(found: Study, tasks: list[Task], estimates: dict[str, Estimate]) -> None:
    to_do = [task.step.name for task in tasks if not task.is_done]
    say(f"study {found.name}: {len(tasks)} steps, {len(tasks) - len(to_do)} of them are done")
    known = [estimates[name] for name in to_do if name in estimates]
    if not known:
        return
    seconds = sum(each.seconds or 0 for each in known)
    n_bytes = sum(each.n_bytes or 0 for each in known)
    n_tokens = sum(each.n_tokens or 0 for each in known)
    unknown = [name for name in to_do if name not in estimates or estimates[name].problem]
    but = f"; nothing is known of {', '.join(unknown)}" if unknown else ""
    say(
        f"about {_duration(seconds)}, {n_tokens:,} tokens and {n_bytes / 1e6:,.1f} MB, by the "
        f"rehearsal{but}"
    )


def _duration(seconds: float) -> str:
    """Seconds in words.

    Examples
    --------
    >>> _duration(75), _duration(5000), _duration(200_000)
    ('75 s', '83 min', '55.6 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _do(planned: StudyRun, estimates: dict[str, Estimate]) -> None:
    n_steps = len(planned.steps())
    current = ""
    try:
        for number, task, done in planned.do():
            current = task.step.name
            place = f"[{number}/{n_steps}] {current}"
            if task.is_done:
                say(f"{place}: done already")
            elif done is None:
                expected = estimates.get(current, Estimate()).seconds
                about = "" if expected is None else f" (about {_duration(expected)})"
                say(f"{place}{about}: {_typed(task)}")
            else:
                say(f"{place}: {_duration(done.seconds)}")
    except MoedbError:
        say(f"step {current} failed; the same command goes on there once that is mended")
        raise
    answer(str(planned.folder))
