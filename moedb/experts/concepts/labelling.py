"""Applying rules to the tokens of a stored run, some examples at a time."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from moedb.errors import UsageError
from moedb.experts.additions import addition_there, expect_tokens
from moedb.experts.concepts.alignment import align
from moedb.experts.concepts.label_sets import KIND
from moedb.experts.concepts.matching import Matcher
from moedb.experts.concepts.piece import Piece
from moedb.experts.concepts.rule_file import Rule, RuleFile
from moedb.experts.concepts.structure import STRUCTURAL, Labels
from moedb.queries.database import Database, open_database
from moedb.queries.reading.run_contents import LABEL_TABLES
from moedb.schemas.additions import Addition, check_addition_name
from moedb.store.reading.additions import additions_of, only_addition, without_addition
from moedb.store.writing.complete.added_rows import label_keys
from moedb.store.writing.complete.additions import add
from moedb.store.writing.writability import check_writable

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

SECONDS = 20.0
"""How long a pattern may take for the texts of a piece."""

PIECE_TOKENS = 65_536
PIECE_CHARACTERS = 1 << 19
"""What is labelled at a time, whichever is reached first; an example at least."""


class Progress(NamedTuple):
    """Who is told how far it is.

    Attributes
    ----------
    begin
        Takes how many tokens there are.
    advance
        Takes how many more are done.
    """

    begin: Callable[[int], None]
    advance: Callable[[int], None]


@dataclass(frozen=True)
class Request:
    """What is to be labelled.

    Attributes
    ----------
    run
        The run, or an unambiguous beginning of its name.
    rules
        The rules.
    name
        What the labels are called together; by default as their file.
    replaces
        Whether they take the place of labels of this name.
    is_dry
        Whether they are counted, and nothing is written.
    seconds
        How long a pattern may take for the texts of a piece.
    """

    run: str
    rules: RuleFile
    name: str | None = None
    replaces: bool = False
    is_dry: bool = False
    seconds: float = SECONDS

    @property
    def label_set(self) -> str:
        """What the labels are called together."""
        return self.name or self.rules.name


@dataclass
class Labelled:
    """What rules gave.

    Attributes
    ----------
    run_id, name
        The run, and what its new labels are called together.
    n_tokens
        Tokens of the run.
    counts
        For each key and value the tokens that have it.
    unaligned
        Examples whose tokens are not found in their texts, and how many tokens they have: these
        have no labels.
    taken
        Keys of the rules that the run has already, where nothing was to be added.
    """

    run_id: str
    name: str
    n_tokens: int
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    unaligned: dict[int, int] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)


def label_tokens(store: Path, request: Request, progress: Progress) -> Labelled:
    """Label the tokens of a complete run by rules, and add the labels to it.

    Parameters
    ----------
    store
        The store's folder.
    request
        What is to be labelled.
    progress
        Is told how far it is.

    Returns
    -------
    Labelled
        How many labels there are of what. Where there are none, nothing is written.

    Raises
    ------
    UsageError
        If the run has no texts, a key or the name is taken, or a pattern takes too long.
    StoreError
        If the run is incomplete or damaged, or the store cannot be written.
    """
    check_addition_name(request.label_set)
    with open_database(store) as whole:
        run = whole.snapshot.run(request.run)
        if not request.is_dry:
            check_writable(store, run.run_id)
        database = whole.of_run(run.run_id)
        taken = _taken_keys(database, run, request)
        n_tokens = run.manifest.row["n_tokens"]
        found = Labelled(run.run_id, request.label_set, n_tokens, taken=taken)
        progress.begin(found.n_tokens)
        with Matcher(request.seconds) as matcher:
            labels = _labels(database, run, request.rules, matcher, found, progress)
            if request.is_dry:
                for _ in labels:
                    pass
                return found
            first = next(labels, None)
            if first is None:
                return found
            rows = chain([first], labels)
            addition = Addition(request.label_set, KIND, _config(request.rules))
            add(store, run.run_id, addition, {"token_labels": rows}, replace=request.replaces)
    return found


def _config(rules: RuleFile) -> str:
    content = {"rules": rules.name, "sha256": rules.sha256, "keys": rules.keys, "text": rules.text}
    return json.dumps(content, ensure_ascii=False)


def _taken_keys(database: Database, run: "RunSnapshot", request: Request) -> list[str]:
    """Check that there are texts to label, and place for the labels, if these are to be added.

    Returns
    -------
    list of str
        The keys of rules that are taken.
    """
    expect_tokens(run, "moedb label-tokens")
    name = request.label_set
    there = addition_there(run, name, KIND)
    if there is not None and not request.replaces and not request.is_dry:
        raise UsageError(
            f"run {run.title} has an addition named {name!r} already",
            "--replace puts these labels in its place; or choose another name: --name NAME",
        )
    taken = sorted({*request.rules.keys} & _other_keys(database, without_addition(run, name)))
    if taken and not request.is_dry:
        owners = _owners(run, taken)
        raise UsageError(
            f"run {run.title} has labels with the key {', '.join(taken)} already",
            "rename those rules, or take others (--key KEY)"
            + (f"; or put them in the place of those labels: {owners}" if owners else ""),
        )
    return taken


def _owners(run: "RunSnapshot", taken: list[str]) -> str:
    """What to type to put labels in the place of others that have their keys."""
    return " or ".join(
        f"--name {name} --replace"
        for name, each in additions_of(run).items()
        if each.about.kind == KIND and not label_keys(only_addition(run, name)).isdisjoint(taken)
    )


def _other_keys(database: Database, run: "RunSnapshot") -> set[str]:
    """The keys of all labels of a run but those of an addition that it is without."""
    found = label_keys(run)
    for table in LABEL_TABLES:
        if table != "token_labels":
            statement = f"select distinct key from {table} where run_id = $run"  # noqa: S608
            rows = database.sql(statement, {"run": run.run_id}).fetchall()
            found.update(str(key) for (key,) in rows)
    return found


def _labels(
    database: Database,
    run: "RunSnapshot",
    rules: RuleFile,
    matcher: Matcher,
    found: Labelled,
    progress: Progress,
) -> Iterator[pa.Table]:
    """Rows of ``token_labels``, piece by piece and rule by rule."""
    for piece, n_tokens in _pieces(database, run, found):
        if piece is not None:
            matcher.give(piece.texts)
            for rule in rules.rules:
                labels = of_rule(piece, rule, matcher)
                numbers = np.bincount(labels.value, minlength=len(labels.values))
                for value, n in zip(labels.values, numbers.tolist(), strict=True):
                    found.counts[rule.key, value] += n
                if len(labels.token):
                    yield pa.table(
                        {
                            "token_idx": piece.token_idx[labels.token],
                            "key": pa.repeat(pa.scalar(rule.key), len(labels.token)),
                            "value": pa.array(labels.values).take(pa.array(labels.value)),
                        }
                    )
        progress.advance(n_tokens)


def of_rule(piece: Piece, rule: Rule, matcher: Matcher) -> Labels:
    """The labels that a rule gives; the matcher has been given the piece's texts.

    Of several matches that cover a token the first in the text counts.
    """
    if rule.kind in STRUCTURAL:
        return STRUCTURAL[rule.kind](piece, rule)
    matches = matcher.find(rule)
    start_of_text = piece.text_starts[matches[:, 0]]
    start, end = matches[:, 1] + start_of_text, matches[:, 2] + start_of_text
    token, stretch = piece.covered(start, end, rule.covers)
    tokens, first = np.unique(token, return_index=True)
    return Labels(tokens, matches[stretch[first], 3], rule.values)


_EXAMPLES = """
select examples.example_id, examples.n_tokens, coalesce(length(examples.text), 0)
from examples where examples.run_id = $run order by examples.example_id
"""
_TEXTS = """
select examples.example_id, examples.text
from examples where examples.run_id = $run and examples.example_id between $first and $last
order by examples.example_id
"""
_TOKENS = """
select
    tokens.token_idx, tokens.example_id, tokens.position, coalesce(tokens.token_id, -1) as token_id,
    tokens.token
