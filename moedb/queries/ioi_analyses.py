"""The analyses of what decides between two answers: logit lens, attribution, interventions."""

from moedb.queries.analysis import RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.clusters import CLUSTER
from moedb.queries.expert_attribution import expert_attribution
from moedb.queries.expert_effect import expert_effect
from moedb.queries.interventions import intervention_effect
from moedb.queries.lens_effect import lens_effect
from moedb.queries.logit_lens import logit_lens
from moedb.queries.parameters import Parameter

_ANSWERS = ("predictions", "predictions.logit_diff")
_SAMPLES = Parameter(
    "samples",
    "integer",
    1000,
    False,
    "how often the prompts are drawn for the intervals; 0 for none",
    least=0,
    most=100_000,
)
_SEED = Parameter("seed", "integer", 0, False, "the seed of the drawing")
_INTERVAL = (
    "of its 95 % interval: BCa bootstrap over prompts, or clusters of them; null for a single one"
)
_SHARE_INTERVAL = (
    "of its 95 % interval: Wilson's of both shares, put together as Newcombe does for pairs; null "
    "for a single prompt or cluster, and without samples"
)
_SPLIT_OF_TWINS = Parameter(
    "split",
    "varchar",
    None,
    False,
    "the examples' split; null is all but corrupted, and for patch and swap-routing every one, "
    "as their corrupted examples get values of the clean ones; all is every one",
)

_RUN_OF_INTERVENTIONS = Parameter(
    "run",
    "varchar",
    None,
    False,
    "the run with the interventions, or the run that they are on: then every complete run of them "
    "is read, and of the same condition the newest one; the newest complete run when null",
)
_KINDS = Parameter(
    "kind", "varchar", None, False, "kinds of interventions, commas between; all when null"
)
_CONDITION_COLUMNS = (
    AnalysisColumn("kind", "what was changed", "VARCHAR"),
    AnalysisColumn("layer", "the layer it was changed at; null for several", "INTEGER"),
    AnalysisColumn("expert", "the expert; null for none or several", "INTEGER"),
    AnalysisColumn("params", "further parameters, as JSON; seed and draw left out", "VARCHAR"),
    AnalysisColumn("split", "the split of the examples that were changed", "VARCHAR"),
)
_N_CONDITIONS = AnalysisColumn(
    "n_conditions",
    "conditions behind the row: draws of a random one, over which an example's values are averaged "
    "first",
    "BIGINT",
)
_CHANGES = (
    ("logit_diff", "logit difference", "mean logit of the target less that of its foil", _INTERVAL),
    (
        "probability",
        "probability",
        "mean probability of the target (IOI: the indirect object)",
        _INTERVAL,
    ),
    ("accuracy", "accuracy", "share of prompts whose logit difference is above 0", _SHARE_INTERVAL),
    (
        "top1_accuracy",
        "top-1 accuracy",
        "share of prompts whose most likely token is the target",
        _SHARE_INTERVAL,
    ),
)


def _change_columns() -> tuple[AnalysisColumn, ...]:
    columns = []
    for name, words, doc, interval in _CHANGES:
        columns += [
            AnalysisColumn(name, f"{doc}, under the condition", "DOUBLE"),
            AnalysisColumn(
                f"change_{name}", f"that less the same of condition 0: change of {words}", "DOUBLE"
            ),
            AnalysisColumn(f"change_{name}_low", f"the lower end {interval}", "DOUBLE"),
            AnalysisColumn(f"change_{name}_high", "the upper end", "DOUBLE"),
        ]
    return tuple(columns)


