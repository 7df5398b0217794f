"""What experts do: concepts."""

from dataclasses import replace as replaced
from typing import TYPE_CHECKING, Any

import click

from moedb.commands.options import FiniteRange, output_options, store_folder, store_option
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.experts.concepts.labelling import Labelled
    from moedb.experts.concepts.rule_file import RuleFile
    from moedb.queries.results.result import Result


@click.command("label-tokens", short_help="Label the tokens of a run by rules, from its texts.")
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option(
    "--rules",
    default="builtin",
    show_default=True,
    metavar="FILE",
    help="A TOML file of rules, or those of the package.",
)
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="Only the rule of this key; repeatable."
)
@click.option(
    "--name", help="What the labels are called together.  [default: the rules' file's name]"
)
@click.option("--replace", is_flag=True, help="Put them in the place of those of this name.")
@click.option("--dry-run", is_flag=True, help="Count the labels, and add none.")
@click.option(
    "--time-limit",
    type=FiniteRange(0.1, 86_400),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a pattern may take for a piece of the texts (65,536 tokens).",
)
@click.option("--list", "list_", is_flag=True, help="List the labels that rules have given RUN.")
@click.option("--remove", metavar="NAME", help="Take the labels of this name out of RUN.")
@output_options
@store_option
def label_tokens(
    run: str | None,
    rules: str,
    keys: tuple[str, ...],
    name: str | None,
    replace: bool,
    dry_run: bool,
    time_limit: float,
    list_: bool,
    remove: str | None,
    **output: Any,
) -> None:
    """Label the tokens of RUN by rules, from its texts alone; without RUN, list the rules.

    Each rule gives a label of tokens: its key, and the value yes or one that the rule says. The
    labels are added to the complete run as they are to a capture's own, and any question about
    labels can name them. Prints how many tokens have which.

    \b
    Example:
      moedb label-tokens
      moedb label-tokens text-3f --dry-run
      moedb label-tokens text-3f --key quoted --key digit --name marks
      moedb query routing-by-class -p key quoted
      moedb label-tokens text-3f --list
      moedb label-tokens text-3f --remove marks
    """
    from moedb.commands.api.experts.labelling import rows_of, shown_labelling
    from moedb.experts.concepts.labelling import Request
    from moedb.experts.concepts.rule_file import read_rules

    if (list_ or remove is not None) and (
        run is None or name is not None or replace or dry_run or keys or (list_ and remove)
    ):
        raise UsageError(
            "--list and --remove take a run and nothing else",
            "moedb label-tokens RUN --list   or   moedb label-tokens RUN --remove NAME",
        )
    if remove is not None:
        _remove(str(run), remove)
        return
    if list_:
        emit(_list(str(run)), **output)
        return
    chosen = read_rules(rules)
    chosen = chosen.only(keys) if keys else chosen
    if run is None:
        if name is not None or replace or dry_run:
            raise UsageError("which run shall be labelled?", "moedb label-tokens RUN ...")
        emit(_rule_list(chosen), **output)
        return
    found = shown_labelling(
        store_folder(), Request(run, chosen, name, replace, dry_run, time_limit)
    )
    emit(rows_of(found, chosen), **output)
    _tell(found, chosen, dry_run)


def _tell(found: "Labelled", rules: "RuleFile", is_dry: bool) -> None:
    """Say what became of the labels."""
    if found.unaligned:
        n, first = len(found.unaligned), next(iter(found.unaligned))
        say(
            f"left out: {n:,} examples ({sum(found.unaligned.values()):,} tokens) whose tokens do "
            f"not add up to their text, the first is {first}"
        )
    if found.taken:
        say(f"keys that the run has already: {', '.join(found.taken)}")
    n_labels = found.counts.total()
    if not n_labels:
        say(f"no token of run {found.run_id} has what the rules ask for: nothing was added")
    elif is_dry:
        say(f"{n_labels:,} labels; nothing was added, as --dry-run asks")
    else:
        say(f"{n_labels:,} labels of {len(rules.rules)} rules added to run {found.run_id}")
        say(
            f"they are called {found.name}: moedb label-tokens {found.run_id} --remove {found.name}"
        )


def _remove(run: str, name: str) -> None:
    from moedb.experts.additions import remove
    from moedb.experts.concepts.label_sets import KIND

    removed = remove(store_folder(), run, name, KIND)
    say(f"removed {removed.n_rows.get('token_labels', 0):,} labels: {name}")


def _list(run: str) -> "Result":
    from moedb.experts.concepts.label_sets import label_sets
    from moedb.queries.results.rows.given import result_of_rows
    from moedb.store.reading.snapshot import take_snapshot

    found = take_snapshot(store_folder()).run(run)
    types = {"name": "VARCHAR", "rules": "VARCHAR", "sha256": "VARCHAR", "n_rules": "INTEGER"}
    types |= {"n_labels": "BIGINT", "added_at": "VARCHAR", "version": "VARCHAR", "keys": "VARCHAR"}
    listed = result_of_rows(types, label_sets(found))
    why = f"no rules have labelled run {found.title}: moedb label-tokens {found.run_id}"
    return replaced(listed, explain=lambda: why)


def _rule_list(rules: "RuleFile") -> "Result":
    from moedb.queries.results.rows.given import result_of_rows

    rows = [(rule.key, rule.kind, ", ".join(rule.value_names), rule.about) for rule in rules.rules]
    return result_of_rows(dict.fromkeys(("key", "kind", "values", "about"), "VARCHAR"), rows)
