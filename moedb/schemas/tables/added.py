"""The tables that are added to complete runs alone."""

from moedb.schemas.tables.columns import (
    EXAMPLE_ID,
    EXPERT,
    LAYER,
    RUN_ID,
    TOKEN_IDX,
    Column,
    Table,
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
_ADDED_BY = ("moedb label-experts", "moedb import labels")

EXPERT_LABELS = Table(
    "expert_labels",
    "a label of an expert",
    (
        RUN_ID,
        LAYER,
        EXPERT,
        LABEL_SET,
        Column(
            "source",
            "string",
            "where it is from: reader, a language model that read contexts; or the form of the "
            "file that it was imported from",
        ),
        Column("model", "string", "the reader, as it was asked for; unknown where no file says it"),
        Column("label", "string", "what the expert does; null where there is none", nullable=True),
        Column(
            "status",
            "string",
            "labelled; or why not: unused (no token chose the expert), nonsense (no answer that "
            "could be read), refused (by the server)",
        ),
        Column("reason", "string", "what went wrong, in words", nullable=True),
        Column("n_decisions", "int64", "tokens that chose the expert"),
        Column("n_contexts", "int32", "contexts that the reader saw for it; 0 if imported"),
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
            "same one), random, imported (as an imported file has them), or all of these",
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

LABEL_VERDICTS = Table(
    "label_verdicts",
    "a context that an expert's label was judged on",
    (
        RUN_ID,
        LAYER,
        EXPERT,
        LABEL_SET,
        Column("kind", "string", "detection or fuzzing, as in expert_label_scores"),
        Column("number", "int32", "its place in the order in which the kind was asked, from 0"),
        Column("token_idx", "int64", "its token; null where nobody knows", nullable=True),
        Column("example_id", "int64", "the token's example; null likewise", nullable=True),
        Column(
            "cluster",
            "int64",
            "what it is drawn with: a document, or a prompt and its twin; below 0 of a context "
            "that is of no known example",
        ),
        Column(
            "against",
            "string",
            "the kind of a negative context, as in expert_label_scores; empty for a positive one",
        ),
        Column("is_positive", "int32", "1 where the router gave the token to the expert, else 0"),
        Column(
            "has_others",
            "int32",
            "1 where it holds other tokens that chose the expert; null where nobody knows",
            nullable=True,
        ),
        Column(
            "says_yes",
            "int32",
            "1 where the reader says that the label fits; null without a verdict",
            nullable=True,
        ),
        Column(
            "other_says_yes",
            "int32",
            "the same of the label of another expert; null where that was not asked",
            nullable=True,
        ),
        Column(
            "text",
            "string",
            "what the reader saw, of an imported one what its file has; null where nobody knows",
            nullable=True,
        ),
    ),
    ("label_set", "layer", "expert", "kind", "number"),
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
    added_by=_ADDED_BY[:1],
    is_captured=False,
)

LABEL_EFFECTS = Table(
    "label_effects",
    "a token that a label of an expert was judged on, or one of a control, and what the ablation "
    "of an expert changes there",
    (
        RUN_ID,
        LAYER,
        Column("expert", "int32", "index of the labelled expert in its layer"),
        Column("effect_set", "string", "what the effects are called together"),
        Column("label_set", "string", "what the labels are called together"),
        Column("kind", "string", "the verdicts that fits is of: detection or fuzzing"),
        Column(
            "role",
            "string",
            "own: the labelled expert is ablated; control: another of the layer, about as often "
            "chosen, on the same tokens; control-own: that one on tokens that chose it",
        ),
        Column("ablated", "int32", "index of the ablated expert in the layer"),
        TOKEN_IDX,
        EXAMPLE_ID,
        Column("cluster", "int64", "what it is drawn with: a document, or a prompt and its twin"),
        Column("routed", "int32", "1 where the token chose the labelled expert, else 0"),
        Column(
            "fits",
            "int32",
            "1 where the reader says that the label fits; null without a verdict",
            nullable=True,
        ),
        Column("chosen", "int32", "1 where the token chose the ablated expert, else 0"),
        Column("n_following", "int32", "tokens after it that following_change is the mean over"),
        Column(
            "next_change",
            "double",
            "log-probability (nats) of the next token without the ablated expert, less that of the "
            "untouched model; null where nothing follows",
            nullable=True,
        ),
        Column(
            "following_change",
            "double",
            "mean of that over the next n_following tokens; null where nothing follows",
            nullable=True,
        ),
        Column(
            "attribution",
            "double",
            "what the ablated expert writes into the logit of the next token less the vocabulary's "
            "mean logit, the final norm's scale frozen; null where the token did not choose it",
            nullable=True,
        ),
        Column(
            "attribution_rank",
            "int32",
            "its place by attribution among the experts of all layers that the token chose, from 1",
            nullable=True,
        ),
        Column("n_attributed", "int32", "how many these are", nullable=True),
    ),
    ("effect_set", "layer", "expert", "role", "ablated", "token_idx"),
    added_by=("moedb check-labels",),
    is_captured=False,
)
