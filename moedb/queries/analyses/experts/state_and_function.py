"""What experts say of a label beyond clusters of what the router reads, and the other way round.

The clusters are fitted on one half of the examples and everything is counted on the other: neither
experts nor clusters have seen what they are compared on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from moedb.errors import ParameterError, UsageError
from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.conditional_information import (
    Units,
    null_information,
    pointwise_information,
)
from moedb.queries.analyses.experts.router_inputs import (
    FIRST_CHOICES,
    LABELS,
    ROUTER_INPUT,
    fit_clusters,
    layers_with_inputs,
)
from moedb.queries.analyses.label_information import entropy
from moedb.queries.analyses.uncertainty.bootstrap import (
    SAMPLES,
    bootstrap,
    bootstrap_settings,
    number_or_none,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, Clusters, clusters_of
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.arrays.rows import read_rows, spread
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "state-and-function"
_TOKEN = "token"  # noqa: S105
_ROUNDING = 1e-9

_KEYS_ON_TOKENS = """
select distinct token_labels.key
from token_labels
where token_labels.run_id = cast($run as varchar)
""".strip()


class StateAndFunctionRow(NamedTuple):
    """A row of the analysis ``state-and-function``."""

    layer: int
    key: str
    n_tokens: int
    n_examples: int
    n_values: int
    n_clusters: int
    label_entropy: float
    permuted: str
    movable: float
    experts: float
    experts_null_mean: float | None
    experts_null_95: float | None
    experts_less_null: float | None
    experts_p: float | None
    experts_low: float | None
    experts_high: float | None
    experts_normalized: float | None
    clusters: float
    clusters_null_mean: float | None
    clusters_null_95: float | None
    clusters_less_null: float | None
    clusters_p: float | None
    clusters_low: float | None
    clusters_high: float | None
    clusters_normalized: float | None
    experts_beyond: float
    experts_beyond_null_mean: float | None
    experts_beyond_null_95: float | None
    experts_beyond_less_null: float | None
    experts_beyond_p: float | None
    experts_beyond_low: float | None
    experts_beyond_high: float | None
    experts_beyond_normalized: float | None
    clusters_beyond: float
    clusters_beyond_null_mean: float | None
    clusters_beyond_null_95: float | None
    clusters_beyond_less_null: float | None
    clusters_beyond_p: float | None
    clusters_beyond_low: float | None
    clusters_beyond_high: float | None
    clusters_beyond_normalized: float | None


@dataclass(frozen=True)
class _Settings:
    keys: tuple[str, ...] | None
    min_count: int
    permutations: int
    samples: int
    restarts: int
    seed: int


def state_and_function(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``state-and-function``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        keys, run, split, layer, cluster, min_count, max_tokens, permutations, samples, restarts
        and seed.

    Raises
    ------
    ArrayNotFoundError
        If the run keeps no router inputs, or not those of the layer.
    ParameterError
        If a number is out of range, or no selected token has a label of one of the keys.
    UsageError
        If half of the examples have fewer tokens than a layer has experts.
    """
    samples, seed = bootstrap_settings(_NAME, parameters)
    keys = parameters["keys"]
    settings = _Settings(
        None if keys is None else tuple(dict.fromkeys(map(str.strip, str(keys).split(",")))),
        int(parameters["min_count"] or 1),
        int(parameters["permutations"] or 0),
        samples,
        int(parameters["restarts"] or 1),
        seed,
    )
    run = reader.snapshot.run(str(parameters["run"]))
    n_experts = {int(row["layer"]): int(row["n_experts"]) for row in run.manifest.layers}
    selection = {"run": run.run_id, "split": parameters["split"]}
    labels = reader.sql(LABELS, {**selection, "key": None}).df()
    _check_keys(settings.keys, set(labels["key"]))
    on_tokens = {key for (key,) in reader.sql(_KEYS_ON_TOKENS, {"run": run.run_id}).fetchall()}
    clusters = clusters_of(reader, run.run_id, _NAME, parameters["cluster"])
    rows: list[StateAndFunctionRow] = []
    for layer in each_part(layers_with_inputs(run, parameters["layer"]), "layers"):
        stored = reader.array(run.run_id, ROUTER_INPUT, layer)
        tokens = reader.sql(FIRST_CHOICES, {**selection, "layer": layer}).df()
        tokens = tokens.iloc[spread(len(tokens), parameters["max_tokens"])]
        if tokens.empty:
            continue
        held_out = _with_clusters(
            tokens,
            read_rows(stored, tokens["array_row"].to_numpy("int64")),
            clusters,
            n_experts[layer],
            settings,
        )
        rows += _of_layer(layer, n_experts[layer], held_out, labels, on_tokens, clusters, settings)
    return Computed(rows, FIRST_CHOICES, (run.run_id,))


