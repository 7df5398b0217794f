"""Labels of tokens from Python, as the command ``label-tokens`` gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.experts.concepts.labelling import Labelled, Request
    from moedb.experts.concepts.rule_file import RuleFile
    from moedb.queries.results.result import Result


def label_tokens(
    run: str,
    store: str | Path | None = None,
    *,
    rules: str | Path = "builtin",
    keys: Sequence[str] = (),
    name: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
    time_limit: float = 20.0,
) -> "Result":
    """Label the tokens of a stored run by rules, from its texts alone.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    rules
        A TOML file, or ``builtin``.
    keys
        The keys of the rules that are applied; empty for all.
    name
        What the labels are called together; by default as their file.
    replace
        Whether they take the place of those of this name.
    dry_run
        Whether they are counted, and not added to the run.
    time_limit
        Seconds that a pattern may take for a piece of the texts.

    Returns
    -------
    Result
        For each key and value how many tokens have it: ``key``, ``value``, ``n_tokens``, ``share``.

    Raises
    ------
    MoedbError
        As the command ``moedb label-tokens`` says.

    Examples
    --------
    >>> import moedb
    >>> moedb.label_tokens("text-3f", keys=["digit", "quoted"])  # doctest: +SKIP
    >>> moedb.open().query("routing-by-class", key="quoted")  # doctest: +SKIP
    """
    from moedb.experts.concepts.labelling import Request
    from moedb.experts.concepts.rule_file import read_rules
    from moedb.queries.database import chosen_store

    if isinstance(keys, str):
        raise UsageError(f"keys: expected a list, got {keys!r}", f"keys=[{keys!r}]")
    chosen = read_rules(rules)
    if keys:
        chosen = chosen.only(keys)
    request = Request(run, chosen, name, replace, dry_run, time_limit)
    return rows_of(shown_labelling(chosen_store(store), request), chosen)


def remove_addition(run: str, name: str, store: str | Path | None = None) -> None:
    """Take an addition out of a run, such as the labels of one file of rules.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    name
        The addition's name, as ``moedb show RUN`` lists it.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.

    Raises
    ------
    MoedbError
        If the run has none of this name, or the store cannot be written.

    Examples
    --------
    >>> moedb.remove_addition("text-3f", "builtin")  # doctest: +SKIP
    """
    from moedb.queries.database import chosen_store
    from moedb.store.reading.snapshot import take_snapshot
    from moedb.store.writing.complete.additions import remove_addition as remove

    place = chosen_store(store)
    remove(place, take_snapshot(place).run(run).run_id, name)


def shown_labelling(store: Path, request: "Request") -> "Labelled":
    """Label tokens, and show how far that is."""
    from moedb.commands.api.progress import RichProgress
    from moedb.experts.concepts.labelling import Progress, label_tokens

    with RichProgress() as bar:
        return label_tokens(store, request, Progress(lambda n: bar.begin(n, 0), bar.advance))


def rows_of(found: "Labelled", rules: "RuleFile") -> "Result":
    """For each rule and value how many tokens have it, in the order of the rules."""
    from moedb.queries.results.rows.given import result_of_rows

    rows: list[tuple[str, str | None, int, float]] = []
    for rule in rules.rules:
        counted: list[tuple[str | None, int]] = [
            (value, n) for (key, value), n in found.counts.items() if key == rule.key and n
        ]
        for value, n in counted or [(None, 0)]:
            rows.append((rule.key, value, n, n / found.n_tokens if found.n_tokens else 0.0))
    types = {"key": "VARCHAR", "value": "VARCHAR", "n_tokens": "BIGINT", "share": "DOUBLE"}
    return result_of_rows(types, rows)
