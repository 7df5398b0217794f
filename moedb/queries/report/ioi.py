"""What the report on IOI prompts shows, in order, and the named query behind each part."""

from moedb.queries.report.sections import Part, Section
from moedb.schemas.interventions import ABLATE, FORCE, KNOCK_OUT, PATCH, RANDOM, SWAP, UNIFORM

ROUTING_KINDS = (RANDOM, UNIFORM, FORCE, SWAP, ABLATE, KNOCK_OUT)
"""The kinds of interventions that the report shows as interventions in routing."""

WHOLE_LAYER_KINDS = tuple(kind for kind in ROUTING_KINDS if kind != ABLATE)
"""Those that have one condition for a layer, and not one for each expert."""


def _effect_columns(name: str) -> tuple[str, ...]:
    interval = (f"change_{name}", f"change_{name}_low", f"change_{name}_high")
    return ("kind", "params", "layer", "expert", "n_prompts", name, *interval)


_ROUTING = {"kind": ",".join(ROUTING_KINDS), "split": "clean"}
_ACTIVE = (
    *("layer", "n_examples", "n_experts", "experts_ever", "experts_50", "experts_90"),
    *("most", "uniform", "share_50", "share_90"),
)
_ATTRIBUTION = ("attribution", "attribution_low", "attribution_high", "share")
_NORMALIZED = ("normalized", "normalized_low", "normalized_high")

IOI_SECTIONS = (
    Section(
        "The task",
        "The logit difference is the logit of the indirect object less that of the subject, after "
        "the prompt's last token.",
        (
            Part(
                "logit-diff",
                "ioi-logit-diff",
                "Logit difference and accuracy by template",
                columns=(
                    *("value", "n_prompts", "accuracy", "mean_logit_diff", "se_logit_diff"),
                    "top1_accuracy",
                ),
            ),
        ),
    ),
    Section(
        "Which experts are active",
        "Which experts each prompt is routed to: a row is a prompt, with its template at the "
        "left, a column is an expert, and an expert that is active in every prompt an unbroken "
        "line. Then how many experts of a layer are active in half of the prompts or more, beside "
        "the share of prompts that uniform routing would make an expert active in; the share of "
        "tokens that choose each expert; and how much of a layer's decisions its most used "
        "experts take.",
        (
            Part(
                "routing-by-prompt",
                "routing-by-example",
                "Experts chosen at the last token of each prompt, and their weight",
                figure=True,
                latex=False,
                on_page=False,
            ),
            Part(
                "active-experts",
                "active-experts",
                "Experts active at the last token of most prompts",
                columns=_ACTIVE,
            ),
            Part(
                "routing-by-prompt-all-tokens",
                "routing-by-example",
                "Share of the tokens of each prompt that choose each expert",
                {"scope": "example"},
                figure=True,
                value="share",
                table=False,
            ),
            Part(
                "active-experts-all-tokens",
                "active-experts",
                "Experts active at any token of most prompts",
                {"scope": "example"},
                columns=_ACTIVE,
            ),
            Part(
                "expert-frequency",
                "expert-frequency",
                "Share of tokens that choose each expert",
                figure=True,
                pivot=("expert", "layer", "frequency"),
                on_page=False,
            ),
            Part("concentration", "concentration", "Concentration of routing decisions"),
            Part(
                "routing-by-template",
                "routing-by-class",
                "Experts chosen, by template",
                {"key": "template"},
                on_page=False,
            ),
        ),
    ),
    Section(
        "Interventions in routing, by layer",
        "The change of the indirect object's probability when the routing of one layer is changed, "
        "against the untouched model on the same prompts.",
        (
            Part(
                "routing-interventions",
                "intervention-effect",
                "Change of probability of the indirect object, by layer of the intervention",
                _ROUTING,
                figure=True,
                value="change_probability",
                columns=_effect_columns("probability"),
                of_interventions=True,
            ),
        ),
    ),
    Section(
        "Logit difference by layer",
        "What the model would answer if the residual stream ended at a layer: the stream goes "
        "through the final norm and the unembedding.",
        (
            Part(
                "logit-lens",
                "logit-lens",
                "Logit difference by layer",
                figure=True,
                columns=(
                    *("layer", "place", "n_prompts", "mean_logit_diff", "mean_logit_diff_low"),
                    *("mean_logit_diff_high", "share_ahead", "mean_logprob", "median_rank"),
                ),
            ),
            Part(
                "logit-lens-logprob",
                "logit-lens",
                "Log-probability of the indirect object by layer",
                figure=True,
                value="mean_logprob",
                table=False,
            ),
        ),
    ),
    Section(
        "Logit difference after intervention",
        "The same interventions as above, measured by the change of the logit difference; and, for "
        "those that were run with the logit lens, where along the residual stream it arises.",
        (
            Part(
                "intervention-logit-diff",
                "intervention-effect",
                "Change of logit difference, by layer of the intervention",
                _ROUTING,
                figure=True,
                value="change_logit_diff",
                columns=_effect_columns("logit_diff"),
                of_interventions=True,
            ),
            Part(
                "lens-effect",
                "lens-effect",
                "Change of logit difference after each layer",
                {"kind": ",".join(WHOLE_LAYER_KINDS), "split": "clean"},
                figure=True,
                by_kind=True,
                latex=False,
                on_page=False,
                of_interventions=True,
            ),
        ),
    ),
    Section(
        "Patching",
        "Values of a prompt's twin put into the prompt. The logit difference is normalized: 0 is "
        "that of the corrupted prompts, 1 that of the clean ones.",
        (
            Part(
                "patching",
                "intervention-effect",
                "Normalized logit difference after patching, by layer",
                {"kind": PATCH},
                figure=True,
                value="normalized",
                columns=(
                    *("params", "split", "layer", "expert", "n_prompts", "logit_diff"),
                    *_NORMALIZED,
                ),
                of_interventions=True,
            ),
        ),
    ),
    Section(
        "What the experts write",
        "With the final norm's scale frozen, the logit difference is a sum over what the "
        "embedding, the attention and the experts write at the last token.",
        (
            Part(
                "expert-attribution",
                "expert-attribution",
                "Logit difference written by each expert",
                figure=True,
                on_page=False,
            ),
            Part(
                "attribution-by-layer",
                "expert-attribution",
                "Logit difference written, by layer",
                {"level": "layers"},
                columns=("component", "layer", "n_prompts", *_ATTRIBUTION),
            ),
            Part(
                "attribution-largest",
                "expert-attribution",
                "The parts that write most",
                {"top": 20},
                columns=("component", "layer", "expert", "n_decisions", *_ATTRIBUTION),
            ),
        ),
    ),
    Section(
        "Ablation beside attribution",
        "The change of the logit difference when an expert is ablated, beside what the expert "
        "writes and how often it is used; and rank correlations of these.",
        (
            Part(
                "expert-effect",
                "expert-effect",
                "Ablation of each expert, and what it writes",
                figure=True,
                on_page=False,
                of_interventions=True,
            ),
            Part(
                "expert-effect-by-layer",
                "expert-effect",
                "Rank correlations by layer",
                {"level": "layers"},
                columns=(
                    *("params", "layer", "n_experts", "n_prompts"),
                    *("spearman_frequency", "spearman_attribution"),
                ),
                of_interventions=True,
            ),
        ),
    ),
)
