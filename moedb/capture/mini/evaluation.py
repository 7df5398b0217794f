"""What a trained model can do and how it uses its experts, measured on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from moedb.capture.jobs.qwen_ioi import IOIPrompt, IOITemplates, generate_prompts, is_held_out_pair
from moedb.capture.mini.corpus import IntArray, held_out_batches, pad_rows

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class IOIAccuracy:
    """How often the logit of IO beats that of S at the end of a prompt.

    Attributes
    ----------
    n : int
        Number of prompts.
    accuracy : float
        Over all of them.
    mean_logit_diff : float
        Mean of logit(IO) - logit(S).
    per_template : tuple of (str, int, float)
        Template, its number of prompts, and the accuracy on them.
    """

    n: int
    accuracy: float
    mean_logit_diff: float
    per_template: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class HeldOutMeasures:
    """One pass over held-out documents.

    Attributes
    ----------
    nll : float64[document]
        Sum of -ln p over the predicted tokens.
    n_predicted : int64[document]
        Number of these tokens.
    expert_counts : int64[document, layer, expert] or None
        Routing decisions; None of a dense model.
    n_tokens : int
        Tokens read.
    """

    nll: FloatArray
    n_predicted: IntArray
    expert_counts: IntArray | None
    n_tokens: int


def routing_wanted(model: Any) -> dict[str, Any]:
    """Return the arguments of a forward pass that give the routers' scores, if there are any."""
    return {"output_router_logits": True} if hasattr(model.config, "num_experts") else {}


def ioi_logits(
    model: Any, tokenizer: Any, prompts: Sequence[IOIPrompt], *, batch_size: int = 128
) -> npt.NDArray[np.float32]:
    """Return the logits of IO and S at the last token of each prompt, float32[prompt, 2]."""
    results = np.zeros((len(prompts), 2), dtype=np.float32)
    encoded = tokenizer([p.text for p in prompts], add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), i))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = [np.array(encoded[i], dtype=np.int64) for i in chosen]
        ids, mask = pad_rows(rows, tokenizer.pad_token_id)
        with torch.no_grad():
            hidden = model.model(input_ids=torch.from_numpy(ids)).last_hidden_state
            last = hidden[torch.arange(len(rows)), torch.from_numpy(mask.sum(axis=1) - 1)]
            logits = model.lm_head(last).float()
        answers = torch.tensor([[prompts[i].io_token_id, prompts[i].s_token_id] for i in chosen])
        results[chosen] = logits.gather(1, answers).numpy()
    return results


def measure_ioi(
    model: Any,
    tokenizer: Any,
    templates: IOITemplates,
    *,
    n: int,
    held_out_pair_fraction: float,
    seed: int = 1,
) -> IOIAccuracy:
    """Measure the IOI accuracy on pairs of names that no training sentence has.

    Parameters
    ----------
    model : Qwen2MoeForCausalLM or Qwen2ForCausalLM
        In evaluation mode.
    tokenizer : transformers tokenizer
        The model's.
    templates : IOITemplates
        The sentences to test with.
    n : int
        Number of prompts.
    held_out_pair_fraction : float
        As it was in training.
    seed : int
        Seed of the prompts.

    Returns
    -------
    IOIAccuracy
    """
    prompts = generate_prompts(
        templates,
        tokenizer,
        n,
        seed=seed,
        pair_filter=lambda a, b: is_held_out_pair(a, b, held_out_pair_fraction),
    ).prompts
    logits = ioi_logits(model, tokenizer, prompts).astype(np.float64)
    right = logits[:, 0] > logits[:, 1]
    index = np.array([p.template for p in prompts])
    per_template = tuple(
        (text, int((index == i).sum()), float(right[index == i].mean()))
        for i, text in enumerate(templates.templates_baba)
        if (index == i).any()
    )
    return IOIAccuracy(
        n=n,
        accuracy=float(right.mean()),
        mean_logit_diff=float((logits[:, 0] - logits[:, 1]).mean()),
        per_template=per_template,
    )


