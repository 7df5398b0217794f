"""The command ``moedb shell``."""

import sys
from importlib.util import find_spec

import click

from moedb.commands.options import open_store, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import is_interactive
from moedb.errors import UsageError

_PACKAGES = ("prompt_toolkit", "pygments")


@click.command(short_help="Ask in SQL, one statement after the other.")
@click.option(
    "-r",
    "--run",
    shell_complete=complete_runs,
    help="Let tables and views hold this run alone; the beginning of its name does.  "
    "[default: every run]",
)
@click.option(
    "--mode",
    type=click.Choice(["table", "csv", "markdown", "latex", "json", "line"]),
    default="table",
    show_default=True,
    help="How rows are printed; line is a line for each column.",
)
@click.option(
    "--no-pager",
    is_flag=True,
    help="Print long tables at once.  [default: through MOEDB_PAGER, or PAGER, or less]",
)
@store_option
def shell(run: str | None, mode: str, no_pager: bool) -> None:
    """Open a store and ask for SQL, until Ctrl-D: statements end with a semicolon.

    TAB completes tables, columns, macros with their parameters, runs and label values; .help lists
    what is no SQL. What is typed is kept for the next time. Where stdin is no terminal, the
    statements in it are run, up to the first that fails.

    \b
    Example:
      moedb shell
      cat questions.sql | moedb shell --run qwen-ioi --mode csv
    """
    start_shell(run, mode, no_pager)


def start_shell(run: str | None, mode: str = "table", no_pager: bool = False) -> None:
    """Run the shell on the terminal, or over what stdin holds."""
    is_asked = is_interactive()
    if is_asked:
        _expect_packages()
    from moedb.commands.asking.shell.loop import run_interactively, run_stream
    from moedb.commands.asking.shell.session import Session

    with open_store() as database:
        session = Session(database, run, mode, no_pager)
        if is_asked:
            run_interactively(session)
        else:
            run_stream(session, sys.stdin)


def _expect_packages() -> None:
    lacking = [name for name in _PACKAGES if find_spec(name) is None]
    if lacking:
        raise UsageError(
            f"the shell needs {' and '.join(lacking)}, not installed here",
            "pip install 'moedb[shell]'; a pipe does without: cat FILE.sql | moedb shell",
        )
