"""The analyses that SQL cannot say: computed in Python, asked for as the named queries are.

Each is described here and computed by a function of a module of its own. Importing this module
costs nothing: what the functions need, they import.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.catalog import catalog, no_such_query
from moedb.queries.clusters import CLUSTER
from moedb.queries.ioi_analyses import IOI_ANALYSES
from moedb.queries.kmeans_baseline import kmeans_baseline
from moedb.queries.label_information import label_information
from moedb.queries.output_overlap import output_overlap
from moedb.queries.parameters import Parameter
from moedb.queries.query_file import NamedQuery
from moedb.queries.trials import routing_by_class_over_trials

if TYPE_CHECKING:
    import duckdb

_LIST = (
    Analysis(
        name="kmeans-baseline",
        title="Experts and k-means clusters",
        answers="Do the experts of a layer say more about a label than as many k-means clusters "
        "of what its router reads?",
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
                "ami_clusters", "adjusted mutual information of the label and the cluster", "DOUBLE"
            ),
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
    ),
    Analysis(
        name="label-information",
        title="Information of a label and the experts",
        answers="How much do the experts of a token tell about its label, and is it more than "
        "shuffled labels give?",
        parameters=(
            Parameter(
                "key", "varchar", None, True, "the label's key, of a run, an example or a token"
            ),
            RUN,
            SPLIT,
            Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
            CLUSTER,
            Parameter(
                "permutations",
                "integer",
                100,
                False,
                "how often the labels are shuffled; 0 for no p-value",
                least=0,
                most=1_000_000,
            ),
            Parameter("seed", "integer", 0, False, "the seed of the shuffling"),
        ),
        columns=(
            AnalysisColumn("layer", "the MoE layer", "INTEGER"),
            AnalysisColumn(
                "n_decisions",
                "decisions of tokens that have the label, all ranks counted alike; a token with "
                "two values counts for both",
                "BIGINT",
            ),
            AnalysisColumn("n_examples", "examples that these tokens are in", "BIGINT"),
            AnalysisColumn(
                "n_clusters",
                "clusters of these examples; as many where they are independent of each other",
                "BIGINT",
            ),
            AnalysisColumn("n_values", "values of the label", "BIGINT"),
            AnalysisColumn("information", "I(label; expert) in bits", "DOUBLE"),
            AnalysisColumn("label_entropy", "H(label) over the decisions, in bits", "DOUBLE"),
            AnalysisColumn(
                "normalized", "information / label_entropy; null for a single value", "DOUBLE"
            ),
            AnalysisColumn(
                "permuted",
                "what is shuffled: examples, where labels of examples or of the run are permuted "
                "over the labelled examples; examples by KEY, where all examples of a cluster have "
                "the same label and the clusters are permuted; examples within KEY, where they "
                "differ and are permuted within each cluster; tokens within examples, where the "
                "key is on tokens and labels are permuted over the labelled tokens of each example",
                "VARCHAR",
            ),
            AnalysisColumn(
                "null_mean", "mean information over the permutations; null without any", "DOUBLE"
            ),
            AnalysisColumn("null_highest", "the largest information of a permutation", "DOUBLE"),
            AnalysisColumn(
                "p_value",
                "(1 + permutations that reach information) / (1 + permutations); null without any",
                "DOUBLE",
            ),
        ),
        source="moedb, plug-in estimate; p-value of a permutation test after Phipson & Smyth 2010",
        function=label_information,
    ),
    Analysis(
        name="output-overlap",
        title="Output overlap",
        answers="How alike are the outputs of two experts of a layer for the same tokens?",
        parameters=(
            RUN,
            SPLIT,
            Parameter(
                "layer", "integer", None, False, "the MoE layer; all that keep outputs when null"
            ),
            Parameter(
                "min_tokens", "integer", 2, False, "leave out pairs with fewer tokens", least=1
            ),
            Parameter(
                "max_tokens",
                "integer",
                None,
                False,
                "read no more than this many tokens of a layer, evenly spread; all when null",
                least=1,
            ),
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
    ),
    Analysis(
        name="routing-by-class-over-trials",
        title="Routing by class over trials",
        answers="Which experts does each class choose, on average over trials trained anew, once "
        "the experts of the trials are matched?",
        parameters=(
            Parameter(
                "key", "varchar", "class", False, "the label's key, of an example, a token or a run"
            ),
            Parameter("variant", "varchar", None, False, "the trials' variant; all when null"),
            Parameter(
                "experts", "integer", None, False, "the trials' number of experts; all when null"
            ),
            Parameter(
                "gate",
                "varchar",
                None,
                False,
                "the trials' gate, weighted or unweighted; all when null",
                ("weighted", "unweighted"),
            ),
            Parameter(
                "balance",
                "varchar",
                None,
                False,
                "the trials' balance loss, mean, count or sum; all when null",
                ("mean", "count", "sum"),
            ),
            Parameter(
                "aux_coefficient", "double", None, False, "the factor of that loss; all when null"
            ),
            SPLIT,
            Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
        ),
        columns=(
            AnalysisColumn("variant", "the trials' variant", "VARCHAR"),
            AnalysisColumn("experts", "the trials' number of experts", "INTEGER"),
            AnalysisColumn(
                "gate",
                "whether expert outputs are multiplied by the router's probability (weighted) or "
                "not",
                "VARCHAR",
            ),
            AnalysisColumn(
                "balance",
                "how the load balancing loss adds up a step's images: mean, count or sum",
                "VARCHAR",
            ),
            AnalysisColumn(
                "aux_coefficient",
                "the factor of that loss; null where the run does not say",
                "DOUBLE",
            ),
            AnalysisColumn("layer", "the MoE layer", "INTEGER"),
            AnalysisColumn("value", "the label's value, the class", "VARCHAR"),
            AnalysisColumn(
                "expert",
                "the matched expert: 0 is the one with the largest share of the first class, 1 of "
                "the rest the one with the largest of the second, and so on",
                "INTEGER",
            ),
            AnalysisColumn("n_trials", "trials that have tokens of the class", "INTEGER"),
            AnalysisColumn(
                "share",
                "mean over the trials of N(e,c) over the decisions of the class's tokens; sums to "
                "1 over the experts",
                "DOUBLE",
            ),
            AnalysisColumn("sd", "its sample deviation over the trials; null for one", "DOUBLE"),
            AnalysisColumn("lowest", "the smallest share of a trial", "DOUBLE"),
            AnalysisColumn("highest", "the largest share of a trial", "DOUBLE"),
            AnalysisColumn("n_decisions", "N(e,c), added up over the trials", "BIGINT"),
            AnalysisColumn("n_tokens", "tokens of the class, added up over the trials", "BIGINT"),
        ),
        source="Poetzscher, tables 2 and 3; matching by optimal assignment (Kuhn 1955)",
        function=routing_by_class_over_trials,
    ),
)

ANALYSES: Mapping[str, Analysis] = MappingProxyType(
    {entry.name: entry for entry in sorted((*_LIST, *IOI_ANALYSES), key=lambda entry: entry.name)}
)
"""The analyses by name."""


def find_question(name: str) -> NamedQuery | Analysis:
    """Return the named query or the analysis called ``name``; underscores do for hyphens.

    Raises
    ------
    QueryNotFoundError
        If there is neither.
    """
    known: dict[str, NamedQuery | Analysis] = {**catalog(), **ANALYSES}
    found = known.get(name.replace("_", "-"))
    if found is None:
        raise no_such_query(name, known)
    return found


def sql_of(name: str) -> str:
    """Return the SQL of the named query called ``name``.

    Raises
    ------
    QueryNotFoundError
        If there is no such query.
    UsageError
        If it is an analysis, which SQL cannot say.
    """
    found = find_question(name)
    if isinstance(found, Analysis):
        raise UsageError(
            f"{found.name} has no SQL: it is computed in Python, by {found.function_name}",
            "the SQL that fetches what it reads is in the sidecar of: "
            f"moedb export {found.name} -o FILE",
        )
    return found.sql


def relation_of(
    columns: Sequence[AnalysisColumn], rows: Sequence[tuple[object, ...]]
) -> "tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation]":
    """Put rows into a DuckDB relation of its own, in their order; return its connection too."""
    import duckdb
    import pyarrow as pa

    arrow_types = {
        "VARCHAR": pa.string(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
    }
    cells = {
        column.name: pa.array([row[at] for row in rows], arrow_types[column.sql_type])
        for at, column in enumerate(columns)
    }
    connection = duckdb.connect(":memory:")
    connection.register("computed", pa.table(cells))
    connection.execute("create table given as select * from computed")
    connection.unregister("computed")
    return connection, connection.table("given")