from tokens where tokens.run_id = $run and tokens.example_id between $first and $last
order by tokens.example_id, tokens.position
"""


def _pieces(
    database: Database, run: "RunSnapshot", found: Labelled
) -> Iterator[tuple[Piece | None, int]]:
    """The pieces of a run, each with how many tokens it is; None where no text has them."""
    examples = database.sql(_EXAMPLES, {"run": run.run_id}).fetchall()
    for first, last in _ranges(examples):
        given = {"run": run.run_id, "first": first, "last": last}
        texts = dict(database.sql(_TEXTS, given).fetchall())
        rows = database.sql(_TOKENS, given).arrow()
        columns = {
            name: rows[name].to_numpy().astype(np.int64)
            for name in ("token_idx", "example_id", "position", "token_id")
        }
        yield _piece(texts, rows["token"].to_pylist(), columns, run, found), len(rows)


def _ranges(examples: list[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Stretches of examples, first and last, that make a piece each."""
    first: int | None = None
    last = n_tokens = n_characters = 0
    for example, tokens, characters in examples:
        n_tokens, n_characters = n_tokens + tokens, n_characters + characters
        if first is not None and (n_tokens > PIECE_TOKENS or n_characters > PIECE_CHARACTERS):
            yield first, last
            first, n_tokens, n_characters = None, tokens, characters
        first = example if first is None else first
        last = example
    if first is not None:
        yield first, last


def _piece(
    texts: dict[int, str | None],
    tokens: list[str | None],
    columns: dict[str, NDArray[np.int64]],
    run: "RunSnapshot",
    found: Labelled,
) -> Piece | None:
    bounds = np.flatnonzero(np.diff(columns["example_id"], prepend=-1, append=-1))
    kept, spans, owners, rows = list[str](), list[NDArray[np.int64]](), list[int](), list[slice]()
    n_characters = 0
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        example = int(columns["example_id"][low])
        text, of_example = texts.get(example), tokens[low:high]
        if text is None or None in of_example:
            raise UsageError(
                f"run {run.title} has no texts: its examples are of the job {run.row['job']}",
                "rules label the tokens of texts",
            )
        aligned = align(text, [token or "" for token in of_example])
        if aligned is None:
            found.unaligned[example] = high - low
            continue
        spans.append(np.array(aligned, np.int64).reshape(-1, 2) + n_characters)
        owners += [len(kept)] * (high - low)
        rows.append(slice(low, high))
        kept.append(text)
        n_characters += len(text)
    if not kept:
        return None
    places = np.concatenate(spans)
    picked = {name: np.concatenate([each[r] for r in rows]) for name, each in columns.items()}
    return Piece(
        kept,
        picked["token_idx"],
        picked["token_id"],
        picked["position"],
        np.array(owners, np.int64),
        places[:, 0],
        places[:, 1],
    )
