"""Whether routing says more about a label than plain clusters of what the router reads.

The tokens of a layer are clustered by k-means into as many clusters as the layer has experts, and
clusters and experts are compared with each label, and with each other. How sure that is, is
found by leaving out examples; the clusters of k-means stay what they are.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import ParameterError, UsageError
from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.router_inputs import (
    FIRST_CHOICES,
    LABELS,
    ROUTER_INPUT,
    cluster,
    layers_with_inputs,
)
from moedb.queries.analyses.uncertainty.agreement import MOST_GROUPS, agreement
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.arrays.rows import read_rows, spread
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "kmeans-baseline"


class KmeansBaselineRow(NamedTuple):
    """A row of the analysis ``kmeans-baseline``."""

    layer: int
    n_clusters: int
    key: str | None
    n_tokens: int
    n_values: int | None
    ami_experts: float | None
    ami_experts_low: float | None
    ami_experts_high: float | None
    ami_clusters: float | None
    ami_clusters_low: float | None
    ami_clusters_high: float | None
    lead: float | None
    lead_low: float | None
    lead_high: float | None
    purity_experts: float | None
    purity_clusters: float | None
    purity_of_one: float | None
    ami_between: float


def kmeans_baseline(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``kmeans-baseline``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, layer, key, max_tokens, restarts, seed and cluster.

    Raises
    ------
    ArrayNotFoundError
        If the run keeps no router inputs, or not those of the layer.
    ParameterError
        If a number of tokens or restarts is less than 1, the seed is negative, or no example has
        the label that is to tell the clusters of examples.
    UsageError
        If a layer has fewer tokens than experts.
    """
    for name, least in (("max_tokens", 1), ("restarts", 1), ("seed", 0)):
        given = parameters[name]
        if given is not None and int(given) < least:
            raise ParameterError(f"{_NAME}: {name} is {given}, not {least} or more")
    run = reader.snapshot.run(str(parameters["run"]))
    n_experts = {int(row["layer"]): int(row["n_experts"]) for row in run.manifest.layers}
    selection = {"run": run.run_id, "split": parameters["split"]}
    labels = reader.sql(LABELS, {**selection, "key": parameters["key"]}).df()
    sampled = clusters_of(reader, run.run_id, _NAME, parameters["cluster"])
    rows: list[KmeansBaselineRow] = []
    for layer in each_part(layers_with_inputs(run, parameters["layer"]), "layers"):
        stored = reader.array(run.run_id, ROUTER_INPUT, layer)
        tokens = reader.sql(FIRST_CHOICES, {**selection, "layer": layer}).df()
        if tokens.empty:
            continue
        tokens = tokens.iloc[spread(len(tokens), parameters["max_tokens"])]
        if len(tokens) < n_experts[layer]:
            raise UsageError(
                f"{_NAME}: {len(tokens)} tokens of layer {layer} cannot be divided into "
                f"{n_experts[layer]} clusters, one for each expert",
                "choose more: -p split all, or a larger -p max_tokens",
            )
        clusters = cluster(
            read_rows(stored, tokens["array_row"].to_numpy("int64")),
            n_experts[layer],
            restarts=int(parameters["restarts"] or 1),
            seed=int(parameters["seed"] or 0),
        )
        grouped = tokens[["token_idx", "expert"]].assign(
            cluster=clusters, sampled=sampled.of(tokens["example_id"].to_numpy())
        )
        rows += _against_labels(layer, n_experts[layer], grouped, labels)
    return Computed(rows, FIRST_CHOICES, (run.run_id,))


def purity(groups: "NDArray[Any]", values: "NDArray[Any]") -> float:
    """Return the share of tokens whose value is the most frequent one of their group.

    Examples
    --------
    >>> import numpy as np
    >>> purity(np.array([0, 0, 0, 1]), np.array(["a", "a", "b", "b"]))
    0.75
    """
    from sklearn.metrics.cluster import contingency_matrix

    return float(contingency_matrix(groups, values).max(axis=1).sum() / len(groups))


