"""Publishing: tables and figures for a paper."""

from pathlib import Path
from typing import Any

import click

from moedb.commands.asking.doubt import doubt_options
from moedb.commands.asking.query import ask, read_sql
from moedb.commands.engines import engine_options
from moedb.commands.options import (
    COUNT,
    allow_empty_option,
    limit_option,
    open_store,
    parameter_option,
    refinement_options,
    runs_options,
    store_option,
    table_options,
)
from moedb.commands.terminal.completion import (
    complete_figures,
    complete_questions,
)
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say, say_sources
from moedb.errors import MoedbError, UsageError, did_you_mean
from moedb.schemas.formats import DUCKDB, DUCKDB_ENDINGS, FORMATS

_OF_DATABASES = ("run", "output", "format_", "copy_all", "store")
"""The options that a file of DuckDB takes."""


@click.command(short_help="Write a table for a paper, with where it is from.")
@click.argument("names", nargs=-1, metavar="[NAME]", shell_complete=complete_questions)
@click.option("--sql", "statement", help="Export the rows of this SQL instead of a named query.")
@click.option(
    "-f",
    "--file",
    "sql_file",
    type=click.Path(path_type=Path),
    help="Read that SQL from a file; its $NAME are given by -p.",
)
@runs_options
@parameter_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice([*FORMATS, DUCKDB]),
    help="Format of the file; duckdb, without NAME, writes whole runs into a database of DuckDB.  "
    "[default: by the ending of -o]",
)
@click.option(
    "--copy",
    "copy_all",
    is_flag=True,
    help="With duckdb: copy all rows into the file.  [default: large tables stay in the store, "
    "where the file's views read them]",
)
@click.option(
    "--check",
    is_flag=True,
    help="Take names of files that were written before, compute them again as their sidecars say, "
    "and say which the store still gives.",
)
@limit_option
@refinement_options
@allow_empty_option
@table_options
@doubt_options
@engine_options
@store_option
def export(
    names: tuple[str, ...],
    statement: str | None,
    sql_file: Path | None,
    run: str | None,
    by: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path | None,
    format_: str | None,
    copy_all: bool,
    check: bool,
    limit: int | None,
    where: str | None,
    order_by: str | None,
    allow_empty: bool,
    **options: Any,
) -> None:
    """Write a table for a paper, by the ending of -o: .tex .csv .md .html .json .jsonl .parquet.

    Beside it goes a sidecar, FILE.provenance.json: SQL, parameters, runs, models, hashes.
    Without NAME, .duckdb (or .ddb, .db) is a database of runs for any program that opens DuckDB's
    files: tables, views, and the named queries as table macros.

    \b
    Example:
      moedb export expert-frequency -o frequency.tex --pivot layer expert frequency
      moedb export ioi-logit-diff -o ioi.tex --caption "IOI by template" --label tab:ioi
      moedb export load-balance -o balance.tex --font-size scriptsize --rename cv="Spread"
      moedb export -f lengths.sql -p split clean -o lengths.tex
      moedb export --check balance.tex frequency.tex
      moedb export --format duckdb --run qwen-ioi -o runs.duckdb
    """
    if check:
        _check(names)
        return
    is_database = format_ == DUCKDB or (
        format_ is None and output is not None and output.suffix.lower() in DUCKDB_ENDINGS
    )
    if is_database:
        _write_database(names, run, output, copy_all)
        return
    if copy_all:
        raise UsageError("--copy is for a file of DuckDB", "--format duckdb -o FILE.duckdb")
    if len(names) > 1:
        raise UsageError(f"one query is exported at a time, not {len(names)}", "give one NAME")
    name = next(iter(names), None)
    if output is None:
        raise UsageError("an export needs a file", f"moedb export {name or 'NAME'} -o FILE.tex")
    if sql_file is not None:
        if statement is not None:
            raise UsageError("the SQL is given twice: --sql and --file", "give one of them")
        statement = read_sql(sql_file)
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
    result = refined(ask(name, statement, run, parameters, by=by), Refinement(where, order_by))
    for path in write_table(result, output, table, format_, allow_empty=allow_empty):
        say(f"wrote {path}")
    if (format_ or output.suffix.lower()) in (".tex", "latex"):
        packages = " ".join(rf"\usepackage{{{each}}}" for each in latex_packages(table))
        say(f"in the preamble: {packages}")
    if table.environment == "longtable":
        say("a longtable stands where the text has one column, such as after \\onecolumn")
    say_sources(result)