def measure_held_out(
    model: Any,
    pieces: Sequence[IntArray],
    document_of_piece: Sequence[int],
    n_documents: int,
    *,
    tokens_per_batch: int = 2048,
) -> HeldOutMeasures:
    """Run a model over held-out pieces and add up losses and routing decisions per document.

    Parameters
    ----------
    model : Qwen2MoeForCausalLM or Qwen2ForCausalLM
        In evaluation mode.
    pieces : sequence of int64[token]
        Cut documents. The first token of a piece is not predicted.
    document_of_piece : sequence of int
        Index of the document each piece is from.
    n_documents : int
        Number of documents.
    tokens_per_batch : int
        Size of a batch.

    Returns
    -------
    HeldOutMeasures
    """
    config = model.config
    nll = np.zeros(n_documents)
    n_predicted = np.zeros(n_documents, dtype=np.int64)
    wanted = routing_wanted(model)
    counts = None
    if wanted:
        shape = (n_documents, config.num_hidden_layers, config.num_experts)
        counts = np.zeros(shape, dtype=np.int64)
    document_of = np.asarray(document_of_piece)
    for chosen, ids, mask in held_out_batches(
        pieces, tokens_per_batch=tokens_per_batch, pad_id=config.pad_token_id or 0
    ):
        inputs = torch.from_numpy(ids)
        with torch.no_grad():
            outputs = model.model(input_ids=inputs, **wanted)
            logits = model.lm_head(outputs.last_hidden_state[:, :-1]).float()
            losses = functional.cross_entropy(
                logits.flatten(0, 1), inputs[:, 1:].flatten(), reduction="none"
            )
        predicted = mask[:, 1:]
        row_nll = (losses.view(predicted.shape).numpy().astype(np.float64) * predicted).sum(axis=1)
        documents = document_of[chosen]
        np.add.at(nll, documents, row_nll)
        np.add.at(n_predicted, documents, predicted.sum(axis=1))
        if counts is None:
            continue
        token_document = np.repeat(documents, mask.sum(axis=1))
        for layer, scores in enumerate(outputs.router_logits):
            kept = scores[torch.from_numpy(mask.reshape(-1))]
            experts = kept.float().topk(config.num_experts_per_tok, dim=-1).indices.numpy()
            np.add.at(counts[:, layer], (token_document[:, None], experts), 1)
    return HeldOutMeasures(nll, n_predicted, counts, sum(map(len, pieces)))


def mutual_information(joint: npt.ArrayLike) -> float:
    """Return the mutual information, in bits, of a table of counts.

    Parameters
    ----------
    joint : array_like[row, column]
        How often each row class met each column class.
    """
    table = np.asarray(joint, dtype=np.float64)
    p = table / table.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / independent[seen])).sum())


def domain_information(
    expert_counts: IntArray, domains: Sequence[str], *, permutations: int, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Mutual information between the domain of a document and the experts of its tokens.

    Parameters
    ----------
    expert_counts : int64[document, layer, expert]
        Routing decisions.
    domains : sequence of str
        Domain of each document.
    permutations : int
        How often the domains are dealt anew to the documents for the null.
    seed : int
        Seed of the permutations.

    Returns
    -------
    observed : float64[layer]
        Bits.
    null : float64[permutation, layer]
        The same with permuted domains.
    """
    _, index = np.unique(np.asarray(domains), return_inverse=True)
    n_layers = expert_counts.shape[1]

    def per_layer(classes: IntArray) -> list[float]:
        joint = np.zeros((classes.max() + 1, *expert_counts.shape[1:]), dtype=np.int64)
        np.add.at(joint, classes, expert_counts)
        return [mutual_information(joint[:, layer]) for layer in range(n_layers)]

    rng = np.random.default_rng(seed)
    observed = np.array(per_layer(index))
    null = np.array([per_layer(rng.permutation(index)) for _ in range(permutations)])
    return observed, null
