"""The tables that captures and interventions write."""

from moedb.schemas.tables.columns import (
    CONDITION_ID,
    EXAMPLE_ID,
    EXPERT,
    KEY,
    LAYER,
    RUN_ID,
    TOKEN_IDX,
    VALUE,
    Column,
    Table,
)

RUNS = Table(
    "runs",
    "a run",
    (
        RUN_ID,
        Column("job", "string", "the kind of capture: qwen-ioi, cifar-moe or text"),
        Column("model", "string", "the model as it was asked for: a name, a hub id or a folder"),
        Column("model_revision", "string", "the revision on the hub", nullable=True),
        Column("model_sha256", "string", "hash over the model's configuration and weights"),
        Column("architecture", "string", "the model's class"),
        Column("dataset", "string", "the dataset, or the file of prompts"),
        Column("dataset_sha256", "string", "hash over the examples"),
        Column("n_examples", "int64", "number of examples, corrupted twins included"),
        Column("n_tokens", "int64", "number of tokens over all examples"),
        Column("d_model", "int32", "width of the residual stream"),
        Column("dtype", "string", "number format the model ran in"),
        Column("seed", "int64", "the seed"),
        Column("parent_run_id", "string", "the run that this one continues from", nullable=True),
        Column("status", "string", "complete, or incomplete while units are missing"),
        Column("created_at", "string", "when the run was first started, ISO 8601, UTC"),
        Column("finished_at", "string", "when its last unit was committed", nullable=True),
        Column("moedb_version", "string", "the version of moedb that started the run"),
        Column("config", "string", "the resolved configuration, as JSON"),
        Column("versions", "string", "versions of Python and of the libraries, as JSON"),
    ),
    ("run_id",),
)

MOE_LAYERS = Table(
    "moe_layers",
    "an MoE layer of a run",
    (
        RUN_ID,
        LAYER,
        Column("module", "string", "path of the MoE block in the model"),
        Column("n_experts", "int32", "number of routed experts"),
        Column("top_k", "int32", "number of experts chosen for each token"),
        Column("d_expert", "int32", "width of an expert's hidden layer"),
        Column(
            "has_shared_expert", "int32", "1 where a shared expert runs for every token, else 0"
        ),
        Column(
            "norm_topk_prob", "int32", "1 where the chosen weights are scaled to sum to 1, else 0"
        ),
        Column(
            "scoring",
            "string",
            "how scores become weights: softmax or sigmoid, up to one constant factor, "
            "or other where the weights follow neither; none for a feed-forward layer of a dense "
            "model, which is one expert of weight 1 without a router",
        ),
    ),
    ("layer",),
)

EXPERT_COSINES = Table(
    "expert_cosines",
    "two experts of a layer, their weights compared, in a run that was captured with "
    "--expert-similarity; without biases, each weight as one long vector",
    (
        RUN_ID,
        LAYER,
        Column("expert_a", "int32", "index of an expert in its layer"),
        Column("expert_b", "int32", "another expert of the layer, of larger index"),
        Column(
            "gate_cosine",
            "double",
            "cosine of their gate projections; null where experts have no gate",
            nullable=True,
        ),
        Column("up_cosine", "double", "cosine of their up projections", nullable=True),
        Column("down_cosine", "double", "cosine of their down projections", nullable=True),
        Column("expert_cosine", "double", "cosine of all their weights together", nullable=True),
        Column(
            "matched_cosine",
            "double",
            "mean over the neurons of both of the cosine with the likest one of the other expert; "
            "null where neurons were not compared",
            nullable=True,
        ),
        Column(
            "matched_chance",
            "double",
            "what matched_cosine is on average between experts of random weights",
            nullable=True,
        ),
        Column(
            "router_cosine",
            "double",
            "cosine of their rows of the router's weight; null without such a weight",
            nullable=True,
        ),
        Column("norm_a", "double", "Euclidean norm of all weights of expert_a", nullable=True),
        Column("norm_b", "double", "that of expert_b", nullable=True),
        Column("n_projection", "int64", "values of a gate, up or down projection", nullable=True),
        Column("n_weights", "int64", "values of all weights of an expert", nullable=True),
        Column("n_router", "int64", "values of a row of the router's weight", nullable=True),
        Column("reason", "string", "why cosines are null that experts would have", nullable=True),
    ),
    ("layer", "expert_a", "expert_b"),
)

EXAMPLES = Table(
    "examples",
    "an example: a prompt, a document, an image",
    (
        RUN_ID,
        EXAMPLE_ID,
        Column("split", "string", "the part of the dataset; clean or corrupted for IOI prompts"),
        Column("text", "string", "the text, null for an image", nullable=True),
        Column("n_tokens", "int32", "number of tokens"),
    ),
    ("example_id",),
)

TOKENS = Table(
    "tokens",
    "a token: one position of one example",
    (
        RUN_ID,
        TOKEN_IDX,
        EXAMPLE_ID,
        Column("position", "int32", "position in the example, from 0"),
        Column("token_id", "int32", "id in the vocabulary, null for an image", nullable=True),
        Column("token", "string", "the token's text, null for an image", nullable=True),
        Column(
            "next_logprob",
            "float",
            "log-probability (nats) of the token that follows; null at an example's last position",
            nullable=True,
        ),
        Column(
            "array_row",
            "int64",
            "row of this token in the run's arrays; null where no arrays were kept for it",
            nullable=True,
        ),
    ),
    ("token_idx",),
    ("next_logprob",),
    ("token_idx", "array_row"),
)

