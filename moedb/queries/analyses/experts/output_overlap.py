"""How alike the outputs of two experts are for the same tokens, from the stored arrays."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import ArrayNotFoundError, ParameterError
from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.analyses.uncertainty.means import interval_of_mean
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.arrays.rows import KEPT, read_rows, spread
from moedb.queries.results.result import Computed
from moedb.schemas.arrays import SHARD_ROWS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader
    from moedb.store.reading.snapshot import RunSnapshot

_NAME = "output-overlap"
_EVERY, _CHOSEN = "all_expert_outputs", "expert_outputs"
_SUMS = 64
"""Epsilons that sums over a layer's width, and over the layers before it, may be off by."""
_BFLOAT16_EPSILON = 2.0**-7

_ROWS = f"{KEPT}\n\nselect kept.array_row, kept.example_id\nfrom kept\norder by kept.array_row"
_EXPERTS = f"""
{KEPT}

select routing.expert
from routing
join kept using (run_id, token_idx)
where routing.layer = cast($layer as integer)
order by kept.array_row, routing.rank
""".strip()  # noqa: S608


@dataclass(frozen=True)
class PairOverlap:
    """How alike the outputs of two experts are.

    Attributes
    ----------
    n_tokens
        Tokens compared.
    cosine
        Mean cosine of the two outputs; None where no token has two that are not zero.
    cosine_low, cosine_high
        The ends of its interval over clusters of tokens; None where these are not known, or one.
    cka
        Linear CKA; None where one of the outputs is the same for all tokens, but for rounding.
    norm_a, norm_b
        Mean norms of the two outputs.
    """

    n_tokens: int
    cosine: float | None
    cosine_low: float | None
    cosine_high: float | None
    cka: float | None
    norm_a: float
    norm_b: float


class OutputOverlapRow(NamedTuple):
    """A row of the analysis ``output-overlap``."""

    layer: int
    expert_a: int
    expert_b: int
    n_tokens: int
    cosine: float | None
    cosine_low: float | None
    cosine_high: float | None
    cka: float | None
    norm_a: float
    norm_b: float


