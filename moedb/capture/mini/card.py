"""The card of a trained model: every figure in it is measured when it is written.

``python -m moedb.capture.mini.card --model DIR --corpus FILE`` evaluates the model in DIR and
writes README.md and evaluation.json beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from moedb.capture.ioi import IOITemplates, load_ioi_templates
from moedb.capture.mini.checkpointing import SUMMARY
from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.corpus import (
    Document,
    IntArray,
    cut_pieces,
    read_corpus,
    split_corpus,
    tokenize_documents,
)
from moedb.capture.mini.evaluation import (
    IOIAccuracy,
    domain_information,
    measure_held_out,
    measure_ioi,
)
from moedb.capture.mini.ngram import NGramModel
from moedb.errors import MoedbError, UsageError

logger = logging.getLogger(__name__)

NGRAM_ORDER = 5
PERMUTATIONS = 50
PROMPTS_PER_TEMPLATE = 200


def write_card(
    model_dir: str | Path, corpus_path: str | Path, published_templates: str | Path | None = None
) -> Path:
    """Evaluate a trained model and write README.md and evaluation.json into its folder.

    Parameters
    ----------
    model_dir : str or Path
        A folder that `train_mini` filled.
    corpus_path : str or Path
        The corpus it was trained on.
    published_templates : str or Path, optional
        A second file of IOI templates, that the model was not trained on.

    Returns
    -------
    Path
        README.md.

    Raises
    ------
    UsageError
        When the folder holds no finished model, or the corpus is another one.
    """
    folder = Path(model_dir)
    evaluation = evaluate(folder, corpus_path, published_templates)
    (folder / "evaluation.json").write_text(json.dumps(evaluation, indent=1) + "\n", "utf-8")
    card = folder / "README.md"
    card.write_text(render_card(evaluation), "utf-8")
    return card


def evaluate(
    model_dir: Path, corpus_path: str | Path, published_templates: str | Path | None = None
) -> dict[str, Any]:
    """Measure everything the card says; see `write_card` for the parameters."""
    training = _read_training(model_dir)
    config = MiniTrainingConfig(**training["config"])
    with Path(corpus_path).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != training["corpus_sha256"]:
            raise UsageError(
                f"{corpus_path}: not the corpus that {model_dir} was trained on; what is held out "
                "can only be told for that one"
            )
    tokenizer = AutoTokenizer.from_pretrained(str(model_dir), local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(str(model_dir), local_files_only=True)
    # The weights are bf16; the arithmetic is float32, which every processor does fast.
    model = model.float().eval()
    train, held_out = split_corpus(read_corpus(corpus_path), config.held_out_fraction)
    logger.info("measuring on %d held-out documents", len(held_out))
    weights = model_dir / "model.safetensors"
    return {
        "model": {
            "name": "qwen-moe-mini",
            "architecture": model.config.architectures[0],
            "parameters": sum(p.numel() for p in model.parameters()),
            "active_parameters": _active_parameters(model),
            "weights_bytes": weights.stat().st_size,
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "training": {key: value for key, value in training.items() if key != "history"},
        "ioi": {
            "own": _ioi(model, tokenizer, load_ioi_templates(), config, own=True),
            "published": None
            if published_templates is None
            else _ioi(model, tokenizer, load_ioi_templates(published_templates), config, own=False),
        },
        "held_out": _held_out(model, tokenizer, train, held_out, config),
        "sources": _sources(train),
    }


def _read_training(model_dir: Path) -> dict[str, Any]:
    try:
        content = json.loads((model_dir / SUMMARY).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{model_dir}: no finished training run ({error})",
            hint="Train one: moedb train qwen-moe-mini --corpus FILE -o DIR",
        ) from error
    if not isinstance(content, dict) or "config" not in content:
        raise UsageError(f"{model_dir / SUMMARY}: not the summary of a training run")
    return content


def _active_parameters(model: Any) -> int:
    """Parameters that a token meets: all but the experts it is not sent to."""
    shape = model.config
    experts = sum(p.numel() for name, p in model.named_parameters() if ".mlp.experts." in name)
    total = sum(p.numel() for p in model.parameters())
    return int(total - experts + experts * shape.num_experts_per_tok // shape.num_experts)


def _ioi(
    model: Any,
    tokenizer: Any,
    templates: IOITemplates,
    config: MiniTrainingConfig,
    *,
    own: bool,
) -> dict[str, Any]:
    """Accuracy per template; the sentences of others are named by their number alone."""
    result: IOIAccuracy = measure_ioi(
        model,
        tokenizer,
        templates,
        n=PROMPTS_PER_TEMPLATE * len(templates.templates_baba),
        held_out_pair_fraction=config.held_out_pair_fraction,
        seed=config.seed + 1,
    )
    return {
        "source": templates.source,
        "n": result.n,
        "accuracy": result.accuracy,
        "mean_logit_diff": result.mean_logit_diff,
        "templates": [
            {"template": index, **({"text": text} if own else {}), "n": n, "accuracy": accuracy}
            for index, (text, n, accuracy) in enumerate(result.per_template)
        ],
    }


def _held_out(
    model: Any,
    tokenizer: Any,
    train: Sequence[Document],
    held_out: Sequence[Document],
    config: MiniTrainingConfig,
) -> dict[str, Any]:
    domains = [d.domain for d in held_out]
    pieces: list[IntArray] = []
    document_of: list[int] = []
    for index, tokens in enumerate(tokenize_documents(held_out, tokenizer)):
        cut = cut_pieces([tokens], config.max_length)
        pieces += cut
        document_of += [index] * len(cut)
    measures = measure_held_out(model, pieces, document_of, len(held_out))
    losses = {"model": measures.nll}
    train_pieces = cut_pieces(tokenize_documents(train, tokenizer), config.max_length)
    for name, order in (("unigram", 1), (f"{NGRAM_ORDER}-gram", NGRAM_ORDER)):
        ngram = NGramModel(train_pieces, order, len(tokenizer))
        nll = np.zeros(len(held_out))
        # The first token of a piece is left out, as the model does not predict it.
        np.add.at(nll, document_of, [-ngram.log_probabilities(p)[1:].sum() for p in pieces])
        losses[name] = nll
    chosen = {"all": np.ones(len(held_out), dtype=bool)}
    chosen |= {domain: np.array([d == domain for d in domains]) for domain in sorted(set(domains))}
    observed, null = domain_information(
        measures.expert_counts, domains, permutations=PERMUTATIONS, seed=config.seed
    )
    counts = measures.expert_counts.sum(axis=0)
    return {
        "documents": len(held_out),
        "tokens": int(measures.expert_counts[:, 0].sum()) // config.top_k,
        "perplexity": {
            domain: {
                "documents": int(rows.sum()),
                "predicted_tokens": int(measures.n_predicted[rows].sum()),
                **{
                    name: math.exp(nll[rows].sum() / measures.n_predicted[rows].sum())
                    for name, nll in losses.items()
                },
            }
            for domain, rows in chosen.items()
        },
        "experts": [
            {
                "layer": layer,
                "unused": int((row == 0).sum()),
                "smallest_share": float(row.min() / row.sum()),
                "largest_share": float(row.max() / row.sum()),
                "domain_information_bits": float(observed[layer]),
                "null_mean_bits": float(null[:, layer].mean()),
                "null_max_bits": float(null[:, layer].max()),
            }
            for layer, row in enumerate(counts)
        ],
        "permutations": PERMUTATIONS,
    }


def _sources(train: Sequence[Document]) -> list[dict[str, Any]]:
    """Group documents by domain, licence and the source's family, before a slash or hash."""
    families: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    characters: Counter[tuple[str, str]] = Counter()
    for document in train:
        group = (document.domain, document.license)
        families[group][re.split("[/#]", document.source)[0]] += 1
        characters[group] += len(document.text)
    return [
        {
            "domain": domain,
            "license": license_name,
            "documents": families[domain, license_name].total(),
            "characters": characters[domain, license_name],
            "sources": sorted(families[domain, license_name]),
        }
        for domain, license_name in sorted(families)
    ]


