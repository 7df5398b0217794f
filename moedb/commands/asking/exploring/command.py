"""The command ``moedb explore``."""

import threading
from functools import partial
from importlib.util import find_spec

import click

from moedb.commands.asking.doubt import chosen_resampling, draw_options
from moedb.commands.options import FiniteRange, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.messages import answer, say
from moedb.errors import UsageError

_PACKAGES = ("starlette", "uvicorn")


@click.command(short_help="Look at runs in the browser, live, with a box for SQL.")
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option(
    "--run-b",
    metavar="RUN",
    shell_complete=complete_runs,
    help="A run over the same tokens: where both choose the same experts is shown too.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port of this machine to serve on.  [default: one that is free]",
)
@click.option(
    "--open/--no-browser",
    "is_opened",
    default=False,
    show_default=True,
    help="Open the browser, or only print the address.",
)
@click.option(
    "--seconds",
    type=FiniteRange(min=0.1, max=86400),
    default=60.0,
    show_default=True,
    help="Stop a statement of the SQL box that takes longer.",
)
@click.option("--no-ci", is_flag=True, help="Leave intervals out, which take most of the time.")
@draw_options
@store_option
def explore(
    run: str | None,
    run_b: str | None,
    port: int | None,
    is_opened: bool,
    seconds: float,
    no_ci: bool,
) -> None:
    """Serve what `moedb report` writes, computed as it is looked at, until Ctrl-C.

    RUN is a run, or the beginning of its name; the newest complete one unless given. The page has
    the other runs too, and a box for SQL. It is served to this machine alone, and only to who has
    the address that is printed; nothing is written. The store is read as it was at the start; the
    page says when there is more.

    \b
    Example:
      moedb explore
      moedb explore text-5e --run-b text-77 --no-ci
      moedb explore --port 8750 --no-browser
    """
    _expect_packages()
    from moedb.commands.asking.exploring.desk import Shown
    from moedb.commands.asking.exploring.http.serving import serve
    from moedb.commands.asking.exploring.open_store import OpenStore
    from moedb.queries.database import Database, chosen_snapshot
    from moedb.queries.report.pages.subject import subject_of
    from moedb.store.reading.snapshot import warn_of_damage

    resampling = chosen_resampling(not no_ci)
    named = click.get_current_context().find_root().params.get("store")
    take = partial(chosen_snapshot, named)
    snapshot = take()
    warn_of_damage(snapshot)
    with Database(snapshot) as database:
        subject = subject_of(database, run, run_b, resampling)
    other = None if subject.run_b is None else subject.run_b.run_id
    store = OpenStore(take, snapshot, resampling)

    def ready(address: str) -> None:
        answer(address)
        say("open this address; Ctrl-C ends it")
        if is_opened:
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve(store, Shown(subject.run.run_id, other), port or 0, seconds, ready)
    say("stopped")


def _expect_packages() -> None:
    lacking = [name for name in _PACKAGES if find_spec(name) is None]
    if lacking:
        raise UsageError(
            f"moedb explore needs {' and '.join(lacking)}, not installed here",
            "pip install 'moedb[explore]'; without, moedb report RUN -o FILE writes a page",
        )