VOCABULARY = Table(
    "vocabulary",
    "a token of the tokenizer's vocabulary, in a run that keeps the unembedding",
    (
        RUN_ID,
        Column("token_id", "int32", "id in the vocabulary, which is its row of the unembedding"),
        Column("token", "string", "the token's text, as in tokens"),
    ),
    ("token_id",),
)

ROUTING = Table(
    "routing",
    "a routing decision: one expert chosen for one token at one layer",
    (
        RUN_ID,
        TOKEN_IDX,
        LAYER,
        Column("rank", "int32", "0 for the expert with the largest router score, up to top_k - 1"),
        EXPERT,
        Column("weight", "float", "the factor on the expert's output in the block's sum"),
        Column(
            "output_norm",
            "float",
            "Euclidean norm of the expert's output, before the weight",
            precision="norm",
        ),
    ),
    ("layer", "token_idx", "rank"),
    ("weight", "output_norm"),
)

ROUTER_STATS = Table(
    "router_stats",
    "a token at a layer",
    (
        RUN_ID,
        TOKEN_IDX,
        LAYER,
        Column(
            "entropy",
            "float",
            "entropy (bits) of the router's full distribution",
            precision="statistic",
        ),
        Column(
            "margin",
            "float",
            "largest less second largest router probability; 1 where there is one expert",
            precision="statistic",
        ),
        Column(
            "logsumexp",
            "float",
            "log-sum-exp (nats) of the router's logits; 0 without a router",
            precision="statistic",
        ),
        Column(
            "topk_mass",
            "float",
            "router probability that the chosen experts hold together",
            precision="statistic",
        ),
        Column(
            "shared_gate",
            "float",
            "factor on the shared expert's output; null without a shared expert",
            nullable=True,
        ),
        Column(
            "moe_output_norm",
            "float",
            "Euclidean norm of the MoE block's output",
            precision="norm",
        ),
    ),
    ("layer", "token_idx"),
    ("entropy", "margin", "logsumexp", "topk_mass", "shared_gate", "moe_output_norm"),
)

ROUTER_MASS = Table(
    "router_mass",
    "an expert of a layer over the tokens of an example",
    (
        RUN_ID,
        EXAMPLE_ID,
        LAYER,
        EXPERT,
        Column("probability", "float", "router probability, summed over the example's tokens"),
        Column(
            "n_decisions",
            "int32",
            "how many of the example's tokens chose the expert; null in a store of format 1",
            nullable=True,
            since=2,
        ),
        Column(
            "weight",
            "double",
            "sum of the weights of those decisions; null in a store of format 1",
            nullable=True,
            since=2,
        ),
    ),
    ("layer", "example_id", "expert"),
    ("probability", "weight"),
)

RUN_LABELS = Table("run_labels", "a label of a run", (RUN_ID, KEY, VALUE), ("key",))

EXAMPLE_LABELS = Table(
    "example_labels",
    "a label of an example",
    (RUN_ID, EXAMPLE_ID, KEY, VALUE),
    ("key", "example_id"),
)

TOKEN_LABELS = Table(
    "token_labels",
    "a label of a token",
    (RUN_ID, TOKEN_IDX, KEY, VALUE),
    ("key", "token_idx"),
    delta=("token_idx",),
    added_by=("moedb label-tokens",),
)

CONDITIONS = Table(
    "conditions",
    "an intervention setting of a run",
    (
        RUN_ID,
        CONDITION_ID,
        Column("kind", "string", "what was changed; none for condition 0"),
        Column("layer", "int32", "the layer it was changed at", nullable=True),
        Column("expert", "int32", "the expert it was changed for", nullable=True),
        Column("params", "string", "further parameters, as JSON"),
    ),
    ("condition_id",),
)

PREDICTIONS = Table(
    "predictions",
    "an example under a condition",
    (
        RUN_ID,
        CONDITION_ID,
        EXAMPLE_ID,
        Column("target", "string", "the right answer: a token's text, or a class"),
        Column("predicted", "string", "the model's most likely answer"),
        Column("correct", "int32", "1 where predicted is the target, else 0"),
        Column("target_logprob", "float", "log-probability (nats) of the target"),
        Column(
            "logit_diff",
            "float",
            "logit of the target less that of its foil (IOI: the subject); null without a foil",
            nullable=True,
        ),
    ),
    ("condition_id", "example_id"),
    ("target_logprob", "logit_diff"),
)

LOGIT_LENS = Table(
    "logit_lens",
    "a candidate for the next token, read off the residual stream at a layer, under a condition; "
    "what a condition leaves as it was, before the first layer that it changes, has rows under "
    "condition 0 alone",
    (
        RUN_ID,
        CONDITION_ID,
        EXAMPLE_ID,
        Column("position", "int32", "position of the token whose stream is read, from 0"),
        LAYER,
        Column(
            "place",
            "string",
            "where in the layer: mid (after attention, before the MoE block), post (after the "
            "layer), or pre (before it; the first layer alone)",
        ),
        Column("candidate", "string", "target (IOI: the indirect object) or foil (the subject)"),
        Column("target", "string", "the candidate's text"),
        Column("logit", "float", "its logit"),
        Column("logprob", "float", "its log-probability (nats)"),
        Column("rank", "int32", "number of tokens with a larger logit"),
        Column("logit_diff", "float", "its logit less that of the other candidate"),
    ),
    ("condition_id", "layer", "place", "example_id", "position", "candidate"),
    ("logit", "logprob", "logit_diff"),
)