def render_card(evaluation: dict[str, Any]) -> str:
    """Return the text of README.md for the figures of `evaluate`."""
    model, training = evaluation["model"], evaluation["training"]
    config = training["config"]
    ioi, held_out = evaluation["ioi"], evaluation["held_out"]
    parts = [
        _FRONT_MATTER,
        f"# {model['name']}\n",
        f"A {model['architecture']} with the topology of Qwen1.5-MoE-A2.7B at a small width: "
        f"{config['n_layers']} layers, each a mixture of {config['n_experts']} routed experts "
        f"(top {config['top_k']}, softmax weights not normalised) and one shared expert behind a "
        f"sigmoid gate; d_model {config['d_model']}, {config['n_heads']} heads, "
        f"{config['d_expert']} neurons an expert, {config['d_shared']} in the shared one, "
        f"{config['vocab_size']} tokens, embeddings "
        f"{'tied' if config['tie_embeddings'] else 'not tied'}. {model['parameters']:,} "
        f"parameters, of which a token meets {model['active_parameters']:,}; "
        f"{model['weights_bytes']:,} bytes in bf16.\n",
        _PURPOSE,
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
        f"interpolated Kneser-Ney unigram and {NGRAM_ORDER}-gram model of the same training "
        f"documents, over the same tokens, in the same pieces of up to {config['max_length']} "
        f"tokens. {_wins(held_out['perplexity'])}\n",
        _perplexity_table(held_out["perplexity"]),
        "## Experts\n",
        f"On the same documents {sum(r['unused'] for r in held_out['experts'])} of "
        f"{config['n_layers'] * config['n_experts']} experts were never used. Domain information "
        "is the mutual information between the domain of a document and the experts its tokens "
        f"are routed to; the null deals the domains anew to the documents, "
        f"{held_out['permutations']} times.\n",
        _expert_table(held_out["experts"]),
        "## Training\n",
        _training_text(training),
        _settings_table(config),
        "## What it was trained on\n",
        _source_table(evaluation["sources"]),
        "Beside these, IOI sentences made of the templates and names that come with moedb.\n",
    ]
    return "\n".join(parts)


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

