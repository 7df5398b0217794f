"""How often intervals hold the truth, over made-up documents whose truth is known.

python -m benchmarks.coverage.documents --documents 20,100,1000 --times 400

Documents are of one of four classes (shares 0.5, 0.3, 0.15 and 0.05), of 5 and more tokens (a
log-normal, the longest a hundred times the shortest), and each has a bent of its own for each of
eight experts around that of its class. The truth is what four hundred thousand documents give.
"""

from collections.abc import Callable

import click
import numpy as np

from moedb.queries.analyses.uncertainty.resampling.draws import MOST_LEFT_OUT, drawn_again, left_out
from moedb.queries.analyses.uncertainty.resampling.ends import Kinds, ends_of
from moedb.queries.analyses.uncertainty.resampling.settings import METHODS, Method

CLASSES = np.array([0.5, 0.3, 0.15, 0.05])
EXPERTS = np.array([0.3, 0.25, 0.15, 0.1, 0.1, 0.06, 0.03, 0.01])
ALIKE = 10
"""How alike the documents of a class are: the sum of a Dirichlet distribution's parameters."""

ESTIMATES = {
    "share of an expert": range(8),
    "its rate in the class of a half": range(8, 16),
    "its rate in the class of 1 in 20": range(16, 24),
    "its lift in the class of 1 in 7": range(24, 32),
    "entropy of the shares": range(32, 33),
    "Jensen-Shannon divergence of two classes": range(33, 34),
    "weighted Jaccard of two classes": range(34, 35),
}

Documents = tuple[np.ndarray, np.ndarray, np.ndarray]


def documents(rng: np.random.Generator, n: int, bents: np.ndarray) -> Documents:
    """(document,) class, (document,) tokens, and (document, expert) decisions."""
    of_class = rng.choice(len(CLASSES), n, p=CLASSES)
    lengths = np.minimum(5 + rng.lognormal(3, 1, n).astype(int), 2000)
    own = [rng.dirichlet(ALIKE * bents[each]) for each in of_class]
    counts = [rng.multinomial(length, bent) for length, bent in zip(lengths, own, strict=True)]
    return of_class, lengths, np.stack(counts)


def estimates(weights: np.ndarray, drawn: Documents) -> np.ndarray:
    """(draw, estimate) of weights (draw, document)."""
    of_class, lengths, counts = drawn
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (weights @ counts) / (weights @ lengths)[:, None]
        rates = []
        for each in range(len(CLASSES)):
            of = weights[:, of_class == each]
            own = of_class == each
            rates.append((of @ counts[own]) / (of @ lengths[own])[:, None])
        lift = rates[2] / share
        entropy = _sum(share, np.log2(1 / share))
        middle = (rates[0] + rates[1]) / 2
        divergence = sum(_sum(rate, np.log2(rate / middle)) for rate in rates[:2]) / 2
        smaller, larger = np.minimum(*rates[:2]).sum(axis=1), np.maximum(*rates[:2]).sum(axis=1)
        alike = (smaller / larger)[:, None]
    # a class that no document was drawn of has no divergence from another
    divergence[~np.isfinite(alike)] = np.nan
    return np.concatenate([share, rates[0], rates[3], lift, entropy, divergence, alike], axis=1)


def _sum(share: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.where(share > 0, share * of, 0).sum(axis=1, keepdims=True)


def coverage(
    n: int, times: int, method: Method, samples: int, show: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """(estimate,): how often there is an interval, and how many of these hold the truth."""
    bents = np.stack([np.random.default_rng(each).dirichlet(20 * EXPERTS) for each in range(4)])
    whole = documents(np.random.default_rng(0), 400_000, bents)
    truth = estimates(np.ones((1, 400_000)), whole)[0]
    is_share = np.array([*[True] * 24, *[False] * 10, True])
    kinked = np.array([*[False] * 34, True])
    most = np.where(is_share, 1, np.inf)
    kinds = Kinds(np.zeros(len(truth)), most, np.zeros(len(truth), np.bool_), kinked)
    known, held = np.zeros(len(truth)), np.zeros(len(truth))
    for time in range(times):
        drawn = documents(np.random.default_rng([n, time]), n, bents)
        ends = ends_of(
            method,
            estimates(np.ones((1, n)), drawn)[0],
            estimates(drawn_again(n, samples, 0), drawn),
            estimates(left_out(n, 0), drawn),
            kinds,
            np.full(len(truth), min(n, MOST_LEFT_OUT)),
        )
        known += np.isfinite(ends.low)
        held += (ends.low <= truth) & (truth <= ends.high)
        show()
    return known / times, held / np.maximum(known, 1)


@click.command()
@click.option("--documents", "sizes", default="20,100,1000", show_default=True)
@click.option("--times", default=400, show_default=True)
@click.option("--samples", default=1000, show_default=True)
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
def main(sizes: str, times: int, samples: int, method: Method) -> None:
    """Print for each kind of estimate how many intervals held the truth, of how many."""
    for n in (int(size) for size in sizes.split(",")):
        with click.progressbar(length=times, label=f"{n} documents") as bar:
            known, held = coverage(n, times, method, samples, lambda: bar.update(1))
        for name, places in ESTIMATES.items():
            of = [at for at in places if known[at]]
            told = f"{held[of].mean():.3f} ({held[of].min():.3f} to {held[of].max():.3f})"
            click.echo(f"{n:>5} {name:<42} {told} of {known[of].mean():.2f}")


if __name__ == "__main__":
    main()
