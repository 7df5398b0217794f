import numpy as np
import pytest
import torch

from moedb.capture.jobs.qwen_ioi import generate_prompts, is_held_out_pair, load_ioi_templates
from moedb.capture.mini.evaluation import (
    domain_information,
    ioi_logits,
    measure_held_out,
    measure_ioi,
    mutual_information,
)
from moedb.capture.mini.training.optimization import build_model


@pytest.fixture(scope="module")
def model(tiny_config, tiny_tokenizer):
    return build_model(tiny_config, tiny_tokenizer).eval()


def test_ioi_logits_are_those_of_a_plain_forward(model, tiny_tokenizer):
    prompts = generate_prompts(load_ioi_templates(), tiny_tokenizer, 12).prompts
    found = ioi_logits(model, tiny_tokenizer, prompts, batch_size=5)
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            logits = model(**tiny_tokenizer(prompt.text, return_tensors="pt")).logits[0, -1]
        expected = [logits[prompt.io_token_id].item(), logits[prompt.s_token_id].item()]
        assert row == pytest.approx(expected, abs=1e-4)


def test_measure_ioi_adds_up(model, tiny_tokenizer):
    found = measure_ioi(
        model, tiny_tokenizer, load_ioi_templates(), n=60, held_out_pair_fraction=0.1
    )
    assert sum(n for _, n, _ in found.per_template) == found.n == 60
    weighted = sum(n * accuracy for _, n, accuracy in found.per_template) / found.n
    assert weighted == pytest.approx(found.accuracy)


def test_evaluation_prompts_are_held_out_pairs(tiny_tokenizer):
    prompts = generate_prompts(
        load_ioi_templates(), tiny_tokenizer, 200, seed=1, pair_filter=is_held_out_pair
    ).prompts
    assert all(is_held_out_pair(p.io, p.s) for p in prompts)


def test_held_out_measures_are_those_of_a_plain_forward(model):
    rng = np.random.default_rng(0)
    pieces = [rng.integers(2, 1600, n) for n in (7, 12, 3, 9)]
    found = measure_held_out(model, pieces, [0, 0, 1, 2], 3, tokens_per_batch=24)
    nll = np.zeros(3)
    counts = np.zeros((3, 2, 6), dtype=int)
    for piece, document in zip(pieces, [0, 0, 1, 2], strict=True):
        ids = torch.from_numpy(piece)[None]
        with torch.no_grad():
            outputs = model(input_ids=ids, labels=ids, output_router_logits=True)
            plain = model(input_ids=ids).logits[0].log_softmax(-1)
        nll[document] -= plain[:-1].gather(1, ids[0, 1:, None]).sum().item()
        for layer, logits in enumerate(outputs.router_logits):
            for expert in logits.topk(2, dim=-1).indices.flatten().tolist():
                counts[document, layer, expert] += 1
    assert found.nll == pytest.approx(nll, rel=1e-4)
    assert found.n_predicted.tolist() == [17, 2, 8]
    assert (found.expert_counts == counts).all()


def test_mutual_information_by_hand():
    assert mutual_information([[5, 0], [0, 5]]) == pytest.approx(1.0)
    assert mutual_information([[2, 4], [1, 2]]) == pytest.approx(0.0)
    # p = 3/8 on the diagonal, 1/8 off it
    expected = 2 * (3 / 8) * np.log2(1.5) + 2 * (1 / 8) * np.log2(0.5)
    assert mutual_information([[3, 1], [1, 3]]) == pytest.approx(expected)


def test_domain_information_stands_out_of_its_null():
    rng = np.random.default_rng(0)
    domains = ["a", "b"] * 20
    counts = rng.poisson(5, (40, 2, 4))
    counts[::2, 0, 0] += 30  # layer 0 tells the domains apart, layer 1 does not
    observed, null = domain_information(counts, domains, permutations=50)
    assert null.shape == (50, 2)
    assert observed[0] > null[:, 0].max()
    assert observed[1] <= null[:, 1].max()
