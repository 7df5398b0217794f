"""The question ``jsd-specialization``: how far an expert's token ids are from its layer's."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import UsageError
from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.promoted.largest import Largest
from moedb.queries.analyses.experts.promoted.reading import (
    KEPT_DECISIONS,
    OUTPUTS,
    promoting_layers,
)
from moedb.queries.analyses.experts.promoted.spherical import directions, spherical_clusters
from moedb.queries.analyses.experts.promoted.unembedding import Unembedding
from moedb.queries.analyses.uncertainty.bootstrap import number_or_none
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.analyses.uncertainty.resampling.draws import MOST_LEFT_OUT, numbered_groups
from moedb.queries.analyses.uncertainty.resampling.ends import Ends, Kinds, ends_of
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.arrays.rows import pieces, read_piece
from moedb.queries.reading.selection import SELECTED_EXAMPLES
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    from moedb.queries.analyses.uncertainty.clusters import Clusters
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader
    from moedb.store.reading.snapshot import RunSnapshot

_NAME = "jsd-specialization"
_EPSILON = 1e-8
_FEWEST_GROUPS = 20
_MOST_CELLS = 1 << 26
"""Numbers of groups, experts and clusters of the vocabulary that are held at once."""

_INPUT_IDS = f"""
select
    routing.expert,
    tokens.token_id,
    tokens.example_id,
    count(*) as n
from routing
join tokens on routing.token_idx = tokens.token_idx
where routing.run_id = cast($run as varchar)
    and tokens.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and tokens.token_id is not null
    and tokens.example_id in {SELECTED_EXAMPLES}
group by routing.expert, tokens.token_id, tokens.example_id
order by routing.expert, tokens.token_id, tokens.example_id
""".strip()  # noqa: S608
_EXAMPLES = f"""
select examples.example_id
from examples
where examples.run_id = cast($run as varchar) and examples.example_id in {SELECTED_EXAMPLES}
order by examples.example_id
""".strip()  # noqa: S608


class JsdSpecializationRow(NamedTuple):
    """A row of the analysis ``jsd-specialization``."""

    layer: int
    expert: int
    n_ids: int
    n_clusters: int
    jsd: float
    jsd_null: float
    jsd_less_null: float
    jsd_less_null_low: float | None
    jsd_less_null_high: float | None


def jensen_shannon(counts: "NDArray[Any]", other: "NDArray[Any]") -> "NDArray[np.float64]":
    """The Jensen-Shannon divergence, in bits, of shares; 1e-8 is added to each before.

    Parameters
    ----------
    counts
        (..., cell).
    other
        (cell,).

    Examples
    --------
    >>> import numpy as np
    >>> jensen_shannon(np.array([[1.0, 0.0], [2.0, 2.0]]), np.array([0.0, 5.0])).round(3).tolist()
    [1.0, 0.311]
    """
    import numpy as np

    p, q = (each / each.sum(axis=-1, keepdims=True) + _EPSILON for each in (counts, other))
    p, q = (each / each.sum(axis=-1, keepdims=True) for each in (p, q))
    m = (p + q) / 2
    found: NDArray[np.float64] = (p * np.log2(p / m) + q * np.log2(q / m)).sum(axis=-1) / 2
    return found


def jsd_specialization(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``jsd-specialization``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, layer, of, n, clusters, draws, cluster and seed.

    Raises
    ------
    ArrayNotFoundError
        If the run keeps no unembedding, or for ``of`` promoted no expert outputs.
    UsageError
        If there are fewer tokens in the vocabulary than clusters.
    """
    import numpy as np

    run = reader.snapshot.run(str(parameters["run"]))
    number = {name: int(parameters[name] or 0) for name in ("n", "clusters", "draws", "seed")}
    unembedding = Unembedding(reader, run)
    if len(unembedding.token_ids) < number["clusters"]:
        raise UsageError(
            f"{_NAME}: {len(unembedding.token_ids)} tokens cannot be divided into "
            f"{number['clusters']} clusters",
            f"-p clusters {len(unembedding.token_ids)} at most",
        )
    rows = np.concatenate([piece for _, piece in unembedding.pieces()])
    clusters = spherical_clusters(directions(rows), number["clusters"], number["seed"])
    of_examples = clusters_of(reader, run.run_id, _NAME, parameters["cluster"])
    found: list[JsdSpecializationRow] = []
    of_output = parameters["of"] == "promoted"
    layer = None if parameters["layer"] is None else int(parameters["layer"])
    n_experts = {int(row["layer"]): int(row["n_experts"]) for row in run.manifest.layers}
    known = [each for each in sorted(n_experts) if layer in (None, each)]
    layers = promoting_layers(run, layer) if of_output else known
    for each in each_part(layers, "layers"):
        asked = {"run": run.run_id, "split": parameters["split"], "layer": each}
        shape = n_experts[each], number["clusters"]
        groups = _Groups(reader, asked, of_examples, shape, number["seed"])
        counts = np.zeros((groups.n, *shape))
        pairs = (
            _promoted_ids(reader, run, unembedding, asked, number["n"])
            if of_output
            else _input_ids(reader, asked)
        )
        for expert, token_ids, examples, times in pairs:
            places = np.searchsorted(unembedding.token_ids, token_ids) % len(clusters)
            # ids that the vocabulary does not have are of no cluster
            is_known = unembedding.token_ids[places] == token_ids
            of = groups.of(examples[is_known]), expert[is_known], clusters[places[is_known]]
            np.add.at(counts, of, times[is_known])
        found += _rows(each, counts, number["draws"], number["seed"])
    sql = KEPT_DECISIONS if of_output else _INPUT_IDS
    return Computed(found, sql, (run.run_id,))


