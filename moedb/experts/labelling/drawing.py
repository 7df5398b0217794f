"""Which contexts explain an expert, and which its label is scored on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.errors import UsageError
from moedb.experts.labelling.prompts import marked
from moedb.experts.labelling.settings import LabelSettings
from moedb.queries.analyses.experts.contexts.choosing import Choice, choose
from moedb.queries.analyses.experts.contexts.reading import read_decisions, window_sides
from moedb.queries.analyses.uncertainty.clusters import clusters_of
from moedb.queries.database import Database
from moedb.queries.reading.selection import SELECTED_EXAMPLES

Kind = Literal["detection", "fuzzing"]
KINDS: tuple[Kind, ...] = ("detection", "fuzzing")
NEGATIVES = ("token", "document", "random")
"""Kinds of negative contexts."""

_TRIED = 20
"""Tokens of which, for detection, the one is taken in whose window the expert was chosen least."""

_TOKENS = f"""
select tokens.token_idx, tokens.example_id, tokens.position, tokens.token
from tokens
where tokens.run_id = cast($run as varchar) and tokens.example_id in {SELECTED_EXAMPLES}
order by tokens.example_id, tokens.position
""".strip()  # noqa: S608

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class ScoredContext(NamedTuple):
    """A context that a label is scored on.

    Attributes
    ----------
    text
        What the reader sees; None where nobody knows.
    is_positive
        Whether the router gave the token to the expert.
    against
        The kind of a negative one; empty for a positive one.
    cluster
        The cluster of its example.
    has_others
        Whether it holds other tokens that the router gave to the expert; None where nobody knows.
    token_idx, example_id
        Its token, and that one's example; None where nobody knows.
    """

    text: str | None
    is_positive: bool
    against: str
    cluster: int
    has_others: bool | None
    token_idx: int | None = None
    example_id: int | None = None


class Corpus:
    """The tokens of a run, in the order of its examples.

    Attributes
    ----------
    token_idx, example_id, position, code, cluster
        (row,): of each token; ``code`` is the number of its text.
    texts
        The texts.
    """

    def __init__(self, database: Database, run_id: str, asked_by: str) -> None:
        rows = database.sql(_TOKENS, {"run": run_id, "split": None}).arrow()
        if rows["token"].null_count or not len(rows):
            raise UsageError(
                f"run {run_id} has no texts that a reader could read",
                "label the experts of a run over texts or prompts: moedb runs",
            )
        column = rows["token"].combine_chunks().dictionary_encode()
        self.token_idx = rows["token_idx"].to_numpy().astype(np.int64)
        self.example_id = rows["example_id"].to_numpy().astype(np.int64)
        self.position = rows["position"].to_numpy().astype(np.int64)
        self.code = column.indices.to_numpy().astype(np.int64)
        self.texts: list[str] = column.dictionary.to_pylist()
        examples, self._of_example = np.unique(self.example_id, return_inverse=True)
        self._bounds = np.searchsorted(self.example_id, examples)
        self._ends = np.append(self._bounds[1:], len(self.example_id))
        clusters = clusters_of(database, run_id, asked_by, None)
        self.cluster = clusters.of(examples)[self._of_example]
        self._by_idx = np.argsort(self.token_idx, kind="stable")

    def rows_of(self, token_idx: Rows) -> Rows:
        """The rows of tokens."""
        found = self._by_idx[np.searchsorted(self.token_idx, token_idx, sorter=self._by_idx)]
        return found.astype(np.int64)

    def window(self, row: int, size: int) -> slice:
        """The rows of the window around a token, within its example."""
        before, after = window_sides(size)
        example = self._of_example[row]
        start, end = int(self._bounds[example]), int(self._ends[example])
        places = self.position[start:end]
        first, last = self.position[row] - before, self.position[row] + after
        low = int(np.searchsorted(places, first))
        return slice(start + low, start + int(np.searchsorted(places, last, side="right")))

    def text(self, rows: slice, marks: Mask) -> str:
        """The text of a window, some of its tokens marked."""
        return marked([self.texts[code] for code in self.code[rows].tolist()], marks.tolist())


class Layer:
    """The decisions of a layer.

    Attributes
    ----------
    layer
        Its index.
    experts
        Those that some token chose, ascending.
    promoted
        For each expert the tokens that its output promotes, where that is known.
    """

    def __init__(self, database: Database, run_id: str, layer: int, corpus: Corpus) -> None:
        found = read_decisions(database, run_id, layer, None, None)
        self.layer, self.corpus = layer, corpus
        self.experts = list(found.parts)
        self.promoted: dict[int, tuple[str, ...]] = {}
        rows, scores = corpus.rows_of(found.token_idx), found.scores
        self._parts = {expert: (rows[part], scores[part]) for expert, part in found.parts.items()}

    def decisions(self, expert: int) -> tuple[Rows, NDArray[np.float64]]:
        """(decision,): rows of the tokens that chose an expert, and their scores."""
        return self._parts[expert]

    def others(self, expert: int, seed: int) -> list[int]:
        """The layer's other experts in an order that is drawn once for the layer.

        Each expert is followed by another one, so that no label is a baseline more than once.
        """
        drawn = np.random.default_rng([seed, self.layer]).permutation(self.experts)
        order: list[int] = drawn.tolist()
        at = order.index(expert)
        return order[at + 1 :] + order[:at]


@dataclass
class Draw:
    """The contexts of an expert.

    Attributes
    ----------
    layer
        Its layer's decisions.
    expert
        The expert.
    settings
        How many, and of what size.
    """

    layer: Layer
    expert: int
    settings: LabelSettings

    @cached_property
    def _chose(self) -> Mask:
        """(row,): the tokens that chose the expert."""
        found = np.zeros(len(self.layer.corpus.token_idx), np.bool_)
        found[self.layer.decisions(self.expert)[0]] = True
        return found

    @cached_property
    def explaining(self) -> list[int]:
        """Rows of the tokens with the largest scores, one of a cluster at most."""
        everything = np.ones(len(self.layer.decisions(self.expert)[0]), np.bool_)
        return self._chosen(everything, Choice("top", self.settings.contexts))

    def explaining_texts(self) -> list[str]:
        """The contexts that explain, every token marked that chose the expert."""
        corpus = self.layer.corpus
        windows = (corpus.window(row, self.settings.window) for row in self.explaining)
        return [corpus.text(window, self._chose[window]) for window in windows]

    def scored(self, kind: Kind) -> list[ScoredContext]:
        """The contexts that a label is scored on, in an order that tells nothing."""
        corpus, size = self.layer.corpus, self.settings.window
        rng = np.random.default_rng(
            [self.settings.seed, self.layer.layer, self.expert, KINDS.index(kind)]
        )
        shown = self._windows(self.explaining)
        rows, _ = self.layer.decisions(self.expert)
        choice = Choice(
            "quantile", self.settings.scored, self.settings.quantiles, 1, self.settings.seed
        )
        positive = self._chosen(~shown[rows], choice)
        allowed = ~self._chose & ~shown
        if kind == "detection":  # a window that a positive one shares is not without the expert
            allowed &= ~self._windows(positive)
        places = [(row, "") for row in positive]
        n_tried = _TRIED if kind == "detection" else 1
        for against in NEGATIVES:
            drawn = self._negative(against, positive, allowed, n_tried, rng)
            places += [(row, against) for row in drawn]
        contexts = []
        for row, against in places:
            window = corpus.window(row, size)
            mark = np.arange(window.start, window.stop) == row
            marks = mark if kind == "fuzzing" else np.zeros_like(mark)
            contexts.append(
                ScoredContext(
                    corpus.text(window, marks),
                    not against,
                    against,
                    int(corpus.cluster[row]),
                    bool((self._chose[window] & ~mark).any()),
                    int(corpus.token_idx[row]),
                    int(corpus.example_id[row]),
                )
            )
        return [contexts[place] for place in rng.permutation(len(contexts)).tolist()]

    def _chosen(self, allowed: Mask, choice: Choice) -> list[int]:
        rows, scores = self.layer.decisions(self.expert)
        rows, scores, corpus = rows[allowed], scores[allowed], self.layer.corpus
        place = (self.layer.layer, self.expert)
        chosen, _ = choose(scores, corpus.token_idx[rows], corpus.cluster[rows], choice, place)
        return [int(row) for row in rows[chosen]]

    def _windows(self, rows: list[int]) -> Mask:
        """(row,): the tokens that the windows of some show."""
        found = np.zeros(len(self.layer.corpus.token_idx), np.bool_)
        for row in rows:
            found[self.layer.corpus.window(row, self.settings.window)] = True
        return found

    def _negative(
        self,
        against: str,
        positive: list[int],
        allowed: Mask,
        n_tried: int,
        rng: np.random.Generator,
    ) -> Iterator[int]:
        """Rows of tokens that did not choose the expert, one for each positive one if there is."""
        corpus = self.layer.corpus
        is_alike: dict[str, Callable[[int], Mask]] = {
            "token": lambda row: corpus.code == corpus.code[row],
            "document": lambda row: corpus.cluster == corpus.cluster[row],
            "random": lambda row: np.ones_like(allowed),
        }
        left = allowed.copy()
        for row in positive:
            candidates = np.flatnonzero(left & is_alike[against](row))
            if len(candidates):
                tried = rng.choice(candidates, min(n_tried, len(candidates)), replace=False)
                windows = [corpus.window(int(each), self.settings.window) for each in tried]
                n_chose = [int(self._chose[window].sum()) for window in windows]
                found = int(tried[int(np.argmin(n_chose))])
                left[found] = False
                yield found
