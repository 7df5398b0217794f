"""Labelling the experts of a stored run, one part of an addition for each."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from moedb.experts.labelling.asking.answering import Answering, EndpointError, StoppedError
from moedb.experts.labelling.asking.endpoint import Endpoint, completions_url, find_key
from moedb.experts.labelling.asking.journal import Journal, opened
from moedb.experts.labelling.asking.reader import Answer, Budget, Reader, Share
from moedb.experts.labelling.drawing import (
    KINDS,
    Corpus,
    Draw,
    Kind,
    Layer,
    ScoredContext,
)
from moedb.experts.labelling.planning import (
    Estimate,
    cost_of,
    estimate_of,
    expect_enough,
    experts_left,
)
from moedb.experts.labelling.prompts import (
    LABEL_SCHEMA,
    detection,
    explanation,
    fuzzing,
    read_label,
    read_verdicts,
    verdicts_schema,
    with_promoted,
)
from moedb.experts.labelling.rows import ExpertLabel, Origin, Verdicts, tables_of
from moedb.experts.labelling.settings import LabelSettings
from moedb.experts.promoted import layers_that_promote, promoted_tokens
from moedb.queries.database import Database, open_database
from moedb.store.layout import RunLayout
from moedb.store.writing.complete.additions import append
from moedb.store.writing.writability import check_writable

ASKED_BY = "label-experts"

_OTHERS = 3
"""Experts that are tried for a label to compare with."""

_ASKS = {"detection": detection, "fuzzing": fuzzing}


@dataclass
class Labelling:
    """What came of labelling.

    Attributes
    ----------
    run_id
        The run.
    estimate
        What it was to take.
    experts
        Those that were labelled, or marked, by layer and expert.
    n_requests, n_tokens
        What was sent, every attempt counted, and what it came to.
    n_left
        Experts that are without a label still, as what may be sent is spent.
    """

    run_id: str
    estimate: Estimate
    experts: list[ExpertLabel] = field(default_factory=list)
    n_requests: int = 0
    n_tokens: int = 0
    n_left: int = 0


class Progress(NamedTuple):
    """Who is told how far it is.

    Attributes
    ----------
    begin
        Takes the estimate, before anything is sent.
    advance
        Called after each expert.
    """

    begin: Callable[[Estimate], None]
    advance: Callable[[], None]


def server_of(settings: LabelSettings) -> Answering:
    """The server that is asked; its key is looked up.

    Raises
    ------
    UsageError
        If the address is none of a server, or the key can be none.
    """
    key = find_key()
    url = completions_url(str(settings.endpoint))
    return Endpoint(url, key[1] if key else None, settings.timeout, settings.attempts)


def label_experts(
    store: Path, settings: LabelSettings, progress: Progress, answering: Callable[[], Answering]
) -> Labelling:
    """Have a reader label the experts of a complete run, and add the labels to it.

    Each expert is stored as soon as it is done; the same call goes on with those that are not, and
    asks nothing again that was answered.

    Parameters
    ----------
    store
        The store's folder.
    settings
        What they are made with.
    progress
        Is told how far it is.
    answering
        Gives who is asked; called where there is something to ask.

    Raises
    ------
    UsageError
        If the run has no texts, there are labels of this name that were made otherwise, or an
        expert takes more than may be sent.
    StoreError
        If the run is incomplete or damaged, or the store cannot be written.
    EndpointError
        If the server cannot be asked; what was answered is kept.
    """
    with open_database(store) as whole:
        run = whole.snapshot.run(settings.run)
        database = whole.of_run(run.run_id)
        check_writable(store, run.run_id)
        layout = RunLayout(store, run.run_id)
        with opened(layout, settings.name) as journal:
            wanted = experts_left(database, run, settings)
            estimate = estimate_of(wanted, run, settings, len(journal))
            each = cost_of(settings)
            expect_enough(settings, each)
            found = Labelling(run.run_id, estimate)
            progress.begin(estimate)
            if wanted:
                with closing(answering()) as asked:
                    work = _Work(store, settings, asked, journal, found, progress)
                    work.label(_loaded(database, run.run_id, wanted, settings))
    return found


def _loaded(
    database: Database, run_id: str, wanted: dict[int, list[int]], settings: LabelSettings
) -> Iterator[tuple[Layer, int]]:
    """The experts, each with its layer's decisions; one layer in memory at a time."""
    corpus = Corpus(database, run_id, ASKED_BY)
    n_promoted = settings.promoted
    promoting = layers_that_promote(database, run_id, wanted) if n_promoted else []
    for number, experts in wanted.items():
        layer = Layer(database, run_id, number, corpus)
        if number in promoting:
            layer.promoted = promoted_tokens(
                database, run_id, number, n_promoted, settings.contexts
            )
        for expert in experts:
            yield layer, expert


