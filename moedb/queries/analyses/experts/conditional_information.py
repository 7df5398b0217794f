"""Information of labels and groups of tokens, given other groups, and shuffled labels for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]


def pointwise_information(
    labels: "Codes", groups: "Codes", given: "Codes"
) -> "NDArray[np.float64]":
    """Return what each token adds to I(label; group given another group), in bits.

    Its mean is the plug-in estimate.

    Parameters
    ----------
    labels, groups, given
        (token,): numbers from 0; ``given`` is constant where nothing is given.

    Examples
    --------
    >>> import numpy as np
    >>> one, two = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> float(pointwise_information(one ^ two, one, two).mean())
    1.0
    >>> float(pointwise_information(one ^ two, one, 0 * two).mean())
    0.0
    """
    import numpy as np

    both, _ = _paired(groups, given)
    counts = [
        _sizes(codes)
        for codes in (_paired(labels, both)[0], given, both, _paired(labels, given)[0])
    ]
    joint, alone, of_groups, of_labels = counts
    found: NDArray[np.float64] = np.log2(joint * alone / (of_groups * of_labels))
    return found


def _paired(first: "Codes", second: "Codes") -> "tuple[Codes, int]":
    """Number the pairs of two codes from 0; and say how many there are."""
    import numpy as np

    codes = first * (int(second.max()) + 1) + second
    values, numbers = np.unique(codes, return_inverse=True)
    return numbers.astype(np.int64), len(values)


def _sizes(codes: "Codes") -> "NDArray[np.float64]":
    """(token,): how many tokens have the same code."""
    import numpy as np

    return np.bincount(codes)[codes].astype(np.float64)


@dataclass(frozen=True)
class Units:
    """What carries a label, and where it may be moved to.

    Attributes
    ----------
    labels
        (token,): the label of each.
    blocks
        (token,): tokens of one block have one label, which moves as a whole.
    within
        (token,): labels stay within these.
    """

    labels: "Codes"
    blocks: "Codes"
    within: "Codes"

    def shuffles(self, given: "Codes", times: int, seed: int) -> "Iterator[Codes]":
        """Shuffle the labels among blocks that share what is given.

        The part of a block in one group is moved apart from its parts in others. Within a group
        that is right, as the tokens of a part stay together; but where the parts of a block are
        alike, what they say by chance adds up, and the shuffles spread too little.
        """
        import numpy as np

        part, _ = _paired(_paired(self.blocks, self.labels)[0], given)
        _, first = np.unique(part, return_index=True)
        cells = _paired(self.within[first], given[first])[0]
        own = self.labels[first]
        in_order = np.argsort(cells, kind="stable")
        rng = np.random.default_rng(seed)
        for _ in range(times):
            # less than 1 is added to a whole number: no part leaves its cell
            moved = np.empty_like(own)
            moved[in_order] = own[np.argsort(cells + 0.5 * rng.random(len(cells)))]
            yield moved[part]

    def movable(self, given: "Codes") -> float:
        """Return the share of tokens whose cell holds more labels than one."""
        import numpy as np

        cells, n_cells = _paired(self.within, given)
        _, first = np.unique(_paired(self.labels, cells)[0], return_index=True)
        n_labels = np.bincount(cells[first], minlength=n_cells)
        return float((n_labels[cells] > 1).mean())


def null_information(
    units: Units, groups: "Codes", given: "Codes", times: int, seed: int
) -> "NDArray[np.float64]":
    """Return (shuffle,): I(label; group given another) of shuffled labels, in bits."""
    import numpy as np

    both, n_both = _paired(groups, given)
    n_labels, n_given, n = int(units.labels.max()) + 1, int(given.max()) + 1, len(given)
    fixed = _weight(np.bincount(given)) - _weight(np.bincount(both))
    found = []
    for labels in units.shuffles(given, times, seed):
        joint = _weight(_counted(labels * n_both + both, n_labels * n_both))
        beside = _weight(_counted(labels * n_given + given, n_labels * n_given))
        found.append((fixed + joint - beside) / n)
    return np.maximum(np.asarray(found, dtype=np.float64), 0.0)


def _counted(codes: "Codes", n_codes: int) -> "NDArray[np.int64]":
    """Count codes; sorted where most of them would be empty cells."""
    import numpy as np

    if n_codes <= 4 * len(codes):
        return np.bincount(codes)
    return np.unique(codes, return_counts=True)[1].astype(np.int64)


def _weight(counts: "NDArray[np.int64]") -> float:
    import numpy as np

    held = counts[counts > 0].astype(np.float64)
    return float((held * np.log2(held)).sum())