def _rows(
    layer: int, of_groups: "NDArray[np.float64]", draws: int, seed: int
) -> "Iterator[JsdSpecializationRow]":
    """The rows of a layer, of counts (group, expert, cluster of the vocabulary)."""
    import numpy as np

    counts = of_groups.sum(axis=0)
    of_layer = counts.sum(axis=0)
    if not of_layer.any():
        return
    shares = of_layer / of_layer.sum()
    chosen = np.flatnonzero(counts.any(axis=1))
    own = jensen_shannon(counts[chosen], of_layer)
    n_ids = counts[chosen].sum(axis=1).astype(np.int64)
    nulls = np.array([
        jensen_shannon(
            np.random.default_rng([seed, layer, expert]).multinomial(n, shares, draws), of_layer
        ).mean()
        for expert, n in zip(chosen.tolist(), n_ids.tolist(), strict=True)
    ])  # fmt: skip
    low, high = _ends(of_groups[:, chosen], of_groups.sum(axis=1), own, nulls)
    for at, expert in enumerate(chosen.tolist()):
        yield JsdSpecializationRow(
            layer,
            expert,
            int(n_ids[at]),
            int((of_layer > 0).sum()),
            float(own[at]),
            float(nulls[at]),
            float(own[at] - nulls[at]),
            number_or_none(low[at]),
            number_or_none(high[at]),
        )


def _ends(
    counts: "NDArray[np.float64]",
    of_layer: "NDArray[np.float64]",
    own: "NDArray[np.float64]",
    nulls: "NDArray[np.float64]",
) -> "Ends":
    """The ends of the intervals of divergences less what chance gives.

    Parameters
    ----------
    counts, of_layer
        (group, expert, cluster of the vocabulary), and (group, cluster).
    own, nulls
        (expert,): the divergences of all groups together, and what chance gives.
    """
    import numpy as np

    n = counts.sum(axis=2)
    without = np.full(n.shape, np.nan)
    for group in range(len(counts)):
        rest = counts.sum(axis=0) - counts[group]
        some = rest.any(axis=1)
        if not some.any():
            continue
        of_rest = jensen_shannon(rest[some], of_layer.sum(axis=0) - of_layer[group])
        # by chance a divergence goes as one over the number of ids
        fewer = n.sum(axis=0)[some] / rest[some].sum(axis=1)
        without[group, some] = of_rest - nulls[some] * fewer
    none_drawn = np.zeros((0, len(own)))
    kinds = Kinds.of_any(len(own))
    return ends_of("jackknife", own - nulls, none_drawn, without, kinds, (n > 0).sum(axis=0))


