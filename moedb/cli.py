"""The command line: its root, the commands registered with it, and its exit code."""

import logging
import sys
from pathlib import Path

import click

from moedb.commands.asking.comparing import compare
from moedb.commands.asking.exploring.command import explore
from moedb.commands.asking.export import cite, export, plot
from moedb.commands.asking.query import query, sql
from moedb.commands.asking.reporting import report
from moedb.commands.asking.shell.command import shell
from moedb.commands.experts.checks import check_labels
from moedb.commands.experts.concepts import label_tokens
from moedb.commands.experts.importing import import_
from moedb.commands.experts.labels import label_experts
from moedb.commands.experts.probes import probe
from moedb.commands.options import StorePath
from moedb.commands.running.capture import capture
from moedb.commands.running.card import card
from moedb.commands.running.intervene import intervene
from moedb.commands.running.train import train
from moedb.commands.stores.copying import copy, publish
from moedb.commands.stores.managing import compact, migrate, name, rm, runs, schema, show, verify
from moedb.commands.studies.study import study
from moedb.commands.terminal.guard import GuardedGroup, leave, run_guarded
from moedb.commands.terminal.messages import SafeFormatter
from moedb.schemas.version import __version__
from moedb.store.engine.spilling import delete_spill_on_signals


@click.group(
    cls=GuardedGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "MOEDB",
    },
)
@click.version_option(__version__, "--version", prog_name="moedb")
@click.option("-v", "--verbose", is_flag=True, help="Log more; show tracebacks.")
@click.option("--store", type=StorePath(), help="The store's folder.")
def cli(verbose: bool, store: Path | None) -> None:
    """Run Mixture-of-Experts models once; ask what they did inside, in SQL, ever after."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(message)s"))
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)


for command in (
    capture,
    intervene,
    train,
    card,
    runs,
    show,
    name,
    schema,
    query,
    sql,
    shell,
    export,
    plot,
    cite,
    compare,
    report,
    explore,
    study,
    publish,
    verify,
    compact,
    migrate,
    copy,
    rm,
    label_tokens,
    probe,
    label_experts,
    import_,
    check_labels,
):
    cli.add_command(command)


def run_cli(arguments: list[str]) -> int:
    """Run the command line with ``arguments``; return the exit code."""
    return run_guarded(cli, arguments)


def main() -> None:
    """Run the command line with the arguments that the program was given."""
    delete_spill_on_signals()
    leave(run_cli(sys.argv[1:]))
