"""The question ``promoted-tokens``: which tokens an expert's output raises and lowers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from moedb.queries.analyses.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.experts.contexts.choosing import PER_CLUSTER, QUANTILES, By, Choice
from moedb.queries.analyses.experts.promoted.reading import (
    KEPT_DECISIONS,
    promoted_by_experts,
    promoting_layers,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER
from moedb.queries.questions.parameters import Parameter
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

_NAME = "promoted-tokens"


class PromotedTokensRow(NamedTuple):
    """A row of the analysis ``promoted-tokens``."""

    layer: int
    expert: int
    direction: str
    place: int
    token_id: int
    token: str
    logit: float
    share: float
    n_contexts: int


def promoted_tokens(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``promoted-tokens``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, layer, expert, n, by, contexts, quantiles, per_cluster, cluster, outputs and
        seed.

    Raises
    ------
    ArrayNotFoundError
        If the run keeps no unembedding, or no expert outputs at the layer.
    ParameterError
        If no example has a label of the key ``cluster``.
    """
    run = reader.snapshot.run(str(parameters["run"]))
    layer, expert = (
        None if parameters[name] is None else int(parameters[name] or 0)
        for name in ("layer", "expert")
    )
    number = {
        name: int(parameters[name] or 0)
        for name in ("n", "contexts", "quantiles", "per_cluster", "seed")
    }
    choice = None
    if parameters["by"] != "all":
        choice = Choice(
            by=cast(By, parameters["by"]),
            n=number["contexts"],
            quantiles=number["quantiles"],
            per_cluster=number["per_cluster"],
            seed=number["seed"],
        )
    found = promoted_by_experts(
        reader,
        run.run_id,
        promoting_layers(run, layer),
        choice,
        n=number["n"],
        expert=expert,
        split=parameters["split"],
        cluster=parameters["cluster"],
        weighted=parameters["outputs"] == "weighted",
        asked_by=_NAME,
    )
    rows = []
    for own in found:
        places = dict.fromkeys(("promotes", "suppresses"), 0)
        for each in own.tokens:
            places[each.direction] += 1
            rows.append(
                PromotedTokensRow(
                    layer=own.layer,
                    expert=own.expert,
                    direction=each.direction,
                    place=places[each.direction],
                    token_id=each.token_id,
                    token=each.token,
                    logit=each.logit,
                    share=each.share or 0.0,
                    n_contexts=own.n_contexts,
                )
            )
    return Computed(rows, KEPT_DECISIONS, (run.run_id,))


PROMOTED_TOKENS = Analysis(
    name=_NAME,
    title="Tokens that each expert promotes",
    answers="Which tokens' logits does an expert's output raise, and which does it lower?",
    subject="tokens",
    parameters=(
        RUN,
        SPLIT,
        Parameter("layer", "integer", None, False, "the MoE layer; all that are kept when null"),
        Parameter("expert", "integer", None, False, "the expert; all when null"),
        Parameter("n", "integer", 10, False, "tokens of each direction", least=1, most=1000),
        Parameter(
            "by",
            "varchar",
            "top",
            False,
            "the contexts that the output is averaged over, of the tokens whose outputs are kept: "
            "the largest scores, some of each quantile of the scores, any at random, or all",
            ("top", "quantile", "random", "all"),
        ),
        Parameter(
            "contexts",
            "integer",
            20,
            False,
            "contexts of each expert, unless by is all",
            least=1,
            most=100_000,
        ),
        QUANTILES,
        PER_CLUSTER,
        CLUSTER,
        Parameter(
            "outputs",
            "varchar",
            "plain",
            False,
            "outputs as the expert gives them, or weighted by the router",
            ("plain", "weighted"),
        ),
        Parameter("seed", "integer", 0, False, "the seed of what is drawn"),
    ),
    columns=(
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("expert", "the expert", "INTEGER"),
        AnalysisColumn("direction", "promotes or suppresses", "VARCHAR"),
        AnalysisColumn(
            "place", "1 for the token whose logit is raised, or lowered, most, up to n", "INTEGER"
        ),
        AnalysisColumn("token_id", "the token's id; of equal logits the smaller", "INTEGER"),
        AnalysisColumn("token", "the token", "VARCHAR"),
        AnalysisColumn(
            "logit",
            "what the expert's mean output adds to the token's logit, less the mean over the "
            "vocabulary, before the final norm divides by the size of the stream",
            "DOUBLE",
        ),
        AnalysisColumn(
            "share",
            "share of the contexts in whose own output the token is among the n of the direction",
            "DOUBLE",
        ),
        AnalysisColumn("n_contexts", "contexts that the output was averaged over", "BIGINT"),
    ),
    source="reading vectors of the stream through the unembedding, nostalgebraist 2020; what feed-"
    "forward layers write, Geva et al. 2022; of experts, Herbst et al. 2026",
    function=promoted_tokens,
    row=PromotedTokensRow,
    needs=("routing", "vocabulary"),
    needs_arrays=("unembedding", "expert_outputs"),
    needs_every_array=True,
    is_long=True,
)