_PURPOSE = """It is there to try moedb without a download, and for tests. **It is not Qwen1.5-MoE**:
nothing of that model's weights or tokenizer is in it, and results from it must not be passed off as
results about Qwen1.5-MoE or any other large model. It writes no useful text.

All figures below are measured by `python -m moedb.capture.mini.card` and stand in
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


def _wins(perplexity: dict[str, dict[str, Any]]) -> str:
    """Say in how many domains the model beats each n-gram model."""
    domains = [row for domain, row in perplexity.items() if domain != "all"]
    others = [k for k in domains[0] if k not in ("documents", "predicted_tokens", "model")]
    wins = [f"the {k} in {sum(row['model'] < row[k] for row in domains)}" for k in others]
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
    return (
        f"{training['step']:,} steps of AdamW from seed {config['seed']}, {tokens:,} tokens "
        f"({training['corpus_tokens']:,} of documents, {training['ioi_tokens']:,} of IOI "
        f"sentences, padding not counted) in {seconds / 60:.0f} minutes, {tokens / seconds:,.0f} "
        f"tokens/s, on {environment['cpus']} CPU cores ({environment['machine']}), torch "
        f"{environment['torch']}, transformers {environment['transformers']}, "
        f"{'bf16 autocast' if config['autocast'] else 'float32'}. Loss: cross-entropy on the "
        f"documents; plus, times {config['ioi_coefficient']:g}, that on the IOI sentences, in "
        f"which the answer weighs {config['ioi_answer_weight']:g} times another token; plus, times "
        f"{config['aux_coefficient']:g}, the load balancing loss of Switch Transformers (Fedus et "
        "al. 2022), computed per layer and averaged. "
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m moedb.capture.mini.card", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the trained model")
    parser.add_argument("--corpus", required=True, type=Path, help="the Parquet it was trained on")
    parser.add_argument(
        "--published-templates", type=Path, help="IOI templates it was not trained on, as JSON"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        card = write_card(options.model, options.corpus, options.published_templates)
    except MoedbError as error:
        logger.error("Error: %s", error)
        return error.exit_code
    logger.info("wrote %s", card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
