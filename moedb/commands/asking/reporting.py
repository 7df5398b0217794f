"""Reports: a page of a run to look at, and the figures and tables of a subject for a paper."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.asking.doubt import chosen_resampling, draw_options
from moedb.commands.asking.query import progress_bar
from moedb.commands.options import open_store, run_option, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.queries.report.pages.writing import Written

_PAGE = "page"


class _ReportGroup(click.Group):
    """A group that takes what is no name of a report for the arguments of ``page``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the command in front where a run or an option of it stands."""
        asks_for_help = bool(args) and args[0] in self.get_help_option_names(ctx)
        if args and args[0] not in self.commands and not asks_for_help:
            args = [_PAGE, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ReportGroup, short_help="Write a page of figures and tables about a run.")
def report() -> None:
    """Write what a run holds so that it can be looked at.

    `moedb report RUN -o report.html` is `moedb report page RUN -o report.html`.

    \b
    Example:
      moedb report qwen-ioi -o report.html
      moedb report --folder report text-5e
      moedb report ioi -o folder
    """


@report.command(_PAGE, short_help="A page to look at, in one file that opens without a network.")
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write, such as report.html.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a folder of files in its place, for a run that is too large for one.",
)
@click.option(
    "--run-b",
    metavar="RUN",
    shell_complete=complete_runs,
    help="A run over the same tokens: where both choose the same experts is shown too.",
)
@click.option("--no-ci", is_flag=True, help="Leave intervals out, which take most of the time.")
@draw_options
@store_option
def page(
    run: str | None, output: Path | None, folder: Path | None, run_b: str | None, no_ci: bool
) -> None:
    """Write a page of a run: figures to hover, tables to sort, experts, tokens.

    RUN is a run, or the beginning of its name; the newest complete one unless given. Every figure
    has its table beneath it, and every table the query that it is from. What the run does not hold
    is left out, with a line that says why.

    \b
    Example:
      moedb report qwen-ioi -o report.html
      moedb report text-5e --run-b text-77 --folder report
    """
    if (output is None) == (folder is None):
        raise UsageError(
            "give a file or a folder to write to",
            "moedb report RUN -o report.html, or moedb report RUN --folder FOLDER",
        )
    from moedb.queries.analyses.waiting.progress import shown_by
    from moedb.queries.report.pages.subject import subject_of
    from moedb.queries.report.pages.writing import write_folder, write_page
    from moedb.queries.results.files import check_folder

    resampling = chosen_resampling(not no_ci)
    subject = subject_of(open_store(), run, run_b, resampling)
    with shown_by(progress_bar):
        if output is not None:
            check_folder(output)
            _say_written(write_page(subject, output))
        elif folder is not None:
            _say_written(write_folder(subject, folder))


def _say_written(written: "Written") -> None:
    for note in written.notes:
        say(f"note: {note}")
    files = f"{len(written.files)} files" if len(written.files) > 1 else "1 file"
    say(f"wrote {files}, {written.n_bytes / 1e6:.1f} MB; open {written.files[0]}")


@report.command()
@run_option
@click.option(
    "--interventions",
    metavar="RUN",
    shell_complete=complete_runs,
    help="The run with the interventions.  [default: every complete one on the run]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write to; made if it is not there.",
)
@store_option
def ioi(run: str | None, interventions: str | None, output: Path) -> None:
    """Report on a capture of indirect object identification prompts.

    Figures as PDF and PNG, tables as LaTeX and CSV, a sidecar beside each, and a page, ioi.md. What
    the runs do not hold is left out, and named.

    \b
    Example:
      moedb report ioi -o report
      moedb report ioi --run qwen-ioi-3a27 --interventions intervene-9c -o report
    """
    from moedb.queries.report.writing import write_ioi_report

    written = write_ioi_report(open_store(), output, run, interventions)
    for sentence in written.missing:
        say(f"missing: {sentence}")
    lacking = f"; {len(written.missing)} parts are missing, see above" if written.missing else ""
    say(f"wrote {len(written.files)} files; begin with {written.files[-1]}{lacking}")
