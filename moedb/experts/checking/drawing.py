"""Which tokens a label is checked on, and which other experts beside it, on which of theirs."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.errors import UsageError, did_you_mean
from moedb.experts.checking.settings import CheckSettings
from moedb.experts.labelling.drawing import Layer
from moedb.queries.analyses.experts.contexts.choosing import Choice, choose
from moedb.queries.database import Database

_LABELLED = """
select expert_labels.label_set, expert_labels.layer, expert_labels.expert
from expert_labels
where expert_labels.run_id = cast($run as varchar) and expert_labels.status = 'labelled'
order by expert_labels.label_set, expert_labels.layer, expert_labels.expert
""".strip()
_VERDICTS = """
select
    label_verdicts.layer,
    label_verdicts.expert,
    label_verdicts.token_idx,
    label_verdicts.is_positive,
    label_verdicts.says_yes
from label_verdicts
where label_verdicts.run_id = cast($run as varchar)
    and label_verdicts.label_set = cast($labels as varchar)
    and label_verdicts.kind = cast($kind as varchar)
    and label_verdicts.token_idx is not null
order by label_verdicts.layer, label_verdicts.expert, label_verdicts.number
""".strip()


class Place(NamedTuple):
    """A token that is looked at.

    Attributes
    ----------
    row
        Its row in the corpus.
    routed
        Whether it chose the labelled expert.
    fits
        Whether the label fits it; None where nobody said.
    """

    row: int
    routed: bool
    fits: bool | None


Verdicts = dict[tuple[int, int], list[tuple[int, bool, bool | None]]]
"""By layer and expert the tokens of its verdicts, whether they chose it, and what was said."""


def read_verdicts(database: Database, run_id: str, settings: CheckSettings) -> Verdicts:
    """Read the verdicts of the labelled experts that are asked for, a token of each once.

    Raises
    ------
    UsageError
        If the run has no such labels, layers or experts, or the labels no verdicts.
    """
    rows = database.sql(_LABELLED, {"run": run_id}).fetchall()
    labelled = [(layer, expert) for name, layer, expert in rows if name == settings.labels]
    if not labelled:
        names = sorted({name for name, _, _ in rows})
        raise UsageError(
            f"run {run_id} has no labels of experts named {settings.labels!r}; "
            f"{did_you_mean(settings.labels, names) if names else 'it has none at all'}",
            f"moedb label-experts {run_id} --endpoint URL --model NAME",
        )
    _expect_labelled("layer", settings.layers, {layer for layer, _ in labelled})
    _expect_labelled("expert", settings.experts, {expert for _, expert in labelled})
    found: Verdicts = {
        (layer, expert): []
        for layer, expert in labelled
        if (settings.layers is None or layer in settings.layers)
        and (settings.experts is None or expert in settings.experts)
    }
    seen: set[tuple[int, int, int]] = set()
    asked = {"run": run_id, "labels": settings.labels, "kind": settings.kind}
    for layer, expert, token, is_positive, says_yes in database.sql(_VERDICTS, asked).fetchall():
        if (layer, expert) in found and (layer, expert, token) not in seen:
            seen.add((layer, expert, token))
            fits = None if says_yes is None else bool(says_yes)
            found[layer, expert].append((token, bool(is_positive), fits))
    if not any(found.values()):
        raise UsageError(
            f"the labels {settings.labels!r} of run {run_id} have no verdicts of {settings.kind} "
            "whose tokens are known",
            "label the experts with --scored N under another --name, or take the other --kind",
        )
    return found


def _expect_labelled(what: str, given: Iterable[int] | None, known: set[int]) -> None:
    unknown = sorted(set(given or ()) - known)
    if unknown:
        raise UsageError(
            f"no {what} {unknown[0]} has such a label; {what}s that have: "
            f"{', '.join(map(str, sorted(known)))}"
        )


def controls_of(layer: Layer, expert: int, settings: CheckSettings) -> list[int]:
    """The others of a layer whose numbers of decisions are nearest; ties fall by the seed."""
    own = _n_decisions(layer, expert)
    others = [other for other in layer.experts if other != expert]
    draws = np.random.default_rng([settings.seed, layer.layer, expert]).random(len(others))
    distances = np.array([abs(_n_decisions(layer, other) - own) for other in others])
    order = np.lexsort((draws, distances))
    return [others[place] for place in order[: settings.controls].tolist()]


def _n_decisions(layer: Layer, expert: int) -> int:
    return len(layer.decisions(expert)[0]) if expert in layer.experts else 0


def own_rows(layer: Layer, expert: int, n: int, settings: CheckSettings) -> list[int]:
    """Rows of tokens that chose an expert, as its label's would be drawn, one of a document."""
    rows, scores = layer.decisions(expert)
    corpus = layer.corpus
    choice = Choice("quantile", n, settings.quantiles, 1, settings.seed)
    chosen, _ = choose(
        scores, corpus.token_idx[rows], corpus.cluster[rows], choice, (layer.layer, expert)
    )
    return [int(row) for row in rows[chosen]]


class Chosen:
    """Where in a corpus some experts of a layer are chosen, read from its decisions once each."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._masks: dict[int, NDArray[np.bool_]] = {}

    def mask(self, expert: int) -> NDArray[np.bool_]:
        """(row,): the tokens that chose an expert."""
        if expert not in self._masks:
            mask = np.zeros(len(self._layer.corpus.token_idx), np.bool_)
            if expert in self._layer.experts:
                mask[self._layer.decisions(expert)[0]] = True
            self._masks[expert] = mask
        return self._masks[expert]