def _check_keys(keys: tuple[str, ...] | None, known: set[str]) -> None:
    for key in keys or ():
        if key != _TOKEN and key not in known:
            valid = ", ".join([*sorted(known), _TOKEN])
            raise ParameterError(
                f"{_NAME}: no selected token with a router input has a label {key!r}; "
                f"valid: {valid}",
                f"moedb query {_NAME} -p keys KEY,KEY",
            )


def _with_clusters(
    tokens: "pd.DataFrame",
    vectors: "NDArray[np.floating]",
    clusters: Clusters,
    n_clusters: int,
    settings: _Settings,
) -> "pd.DataFrame":
    """Fit clusters on the tokens of one half of the examples; return the others with theirs."""
    import numpy as np

    documents = clusters.of(tokens["example_id"].to_numpy("int64"))
    order = np.random.default_rng(settings.seed).permutation(int(documents.max()) + 1)
    fitted = order[documents] % 2 == 0
    if fitted.sum() < n_clusters or fitted.all():
        raise UsageError(
            f"{_NAME}: one half of the examples has {int(fitted.sum())} tokens and the other "
            f"{int((~fitted).sum())}; {n_clusters} clusters, one for each expert, need as many",
            "choose more: -p split all, or a larger -p max_tokens",
        )
    model = fit_clusters(
        vectors[fitted], n_clusters, restarts=settings.restarts, seed=settings.seed
    )
    found = model.predict(np.asarray(vectors[~fitted], dtype=np.float32))
    held_out: pd.DataFrame = tokens[~fitted].assign(cluster=found, document=documents[~fitted])
    return held_out


def _of_layer(
    layer: int,
    n_clusters: int,
    tokens: "pd.DataFrame",
    labels: "pd.DataFrame",
    on_tokens: set[str],
    clusters: Clusters,
    settings: _Settings,
) -> list[StateAndFunctionRow]:
    """The rows of a layer, one for each key with two values or more."""
    keys = settings.keys or tuple(sorted(set(labels["key"])))
    rows = []
    for key in keys:
        if key == _TOKEN:
            often = tokens["token_id"].map(tokens["token_id"].value_counts())
            found = tokens[often >= settings.min_count].assign(value=lambda own: own["token_id"])
        else:
            found = tokens.merge(labels[labels["key"] == key], on="token_idx")
        if found["value"].nunique() > 1:
            is_token = key == _TOKEN or key in on_tokens
            rows.append(_row(layer, key, n_clusters, found, is_token, clusters, settings))
    return rows


def _row(
    layer: int,
    key: str,
    n_clusters: int,
    found: "pd.DataFrame",
    is_token: bool,
    clusters: Clusters,
    settings: _Settings,
) -> StateAndFunctionRow:
    import numpy as np

    labels, examples, documents, experts, groups = (
        found[name].factorize()[0].astype(np.int64)
        for name in ("value", "example_id", "document", "expert", "cluster")
    )
    nothing = np.zeros_like(labels)
    units, permuted = _units(labels, examples, documents, is_token, clusters.key)
    asked = ((experts, nothing), (groups, nothing), (experts, groups), (groups, experts))
    pointwise = np.stack([pointwise_information(labels, *pair) for pair in asked], axis=1)
    drawn = bootstrap(pointwise, settings.samples, settings.seed, documents).intervals()
    label_entropy = entropy(np.bincount(labels).astype(np.float64))
    numbers: list[float | None] = []
    for place, pair in enumerate(asked):
        estimate = max(0.0, float(pointwise[:, place].mean()))
        null = null_information(units, *pair, settings.permutations, settings.seed)
        numbers += _numbers(estimate, null, drawn[:, place], label_entropy)
    return StateAndFunctionRow(
        layer,
        key,
        len(found),
        len(np.unique(examples)),
        len(np.unique(labels)),
        n_clusters,
        label_entropy,
        permuted,
        units.movable(groups),
        *numbers,  # type: ignore[arg-type]
    )


def _numbers(
    estimate: float,
    null: "NDArray[np.float64]",
    interval: "NDArray[np.float64]",
    label_entropy: float,
) -> list[float | None]:
    """The columns of one measure, in the order of ``_NUMBERS``."""
    import numpy as np

    low, high = map(number_or_none, interval)
    if not len(null):
        return [estimate, None, None, None, None, low, high, None]
    mean, point = float(null.mean()), float(np.quantile(null, 0.95))
    less = estimate - mean
    p_value = (1 + int((null >= estimate - _ROUNDING).sum())) / (1 + len(null))
    return [estimate, mean, point, less, p_value, low, high, less / label_entropy]


