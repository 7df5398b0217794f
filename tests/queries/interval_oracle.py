"""Intervals once more, by plain loops: BCa of any statistic, Newcombe's of paired shares."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest, norm, t


def bca(
    statistic: Callable[[list[int]], float],
    clusters: Sequence[Sequence[int]],
    samples: int,
    seed: int,
) -> tuple[float, float]:
    """The 95 % interval of a statistic of rows, drawn by clusters: lists of the rows of each."""
    n = len(clusters)

    def of(chosen: Sequence[int]) -> float:
        return statistic([row for cluster in chosen for row in clusters[cluster]])

    estimate = of(range(n))
    picked = np.random.default_rng(seed).integers(n, size=(samples, n))
    drawn = np.array([of(own) for own in picked.tolist()])
    tie = 1e-9 * np.ptp(drawn)
    below = sum(1.0 if d < estimate - tie else 0.5 * (d <= estimate + tie) for d in drawn) / samples
    bias = norm.ppf(min(max(below, 0.5 / samples), 1 - 0.5 / samples))
    without = np.array([of([c for c in range(n) if c != left]) for left in range(n)])
    influence = without.mean() - without
    cubes, squares = (influence**3).sum(), (influence**2).sum()
    acceleration = cubes / (6 * squares**1.5) if squares else 0.0
    ends = []
    for tail in (0.025, 0.975):
        wide = math.sqrt(n / (n - 1)) * t.ppf(tail, n - 1)
        shrunk = max(1 - acceleration * (bias + wide), 1e-12)
        ends.append(float(np.quantile(drawn, norm.cdf(bias + (bias + wide) / shrunk))))
    return ends[0], ends[1]


def bca_of_mean(values: Sequence[float], samples: int, seed: int, size: int = 1):
    """The interval of a mean; ``size`` rows after each other are a cluster."""
    held = np.asarray(values)
    rows = list(range(len(held)))
    clusters = [rows[at : at + size] for at in range(0, len(rows), size)]
    return bca(lambda chosen: float(held[chosen].mean()), clusters, samples, seed)


def wilson(share: float, size: float) -> tuple[float, float]:
    """The two shares whose own standard error puts them 1.96 of it from the one given."""
    if size == round(size) and abs(share * size - round(share * size)) < 1e-9:
        found = binomtest(round(share * size), round(size)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    z2 = norm.ppf(0.975) ** 2
    # (p - share)^2 = z^2 p (1 - p) / size
    low, high = np.sort(np.roots([1 + z2 / size, -2 * share - z2 / size, share**2]))
    return float(low), float(high)


def newcombe(after: Sequence[float], before: Sequence[float]) -> tuple[float, float]:
    """The interval of the difference of two shares of the same independent examples."""
    n = len(after)
    ends, shares, sizes = [], [], []
    for values in (np.asarray(after), np.asarray(before)):
        share, spread = float(values.mean()), float(values.var(ddof=1))
        size = min(n, n * share * (1 - share) * n / (n - 1) / spread) if spread else n
        shares.append(share)
        sizes.append(size)
        ends.append(wilson(share, size))
    product = float(((np.asarray(after) - shares[0]) * (np.asarray(before) - shares[1])).sum())
    scale = n * math.sqrt(np.var(after) * np.var(before))
    if product > 0:
        product = max(0.0, product - n / min(sizes) / 2)
    phi = product / scale if scale else 0.0
    down = [share - low for share, (low, _) in zip(shares, ends, strict=True)]
    up = [high - share for share, (_, high) in zip(shares, ends, strict=True)]
    change = shares[0] - shares[1]
    return (
        change - math.sqrt(max(0.0, down[0] ** 2 - 2 * phi * down[0] * up[1] + up[1] ** 2)),
        change + math.sqrt(max(0.0, up[0] ** 2 - 2 * phi * up[0] * down[1] + down[1] ** 2)),
    )
