"""What a label is worth: verdicts against what the router did, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moedb.experts.agreement import f1, share
from moedb.queries.analyses.uncertainty.bootstrap import bootstrap, number_or_none

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Counts of verdicts, and what follows from them; None where it is not defined.

    Attributes
    ----------
    n, tp, fp, fn, tn
        Contexts that were judged, and those by truth and verdict.
    precision, recall, f1, accuracy, balanced_accuracy
        The usual quotients. F1 is 0 where nothing is found; balanced accuracy is the mean of the
        shares of positive and of negative contexts that are told rightly.
    f1_low, f1_high, balanced_accuracy_low, balanced_accuracy_high
        95 % intervals: BCa bootstrap over the clusters of the contexts' examples.
    always_yes_f1, always_yes_accuracy
        The scores of saying yes to everything.
    """

    n: int
    tp: int
    fp: int
    fn: int
    tn: int
    precision: float | None
    recall: float | None
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    accuracy: float | None
    balanced_accuracy: float | None
    balanced_accuracy_low: float | None
    balanced_accuracy_high: float | None
    always_yes_f1: float | None
    always_yes_accuracy: float | None


def score(
    truths: Sequence[bool],
    verdicts: Sequence[bool | None],
    clusters: Sequence[int],
    samples: int,
    seed: int,
) -> Score:
    """Score verdicts.

    Parameters
    ----------
    truths, verdicts, clusters
        For each context whether the router gave its token to the expert, what the reader said, and
        the cluster of its example. Contexts without a verdict count for nothing.
    samples, seed
        Draws of the bootstrap, 0 for no intervals, and their seed.
    """
    judged = [place for place, verdict in enumerate(verdicts) if verdict is not None]
    truth = np.array([truths[place] for place in judged], np.bool_)
    said = np.array([bool(verdicts[place]) for place in judged], np.bool_)
    cells = np.stack([truth & said, ~truth & said, truth & ~said, ~truth & ~said], axis=1)
    tp, fp, fn, tn = (int(count) for count in cells.sum(axis=0))
    n, n_positive = len(judged), tp + fn
    bounds = np.full((2, 2), np.nan)
    if n and n_positive:
        _, own = np.unique([clusters[place] for place in judged], return_inverse=True)
        found = bootstrap(cells.astype(np.float64), samples, seed, own.astype(np.int64))
        for column, function in enumerate((f1, _balanced_accuracy)):
            bounds[:, column] = found.combined(function).intervals()[:, 0]
    whole = np.array([[tp, fp, fn, tn]], np.float64)
    always = np.array([[n_positive, n - n_positive, 0, 0]], np.float64)
    return Score(
        *(n, tp, fp, fn, tn),
        precision=tp / (tp + fp) if tp + fp else None,
        recall=tp / n_positive if n_positive else None,
        f1=float(f1(whole)[0]) if n_positive else None,
        f1_low=number_or_none(bounds[0, 0]),
        f1_high=number_or_none(bounds[1, 0]),
        accuracy=(tp + tn) / n if n else None,
        balanced_accuracy=(
            float(_balanced_accuracy(whole)[0]) if n_positive and n > n_positive else None
        ),
        balanced_accuracy_low=number_or_none(bounds[0, 1]) if n > n_positive else None,
        balanced_accuracy_high=number_or_none(bounds[1, 1]) if n > n_positive else None,
        always_yes_f1=float(f1(always)[0]) if n_positive else None,
        always_yes_accuracy=n_positive / n if n else None,
    )


def _balanced_accuracy(cells: Numbers) -> Numbers:
    """(draw,): of a draw with contexts of one kind alone it is the share that is told rightly."""
    tp, fp, fn, tn = cells.T
    positive, negative = tp + fn > 0, tn + fp > 0
    found = (share(tp, tp + fn) + share(tn, tn + fp)) / np.maximum(
        positive.astype(np.float64) + negative, 1
    )
    return np.where(np.isfinite(tp), found, np.nan)
