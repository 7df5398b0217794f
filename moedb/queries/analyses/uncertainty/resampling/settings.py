"""How the intervals of a named query are asked for."""

from dataclasses import dataclass
from typing import Literal, get_args

from moedb.errors import UsageError, did_you_mean
from moedb.queries.analyses.uncertainty.clusters import TWIN

Method = Literal["bca", "percentile", "jackknife"]

METHODS: tuple[Method, ...] = get_args(Method)
"""How the ends of an interval are found; the first unless one is named."""

_MOST_SAMPLES = 100_000
_FEWEST_SAMPLES = 100


@dataclass(frozen=True)
class Resampling:
    """How intervals are found: clusters of examples are drawn again, or left out one by one.

    Attributes
    ----------
    method
        ``bca`` and ``percentile`` take quantiles of draws, the first corrected for their bias and
        skew; ``jackknife`` leaves out one cluster after the other, for a few of them.
    samples
        How often the clusters are drawn.
    seed
        The seed of the drawing.
    cluster
        The key of the label of examples that tells the clusters; None for that of documents, or
        else of twins.
    """

    method: Method = METHODS[0]
    samples: int = 1000
    seed: int = 0
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"there are no intervals of the method {self.method!r}; "
                f"{did_you_mean(self.method, METHODS)}",
                "--ci, --ci percentile or --ci jackknife",
            )
        if not _FEWEST_SAMPLES <= self.samples <= _MOST_SAMPLES:
            raise UsageError(
                f"samples is {self.samples}, not from {_FEWEST_SAMPLES} to {_MOST_SAMPLES}",
                "--samples 1000",
            )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, not 0 or more", "--seed 0")

    def title(self, key: str | None, n_clusters: int, n_drawn: int) -> str:
        """Say how intervals were found.

        Parameters
        ----------
        key
            The label that tells clusters; None where each example is one of its own.
        n_clusters
            How many there are.
        n_drawn
            How many were drawn: fewer where some were put together.

        Examples
        --------
        >>> Resampling().title("document", 265, 265)
        '95 % intervals: BCa bootstrap over 265 clusters by document, 1000 draws, seed 0'
        >>> Resampling("jackknife").title(None, 500, 200)
        '95 % intervals: jackknife over 500 examples in 200 groups'
        """
        what = {None: "examples", TWIN: "prompts"}.get(key, f"clusters by {key}")
        groups = "" if n_drawn == n_clusters else f" in {n_drawn} groups"
        over = f"over {n_clusters} {what}{groups}"
        if self.method == "jackknife":
            return f"95 % intervals: jackknife {over}"
        name = {"bca": "BCa", "percentile": "percentile"}[self.method]
        drawn = f"{self.samples} draws, seed {self.seed}"
        return f"95 % intervals: {name} bootstrap {over}, {drawn}"


@dataclass(frozen=True)
class Null:
    """How what chance gives is found: labels are shuffled, or experts chosen alike.

    Attributes
    ----------
    samples
        How often.
    seed
        The seed of it.
    cluster
        The key of the label of examples that tells the clusters; None for that of documents, or
        else of twins.
    """

    samples: int = 1000
    seed: int = 0
    cluster: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= _MOST_SAMPLES:
            raise UsageError(
                f"what chance gives is asked for {self.samples} times, not 1 to {_MOST_SAMPLES}",
                "--null --samples 1000",
            )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, not 0 or more", "--seed 0")

    def title(self, how: str) -> str:
        """Say what chance was.

        Examples
        --------
        >>> Null(200).title("labels shuffled over examples")
        'chance: labels shuffled over examples, 200 times, seed 0'
        """
        return f"chance: {how}, {self.samples} times, seed {self.seed}"