def _units(
    labels: "NDArray[np.int64]",
    examples: "NDArray[np.int64]",
    documents: "NDArray[np.int64]",
    is_token: bool,
    cluster_key: str | None,
) -> tuple[Units, str]:
    """What is shuffled, as label-information has it, and in words."""
    import numpy as np

    if is_token:
        return Units(labels, np.arange(len(labels)), examples), "tokens within examples"
    nothing = np.zeros_like(labels)
    pairs = len(np.unique(documents * (int(labels.max()) + 1) + labels))
    if cluster_key is None:
        return Units(labels, documents, nothing), "examples"
    if pairs == len(np.unique(documents)):
        return Units(labels, documents, nothing), f"examples by {cluster_key}"
    return Units(labels, examples, documents), f"examples within {cluster_key}"


_MEASURES = {
    "experts": "I(label; expert)",
    "clusters": "I(label; cluster)",
    "experts_beyond": "I(label; expert given cluster)",
    "clusters_beyond": "I(label; cluster given expert)",
}
_NUMBERS = {
    "": "{}, in bits: the plug-in estimate, which is too high for many cells",
    "_null_mean": "mean of {} over the shuffles; null without any",
    "_null_95": "95 % point of {} over the shuffles",
    "_less_null": "{} less the mean of the shuffles",
    "_p": "(1 + shuffles that reach {}) / (1 + shuffles)",
    "_low": "lower end of the 95 % interval of {}: BCa bootstrap of the terms over examples",
    "_high": "upper end of that interval of {}",
    "_normalized": "{} less the mean of the shuffles, over label_entropy",
}

STATE_AND_FUNCTION = Analysis(
    name=_NAME,
    title="State and function",
    answers="Do the experts say something of a label that clusters of the router's input do not, "
    "and the other way round?",
    subject="labels",
    parameters=(
        RUN,
        SPLIT,
        Parameter(
            "layer", "integer", None, False, "the MoE layer; all that keep router_input when null"
        ),
        Parameter(
            "keys",
            "varchar",
            None,
            False,
            "keys of labels, separated by commas; token is the token id; every key of a label "
            "when null",
        ),
        CLUSTER,
        Parameter(
            "min_count",
            "integer",
            20,
            False,
            "of the token id: only ids that occur this often where it is counted",
            least=1,
        ),
        Parameter(
            "max_tokens",
            "integer",
            60_000,
            False,
            "read no more than this many tokens of a layer, evenly spread; all when null",
            least=1,
        ),
        Parameter(
            "permutations",
            "integer",
            200,
            False,
            "how often the labels are shuffled; 0 for no p-value",
            least=0,
            most=100_000,
        ),
        SAMPLES,
        Parameter(
            "restarts",
            "integer",
            3,
            False,
            "how often k-means++ chooses first centres; the tightest clusters are taken",
            least=1,
            most=1000,
        ),
        Parameter("seed", "integer", 0, False, "the seed of halves, centres, shuffles and drawing"),
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("key", "the label's key; token is the token id", "VARCHAR"),
        AnalysisColumn(
            "n_tokens",
            "labelled tokens of the half that no cluster was fitted on; a token with two values "
            "counts for both",
            "BIGINT",
        ),
        AnalysisColumn("n_examples", "examples that these tokens are in", "BIGINT"),
        AnalysisColumn("n_values", "values of the label", "BIGINT"),
        AnalysisColumn("n_clusters", "E, clusters and experts of the layer", "INTEGER"),
        AnalysisColumn("label_entropy", "H(label) over these tokens, in bits", "DOUBLE"),
        AnalysisColumn(
            "permuted",
            "what is shuffled, as label-information has it; within what is given",
            "VARCHAR",
        ),
        AnalysisColumn(
            "movable",
            "share of tokens whose label another could take in I(label; expert given cluster): "
            "where it is small, the null says little",
            "DOUBLE",
        ),
        *(
            AnalysisColumn(f"{measure}{number}", text.format(words), "DOUBLE")
            for measure, words in _MEASURES.items()
            for number, text in _NUMBERS.items()
        ),
    ),
    source="moedb, plug-in estimate; p-value of a permutation test after Phipson & Smyth 2010",
    function=state_and_function,
    row=StateAndFunctionRow,
    needs_arrays=(ROUTER_INPUT,),
    is_long=True,
)