class _Groups:
    """Clusters of examples, or groups of them where there are many: one is left out at a time.

    Attributes
    ----------
    n
        How many there are; one where more would not fit.
    """

    def __init__(
        self,
        reader: "SnapshotReader",
        asked: "Mapping[str, Value]",
        clusters: "Clusters",
        shape: tuple[int, int],
        seed: int,
    ) -> None:
        import numpy as np

        given = {name: asked[name] for name in ("run", "split")}
        self._examples = reader.sql(_EXAMPLES, given).arrow()["example_id"].to_numpy()
        of_example = clusters.of(self._examples)
        n_clusters = len(np.unique(of_example))
        most = min(MOST_LEFT_OUT, _MOST_CELLS // (shape[0] * shape[1]))
        if most < min(_FEWEST_GROUPS, n_clusters):
            most = 1
        self._of_example = numbered_groups(n_clusters, most, seed)[of_example]
        self.n = max(1, min(most, n_clusters))

    def of(self, examples: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """(entry,): the group of each example."""
        import numpy as np

        found: NDArray[np.int64] = self._of_example[np.searchsorted(self._examples, examples)]
        return found


def _input_ids(reader: "SnapshotReader", asked: "Mapping[str, object]") -> "Iterator[Ids]":
    """Experts, the ids of tokens that chose them, the example, and how often."""
    import numpy as np

    found = reader.sql(_INPUT_IDS, asked).arrow()
    names = ("expert", "token_id", "example_id", "n")
    expert, token_id, example, n = (found[name].to_numpy().astype(np.int64) for name in names)
    yield expert, token_id, example, n


def _promoted_ids(
    reader: "SnapshotReader",
    run: "RunSnapshot",
    unembedding: Unembedding,
    asked: "Mapping[str, object]",
    n: int,
) -> "Iterator[Ids]":
    """Experts, and the ids that each of their outputs promotes most."""
    import numpy as np

    layer = int(str(asked["layer"]))
    stored = reader.array(run.run_id, OUTPUTS, layer)
    decisions = reader.sql(KEPT_DECISIONS, {**asked, "expert": None}).arrow()
    names = ("array_row", "rank", "expert", "example_id")
    rows, ranks, experts, examples = (decisions[name].to_numpy().astype(np.int64) for name in names)
    order = np.argsort(rows, kind="stable")
    rows, ranks, experts, examples = (of[order] for of in (rows, ranks, experts, examples))
    needed, place = np.unique(rows, return_inverse=True)
    for piece in pieces(needed):
        values = read_piece(stored, needed[piece])
        here = slice(*np.searchsorted(place, [piece.start, piece.stop]))
        outputs = values[place[here] - piece.start, ranks[here]]
        largest = Largest(len(outputs), n)
        read = unembedding.read_by(outputs)
        for span, weights in unembedding.pieces():
            largest.take(read @ weights.T.astype(read.dtype, copy=False), span.start)
        ids = unembedding.token_ids[largest.places]
        own, of = (np.repeat(each[here], ids.shape[1]) for each in (experts, examples))
        yield own, ids.ravel(), of, np.ones(ids.size, np.int64)


JSD_SPECIALIZATION = Analysis(
    name=_NAME,
    title="Experts' token ids against their layer's",
    answers="How far are the kinds of tokens that an expert meets, or promotes, from those of its "
    "layer, beyond what as many draws give by chance?",
    subject="tokens",
    parameters=(
        RUN,
        SPLIT,
        Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
        Parameter(
            "of",
            "varchar",
            "input",
            False,
            "the tokens that chose the expert, or those that each of its outputs promotes most",
            ("input", "promoted"),
        ),
        Parameter("n", "integer", 3, False, "tokens of an output", least=1, most=1000),
        Parameter(
            "clusters", "integer", 100, False, "clusters of the vocabulary", least=2, most=100_000
        ),
        Parameter(
            "draws", "integer", 10, False, "multinomial draws for chance", least=1, most=10_000
        ),
        CLUSTER,
        Parameter("seed", "integer", 0, False, "the seed of clusters and draws"),
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("expert", "an expert that some token chose", "INTEGER"),
        AnalysisColumn("n_ids", "token ids that were counted", "BIGINT"),
        AnalysisColumn("n_clusters", "clusters that the layer's ids are of", "BIGINT"),
        AnalysisColumn(
            "jsd",
            "Jensen-Shannon divergence (bits) of the expert's shares of clusters from the layer's",
            "DOUBLE",
        ),
        AnalysisColumn(
            "jsd_null", "mean of that of as many ids drawn from the layer's shares", "DOUBLE"
        ),
        AnalysisColumn("jsd_less_null", "jsd less jsd_null", "DOUBLE"),
        AnalysisColumn(
            "jsd_less_null_low",
            "lower end of its 95 % interval: jackknife over clusters of examples; null for one",
            "DOUBLE",
        ),
        AnalysisColumn("jsd_less_null_high", "upper end", "DOUBLE"),
    ),
    source="Herbst et al. 2026; clusters by spherical k-means (Dhillon & Modha 2001) on the mean-"
    "centred unembedding",
    function=jsd_specialization,
    row=JsdSpecializationRow,
    needs=("routing", "vocabulary"),
    needs_arrays=("unembedding",),
    is_long=True,
)
