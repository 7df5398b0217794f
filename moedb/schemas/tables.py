"""The tables of a store, column by column.

This module is the one description of the tables: the Parquet writer, the SQL views, ``moedb
schema`` and ``docs/data-model.md`` are all made from it. Types are signed integers, ``float``,
``double`` and ``string`` only, so that any engine reads the files.
"""

from dataclasses import dataclass
from typing import Literal

from moedb.errors import UsageError, did_you_mean

FORMAT_MAJOR = 2
"""Major version of the store's format."""

ColumnType = Literal["int32", "int64", "float", "double", "string"]
Precision = Literal["full", "norm", "statistic"]

SQL_TYPES: dict[str, str] = {
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name, type, doc
        Its name, its type and what it holds.
    nullable
        Whether it may be null.
    precision
        What is kept of a value that moedb computes of a model that does not run in float32: all of
        it, or as many bits as a norm or a statistic of the router is good for.
    since
        The major version of the format that it came with; null in a store of an older one.
    """

    name: str
    type: ColumnType
    doc: str
    nullable: bool = False
    precision: Precision = "full"
    since: int = 1

    @property
    def sql_type(self) -> str:
        """The column's type in SQL."""
        return SQL_TYPES[self.type]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes
    ----------
    name
        The table's name, which is also its folder in a run.
    row
        What one row is.
    columns
        Its columns, ``run_id`` first.
    sort_by
        The order of the rows within a file.
    byte_stream_split
        The float columns that are stored with the BYTE_STREAM_SPLIT encoding.
    delta
        The integer columns that are stored with the DELTA_BINARY_PACKED encoding: those with a
        value of its own in nearly every row. The others have dictionaries.
    added_by
        The commands that add rows of it to a complete run; none where a capture's are all there
        are.
    is_captured
        Whether captures and interventions write it; where not, what is added is all there is.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    sort_by: tuple[str, ...]
    byte_stream_split: tuple[str, ...] = ()
    delta: tuple[str, ...] = ()
    added_by: tuple[str, ...] = ()
    is_captured: bool = True

    @property
    def holds(self) -> str:
        """What it holds, for a list of tables: its rows, and who fills it later."""
        by = " and ".join(self.added_by)
        also = "added to" if self.is_captured else "filled"
        return f"{self.row} ({also} by {by})" if by else self.row

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


RUN_ID = Column("run_id", "string", "the run: its job and a hash of its configuration")
TOKEN_IDX = Column("token_idx", "int64", "the token's number within the run, from 0")
EXAMPLE_ID = Column("example_id", "int32", "the example's number within the run, from 0")
LAYER = Column("layer", "int32", "index of the decoder block (or conv stage) that holds the block")
EXPERT = Column("expert", "int32", "index of the routed expert in its layer")
CONDITION_ID = Column("condition_id", "int32", "the condition; 0 is the untouched model")
KEY = Column("key", "string", "the label's key, such as template or role")
VALUE = Column("value", "string", "the label's value")

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

PROBE_SCORES = Table(
    "probe_scores",
    "a probe: whether some neurons of a candidate (an expert, say) tell a concept, on documents "
    "that it was not fitted on",
    (
        RUN_ID,
        Column("probe", "string", "what the probes are called together"),
        Column("neurons", "string", "the array: expert_neurons, or shared_neurons"),
        Column("width", "int32", "neurons of the candidate"),
        LAYER,
        Column("expert", "int32", "the expert whose neurons they are; null else", nullable=True),
        Column("candidate", "int32", "the expert, or the group of the layer's neurons"),
        Column("key", "string", "the concept: the key of a label of tokens"),
        Column("value", "string", "the concept: the label's value"),
        Column("protocol", "string", "how it was chosen and scored: documents, or herbst2026"),
        Column("permutation", "int32", "0, or the number of a shuffling of the labels"),
        Column("k", "int32", "neurons of the probe"),
        Column("neuron", "int32", "the first of them, which tells most by itself"),
        Column("n_train", "int64", "tokens that it was fitted on"),
        Column("n_selection", "int64", "tokens of the selection split; 0 where there is none"),
        Column("n_test", "int64", "tokens that it was scored on"),
        Column("n_yes", "int64", "tokens of the concept among n_test"),
        Column("n_documents", "int64", "documents that n_test are of"),
        Column("selection_f1", "double", "F1 on the selection split; on test without one"),
        Column("f1", "double", "F1 on test"),
        Column("f1_low", "double", "lower end of its interval, by documents", nullable=True),
        Column("f1_high", "double", "upper end of its interval", nullable=True),
        Column("precision", "double", "share of its yes that are right; 0 without a yes"),
        Column("recall", "double", "share of n_yes that it finds"),
        Column("balanced_accuracy", "double", "mean of recall and the recall of no"),
        Column("average_precision", "double", "area below precision by recall"),
        Column("f1_always_yes", "double", "F1 of always saying yes"),
    ),
    ("probe", "layer", "candidate", "key", "value", "protocol", "permutation", "k"),
    added_by=("moedb probe",),
    is_captured=False,
)

LABEL_SET = Column("label_set", "string", "what the labels are called together")
_ADDED_BY = ("moedb label-experts",)

EXPERT_LABELS = Table(
    "expert_labels",
    "a label of an expert",
    (
        RUN_ID,
        LAYER,
        EXPERT,
        LABEL_SET,
        Column("source", "string", "where it is from: reader, a language model that read contexts"),
        Column("model", "string", "the reader, as it was asked for"),
        Column("label", "string", "what the expert does; null where there is none", nullable=True),
        Column(
            "status",
            "string",
            "labelled; or why not: unused (no token chose the expert), nonsense (no answer that "
            "could be read), refused (by the server)",
        ),
        Column("reason", "string", "what went wrong, in words", nullable=True),
        Column("n_decisions", "int64", "tokens that chose the expert"),
        Column("n_contexts", "int32", "contexts that the reader saw for it"),
        Column(
            "other_expert",
            "int32",
            "an expert of the layer whose label is the baseline; null without one",
            nullable=True,
        ),
        Column("other_label", "string", "its label", nullable=True),
    ),
    ("label_set", "layer", "expert"),
    added_by=_ADDED_BY,
    is_captured=False,
)

EXPERT_LABEL_SCORES = Table(
    "expert_label_scores",
    "a score of an expert's label",
    (
        RUN_ID,
        LAYER,
        EXPERT,
        LABEL_SET,
        Column(
            "kind",
            "string",
            "detection (does the label fit the text?) or fuzzing (does it fit the marked token?)",
        ),
        Column(
            "against",
            "string",
            "the negative contexts: token (of the same text, routed elsewhere), document (of the "
            "same one), random, or all of these",
        ),
        Column("n", "int32", "contexts that were judged"),
        Column("tp", "int32", "of the expert, and taken for it"),
        Column("fp", "int32", "not of the expert, and taken for it"),
        Column("fn", "int32", "of the expert, and not taken for it"),
        Column("tn", "int32", "not of the expert, and not taken for it"),
        Column("precision", "double", "tp / (tp + fp)", nullable=True),
        Column("recall", "double", "tp / (tp + fn)", nullable=True),
        Column("f1", "double", "2 tp / (2 tp + fp + fn)", nullable=True),
        Column("f1_low", "double", "lower end of its 95 % interval, over clusters", nullable=True),
        Column("f1_high", "double", "upper end", nullable=True),
        Column("accuracy", "double", "(tp + tn) / n", nullable=True),
        Column(
            "balanced_accuracy",
            "double",
            "mean of tp / (tp + fn) and tn / (tn + fp); 0.5 by chance",
            nullable=True,
        ),
        Column("balanced_accuracy_low", "double", "lower end of its 95 % interval", nullable=True),
        Column("balanced_accuracy_high", "double", "upper end", nullable=True),
        Column("always_yes_f1", "double", "f1 of saying yes to everything", nullable=True),
        Column(
            "always_yes_accuracy", "double", "accuracy of saying yes to everything", nullable=True
        ),
        Column(
            "other_f1", "double", "f1 of another expert's label on these contexts", nullable=True
        ),
        Column("other_accuracy", "double", "its accuracy", nullable=True),
        Column("other_balanced_accuracy", "double", "its balanced accuracy", nullable=True),
        Column(
            "routed_share",
            "double",
            "share of the negative contexts with some other token that chose the expert",
            nullable=True,
        ),
    ),
    ("label_set", "layer", "expert", "kind", "against"),
    added_by=_ADDED_BY,
    is_captured=False,
)

LABEL_REQUESTS = Table(
    "label_requests",
    "a request to a reader of experts' contexts",
    (
        RUN_ID,
        LAYER,
        EXPERT,
        LABEL_SET,
        Column("number", "int32", "its number among those for the expert, from 0"),
        Column(
            "purpose",
            "string",
            "explanation, detection or fuzzing; detection-other and fuzzing-other with the label "
            "of another expert",
        ),
        Column("endpoint", "string", "where it was sent"),
        Column("prompt", "string", "the messages, as JSON"),
        Column("answer", "string", "the answer; null where the server refused", nullable=True),
        Column("model", "string", "the model that answered, as the server says", nullable=True),
        Column("prompt_tokens", "int32", "as the server counts them", nullable=True),
        Column("completion_tokens", "int32", "as the server counts them", nullable=True),
        Column("seconds", "double", "how long the answer took", nullable=True),
        Column("attempts", "int32", "how often it was sent", nullable=True),
        Column("status", "string", "ok, nonsense or refused"),
        Column("reason", "string", "what was wrong with it", nullable=True),
    ),
    ("label_set", "layer", "expert", "number"),
    added_by=_ADDED_BY,
    is_captured=False,
)

TABLES: tuple[Table, ...] = (
    RUNS,
    MOE_LAYERS,
    EXAMPLES,
    TOKENS,
    ROUTING,
    ROUTER_STATS,
    ROUTER_MASS,
    RUN_LABELS,
    EXAMPLE_LABELS,
    TOKEN_LABELS,
    CONDITIONS,
    PREDICTIONS,
    LOGIT_LENS,
    PROBE_SCORES,
    EXPERT_LABELS,
    EXPERT_LABEL_SCORES,
    LABEL_REQUESTS,
)

TABLE_NAMES: tuple[str, ...] = tuple(entry.name for entry in TABLES)


def table(name: str) -> Table:
    """Return the table called ``name``.

    Raises
    ------
    UsageError
        If there is no such table.
    """
    for candidate in TABLES:
        if candidate.name == name:
            return candidate
    raise UsageError(f"no table named {name!r}; {did_you_mean(name, TABLE_NAMES)}", "moedb schema")