def output_overlap(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``output-overlap``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, layer, min_tokens, max_tokens and cluster.

    Raises
    ------
    ArrayNotFoundError
        If the run keeps no outputs, or only those of one expert for each token.
    ParameterError
        If a number of tokens is less than 1, or no example has the label that is to tell the
        clusters.
    """
    for name in ("min_tokens", "max_tokens"):
        given = parameters[name]
        if given is not None and int(given) < 1:
            raise ParameterError(f"{_NAME}: {name} is {given}, not 1 or more")
    run = reader.snapshot.run(str(parameters["run"]))
    wanted = None if parameters["layer"] is None else int(parameters["layer"])
    sources = _sources(run, wanted)
    number_format = str(run.row["dtype"])
    rows: list[OutputOverlapRow] = []
    for layer, array in each_part([*sources.items()], "layers"):
        for expert_a, expert_b, pair in _pairs_of_layer(
            reader, parameters, layer, array, number_format
        ):
            if pair.n_tokens >= int(parameters["min_tokens"] or 1):
                rows.append(
                    OutputOverlapRow(
                        layer=layer,
                        expert_a=expert_a,
                        expert_b=expert_b,
                        n_tokens=pair.n_tokens,
                        cosine=pair.cosine,
                        cosine_low=pair.cosine_low,
                        cosine_high=pair.cosine_high,
                        cka=pair.cka,
                        norm_a=pair.norm_a,
                        norm_b=pair.norm_b,
                    )
                )
    statement = _EXPERTS if _CHOSEN in sources.values() else _ROWS
    return Computed(rows, statement, (run.run_id,))


def _sources(run: "RunSnapshot", wanted: int | None) -> dict[int, str]:
    """The array to read for each layer: outputs of every expert where kept, else of the chosen.

    Raises
    ------
    ArrayNotFoundError
        If there is no layer with the outputs of two experts for one token.
    """
    top_k = {int(row["layer"]): int(row["top_k"]) for row in run.manifest.layers}
    kept = {
        layer: name for name in (_CHOSEN, _EVERY) for layer in run.manifest.arrays.get(name, ())
    }
    at = "" if wanted is None else f"@{wanted}"
    usable = {
        layer: name
        for layer, name in sorted(kept.items())
        if wanted in (None, layer) and (name == _EVERY or top_k[layer] > 1)
    }
    if usable:
        return usable
    chosen_alone = [layer for layer in sorted(top_k) if wanted in (None, layer)]
    if chosen_alone and all(top_k[layer] == 1 for layer in chosen_alone):
        raise ArrayNotFoundError(
            f"run {run.run_id} chooses one expert for each token: no token has the outputs of two "
            f"to compare unless those of every expert are kept, as {_EVERY}",
            f"capture again with --arrays {_EVERY}{at}",
        )
    names = ", ".join(sorted(run.manifest.arrays)) or "no arrays"
    layers = f"kept are layers {sorted(kept)}" if kept else "it keeps none of that name"
    of = "" if wanted is None else f" of layer {wanted}"
    raise ArrayNotFoundError(
        f"run {run.run_id} has no {_CHOSEN}{of}: {layers}; it has {names}",
        f"capture again with --arrays {_CHOSEN}{at}",
    )


def _pairs_of_layer(
    reader: "SnapshotReader",
    parameters: "Mapping[str, Value]",
    layer: int,
    array: str,
    number_format: str,
) -> "Iterator[tuple[int, int, PairOverlap]]":
    import numpy as np

    run = str(parameters["run"])
    chosen = {"run": run, "split": parameters["split"]}
    kept = reader.sql(_ROWS, chosen).df()
    if kept.empty:
        return
    picked = spread(len(kept), parameters["max_tokens"])
    values = read_rows(reader.array(run, array, layer), kept["array_row"].to_numpy()[picked])
    clusters = clusters_of(reader, run, _NAME, parameters["cluster"]).of(
        kept["example_id"].to_numpy()[picked]
    )
    if array == _EVERY:
        yield from compare_all(values, number_format, clusters)
        return
    experts = reader.sql(_EXPERTS, {**chosen, "layer": layer}).df()["expert"].to_numpy(np.int64)
    own = experts.reshape(len(kept), -1)[picked]
    yield from compare_chosen(values, own, number_format, clusters)


def rounding(number_format: str) -> float:
    """Return how far outputs for the same input may differ, beside their size.

    A model's kernels sum in float32, in an order that depends on the batch, and round what comes
    out to the model's own number format.

    Parameters
    ----------
    number_format
        The format that the model ran in. A bfloat16 model's outputs are stored as float32, so the
        array does not tell; a name that is none of a format counts as float32.

    Examples
    --------
    >>> rounding("bfloat16"), rounding("float32") < 1e-5
    (0.00390625, True)
    """
    import numpy as np

    known = {name: float(np.finfo(name).eps) for name in ("float16", "float32", "float64")}
    known["bfloat16"] = _BFLOAT16_EPSILON
    epsilon = known.get(number_format, known["float32"])
    return max(epsilon / 2, _SUMS * min(epsilon, known["float32"]))


def compare_all(
    outputs: "NDArray[np.floating[Any]]",
    number_format: str = "float32",
    clusters: "NDArray[np.int64] | None" = None,
) -> "Iterator[tuple[int, int, PairOverlap]]":
    """Compare all pairs of experts over all tokens.

    Parameters
    ----------
    outputs
        (token, expert, d_model): the output of every expert for every token.
    number_format
        The format that they were computed in.
    clusters
        (token,): the cluster of each, a number; None for no intervals.

    Yields
    ------
    tuple
        The two experts, the lower number first, and how alike they are.
    """
    if not len(outputs):
        return
    n_experts = outputs.shape[1]
    own = [co_variation(outputs[:, e], outputs[:, e]) for e in range(n_experts)]
    least = rounding(number_format)
    for a, b in combinations(range(n_experts), 2):
        yield a, b, _compare(outputs[:, a], outputs[:, b], least, clusters, own[a], own[b])


def compare_chosen(
    outputs: "NDArray[np.floating[Any]]",
    experts: "NDArray[np.integer[Any]]",
    number_format: str = "float32",
    clusters: "NDArray[np.int64] | None" = None,
) -> "Iterator[tuple[int, int, PairOverlap]]":
    """Compare each pair of experts over the tokens that use both.

    Parameters
    ----------
    outputs
        (token, rank, d_model): the output of the expert of each rank.
    experts
        (token, rank): which expert it is.
    number_format
        The format that the outputs were computed in.
    clusters
        (token,): the cluster of each, a number; None for no intervals.

    Yields
    ------
    tuple
        The two experts, the lower number first, and how alike they are. Pairs that no token uses
        are left out.
    """
    import numpy as np

    n_tokens, top_k = experts.shape
    if not n_tokens or top_k < 2:
        return
    order = np.argsort(experts, axis=1, kind="stable")
    ordered = np.take_along_axis(experts, order, axis=1).astype(np.int64)
    lower, upper = np.triu_indices(top_k, 1)
    n_experts, least = int(experts.max()) + 1, rounding(number_format)
    # one entry for each token and each two of its experts, sorted by the two
    pairs = (ordered[:, lower] * n_experts + ordered[:, upper]).ravel()
    tokens = np.repeat(np.arange(n_tokens), len(lower))
    rank_a, rank_b = order[:, lower].ravel(), order[:, upper].ravel()
    by_pair = np.argsort(pairs, kind="stable")
    found, starts = np.unique(pairs[by_pair], return_index=True)
    for pair, entries in zip(found, np.split(by_pair, starts[1:]), strict=True):
        a, b = divmod(int(pair), n_experts)
        outputs_a = outputs[tokens[entries], rank_a[entries]]
        outputs_b = outputs[tokens[entries], rank_b[entries]]
        own = None if clusters is None else clusters[tokens[entries]]
        yield a, b, _compare(outputs_a, outputs_b, least, own)


def _compare(
    outputs_a: "NDArray[np.floating[Any]]",
    outputs_b: "NDArray[np.floating[Any]]",
    least: float,
    clusters: "NDArray[np.int64] | None",
    own_a: float | None = None,
    own_b: float | None = None,
) -> PairOverlap:
    """Compare two experts.

    ``least`` is the deviation from the mean, beside the size of the outputs, that is rounding and
    no variation; ``clusters`` are those of the tokens, where they are known; ``own_a`` and
    ``own_b`` are given where their own co-variation is known.
    """
    import numpy as np

    norms_a, norms_b, squares_a, squares_b = 0.0, 0.0, 0.0, 0.0
    cosines = np.full(len(outputs_a), np.nan)
    for start in range(0, len(outputs_a), SHARD_ROWS):
        a = outputs_a[start : start + SHARD_ROWS].astype(np.float64)
        b = outputs_b[start : start + SHARD_ROWS].astype(np.float64)
        norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        norms_a += float(norm_a.sum())
        norms_b += float(norm_b.sum())
        squares_a += float((norm_a**2).sum())
        squares_b += float((norm_b**2).sum())
        defined = (norm_a > 0) & (norm_b > 0)
        products = np.einsum("td,td->t", a[defined], b[defined])
        cosines[start : start + SHARD_ROWS][defined] = products / (
            norm_a[defined] * norm_b[defined]
        )
    is_defined = np.isfinite(cosines)
    cosines = cosines[is_defined]
    low, high = None, None
    if clusters is not None:
        low, high = interval_of_mean(cosines, clusters[is_defined])
    n_tokens = len(outputs_a)
    own_a = co_variation(outputs_a, outputs_a) if own_a is None else own_a
    own_b = co_variation(outputs_b, outputs_b) if own_b is None else own_b
    own_a, own_b = math.sqrt(own_a), math.sqrt(own_b)
    # the root of the own co-variation is the sum of squared deviations where the variation has one
    # direction, and at least that over the root of the number of directions
    varies = own_a > least**2 * squares_a and own_b > least**2 * squares_b
    return PairOverlap(
        n_tokens=n_tokens,
        cosine=float(cosines.mean()) if len(cosines) else None,
        cosine_low=low if low is None else max(low, -1.0),
        cosine_high=high if high is None else min(high, 1.0),
        cka=co_variation(outputs_a, outputs_b) / (own_a * own_b) if varies else None,
        norm_a=norms_a / n_tokens,
        norm_b=norms_b / n_tokens,
    )


def co_variation(
    outputs_a: "NDArray[np.floating[Any]]", outputs_b: "NDArray[np.floating[Any]]"
) -> float:
    """Return the squared Frobenius norm of A'B, where A and B are centred over the tokens.

    Of two experts over the root of that of each with itself it is their linear CKA. The same
    number is the sum of the products of the matrices AA' and BB', which are smaller where there
    are fewer tokens than dimensions.

    Parameters
    ----------
    outputs_a, outputs_b
        (token, d_model).
    """
    import numpy as np

    mean_a = outputs_a.mean(axis=0, dtype=np.float64)
    mean_b = outputs_b.mean(axis=0, dtype=np.float64)
    n_tokens, width = outputs_a.shape
    if n_tokens <= width:
        a, b = outputs_a - mean_a, outputs_b - mean_b
        return float(np.sum((a @ a.T) * (b @ b.T)))
    total = np.zeros((width, outputs_b.shape[1]))
    for start in range(0, n_tokens, SHARD_ROWS):
        rows = slice(start, start + SHARD_ROWS)
        total += (outputs_a[rows] - mean_a).T @ (outputs_b[rows] - mean_b)
    return float(np.sum(total * total))


OUTPUT_OVERLAP = Analysis(
    name=_NAME,
    title="Output overlap",
    answers="How alike are the outputs of two experts of a layer for the same tokens?",
    subject="pairs",
    parameters=(
        RUN,
        SPLIT,
        Parameter(
            "layer", "integer", None, False, "the MoE layer; all that keep outputs when null"
        ),
        Parameter("min_tokens", "integer", 2, False, "leave out pairs with fewer tokens", least=1),
        Parameter(
            "max_tokens",
            "integer",
            None,
            False,
            "read no more than this many tokens of a layer, evenly spread; all when null",
            least=1,
        ),
        CLUSTER,
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("expert_a", "an expert", "INTEGER"),
        AnalysisColumn("expert_b", "another, expert_b > expert_a", "INTEGER"),
        AnalysisColumn(
            "n_tokens",
            "tokens compared: all that were read where the run keeps all_expert_outputs, "
            "else those that use both experts",
            "BIGINT",
        ),
        AnalysisColumn(
            "cosine",
            "mean over the tokens of the cosine of E_a(x) and E_b(x); a token with an output "
            "of zeros has none",
            "DOUBLE",
        ),
        AnalysisColumn(
            "cosine_low",
            "the lower end of its 95 % interval: Student's t of the jackknife over examples, or "
            "clusters of them; null of a single one, and where all cosines are alike",
            "DOUBLE",
        ),
        AnalysisColumn("cosine_high", "the upper end", "DOUBLE"),
        AnalysisColumn(
            "cka",
            "linear CKA of the outputs, centred over the tokens; near 1 for any two experts "
            "where n_tokens is small beside d_model; null where an output never varies beyond "
            "the rounding of the number format that the model ran in",
            "DOUBLE",
        ),
        AnalysisColumn("norm_a", "mean norm of E_a(x) over the tokens", "DOUBLE"),
        AnalysisColumn("norm_b", "mean norm of E_b(x) over the tokens", "DOUBLE"),
    ),
    source="Kornblith et al. 2019, eq. 4 (CKA with a linear kernel)",
    function=output_overlap,
    row=OutputOverlapRow,
    needs_arrays=(_CHOSEN, _EVERY),
    is_long=True,
)
