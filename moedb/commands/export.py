"""Publishing: tables and figures for a paper."""

from pathlib import Path
from typing import Any

import click

from moedb.commands.engines import engine_options
from moedb.commands.options import (
    COUNT,
    allow_empty_option,
    limit_option,
    open_store,
    parameter_option,
    refinement_options,
    run_option,
    store_option,
    table_options,
)
from moedb.commands.query import ask, say_sources
from moedb.commands.terminal.completion import (
    complete_figures,
    complete_questions,
    complete_runs,
)
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError, did_you_mean


@click.command(short_help="Write a table for a paper, with where it is from.")
@click.argument("name", required=False, shell_complete=complete_questions)
@click.option("--sql", "statement", help="Export the rows of this SQL instead of a named query.")
@run_option
@parameter_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write."
)
@limit_option
@refinement_options
@allow_empty_option
@table_options
@engine_options
@store_option
def export(
    name: str | None,
    statement: str | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path,
    limit: int | None,
    where: str | None,
    order_by: str | None,
    allow_empty: bool,
    **options: Any,
) -> None:
    """Write a table for a paper, by the ending of -o: .tex .csv .md .html .json .jsonl .parquet.

    Beside it goes a sidecar, FILE.provenance.json: SQL, parameters, runs, models, hashes.

    \b
    Example:
      moedb export expert-frequency -o frequency.tex --pivot layer expert frequency
      moedb export ioi-logit-diff -o ioi.tex --caption "IOI by template" --label tab:ioi
      moedb export load-balance -o balance.tex --font-size scriptsize --rename cv="Spread"
    """
    from moedb.queries.results.export import export as write_table
    from moedb.queries.results.formats.latex import latex_packages
    from moedb.queries.results.rows.refinement import Refinement, column_names, refined
    from moedb.queries.results.sheets import TableOptions, environment_of

    columns = options.pop("columns")
    table = TableOptions(
        limit=limit,
        footer=not options.pop("no_footer"),
        columns=None if columns is None else column_names(columns),
        environment=environment_of(options.pop("longtable"), options.pop("table_star")),
        **options,
    )
    result = refined(ask(name, statement, run, parameters), Refinement(where, order_by))
    for path in write_table(result, output, table, allow_empty=allow_empty):
        say(f"wrote {path}")
    if output.suffix.lower() == ".tex":
        packages = " ".join(rf"\usepackage{{{each}}}" for each in latex_packages(table))
        say(f"in the preamble: {packages}")
    if table.environment == "longtable":
        say("a longtable stands where the text has one column, such as after \\onecolumn")
    say_sources(result)


@click.command(short_help="Draw the figure of a named query.")
@click.argument("name", required=False, shell_complete=complete_figures)
@run_option
@parameter_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Figure; NAME needs it.")
@click.option("--value", help="Which column the colours, lines or bars show.")
@click.option("--top", type=COUNT, help="Only the most used experts (co-activation, cross-layer).")
@click.option(
    "--width",
    metavar="INCHES|column|text",
    help="Width: one column of a page (3.4 inches), its text (7), or inches.",
)
@click.option("--title", help="Title of the figure, in place of a single panel's; '' for none.")
@click.option("--no-footer", is_flag=True, help="Leave out the line that names the model.")
@allow_empty_option
@engine_options
@store_option
def plot(
    name: str | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path | None,
    value: str | None,
    top: int | None,
    width: str | None,
    title: str | None,
    no_footer: bool,
    allow_empty: bool,
) -> None:
    """Draw the figure of the named query NAME into a .pdf, .png or .svg file.

    Without NAME, list the figures. Beside the file goes a sidecar, as beside a table.

    \b
    Example:
      moedb plot
      moedb plot expert-frequency -o frequency.pdf
      moedb plot co-activation -o pairs.png -p layer 3 --value lift --width text --title "Pairs"
    """
    from moedb.queries.figures.registry import PLOTS, figure_list

    if name is None:
        if output is not None:
            raise UsageError(f"what is to be drawn into {output}?", "moedb plot lists the figures")

        emit(figure_list(), None, None, None)
        return
    if name not in PLOTS:
        raise UsageError(f"there is no figure of {name!r}; {did_you_mean(name, PLOTS)}")
    if output is None:
        raise UsageError("a figure needs a file", f"moedb plot {name} -o {name}.pdf")
    from moedb.queries.figures.drawing import draw
    from moedb.queries.figures.parts.layout import Layout, read_width

    layout = Layout(None if width is None else read_width(width), title, not no_footer)
    result = ask(name, None, run, parameters)
    given = {key: each for key, each in (("value", value), ("top", top)) if each is not None}
    for path in draw(name, result, output, layout, allow_empty=allow_empty, **given):
        say(f"wrote {path}")
    say_sources(result)


@click.group(short_help="Write a page of figures and tables about a run.")
def report() -> None:
    """Write a folder of figures and tables, with a page that puts them in order."""


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
