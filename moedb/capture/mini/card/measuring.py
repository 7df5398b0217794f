"""The card of a trained model: every figure in it is measured when it is written.

``python -m moedb.capture.mini.card.measuring --model DIR --corpus FILE`` evaluates the model in DIR
and writes README.md and evaluation.json beside it.
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
from transformers import AutoModelForCausalLM

from moedb.capture.jobs.qwen_ioi import IOITemplates, load_ioi_templates
from moedb.capture.mini.card.ngram import NGramModel
from moedb.capture.mini.card.reading import EVALUATION
from moedb.capture.mini.card.text import render_card
from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.corpus import (
    CorpusText,
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
from moedb.capture.mini.training.checkpointing import SUMMARY
from moedb.capture.models.loading.pretrained import read_tokenizer
from moedb.capture.models.loading.safe_config import WITHOUT_CODE, read_config
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
    (folder / EVALUATION).write_text(json.dumps(evaluation, indent=1) + "\n", "utf-8")
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
    tokenizer = read_tokenizer(model_dir)
    model = AutoModelForCausalLM.from_pretrained(
        str(model_dir), config=read_config(model_dir), use_safetensors=True, **WITHOUT_CODE
    )
    # The weights are bf16; the arithmetic is float32, which every processor does fast.
    model = model.float().eval()
    train, held_out = split_corpus(read_corpus(corpus_path), config.held_out_fraction)
    logger.info("measuring on %d held-out documents", len(held_out))
    weights = model_dir / "model.safetensors"
    return {
        "model": {
            "name": config.model_name,
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
    if not hasattr(shape, "num_experts"):
        return sum(p.numel() for p in model.parameters())
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
    train: Sequence[CorpusText],
    held_out: Sequence[CorpusText],
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
    return {
        "documents": len(held_out),
        "tokens": measures.n_tokens,
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
        **_experts(measures.expert_counts, domains, config.seed),
    }


def _experts(counts: IntArray | None, domains: Sequence[str], seed: int) -> dict[str, Any]:
    """How the experts of each layer are used; nothing of a dense model."""
    if counts is None:
        return {}
    observed, null = domain_information(counts, domains, permutations=PERMUTATIONS, seed=seed)
    return {
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
            for layer, row in enumerate(counts.sum(axis=0))
        ],
        "permutations": PERMUTATIONS,
    }


def _sources(train: Sequence[CorpusText]) -> list[dict[str, Any]]:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m moedb.capture.mini.card.measuring", description=__doc__
    )
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