def _write_database(
    names: tuple[str, ...], run: str | None, output: Path | None, copy_all: bool
) -> None:
    context = click.get_current_context()
    typed = [
        each.opts[0]
        for each in context.command.params
        if each.name is not None
        and each.name not in (*_OF_DATABASES, "names")
        and context.get_parameter_source(each.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if names or typed:
        raise UsageError(
            f"a file of DuckDB has whole runs: it takes no {', '.join([*names, *typed])}",
            "moedb export --format duckdb --run RUN -o FILE.duckdb",
        )
    if output is None:
        raise UsageError("an export needs a file", "moedb export --format duckdb -o FILE.duckdb")
    from moedb.queries.report.duckdb_file import write_duckdb

    database = open_store()
    written = write_duckdb(database, output, run, copy=copy_all)
    for path in written.paths:
        say(f"wrote {path}")
    titles = ", ".join(each.title for each in written.runs)
    say(f"{len(written.runs)} runs: {titles}" if len(written.runs) > 1 else f"run {titles}")
    if written.in_place:
        say(
            f"{', '.join(written.in_place)} stay in {database.snapshot.title}, which has to stay "
            "there too; --copy takes their rows into the file"
        )


def _check(names: tuple[str, ...]) -> None:
    from moedb.queries.report.pinned import check_file
    from moedb.queries.results.rows.given import result_of_rows

    if not names:
        raise UsageError("which files are to be checked?", "moedb export --check FILE ...")
    database = open_store()
    found = [check_file(database, Path(name)) for name in names]
    types = dict.fromkeys(("file", "status", "detail"), "VARCHAR")
    emit(result_of_rows(types, found), None, None, None)
    other = [each for each in found if each.status != "same"]
    if other:
        raise MoedbError(
            f"{len(other)} of {len(found)} files are not what the store gives now",
            "write them again with the commands that wrote them",
        )


@click.command(short_help="Say how runs, or a file made from them, are cited.")
@click.argument("what", nargs=-1, required=True, metavar="RUN|FILE...")
@store_option
def cite(what: tuple[str, ...]) -> None:
    """Print BibTeX entries and a paragraph of methods for runs, or for a table or a figure.

    \b
    Example:
      moedb cite qwen-ioi-3f
      moedb cite overlap.tex
    """
    from moedb.queries.report.citation import cited
    from moedb.queries.report.pinned import read_sidecar

    snapshot = open_store().snapshot
    if len(what) == 1 and Path(what[0]).is_file():
        told = read_sidecar(Path(what[0]))
        runs = [snapshot.run(str(run["run_id"])) for run in told["runs"]]
        click.echo(cited(runs, told))
        return
    click.echo(cited([snapshot.run(run) for run in dict.fromkeys(what)]))


@click.command(short_help="Draw the figure of a named query.")
@click.argument("name", required=False, shell_complete=complete_figures)
@runs_options
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
@doubt_options
@engine_options
@store_option
def plot(
    name: str | None,
    run: str | None,
    by: str | None,
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
      moedb plot saturation --run 'checkpoint-*' --by note -p run_b final -o saturation.pdf
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
    from moedb.queries.guidance.many_runs import names_several

    if not PLOTS[name].over_runs and (by is not None or names_several(run)):
        over = ", ".join(each for each, plot in PLOTS.items() if plot.over_runs)
        several = f"--run is {run!r}" if by is None else f"--by is {by!r}"
        raise UsageError(
            f"the figure of {name} is of one run, and {several}; over several runs are: {over}",
            "moedb runs",
        )
    layout = Layout(None if width is None else read_width(width), title, not no_footer)
    result = ask(name, None, run, parameters, by=by)
    given = {key: each for key, each in (("value", value), ("top", top)) if each is not None}
    for path in draw(name, result, output, layout, allow_empty=allow_empty, **given):
        say(f"wrote {path}")
    say_sources(result)
