"""How sure what is told of several trials is: Student's t, or Wilson's interval, over trials.

Trials are trained anew, each by itself, and there are few of them: there is nothing to draw again.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from moedb.queries.analyses.uncertainty.bootstrap import TAIL

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


class Told(NamedTuple):
    """What a column is of, by the columns beside it.

    Attributes
    ----------
    name
        The column.
    n
        The column that says of how many trials, or images, it is.
    sd
        The column of the sample deviation that a mean has over them; None for a share of them.
    error
        The column of the standard error, where a mean is of fewer of them than ``n`` says.
    yes
        The column that says how many of them a share counts.
    least, most
        What it can be.
    """

    name: str
    n: str = "n_trials"
    sd: str | None = None
    error: str | None = None
    yes: str | None = None
    least: float = float("-inf")
    most: float = float("inf")


OVER_TRIALS: Mapping[str, Sequence[Told]] = MappingProxyType(
    {
        "class-consistency": (Told("share", yes="n_together", least=0, most=1),),
        "class-correlation": (Told("correlation", sd="sd", least=-1, most=1),),
        "class-covariance": (Told("covariance", sd="sd"),),
        "expert-accuracy": (Told("accuracy", "n_images", yes="n_correct", least=0, most=1),),
        "router-ablation": (
            Told("learned", sd="learned_sd", least=0, most=1),
            Told("decrease", sd="decrease_sd", error="decrease_error", most=100),
        ),
        "routing-by-class-over-trials": (Told("share", sd="sd", least=0, most=1),),
    }
)
"""The questions about trials whose own columns tell how sure they are."""

_ALIKE = ("class_a", "class_b")


def how_over_trials(name: str) -> str:
    """Say how the intervals of a question are found.

    Examples
    --------
    >>> how_over_trials("class-correlation")
    "Student's t over the trials of each row"
    """
    first = OVER_TRIALS[name][0]
    how = "Student's t" if first.yes is None else "Wilson's"
    return f"{how} over the {first.n.removeprefix('n_')} of each row"


def ends_over_trials(
    name: str, rows: "pa.Table"
) -> "dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]":
    """Find the ends of the intervals of a question about trials.

    Parameters
    ----------
    name
        One of :data:`OVER_TRIALS`.
    rows
        What it gave.

    Returns
    -------
    dict
        By the column, each (row,): NaN for a mean over fewer than two trials, or one that does not
        vary, for a share of none, and for a class with itself.
    """
    import numpy as np

    known = np.ones(rows.num_rows, np.bool_)
    if set(_ALIKE) <= set(rows.column_names):
        a, b = (np.asarray(rows[each].to_pylist(), dtype=object) for each in _ALIKE)
        known = a != b
    found = {}
    for told in OVER_TRIALS[name]:
        low, high = _by_t(told, rows) if told.yes is None else _wilson(told, rows)
        ends = (np.clip(np.where(known, end, np.nan), told.least, told.most) for end in (low, high))
        low, high = ends
        found[told.name] = low, high
    return found


def _by_t(told: Told, rows: "pa.Table") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    import numpy as np
    from scipy.special import stdtrit

    mean, n, sd = (_numbers(rows, name) for name in (told.name, told.n, str(told.sd)))
    has = (n > 1) & (sd > 0)
    n, sd = np.where(has, n, 2), np.where(has, sd, np.nan)
    error = sd / np.sqrt(n)
    if told.error is not None:
        error = np.where(has, _numbers(rows, told.error), np.nan)
        n = np.where(has, np.round((sd / error) ** 2), 2)
    half = stdtrit(n - 1, 1 - TAIL) * error
    return mean - half, mean + half


def _wilson(told: Told, rows: "pa.Table") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    import numpy as np
    from scipy.special import ndtri

    yes, n = _numbers(rows, str(told.yes)), _numbers(rows, told.n)
    n = np.where(n > 0, n, np.nan)
    share, squared = yes / n, float(ndtri(TAIL)) ** 2 / n
    middle = (share + squared / 2) / (1 + squared)
    half = np.sqrt(share * (1 - share) * squared + squared**2 / 4) / (1 + squared)
    return middle - half, middle + half


def _numbers(rows: "pa.Table", name: str) -> "NDArray[np.float64]":
    import numpy as np

    values = rows[name].cast("double").to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)
