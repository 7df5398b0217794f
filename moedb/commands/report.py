"""Reports: every figure and table about a run, in a folder."""

from pathlib import Path

import click

from moedb.options import open_store, run_option, store_option
from moedb.terminal import say


@click.group()
def report() -> None:
    """Write a folder of figures and tables, with a page that puts them in order."""


@report.command()
@run_option
@click.option(
    "--interventions",
    metavar="RUN",
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
    from moedb.queries.report import write_ioi_report

    written = write_ioi_report(open_store(), output, run, interventions)
    for sentence in written.missing:
        say(f"missing: {sentence}")
    lacking = f"; {len(written.missing)} parts are missing, see above" if written.missing else ""
    say(f"wrote {len(written.files)} files; begin with {written.files[-1]}{lacking}")
