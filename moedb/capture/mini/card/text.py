"""The text of a trained model's card, from what was measured."""

from collections.abc import Sequence
from typing import Any


def render_card(evaluation: dict[str, Any]) -> str:
    """Return the text of README.md for the figures of `evaluate`."""
    model, training = evaluation["model"], evaluation["training"]
    config = training["config"]
    is_dense = config.get("d_dense") is not None
    ioi, held_out = evaluation["ioi"], evaluation["held_out"]
    parts = [
        _DENSE_FRONT_MATTER if is_dense else _FRONT_MATTER,
        f"# {model['name']}\n",
        _shape_text(model, config),
        _DENSE_PURPOSE if is_dense else _PURPOSE,
        "## Indirect object identification\n",
        "The prompt names two people and then one of them (S) again; right is a larger logit for "
        "the other one (IO) at the last token. Pairs of names that no training sentence had, both "
        f"orders: **{_percent(ioi['own']['accuracy'])}** of {ioi['own']['n']:,} prompts over the "
        "templates that training sentences were made of, mean logit difference "
        f"{ioi['own']['mean_logit_diff']:.2f}.\n",
        _ioi_table(ioi["own"]),
    ]
    if ioi["published"]:
        found = ioi["published"]
        parts += [
            "Templates it was not trained on "
            f"({found['source']}): **{_percent(found['accuracy'])}** of {found['n']:,} prompts, "
            f"mean logit difference {found['mean_logit_diff']:.2f}.\n",
            _ioi_table(found),
        ]
    parts += [
        "## Perplexity on held-out documents\n",
        f"{held_out['documents']} documents ({held_out['tokens']:,} tokens) chosen by a hash of "
        "their text, that neither the model nor its tokenizer was trained on. Beside the model an "
        f"interpolated Kneser-Ney {' and '.join(_ngrams(held_out['perplexity']))} model of the "
        "same training documents, over the same tokens, in the same pieces of up to "
        f"{config['max_length']} tokens. {_wins(held_out['perplexity'])}\n",
        _perplexity_table(held_out["perplexity"]),
        *([] if is_dense else _experts(held_out, config)),
        "## Training\n",
        _training_text(training),
        _settings_table(config),
        "## What it was trained on\n",
        _source_table(evaluation["sources"]),
        "Beside these, IOI sentences made of the templates and names that come with moedb.\n",
    ]
    return "\n".join(parts)


def _shape_text(model: dict[str, Any], config: dict[str, Any]) -> str:
    sizes = (
        f"d_model {config['d_model']}, {config['n_heads']} heads, {config['vocab_size']} tokens, "
        f"embeddings {'tied' if config['tie_embeddings'] else 'not tied'}"
    )
    n_bytes = f"{model['weights_bytes']:,} bytes in bf16"
    if config.get("d_dense") is not None:
        return (
            f"A {model['architecture']} of {config['n_layers']} layers, a dense twin of "
            f"qwen-moe-mini: in place of router and experts each layer has one feed-forward layer "
            f"of {config['d_dense']} neurons ({_twin_text(config)}); {sizes}. "
            f"{model['parameters']:,} parameters; {n_bytes}. Tokenizer, documents, their order, "
            "sentences, schedule and seed are those of qwen-moe-mini, and so are the measures "
            "below.\n"
        )
    return (
        f"A {model['architecture']} with the topology of Qwen1.5-MoE-A2.7B at a small width: "
        f"{config['n_layers']} layers, each a mixture of {config['n_experts']} routed experts "
        f"(top {config['top_k']}, softmax weights not normalised) and one shared expert behind a "
        f"sigmoid gate; d_model {config['d_model']}, {config['n_heads']} heads, "
        f"{config['d_expert']} neurons an expert, {config['d_shared']} in the shared one, "
        f"{config['vocab_size']} tokens, embeddings "
        f"{'tied' if config['tie_embeddings'] else 'not tied'}. {model['parameters']:,} "
        f"parameters, of which a token meets {model['active_parameters']:,}; {n_bytes}.\n"
    )


def _twin_text(config: dict[str, Any]) -> str:
    shared = config["d_shared"]
    if config["d_dense"] == config["top_k"] * config["d_expert"] + shared:
        what, n_experts = "a token meets", config["top_k"]
    elif config["d_dense"] == config["n_experts"] * config["d_expert"] + shared:
        what, n_experts = "there are in all", config["n_experts"]
    else:
        return "a width of its own"
    return (
        f"as many as {what} in a layer of the mixture: {n_experts} x {config['d_expert']} + "
        f"{shared}"
    )


def _experts(held_out: dict[str, Any], config: dict[str, Any]) -> list[str]:
    return [
        "## Experts\n",
        f"On the same documents {sum(r['unused'] for r in held_out['experts'])} of "
        f"{config['n_layers'] * config['n_experts']} experts were never used. Domain information "
        "is the mutual information between the domain of a document and the experts its tokens "
        f"are routed to; the null deals the domains anew to the documents, "
        f"{held_out['permutations']} times.\n",
        _expert_table(held_out["experts"]),
    ]


_FRONT_MATTER = """---
license: mit
library_name: transformers
pipeline_tag: text-generation
tags:
- mixture-of-experts
- interpretability
- qwen2_moe
---
"""

_DENSE_FRONT_MATTER = _FRONT_MATTER.replace("mixture-of-experts\n- ", "").replace("_moe", "")

