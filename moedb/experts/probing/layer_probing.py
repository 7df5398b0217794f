"""Probing the candidates of one layer."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.experts.probing.concepts import Concept, Tokens
from moedb.experts.probing.fitting import fit, ranked, thinned
from moedb.experts.probing.neurons import Candidate, LayerNeurons
from moedb.experts.probing.scoring import counts, f1_of, interval, score
from moedb.experts.probing.settings import ProbeSettings
from moedb.experts.probing.splitting import SELECTION, TEST, TRAIN, UNUSED, Sample, sample


class ProbeRow(NamedTuple):
    """A row of the table ``probe_scores``, but for the run and the probes' name."""

    neurons: str
    width: int
    layer: int
    expert: int | None
    candidate: int
    key: str
    value: str
    protocol: str
    permutation: int
    k: int
    neuron: int
    n_train: int
    n_selection: int
    n_test: int
    n_yes: int
    n_documents: int
    selection_f1: float
    f1: float
    f1_low: float | None
    f1_high: float | None
    precision: float
    recall: float
    balanced_accuracy: float
    average_precision: float
    f1_always_yes: float


class LayerProbing:
    """Probes of one layer.

    Parameters
    ----------
    neurons
        The layer's candidates.
    settings
        What is asked.
    tokens
        The tokens.

    Attributes
    ----------
    passed_over
        Why candidates had no probe, and how many.
    """

    def __init__(
        self,
        neurons: LayerNeurons,
        settings: ProbeSettings,
        tokens: Tokens,
    ) -> None:
        self._neurons, self._settings = neurons, settings
        self._tokens = tokens
        self.passed_over: Counter[str] = Counter()

    def rows(
        self, concepts: Sequence[Concept], advance: Callable[[], None]
    ) -> Iterator[tuple[Concept, list[ProbeRow]]]:
        """Fit and score the probes of all candidates, which are read once.

        Returns
        -------
        Iterator
            Each concept with its rows, when all are done.
        """
        samples = [list(self._samples(concept)) for concept in concepts]
        found: list[list[ProbeRow]] = [[] for _ in concepts]
        for candidate in self._neurons:
            for concept, of_concept, rows in zip(concepts, samples, found, strict=True):
                for each in of_concept:
                    rows += self._probes(candidate, concept, each)
            advance()
        yield from zip(concepts, found, strict=True)

    def _samples(self, concept: Concept) -> Iterator[Sample]:
        shufflings = range(self._settings.permutations + 1)
        for protocol, number in product(self._settings.protocols, shufflings):
            yield sample(self._tokens, concept, protocol, number, self._settings.seed)

    def _probes(self, candidate: Candidate, concept: Concept, given: Sample) -> Iterator[ProbeRow]:
        """The probes of one candidate for one concept, one for each k."""
        part, is_yes = given.part[candidate.places], given.is_yes[candidate.places]
        why = self._why_not(part, is_yes, given)
        if why:
            if not given.permutation:
                self.passed_over[f"{given.protocol}: {why}"] += 1
            return
        random = np.random.default_rng(
            [self._settings.seed, self._neurons.layer, candidate.number, given.permutation]
        )
        train = np.flatnonzero(part == TRAIN)
        train = train[thinned(is_yes[train], self._settings.max_tokens, random)]
        test, chosen = part == TEST, part == given.chooses_by
        documents = self._tokens.documents[candidate.places[test]]
        order = ranked(candidate.values[train], is_yes[train])
        for k in sorted(set(self._settings.sizes)):
            if k > len(order):
                break
            probe = fit(candidate.values[train], is_yes[train], order[:k])
            decisions = probe.decide(candidate.values[test])
            counted = counts(decisions > 0, is_yes[test], documents)
            low, high = interval(counted, self._settings.resamples, self._settings.seed)
            scores = score(decisions, is_yes[test])
            selection = scores.f1
            if given.chooses_by != TEST:
                says_yes = probe.decide(candidate.values[chosen]) > 0
                selection = f1_of(says_yes, is_yes[chosen])
            yield ProbeRow(
                neurons=self._settings.array,
                width=len(order),
                layer=self._neurons.layer,
                expert=candidate.expert,
                candidate=candidate.number,
                key=concept.key,
                value=concept.value,
                protocol=given.protocol,
                permutation=given.permutation,
                k=k,
                neuron=int(candidate.neurons[order[0]]),
                n_train=len(train),
                n_selection=int((part == SELECTION).sum()),
                n_test=int(test.sum()),
                n_yes=int(is_yes[test].sum()),
                n_documents=len(counted),
                selection_f1=selection,
                f1_low=low,
                f1_high=high,
                **scores._asdict(),
            )

    def _why_not(
        self, part: NDArray[np.int8], is_yes: NDArray[np.bool_], given: Sample
    ) -> str | None:
        """Why a candidate gets no probe; None where it does."""
        used = part != UNUSED
        n_yes = int((is_yes & used).sum())
        if min(n_yes, int(used.sum()) - n_yes) < self._settings.min_tokens:
            return f"fewer than {self._settings.min_tokens} tokens of the concept, or of none"
        for each in {TRAIN, given.chooses_by, TEST}:
            if len(np.unique(is_yes[part == each])) < 2:
                return "a part with tokens of one kind only"
        return None
