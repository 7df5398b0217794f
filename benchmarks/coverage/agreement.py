"""How often intervals of adjusted mutual information hold the truth, over made-up examples.

python -m benchmarks.coverage.agreement --examples 20,100,300 --times 300

Examples have one token and more, ten on average. A token has one of ten values, and more often that
of its example; and two divisions put it into one of three parts, each by its value in a share of
the tokens, by chance in the rest. The truth is what four hundred thousand tokens give.
"""

from collections.abc import Callable

import click
import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from moedb.queries.analyses.uncertainty.agreement import agreement

VALUES, PARTS, TOKENS = 10, 3, 10
ALIKE = 0.3
"""Tokens that have the value that is their example's own."""

FOLLOWING = (0.0, 0.1, 0.5)
"""Tokens whose part follows from their value."""

Tokens = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def tokens(rng: np.random.Generator, n: int, following: float) -> Tokens:
    """(token,): value, part of one division, part of the other, and example."""
    examples = np.repeat(np.arange(n), rng.poisson(TOKENS - 1, n) + 1)
    n_tokens = len(examples)
    own = rng.integers(0, VALUES, n)[examples]
    values = np.where(rng.random(n_tokens) < ALIKE, own, rng.integers(0, VALUES, n_tokens))
    one, other = (
        np.where(rng.random(n_tokens) < following, values % PARTS, rng.integers(0, PARTS, n_tokens))
        for _ in range(2)
    )
    return values, one, other, examples


def coverage(n: int, following: float, times: int, show: Callable[[], None]) -> tuple[float, float]:
    """How many intervals hold the truth: of an agreement, and of the difference of two."""
    values, one, other, _ = tokens(np.random.default_rng(0), 400_000 // TOKENS, following)
    alone = adjusted_mutual_info_score(values, one)
    lead = alone - adjusted_mutual_info_score(values, other)
    held = np.zeros(2)
    for time in range(times):
        values, one, other, examples = tokens(np.random.default_rng([n, time]), n, following)
        found = [agreement(values, parts, examples) for parts in (one, other)]
        ends = [each.interval() for each in (found[0], found[0].less(found[1]))]
        for at, ((low, high), truth) in enumerate(zip(ends, (alone, lead), strict=True)):
            held[at] += low is not None and high is not None and low <= truth <= high
        show()
    return float(held[0] / times), float(held[1] / times)


@click.command()
@click.option("--examples", "sizes", default="20,100,300", show_default=True)
@click.option("--times", default=300, show_default=True)
def main(sizes: str, times: int) -> None:
    """Print how many intervals held the truth, by examples and by what follows from values."""
    for n in (int(size) for size in sizes.split(",")):
        for following in FOLLOWING:
            with click.progressbar(length=times, label=f"{n} examples") as bar:
                alone, lead = coverage(n, following, times, lambda: bar.update(1))
            click.echo(f"{n:>5} {following:<4} agreement {alone:.3f}, lead {lead:.3f}")


if __name__ == "__main__":
    main()
