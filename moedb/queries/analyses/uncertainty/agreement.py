"""How well a division of tokens agrees with their values, and how sure that is."""

from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.analyses.uncertainty.means import interval_of_jackknife

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_GROUPS = 100
"""Groups that clusters of examples are dealt into where there are more of them."""


class Agreement(NamedTuple):
    """Adjusted mutual information, or the difference of two.

    Attributes
    ----------
    found
        That of all tokens.
    without
        (group,): that without each group of clusters of examples.
    """

    found: float
    without: "NDArray[np.float64]"

    def less(self, other: "Agreement") -> "Agreement":
        """Return by how much it is more than another one of the same tokens."""
        return Agreement(self.found - other.found, self.without - other.without)

    def interval(self) -> tuple[float | None, float | None]:
        """Return the ends of its 95 % interval; None, None of one group, or without variation."""
        if len(self.without) < 2:
            return None, None
        return interval_of_jackknife(self.found, self.without)


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
    >>> agreement(halves, halves, np.array([7, 8, 7, 8]))
    Agreement(found=1.0, without=array([1., 1.]))
    """
    import numpy as np
    from sklearn.metrics import adjusted_mutual_info_score
    from sklearn.metrics.cluster import expected_mutual_information

    shape = int(values.max()) + 1, int(parts.max()) + 1
    cells = values * shape[1] + parts

    def counted(of: "NDArray[np.int64]") -> "NDArray[np.int64]":
        return np.bincount(of, minlength=shape[0] * shape[1]).reshape(shape)

    whole, groups = counted(cells), _dealt(clusters)
    by_chance = float(expected_mutual_information(whole, len(cells))) * len(cells)
    ordered = cells[np.argsort(groups, kind="stable")]
    by_group = np.split(ordered, np.cumsum(np.bincount(groups))[:-1])
    found = float(adjusted_mutual_info_score(values, parts))
    if len(by_group) == 1:  # nothing is left without it
        return Agreement(found, np.array([found]))
    without = [_adjusted(whole - counted(own), by_chance) for own in by_group]
    return Agreement(found, np.array(without))


def _dealt(clusters: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Number the groups of clusters."""
    import numpy as np

    _, numbers = np.unique(clusters, return_inverse=True)
    groups: NDArray[np.int64] = numbers % MOST_GROUPS
    return groups


def _adjusted(counts: "NDArray[np.int64]", by_chance: float) -> float:
    """Adjust the mutual information of a table by that of chance, which is given times its sum."""
    n = counts.sum()
    rows, columns = (_entropy(counts.sum(axis=axis) / n) for axis in (1, 0))
    most, expected = (rows + columns) / 2, by_chance / n
    if most <= expected:  # one value in one part
        return 1.0
    return float((rows + columns - _entropy(counts / n) - expected) / (most - expected))


def _entropy(shares: "NDArray[np.float64]") -> float:
    import numpy as np

    own = shares[shares > 0]
    return float(-(own * np.log(own)).sum())