IOI_ANALYSES = (
    Analysis(
        name="logit-lens",
        title="Logit lens",
        answers="From which layer on does the residual stream tell the right answer from its foil?",
        parameters=(
            RUN,
            SPLIT,
            Parameter(
                "candidate",
                "varchar",
                "target",
                False,
                "whose logit is read: that of the target (IOI: the indirect object) or of the foil",
                ("target", "foil"),
            ),
            Parameter(
                "condition",
                "integer",
                0,
                False,
                "the condition; 0 is the untouched model, which also says what another one left "
                "as it was",
            ),
            Parameter(
                "position", "integer", None, False, "position of the token; the last when null"
            ),
            CLUSTER,
            _SAMPLES,
            _SEED,
        ),
        columns=(
            AnalysisColumn("layer", "the layer", "INTEGER"),
            AnalysisColumn(
                "place",
                "where in the layer: mid (after attention, before the MoE block), post (after "
                "the layer), or pre (before it; the first layer alone)",
                "VARCHAR",
            ),
            AnalysisColumn("n_prompts", "prompts read", "BIGINT"),
            AnalysisColumn(
                "mean_logit_diff",
                "mean logit of the candidate less that of the other one",
                "DOUBLE",
            ),
            AnalysisColumn(
                "sd_logit_diff", "its sample standard deviation; null for a single prompt", "DOUBLE"
            ),
            AnalysisColumn("mean_logit_diff_low", f"the lower end {_INTERVAL}", "DOUBLE"),
            AnalysisColumn("mean_logit_diff_high", "the upper end", "DOUBLE"),
            AnalysisColumn("n_ahead", "prompts whose candidate has the larger logit", "BIGINT"),
            AnalysisColumn("share_ahead", "n_ahead / n_prompts", "DOUBLE"),
            AnalysisColumn(
                "mean_logprob", "mean log-probability (nats) of the candidate", "DOUBLE"
            ),
            AnalysisColumn("mean_rank", "mean number of tokens with a larger logit", "DOUBLE"),
            AnalysisColumn("median_rank", "median number of tokens with a larger logit", "DOUBLE"),
            AnalysisColumn("n_first", "prompts whose candidate has the largest logit", "BIGINT"),
        ),
        source="nostalgebraist 2020; logit difference after Wang et al. 2022",
        function=logit_lens,
        needs=("logit_lens",),
    ),
    Analysis(
        name="intervention-effect",
        title="Effect of interventions",
        answers="What does each intervention change in the model's answers?",
        parameters=(
            _RUN_OF_INTERVENTIONS,
            _SPLIT_OF_TWINS,
            _KINDS,
            CLUSTER,
            _SAMPLES,
            _SEED,
        ),
        columns=(
            *_CONDITION_COLUMNS,
            _N_CONDITIONS,
            AnalysisColumn(
                "n_prompts",
                "prompts with a logit difference under the condition and condition 0",
                "BIGINT",
            ),
            *_change_columns(),
            AnalysisColumn(
                "normalized",
                "patch and swap-routing, where the twin's values were put in: (LD - LD_corrupted) "
                "/ (LD_clean - LD_corrupted) of mean logit differences over the pairs of twins, "
                "LD under the condition, the others untouched; 0 is the corrupted prompt, 1 the "
                "clean one",
                "DOUBLE",
            ),
            AnalysisColumn("normalized_low", f"the lower end {_INTERVAL}", "DOUBLE"),
            AnalysisColumn("normalized_high", "the upper end", "DOUBLE"),
        ),
        source="Divák & Velja; normalized effect after Heimersheim & Nanda 2024",
        function=intervention_effect,
        needs=_ANSWERS,
    ),
    Analysis(
        name="lens-effect",
        title="Effect of interventions along the residual stream",
        answers="At which layer does what an intervention changes show in the answer?",
        parameters=(
            _RUN_OF_INTERVENTIONS,
            _SPLIT_OF_TWINS,
            _KINDS,
            CLUSTER,
            _SAMPLES,
            _SEED,
        ),
        columns=(
            *_CONDITION_COLUMNS,
            AnalysisColumn("read_layer", "the layer that is read through the lens", "INTEGER"),
            AnalysisColumn(
                "place",
                "where in it: mid (after attention, before the MoE block) or post (after the "
                "layer); before the first changed layer nothing changes, and there are no rows",
                "VARCHAR",
            ),
            _N_CONDITIONS,
            AnalysisColumn("n_prompts", "prompts read", "BIGINT"),
            AnalysisColumn(
                "mean_logit_diff",
                "mean logit of the target less that of its foil, under the condition",
                "DOUBLE",
            ),
            AnalysisColumn(
                "change_logit_diff", "that less the same of condition 0 at the same place", "DOUBLE"
            ),
            AnalysisColumn("change_logit_diff_low", f"the lower end {_INTERVAL}", "DOUBLE"),
            AnalysisColumn("change_logit_diff_high", "the upper end", "DOUBLE"),
        ),
        source="nostalgebraist 2020; Divák & Velja",
        function=lens_effect,
        needs=_ANSWERS,
    ),
    Analysis(
        name="expert-attribution",
        title="Direct attribution to experts",
        answers="How much of the logit difference does each expert write into the last token's "
        "residual stream?",
        parameters=(
            RUN,
            SPLIT,
            Parameter(
                "level",
                "varchar",
                "experts",
                False,
                "one row for each expert, or one for the routed experts of a layer together",
                ("experts", "layers"),
            ),
            Parameter(
                "top",
                "integer",
                None,
                False,
                "only this many rows, the largest by size; all when null",
                least=1,
            ),
        ),
        columns=(
            AnalysisColumn(
                "component",
                "what wrote: embedding, attention, expert (at level layers: experts), "
                "shared-expert, dense-layer (attention and all else of a layer without an MoE "
                "block), or remainder: at a layer what the MoE block's write has beyond its "
                "experts, without one the logit difference beyond the stream (rounding, biases)",
                "VARCHAR",
            ),
            AnalysisColumn("layer", "the layer; null for the embedding", "INTEGER"),
            AnalysisColumn("expert", "the routed expert; null for all else", "INTEGER"),
            AnalysisColumn("n_prompts", "prompts with a logit difference", "BIGINT"),
            AnalysisColumn(
                "n_decisions",
                "prompts whose last token the part wrote for; at level layers the decisions of "
                "the layer",
                "BIGINT",
            ),
            AnalysisColumn(
                "attribution",
                "mean over all prompts of weight * E(x) . u, u the direction of the logit "
                "difference with the final norm's scale frozen; all rows add up to the mean logit "
                "difference",
                "DOUBLE",
            ),
            AnalysisColumn(
                "attribution_per_use",
                "the same over the decisions alone; null without any",
                "DOUBLE",
            ),
            AnalysisColumn("share", "attribution / mean logit difference", "DOUBLE"),
        ),
        source="direct logit attribution, Elhage et al. 2021; Wang et al. 2022",
        function=expert_attribution,
        needs=("routing", *_ANSWERS),
    ),
    Analysis(
        name="expert-effect",
        title="Experts: use, attribution and ablation",
        answers="Are the experts that are used much, or write much, those that are missed when "
        "ablated?",
        parameters=(
            Parameter(
                "run",
                "varchar",
                None,
                False,
                "the captured run, or one with interventions on it; the newest complete run when "
                "null",
            ),
            Parameter(
                "interventions",
                "varchar",
                None,
                False,
                "the run with the interventions; every complete one on the run when null, of the "
                "same ablation the newest",
            ),
            SPLIT,
            Parameter(
                "level",
                "varchar",
                "experts",
                False,
                "one row for each expert that was ablated alone, or rank correlations: one row "
                "for each layer, then one over all of them",
                ("experts", "layers"),
            ),
            CLUSTER,
            _SAMPLES,
            _SEED,
        ),
        columns=(
            AnalysisColumn(
                "params", "further parameters of the ablation, as JSON, such as its form", "VARCHAR"
            ),
            AnalysisColumn("split", "the split of the examples", "VARCHAR"),
            AnalysisColumn("layer", "the layer; null for the row over all of them", "INTEGER"),
            AnalysisColumn("expert", "the expert; null at level layers", "INTEGER"),
            AnalysisColumn("n_experts", "experts behind the row", "BIGINT"),
            AnalysisColumn("n_prompts", "prompts under the ablation", "BIGINT"),
            AnalysisColumn(
                "frequency",
                "share of all tokens that chose the expert, untouched; null at level layers, as "
                "are the next five",
                "DOUBLE",
            ),
            AnalysisColumn(
                "n_decisions",
                "prompts whose last token chose it; null too where the captured run lacks the "
                "arrays of expert-attribution",
                "BIGINT",
            ),
            AnalysisColumn(
                "attribution",
                "what it writes into the logit difference, mean over all prompts; null likewise",
                "DOUBLE",
            ),
            AnalysisColumn(
                "change_logit_diff",
                "mean logit difference with the expert ablated less that of condition 0",
                "DOUBLE",
            ),
            AnalysisColumn("change_logit_diff_low", f"the lower end {_INTERVAL}", "DOUBLE"),
            AnalysisColumn("change_logit_diff_high", "the upper end", "DOUBLE"),
            AnalysisColumn(
                "spearman_frequency",
                "rank correlation (Spearman) over the experts of frequency and the size of "
                "change_logit_diff; null at level experts, for fewer than two experts, and where "
                "one side has a single value",
                "DOUBLE",
            ),
            AnalysisColumn(
                "spearman_attribution",
                "that of attribution and -change_logit_diff, what the ablation takes away; null "
                "likewise",
                "DOUBLE",
            ),
        ),
        source="moedb",
        function=expert_effect,
        needs=_ANSWERS,
    ),
)
