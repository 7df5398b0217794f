"""How well a division of tokens agrees with their values, and how sure that is."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.analyses.uncertainty.means import interval_of_jackknife

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_GROUPS = 100
"""Groups that clusters of examples are dealt into where there are more of them."""

_MOST_CELLS = 1 << 20
"""Numbers that are held at once: they stay near the processor."""

_FEWEST_TOLD_APART = 3
"""Groups whose variance can be told apart by leaving out two of them."""

_TIE = 1e-12
"""Differences of adjusted mutual information that are of rounding."""


class Agreement(NamedTuple):
    """Adjusted mutual information, or the difference of two.

    Attributes
    ----------
    found
        That of all tokens.
    without
        (group,): that without each group of clusters of examples.
    without_two
        (pair,): that without each two of them, as ``np.triu_indices`` orders pairs.
    freedom
        Degrees of freedom of the table of values and parts; None of a difference of two.
    """

    found: float
    without: "NDArray[np.float64]"
    without_two: "NDArray[np.float64]"
    freedom: int | None = None

    def less(self, other: "Agreement") -> "Agreement":
        """Return by how much it is more than another one of the same tokens."""
        return Agreement(
            self.found - other.found,
            self.without - other.without,
            self.without_two - other.without_two,
        )

    def interval(self) -> tuple[float | None, float | None]:
        """Return the ends of its 95 % interval; None, None of one group, or without variation.

        The less parts tell of values, the more mutual information changes with the square of what
        is drawn, of which the jackknife counts the variance twice; groups that are left out by
        twos tell it apart (Efron & Stein 1981, "The jackknife estimate of variance"). The rest of
        the variance grows as mutual information does, near none of it as that of a noncentral
        chi-squared. So the ends are those from which what was found is as far as Student's t says
        with the variance that it would have there, as Wilson's are of a share.
        """
        import numpy as np

        n = len(self.without)
        if n < 2 or np.ptp(self.without) < _TIE:
            return None, None
        low, high = interval_of_jackknife(self.found, self.without)
        if low is None or high is None or n < _FEWEST_TOLD_APART:
            return low, high
        counted = (n - 1) * float(self.without.var())
        t = (high - low) / 2 / math.sqrt(counted)
        of_squares = float(self._of_pairs().var()) / 2
        rest = max(counted - 2 * of_squares, 0)
        if self.freedom is None:  # it has no least value, where it would hardly vary
            half = t * math.sqrt(rest + min(of_squares, counted / 2))
            return self.found - half, self.found + half
        error = math.sqrt(of_squares)
        near_none = 2 * error * math.sqrt(2 / self.freedom)
        slope = (rest + error * near_none) / max(max(self.found, 0) + error, _TIE)
        middle = self.found + t**2 * slope / 2
        half = t * math.sqrt(rest + of_squares + (t * slope / 2) ** 2)
        return middle - half, min(middle + half, 1)

    def _of_pairs(self) -> "NDArray[np.float64]":
        """(pair,): what two groups have to say together, beyond what each has by itself."""
        import numpy as np

        n = len(self.without)
        one, other = (self.without[of] for of in np.triu_indices(n, 1))
        pairs: NDArray[np.float64] = (
            n * self.found - (n - 1) * (one + other) + (n - 2) * self.without_two
        )
        return pairs


def agreement(
    values: "NDArray[np.int64]", parts: "NDArray[np.int64]", clusters: "NDArray[np.int64]"
) -> Agreement:
    """Return the adjusted mutual information of values and parts (Vinh, Epps & Bailey 2010).

    What chance gives is computed once, of all tokens: it falls as one over their number, and
    hardly depends on which they are.

    Parameters
    ----------
    values, parts
        (token,): the value and the part of each, numbered from 0 on.
    clusters
        (token,): the cluster that its example is of, a number.

    Examples
    --------
    >>> import numpy as np
    >>> halves = np.array([0, 0, 1, 1])
    >>> agreement(halves, halves, np.array([7, 8, 7, 8])).without
    array([1., 1.])
    """
    import numpy as np
    from sklearn.metrics import adjusted_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    found = float(adjusted_mutual_info_score(values, parts))
    groups = _dealt(clusters)
    n_groups = int(groups.max()) + 1
    if n_groups == 1:  # nothing is left without it
        return Agreement(found, np.array([found]), np.zeros(0), None)
    n = len(values)
    # a long list of values has few cells that hold a token
    _, cells = np.unique(values * (int(parts.max()) + 1) + parts, return_inverse=True)
    own = [contingency_matrix(groups, of) for of in (values, parts, cells)]
    by_chance = float(expected_mutual_information(contingency_matrix(values, parts), n)) * n
    adjusted = partial(_adjusted, by_chance, _times_logarithm(n))
    rest = [of.sum(axis=0) - of for of in own]
    one, other = np.triu_indices(n_groups, 1)
    step = max(1, _MOST_CELLS // own[-1].shape[1])
    without_two = [
        adjusted([of[a] - out[b] for of, out in zip(rest, own, strict=True)])
        for a, b in (
            (one[at : at + step], other[at : at + step]) for at in range(0, len(one), step)
        )
    ]
    freedom = max(math.prod(of.shape[1] - 1 for of in own[:2]), 1)
    return Agreement(found, adjusted(rest), np.concatenate(without_two), freedom)


def _dealt(clusters: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Number the groups of clusters."""
    import numpy as np

    _, numbers = np.unique(clusters, return_inverse=True)
    groups: NDArray[np.int64] = numbers % MOST_GROUPS
    return groups


def _times_logarithm(n: int) -> "NDArray[np.float64]":
    """(n + 1,): each number times its logarithm, 0 of 0."""
    import numpy as np

    numbers = np.arange(n + 1.0)
    found: NDArray[np.float64] = numbers * np.log(np.maximum(numbers, 1))
    return found


def _adjusted(
    by_chance: float,
    times_logarithm: "NDArray[np.float64]",
    counts: "Sequence[NDArray[np.int64]]",
) -> "NDArray[np.float64]":
    """Adjust mutual information by that of chance.

    Parameters
    ----------
    by_chance
        That of chance for all tokens, times their number.
    times_logarithm
        What :func:`_times_logarithm` gives for their number.
    counts
        How many tokens of a choice of them have each value, each part, and both, three arrays
        (choice, of each).

    Returns
    -------
    (choice,)
    """
    import numpy as np

    n = counts[0].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_values, of_parts, of_both = (
            np.log(n) - times_logarithm[of].sum(axis=1) / n for of in counts
        )
        most, expected = (of_values + of_parts) / 2, by_chance / n
        found = (of_values + of_parts - of_both - expected) / (most - expected)
    # one value in one part
    return np.where(most > expected, found, 1.0)
