"""The question ``top-contexts``: where in the text an expert writes most."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.contexts.choosing import PER_CLUSTER, QUANTILES, By, Choice
from moedb.queries.analyses.experts.contexts.reading import DECISIONS, expert_contexts
from moedb.queries.analyses.experts.contexts.shaded import shaded_contexts
from moedb.queries.analyses.uncertainty.clusters import CLUSTER
from moedb.queries.questions.parameters import Parameter
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "top-contexts"


class TopContextsRow(NamedTuple):
    """A row of the analysis ``top-contexts``."""

    layer: int
    expert: int
    place: int
    quantile: int | None
    score: float
    before: str
    token: str
    after: str
    weight: float
    output_norm: float
    example_id: int
    token_idx: int
    position: int
    n_decisions: int
    routed: str


def top_contexts(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``top-contexts``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, layer, expert, by, n, window, quantiles, per_cluster, cluster and seed.

    Raises
    ------
    ParameterError
        If no label has the key of ``cluster``.
    """
    run = reader.snapshot.run(str(parameters["run"]))
    wanted, expert = parameters["layer"], parameters["expert"]
    number = {
        name: int(parameters[name] or 0)
        for name in ("n", "window", "quantiles", "per_cluster", "seed")
    }
    choice = Choice(
        by=cast(By, parameters["by"]),
        n=number["n"],
        quantiles=number["quantiles"],
        per_cluster=number["per_cluster"],
        seed=number["seed"],
    )
    found = expert_contexts(
        reader,
        run.run_id,
        [int(row["layer"]) for row in run.manifest.layers if wanted in (None, row["layer"])],
        choice,
        window=number["window"],
        expert=None if expert is None else int(expert),
        split=parameters["split"],
        cluster=parameters["cluster"],
        asked_by=_NAME,
    )
    rows = [
        TopContextsRow(
            layer=own.layer,
            expert=own.expert,
            place=place,
            quantile=each.quantile,
            score=each.score,
            before="".join(each.tokens[: each.at]),
            token=each.tokens[each.at],
            after="".join(each.tokens[each.at + 1 :]),
            weight=each.weight,
            output_norm=each.output_norm,
            example_id=each.example_id,
            token_idx=each.token_idx,
            position=each.position,
            n_decisions=own.n_decisions,
            routed=json.dumps(list(zip(each.tokens, each.scores, strict=True)), ensure_ascii=False),
        )
        for own in found
        for place, each in enumerate(own.contexts, 1)
    ]
    return Computed(rows, DECISIONS, (run.run_id,))


TOP_CONTEXTS = Analysis(
    name=_NAME,
    title="Contexts of each expert",
    answers="Where in the text does each expert write most?",
    subject="tokens",
    parameters=(
        RUN,
        SPLIT,
        Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
        Parameter("expert", "integer", None, False, "the expert; all when null"),
        Parameter(
            "by",
            "varchar",
            "top",
            False,
            "the largest scores, some of each quantile of the scores, or any at random",
            ("top", "quantile", "random"),
        ),
        Parameter("n", "integer", 20, False, "contexts of each expert", least=1, most=100_000),
        Parameter(
            "window",
            "integer",
            32,
            False,
            "tokens of a context: the token, a quarter of the others after it, the rest before; "
            "fewer where its example begins or ends",
            least=1,
            most=4096,
        ),
        QUANTILES,
        PER_CLUSTER,
        CLUSTER,
        Parameter("seed", "integer", 0, False, "the seed of what is drawn"),
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("expert", "the expert", "INTEGER"),
        AnalysisColumn("place", "1 for the context chosen first, up to n", "INTEGER"),
        AnalysisColumn(
            "quantile",
            "the group that it was drawn from, 1 for the largest scores; null unless by quantile",
            "INTEGER",
        ),
        AnalysisColumn("score", "weight * output_norm: how much the expert wrote", "DOUBLE"),
        AnalysisColumn("before", "the tokens of the window before the token", "VARCHAR"),
        AnalysisColumn("token", "the token; empty for an image", "VARCHAR"),
        AnalysisColumn("after", "the tokens of the window after it", "VARCHAR"),
        AnalysisColumn("weight", "the factor on the expert's output", "DOUBLE"),
        AnalysisColumn("output_norm", "the norm of the expert's output", "DOUBLE"),
        AnalysisColumn("example_id", "the example", "INTEGER"),
        AnalysisColumn("token_idx", "the token's number; of equal scores the smaller", "BIGINT"),
        AnalysisColumn("position", "its position in the example", "INTEGER"),
        AnalysisColumn("n_decisions", "decisions that the contexts were chosen from", "BIGINT"),
        AnalysisColumn(
            "routed",
            "each token of the window with its score for the expert, null where it did not choose "
            "the expert, as JSON",
            "VARCHAR",
        ),
    ),
    source="contexts of the largest activations, Bills et al. 2023; over quantiles, Paulo et al. "
    "2024",
    function=top_contexts,
    row=TopContextsRow,
    view=shaded_contexts,
    reads_decisions=True,
)