def _against_labels(
    layer: int, n_clusters: int, grouped: "pd.DataFrame", labels: "pd.DataFrame"
) -> list[KmeansBaselineRow]:
    """The rows of a layer, one for each key with two values or more."""
    from sklearn.metrics import adjusted_mutual_info_score as ami

    alike = float(ami(grouped["expert"], grouped["cluster"]))
    rows: list[KmeansBaselineRow] = []
    for key, own in labels.groupby("key", sort=True):
        found = grouped.merge(own, on="token_idx")
        if found["value"].nunique() < 2:
            continue
        values = found["value"].factorize()[0]
        experts, clusters = (found[name].to_numpy() for name in ("expert", "cluster"))
        sampled = found["sampled"].to_numpy()
        of_experts = agreement(values, found["expert"].factorize()[0], sampled)
        of_clusters = agreement(values, found["cluster"].factorize()[0], sampled)
        lead = of_experts.less(of_clusters)
        ends = [each.interval() for each in (of_experts, of_clusters, lead)]
        rows.append(
            KmeansBaselineRow(
                layer=layer,
                n_clusters=n_clusters,
                key=str(key),
                n_tokens=len(found),
                n_values=int(found["value"].nunique()),
                ami_experts=of_experts.found,
                ami_experts_low=ends[0][0],
                ami_experts_high=ends[0][1],
                ami_clusters=of_clusters.found,
                ami_clusters_low=ends[1][0],
                ami_clusters_high=ends[1][1],
                lead=lead.found,
                lead_low=ends[2][0],
                lead_high=ends[2][1],
                purity_experts=purity(experts, values),
                purity_clusters=purity(clusters, values),
                purity_of_one=float(found["value"].value_counts(normalize=True).iloc[0]),
                ami_between=alike,
            )
        )
    if rows:
        return rows
    known: dict[str, float] = {"layer": layer, "n_clusters": n_clusters, "n_tokens": len(grouped)}
    known["ami_between"] = alike
    return [KmeansBaselineRow._make(map(known.get, KmeansBaselineRow._fields))]


KMEANS_BASELINE = Analysis(
    name=_NAME,
    title="Experts and k-means clusters",
    answers="Do the experts of a layer say more about a label than as many k-means clusters "
    "of what its router reads?",
    subject="labels",
    parameters=(
        RUN,
        SPLIT,
        Parameter(
            "layer",
            "integer",
            None,
            False,
            "the MoE layer; all that keep router_input when null",
        ),
        Parameter("key", "varchar", None, False, "the label's key; every key when null"),
        Parameter(
            "max_tokens",
            "integer",
            20_000,
            False,
            "cluster no more than this many tokens of a layer, evenly spread; all when null",
            least=1,
        ),
        Parameter(
            "restarts",
            "integer",
            10,
            False,
            "how often k-means++ chooses first centres; the tightest clusters are taken",
            least=1,
            most=1000,
        ),
        Parameter("seed", "integer", 0, False, "the seed of that choice"),
        CLUSTER,
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("n_clusters", "E, clusters and experts of the layer", "INTEGER"),
        AnalysisColumn(
            "key",
            "the label's key, if it has two values or more; null where no key has",
            "VARCHAR",
        ),
        AnalysisColumn(
            "n_tokens",
            "clustered tokens that have the label; a token with two values counts for both",
            "BIGINT",
        ),
        AnalysisColumn("n_values", "values of the label", "BIGINT"),
        AnalysisColumn(
            "ami_experts",
            "adjusted mutual information of the label and the first-ranked expert: 0 for "
            "chance, 1 for the same division",
            "DOUBLE",
        ),
        AnalysisColumn(
            "ami_experts_low",
            "lower end of its 95 % interval, of the jackknife over clusters of examples, in "
            f"{MOST_GROUPS} groups where there are more; null for one",
            "DOUBLE",
        ),
        AnalysisColumn("ami_experts_high", "upper end", "DOUBLE"),
        AnalysisColumn(
            "ami_clusters", "adjusted mutual information of the label and the cluster", "DOUBLE"
        ),
        AnalysisColumn(
            "ami_clusters_low", "as for ami_experts; k-means is not done again", "DOUBLE"
        ),
        AnalysisColumn("ami_clusters_high", "upper end", "DOUBLE"),
        AnalysisColumn("lead", "ami_experts less ami_clusters", "DOUBLE"),
        AnalysisColumn("lead_low", "as for ami_experts, of the difference", "DOUBLE"),
        AnalysisColumn("lead_high", "upper end", "DOUBLE"),
        AnalysisColumn(
            "purity_experts",
            "share of the tokens whose value is the most frequent one of their expert",
            "DOUBLE",
        ),
        AnalysisColumn("purity_clusters", "the same of their cluster", "DOUBLE"),
        AnalysisColumn(
            "purity_of_one",
            "share of the tokens that have the most frequent value: the purity of one group",
            "DOUBLE",
        ),
        AnalysisColumn(
            "ami_between",
            "adjusted mutual information of expert and cluster, over all clustered tokens",
            "DOUBLE",
        ),
    ),
    source="Vinh, Epps & Bailey 2010 (adjusted mutual information, arithmetic mean); k-means++ "
    "by Arthur & Vassilvitskii 2007",
    function=kmeans_baseline,
    row=KmeansBaselineRow,
    needs_arrays=(ROUTER_INPUT,),
    is_long=True,
)
