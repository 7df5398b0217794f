"""Asking: named queries and SQL."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moedb.commands.asking.doubt import compared_sides, doubt_options, with_chosen_doubt
from moedb.commands.engines import chosen_spark, engine_options
from moedb.commands.options import (
    open_store,
    output_options,
    parameter_option,
    runs_options,
    store_option,
)
from moedb.commands.terminal.completion import complete_questions, complete_runs
from moedb.commands.terminal.emitting import emit, is_interactive
from moedb.commands.terminal.messages import say, say_sources
from moedb.commands.terminal.question_help import QuestionCommand
from moedb.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from moedb.queries.database import Database
    from moedb.queries.results.result import Result


verify_option = click.option(
    "--verify",
    type=click.Choice(["sizes", "data"]),
    default="sizes",
    show_default=True,
    help="What is checked of the files of a table or an array before it is read: that they are "
    "there whole, or every byte of them. What is not read is not checked.",
)


def ask(
    name: str | None,
    sql: str | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    verify: str = "sizes",
    by: str | None = None,
) -> "Result":
    """Run a named query or SQL, whichever is given; ``by`` is for one over several runs."""
    if (name is None) == (sql is None):
        raise UsageError("give either the name of a query or --sql", "moedb query")
    given: dict[str, object] = {}
    with_run = [("run", run)] if run is not None and name is not None else []
    for key, value in (*parameters, *with_run):
        if given.get(key, value) != value:
            raise UsageError(
                f"the parameter {key!r} is given twice: {given[key]!r} and {value!r}",
                "give it once",
            )
        given[key] = value
    database = with_chosen_doubt(open_store())
    sides = compared_sides()
    if sides is not None:
        if name is None or by is not None:
            raise UsageError("--compare is for one named query", "moedb query NAME --compare A B")
        database = database if verify == "sizes" else database.verified()
        one, other = sides
        return database.compare(name, one, other, **given)
    if by is not None:
        if run is None or name is None:
            raise UsageError("--by is for a query over several runs", "--run RUN,RUN --by KEY")
        del given["run"]
        database = database if verify == "sizes" else database.verified()
        return database.query_runs(name, run, by, **given)
    if verify == "sizes":
        return _asked(database, name, sql, run, given)
    # a named query adds the runs that it reads
    result = _asked(database.verified(None if name is None else ()), name, sql, run, given)
    _ = result.provenance  # what that reads is checked too, before a row is shown
    return result


def _asked(
    database: "Database", name: str | None, sql: str | None, run: str | None, given: dict[str, Any]
) -> "Result":
    if name is None:
        return database.sql(sql or "", given, run=run)
    from moedb.queries.analyses.waiting.progress import shown_by

    with shown_by(progress_bar):
        return database.query(name, **given)


def read_sql(file: Path) -> str:
    """Read a statement from a file.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error


def progress_bar(what: str, n_parts: int) -> "AbstractContextManager[Callable[[], None]]":
    """Show how far something long is, on stderr."""
    # rich is imported where there is something to show
    from moedb.commands.api.progress import analysis_progress

    return analysis_progress(what, n_parts)


@click.command(cls=QuestionCommand, short_help="Run a named query; without a name, list them.")
@click.argument("name", required=False, shell_complete=complete_questions)
@runs_options
@parameter_option
@verify_option
@click.option(
    "--show-sql",
    is_flag=True,
    help="Print the query's SQL, with the values given, instead of running it.",
)
@doubt_options
@engine_options
@output_options
@store_option
def query(
    name: str | None,
    run: str | None,
    by: str | None,
    parameters: tuple[tuple[str, str], ...],
    verify: str,
    show_sql: bool,
    **output: Any,
) -> None:
    """Run the named query NAME; without NAME, list them by subject.

    With NAME, --help describes it: its question, parameters and columns.

    \b
    Example:
      moedb query routing-by-class --help
      moedb query routing-by-class -p key role -p layer 3
      moedb query co-activation --show-sql
      moedb query load-balance --run 'text-*' --by step
      moedb query expert-frequency --ci
    """
    if name is None:
        from moedb.queries.guidance.overview import query_list

        emit(query_list(), **output, lines_of_cell=1)
        say("what one takes and gives: moedb query NAME --help")
        return
    if show_sql:
        from moedb.queries.analyses.registry import sql_of

        given = dict(parameters) | ({} if run is None else {"run": run})
        click.echo(_as_its_engine_runs(sql_of(name, given)))
        return
    result = ask(name, None, run, parameters, verify, by)
    say_sources(emit(result, **output))


def _as_its_engine_runs(sql: str) -> str:
    if chosen_spark() is None:
        return sql
    from moedb.store.engine.spark.session import expect_packages

    expect_packages("sqlglot")
    from moedb.store.engine.spark.dialect import spark_sql

    return spark_sql(sql, pretty=True) + ";"


def _is_bare() -> bool:
    """Whether nothing was typed but which store and run."""
    context = click.get_current_context()
    return all(
        name in ("store", "run")
        or context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE
        for name in context.params
    )


@click.command(short_help="Run one SQL statement that reads.")
@click.argument("statement", required=False)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Read the SQL from a file.")
@click.option(
    "-r",
    "--run",
    shell_complete=complete_runs,
    help="Let tables and views hold this run alone; the beginning of its name does.  "
    "[default: every run]",
)
@parameter_option
@verify_option
@engine_options
@output_options
@store_option
def sql(
    statement: str | None,
    file: Path | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    verify: str,
    **output: Any,
) -> None:
    """Run one SQL statement that reads, given as STATEMENT, in a file, or (-) on stdin.

    Tables and views are those of `moedb schema`; the named queries are table macros. Without a
    statement, on a terminal, `moedb shell` starts.

    \b
    Example:
      moedb sql "select layer, count(distinct expert) as used from routing group by all"
      moedb sql "from routing_by_class(key := 'role') where lift > 5"
    """
    if statement is None and file is None and _is_bare() and is_interactive():
        from moedb.commands.asking.shell.command import start_shell

        start_shell(run)
        return
    if (statement is None) == (file is None):
        raise UsageError(
            "give the SQL as an argument, as - for stdin, or with -f FILE",
            "moedb shell asks for one statement after the other",
        )
    if file is not None:
        statement = read_sql(file)
    elif statement == "-":
        statement = sys.stdin.read()
    result = ask(None, statement or "", run, parameters, verify)
    say_sources(emit(result, **output))