_DENSE_PURPOSE = """It is there to hold what is found in qwen-moe-mini against a model without
experts (`moedb capture ... --dense`), and for tests. Results from it must not be passed off as
results about any other model. It writes no useful text.

**Load the tokenizer by its class.** For models of type qwen2 `AutoTokenizer` of transformers takes
a class of that type instead of the one that this folder names, and splits texts, numbers for one,
in a way that the model was not trained with. moedb reads it as it is, and so does

```python
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast.from_pretrained("path/to/this/folder")
```

All figures below are measured by `python -m moedb.capture.mini.card.measuring` and stand in
`evaluation.json`. Weights and tokenizer come under the licence of moedb, MIT; the documents they
were trained on are under the licences listed at the end, and none of them is in this folder.
"""

_PURPOSE = """It is there to try moedb without a download, and for tests. **It is not Qwen1.5-MoE**:
nothing of that model's weights or tokenizer is in it, and results from it must not be passed off as
results about Qwen1.5-MoE or any other large model. It writes no useful text.

All figures below are measured by `python -m moedb.capture.mini.card.measuring` and stand in
`evaluation.json`. Weights and tokenizer come under the licence of moedb, MIT; the documents they
were trained on are under the licences listed at the end, and none of them is in this folder.
"""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _ioi_table(found: dict[str, Any]) -> str:
    rows = [
        [
            str(r["template"]),
            *([r["text"]] if "text" in r else []),
            str(r["n"]),
            _percent(r["accuracy"]),
        ]
        for r in found["templates"]
    ]
    with_text = any("text" in r for r in found["templates"])
    header = ["template", *(["BABA form"] if with_text else []), "prompts", "accuracy"]
    return _table(header, rows, left=len(header) - 2)


def _ngrams(perplexity: dict[str, dict[str, Any]]) -> list[str]:
    """The n-gram models that stand beside the model."""
    return [k for k in perplexity["all"] if k not in ("documents", "predicted_tokens", "model")]


def _wins(perplexity: dict[str, dict[str, Any]]) -> str:
    """Say in how many domains the model beats each n-gram model."""
    domains = [row for domain, row in perplexity.items() if domain != "all"]
    wins = [
        f"the {k} in {sum(row['model'] < row[k] for row in domains)}" for k in _ngrams(perplexity)
    ]
    return f"Of {len(domains)} domains the model beats {' and '.join(wins)}."


def _perplexity_table(perplexity: dict[str, dict[str, Any]]) -> str:
    names = [k for k in perplexity["all"] if k not in ("documents", "predicted_tokens")]
    rows = [
        [domain, str(row["documents"]), f"{row['predicted_tokens']:,}"]
        + [f"{row[name]:.1f}" for name in names]
        for domain, row in perplexity.items()
    ]
    return _table(["domain", "documents", "tokens predicted", *names], rows)


def _expert_table(experts: Sequence[dict[str, Any]]) -> str:
    header = ["layer", "unused experts", "smallest share", "largest share"]
    header += ["domain information (bits)", "null mean", "null max"]
    rows = [
        [
            str(row["layer"]),
            str(row["unused"]),
            f"{100 * row['smallest_share']:.3f} %",
            f"{100 * row['largest_share']:.3f} %",
            f"{row['domain_information_bits']:.4f}",
            f"{row['null_mean_bits']:.4f}",
            f"{row['null_max_bits']:.4f}",
        ]
        for row in experts
    ]
    return _table(header, rows, left=0)


def _training_text(training: dict[str, Any]) -> str:
    config = training["config"]
    tokens = training["corpus_tokens"] + training["ioi_tokens"]
    seconds = training["seconds"]
    environment = training["environment"]
    balancing = (
        ""
        if config.get("d_dense") is not None
        else (
            f"; plus, times {config['aux_coefficient']:g}, the load balancing loss of Switch "
            "Transformers (Fedus et al. 2022), computed per layer and averaged"
        )
    )
    return (
        f"{training['step']:,} steps of AdamW from seed {config['seed']}, {tokens:,} tokens "
        f"({training['corpus_tokens']:,} of documents, {training['ioi_tokens']:,} of IOI "
        f"sentences, padding not counted) in {seconds / 60:.0f} minutes, {tokens / seconds:,.0f} "
        f"tokens/s, on {environment['cpus']} CPU cores ({environment['machine']}), torch "
        f"{environment['torch']}, transformers {environment['transformers']}, "
        f"{'bf16 autocast' if config['autocast'] else 'float32'}. Loss: cross-entropy on the "
        f"documents; plus, times {config['ioi_coefficient']:g}, that on the IOI sentences, in "
        f"which the answer weighs {config['ioi_answer_weight']:g} times another token{balancing}. "
        f"{_percent(config['held_out_fraction'])} of the documents and "
        f"{_percent(config['held_out_pair_fraction'])} of the pairs of names were held out, "
        "by hash.\n"
    )


def _settings_table(config: dict[str, Any]) -> str:
    return _table(["setting", "value"], [[f"`{k}`", f"{v}"] for k, v in config.items()], left=2)


def _source_table(sources: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            r["domain"],
            ", ".join(r["sources"]),
            r["license"],
            str(r["documents"]),
            f"{r['characters']:,}",
        ]
        for r in sources
    ]
    return _table(["domain", "sources", "licence", "documents", "characters"], rows, left=3)