class _Work:
    """Labels experts, some at a time."""

    def __init__(
        self,
        store: Path,
        settings: LabelSettings,
        answering: Answering,
        journal: Journal,
        found: Labelling,
        progress: Progress,
    ) -> None:
        self._store, self._settings, self._answering = store, settings, answering
        self._budget = Budget(settings.max_requests, settings.max_tokens)
        self._reader = Reader(settings, answering, journal, self._budget)
        self._found, self._progress = found, progress
        self._addition = settings.addition
        self._origin = Origin(
            settings.name,
            endpoint=answering.url,
            samples=settings.samples,
            seed=settings.seed,
        )
        self._at_once = settings.concurrency if settings.endpoint is not None else 1

    def label(self, experts: Iterator[tuple[Layer, int]]) -> None:
        """Label experts as they come, and store each when it is done."""
        cost = cost_of(self._settings)
        running: set[Future[ExpertLabel | None]] = set()
        errors: list[Exception] = []
        try:
            with ThreadPoolExecutor(self._at_once, "moedb-labels") as pool:
                try:
                    for layer, expert in experts:
                        share = self._budget.begin(cost[0] + self._settings.baseline, cost[1])
                        while share is None and running:
                            running = self._store_done(running, errors)
                            share = self._begun_again(cost)
                        if share is None or errors or self._budget.is_spent:
                            break
                        running.add(pool.submit(self._labelled, layer, expert, share))
                        while len(running) >= self._at_once:
                            running = self._store_done(running, errors)
                    while running:
                        running = self._store_done(running, errors)
                except BaseException:
                    self._answering.stop()
                    raise
        finally:
            self._found.n_requests = self._budget.n_requests
            self._found.n_tokens = self._budget.n_tokens
            self._found.experts.sort(key=lambda each: (each.layer, each.expert))
            self._found.n_left = self._found.estimate.n_experts - len(self._found.experts)
        if errors:
            raise errors[0]

    def _begun_again(self, cost: tuple[int, int]) -> Share | None:
        """Try again to set something aside, now that an expert has given back what it left."""
        self._budget.is_spent = False
        return self._budget.begin(cost[0] + self._settings.baseline, cost[1])

    def _store_done(
        self, running: set[Future[ExpertLabel | None]], errors: list[Exception]
    ) -> set[Future[ExpertLabel | None]]:
        """Wait for an expert, and store those that are done; return the others."""
        done, rest = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                found = future.result()
            except Exception as error:  # the others are to end first: what they paid for is theirs
                self._answering.stop()
                errors.append(error)
                continue
            if found is None:
                continue
            tables = tables_of(found, self._origin)
            append(self._store, self._found.run_id, self._addition, found.part, tables)
            self._found.experts.append(found)
            self._progress.advance()
        return rest

    def _labelled(self, layer: Layer, expert: int, share: Share) -> ExpertLabel | None:
        """Label an expert; None where nothing is to be sent any more."""
        try:
            return self._label(layer, expert, share)
        except StoppedError:
            return None
        finally:
            self._budget.end(share)

    def _label(self, layer: Layer, expert: int, share: Share) -> ExpertLabel:
        found = ExpertLabel(layer.layer, expert, self._settings.model)
        if expert not in layer.experts:
            found.reason = "no token chose it"
            return found
        draw = Draw(layer, expert, self._settings)
        found.n_decisions = len(layer.decisions(expert)[0])
        found.n_contexts = len(draw.explaining)
        explained = self._explain(draw, share)
        found.asked += explained.asked
        if explained.value is None:
            # an endpoint that has never made sense is a wrong address
            if not self._answering.n_understood and explained.status == "nonsense":
                self._expect_protocol(explained)
            found.status, found.reason = explained.status, explained.reason
            return found
        found.label, found.status = explained.value, "labelled"
        if self._settings.scored:
            if self._settings.baseline:
                self._find_other(layer, found, share)
            self._score(draw, found, share)
        return found

    def _explain(self, draw: Draw, share: Share) -> Answer[str]:
        asked = with_promoted(
            explanation(draw.explaining_texts()), draw.layer.promoted.get(draw.expert, ())
        )
        return self._reader.ask("explanation", asked, read_label, share, LABEL_SCHEMA)

    def _expect_protocol(self, explained: Answer[str]) -> None:
        reply = explained.asked[-1].reply
        if reply is not None and not reply.is_protocol:
            raise EndpointError(
                f"{self._answering.url} does not speak the protocol of chat completions; it "
                f"answers {reply.text[:80]!r}",
                "is the address right? --endpoint http://127.0.0.1:8000/v1",
            )

    def _find_other(self, layer: Layer, found: ExpertLabel, share: Share) -> None:
        """Find another expert's label, to compare with."""
        for other in layer.others(found.expert, self._settings.seed)[:_OTHERS]:
            answer = self._explain(Draw(layer, other, self._settings), share)
            if answer.value is not None:
                found.other_expert, found.other_label = other, answer.value
                return

    def _score(self, draw: Draw, found: ExpertLabel, share: Share) -> None:
        reasons = []
        for kind in KINDS:
            contexts = draw.scored(kind)
            n_positive = sum(each.is_positive for each in contexts)
            if not n_positive or n_positive == len(contexts):
                which = "none with" if not n_positive else "none without"
                reasons.append(f"no {kind}: of the contexts that are left {which} the expert")
                continue
            judge = partial(self._judge, kind, contexts, found, share)
            own, problems = judge(str(found.label), "")
            other: list[bool | None] = [None] * len(contexts)
            if found.other_label is not None:
                other, more = judge(found.other_label, "-other")
                problems += more
            found.verdicts[kind] = Verdicts(contexts, own, other)
            reasons += problems
        found.reason = "; ".join(reasons) or None

    def _judge(
        self,
        kind: Kind,
        contexts: list[ScoredContext],
        found: ExpertLabel,
        share: Share,
        label: str,
        suffix: str,
    ) -> tuple[list[bool | None], list[str]]:
        """Verdicts on contexts, None where there is none; and why."""
        verdicts: list[bool | None] = []
        reasons = []
        n_batches = math.ceil(len(contexts) / self._settings.batch)
        size = math.ceil(len(contexts) / n_batches)
        for start in range(0, len(contexts), size):
            texts = [str(each.text) for each in contexts[start : start + size]]
            read = partial(read_verdicts, n=len(texts))
            purpose = f"{kind}{suffix}"
            asked, schema = _ASKS[kind](label, texts), verdicts_schema(len(texts))
            answer = self._reader.ask(purpose, asked, read, share, schema)
            found.asked += answer.asked
            verdicts += answer.value or [None] * len(texts)
            if answer.value is None:
                reasons.append(
                    f"{purpose}: {len(texts)} contexts without a verdict: {answer.reason}"
                )
        return verdicts, reasons
