"""What routers read: the first choices and labels of its tokens, and clusters of it."""

from typing import TYPE_CHECKING, Any

from moedb.errors import ArrayNotFoundError
from moedb.queries.reading.arrays.rows import KEPT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.cluster import KMeans

    from moedb.queries.questions.parameters import Value
    from moedb.store.reading.snapshot import RunSnapshot

ROUTER_INPUT = "router_input"

FIRST_CHOICES = f"""
{KEPT}

select
    kept.token_idx,
    kept.array_row,
    kept.example_id,
    kept.token_id,
    routing.expert
from routing
join kept using (run_id, token_idx)
where routing.layer = cast($layer as integer)
    and routing.rank = 0
order by kept.array_row
""".strip()  # noqa: S608
"""The expert of rank 0 at ``$layer``, for each token that the arrays have a row for."""

LABELS = f"""
{KEPT}

select distinct
    labels.key,
    labels.token_idx,
    labels.value
from labels
join kept using (run_id, token_idx)
where cast($key as varchar) is null or labels.key = cast($key as varchar)
order by labels.key, labels.token_idx, labels.value
""".strip()  # noqa: S608
"""The labels of these tokens with the key ``$key``; null is every key."""


def layers_with_inputs(run: "RunSnapshot", wanted: "Value") -> list[int]:
    """Return the layer that is wanted, or else all that keep router inputs.

    Raises
    ------
    ArrayNotFoundError
        If the run keeps none.
    """
    if wanted is not None:
        return [int(wanted)]
    kept = run.manifest.arrays.get(ROUTER_INPUT)
    if not kept:
        names = ", ".join(sorted(run.manifest.arrays)) or "no arrays"
        raise ArrayNotFoundError(
            f"run {run.run_id} has no {ROUTER_INPUT} to cluster; it has {names}",
            f"capture again with --arrays {ROUTER_INPUT}",
        )
    return sorted(kept)


def cluster(
    vectors: "NDArray[np.floating[Any]]", n_clusters: int, *, restarts: int, seed: int
) -> "NDArray[np.integer[Any]]":
    """Divide vectors into clusters by k-means.

    Parameters
    ----------
    vectors
        (token, d).
    n_clusters
        How many clusters, no more than vectors.
    restarts
        How often k-means++ chooses the first centres; the tightest clusters are taken.
    seed
        The seed of that choice.

    Returns
    -------
    ndarray
        (token,): the cluster of each, from 0. Fewer are used where vectors coincide.
    """
    fitted = fit_clusters(vectors, n_clusters, restarts=restarts, seed=seed)
    found: NDArray[np.integer[Any]] = fitted.labels_
    return found


def fit_clusters(
    vectors: "NDArray[np.floating[Any]]", n_clusters: int, *, restarts: int, seed: int
) -> "KMeans":
    """Fit k-means as :func:`cluster` does; what it returns tells the cluster of other vectors."""
    import os
    import warnings

    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # threads wait for each other many times a second: one on a busy core holds up all of them
    threads = max(1, (os.cpu_count() or 1) - 1)
    with threadpool_limits(threads), warnings.catch_warnings():
        # said of vectors with fewer distinct values than clusters: some then stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(n_clusters, n_init=restarts, random_state=seed).fit(
            np.asarray(vectors, dtype=np.float32)
        )
