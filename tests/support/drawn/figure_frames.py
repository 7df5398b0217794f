"""Made-up rows of queries that have figures."""

import numpy as np
import pandas as pd


def concentrations(layers: int = 6, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    tops = [top for top in (1, 4, 8, 16, 32, 64, 128) if top < n] + [n]
    rows = []
    for layer in range(layers):
        counts = np.sort(rng.gamma(0.5 + layer / layers, 1.0, n))[::-1]
        rows += [(layer, top, float(counts[:top].sum() / counts.sum())) for top in tops]
    return pd.DataFrame(rows, columns=["layer", "n_top", "share"])


def balances(layers: int = 6, n: int = 60) -> pd.DataFrame:
    at = np.arange(layers)
    return pd.DataFrame(
        {
            "layer": at,
            "n_experts": n,
            "n_used": n - at % 3,
            "n_dead": at % 3,
            "normalized_entropy": 0.9 - 0.01 * at,
            "effective_experts": n * (0.8 - 0.01 * at),
            "gini": 0.3 + 0.01 * at,
            "cv": 0.8 + 0.1 * at,
            "max_over_mean": 3.0 + 0.1 * at,
            "switch_loss": 1.2 + 0.1 * at,
        }
    )


def cross_layers(layers: int = 5, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for layer in range(layers):
        counts = rng.integers(0, 9, (n, n))
        uses = counts.sum(axis=1)
        rows += [
            (layer, layer + 2, a, b, int(counts[a, b]), int(uses[a]))
            for a, b in np.argwhere(counts).tolist()
        ]
    names = "layer next_layer expert next_expert n_both n_expert"
    frame = pd.DataFrame(rows, columns=names.split())
    shares = frame["n_both"] / frame["n_expert"]
    return frame.assign(p_next_given=shares, lift=shares * n)


def output_overlaps(layers: int = 6, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        (layer, a, b, 40, float(rng.uniform(-0.3, 0.5)), float(rng.uniform(0, 1)))
        for layer in range(layers)
        for a in range(n)
        for b in range(a + 1, n)
        if (a + b) % 4
    ]
    return pd.DataFrame(
        rows, columns=["layer", "expert_a", "expert_b", "n_tokens", "cosine", "cka"]
    )


def expert_similarities(layers: int = 6, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = [
        (layer, a, b, *rng.normal(0, 0.1, 5), 0.01, 0.006, 0.02, float(rng.uniform(0.1, 0.4)), 0.1)
        for layer in range(layers)
        for a in range(n)
        for b in range(a + 1, n)
    ]
    names = (
        "layer expert_a expert_b gate_cosine up_cosine down_cosine expert_cosine router_cosine "
        "chance_sd expert_chance_sd router_chance_sd matched_cosine matched_chance"
    )
    return pd.DataFrame(rows, columns=names.split()).assign(reason=None)


def saturations(
    layers: int = 6, steps: tuple[int, ...] | None = None, by: str | None = "step"
) -> pd.DataFrame:
    """Of one run; with steps of a run for each, told apart by a number or by their names alone."""
    names = "layer top_k n_tokens n_unmatched n_shared saturation first_saturation uniform"
    frames = []
    for step in steps or (1000,):
        at = np.arange(layers)
        shared = 0.1 + 0.9 * (1 - np.exp(-step / 900 * (1 - at / (layers + 1))))
        frame = pd.DataFrame(dict.fromkeys(names.split(), shared))
        frame = frame.assign(layer=at, top_k=4, n_tokens=500, n_unmatched=0, uniform=4 / 60)
        frame["n_shared"] = (2000 * shared).astype(int)
        if steps is not None and by is not None:
            frame.insert(0, by, step)
        if steps is not None:
            frame.insert(0, "run", f"checkpoint-{step}")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def overlaps(layers: int = 6) -> pd.DataFrame:
    at = np.arange(layers)
    return pd.DataFrame(
        {
            "layer": at,
            "n_tokens_a": 12_345,
            "n_tokens_b": 678,
            "m": 4,
            "jaccard": (at % 5) / 4,
            "expected_jaccard": 0.1,
            "overlap_coefficient": (at % 4) / 3,
            "weighted_jaccard": 0.9 - 0.02 * at,
            "jensen_shannon": 0.02 * at,
        }
    )


def confidences(classes: int = 5, layers: int = 6) -> pd.DataFrame:
    names = ["all"] if classes == 1 else [f"a class ${n}" for n in range(classes)]
    rows = [
        (layer, name, 100, 5.0 - 0.2 * layer - 0.1 * number, 0.3, 0.5, 0.5 + 0.01 * layer, 2.0)
        for layer in range(layers)
        for number, name in enumerate(names)
    ]
    columns = "layer value n_tokens mean_entropy mean_margin mean_topk_mass sd_entropy"
    return pd.DataFrame(rows, columns=[*columns.split(), "mean_logsumexp"])


def informations(layers: int = 6) -> pd.DataFrame:
    at = np.arange(layers)
    found = 0.02 + 0.01 * at
    return pd.DataFrame(
        {
            "layer": at,
            "information": found,
            "label_entropy": 2.0,
            "normalized": found / 2,
            "permuted": "examples within a $key",
            "null_mean": 0.02,
            "null_highest": 0.03,
            "p_value": np.where(found > 0.035, 0.01, 0.4),
        }
    )


def probe_curves(sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)) -> pd.DataFrame:
    rows = [
        {
            "probe": "probe",
            "key": "upos",
            "protocol": protocol,
            "labels": labels,
            "k": k,
            "n_concepts": 14,
            "f1": level + 0.02 * step,
            "f1_best_on_test": level + 0.1 + 0.02 * step,
            "f1_mean": level - 0.1 + 0.02 * step,
            "f1_mean_each": level - 0.12 + 0.02 * step,
            "f1_always_yes": 0.3,
            "balanced_accuracy": level + 0.15,
            "balanced_accuracy_mean": level + 0.05,
        }
        for protocol in ("documents", "herbst2026")
        for labels, level in (("true", 0.6), ("shuffled", 0.2))
        for step, k in enumerate(sizes)
    ]
    return pd.DataFrame(rows)


def probe_bests(
    n_concepts: int = 14, keys: tuple[str, ...] = ("upos",), k: int = 1
) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for protocol in ("documents", "herbst2026"):
        for key in keys:
            for number in range(n_concepts):
                f1 = rng.uniform(0.3, 0.9)
                row: dict[str, object] = {"probe": "probe", "key": key, "value": f"tag {number}"}
                row |= {"protocol": protocol, "k": k, "f1": f1}
                row |= {"f1_low": f1 - 0.07, "f1_high": f1 + 0.04, "f1_always_yes": f1 / 2}
                rows.append({**row, "f1_shuffled": f1 / 3})
    return pd.DataFrame(rows)


def polysemantic(layers: int = 6, most: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    rows = [
        {"probe": "probe", "layer": layer, "candidate": candidate, "neuron": neuron}
        for layer in range(layers)
        for candidate in range(5)
        for neuron in range(3)
    ]
    return pd.DataFrame(rows).assign(n_concepts=rng.integers(1, most + 1, len(rows)))


def labelled_experts(n: int = 12, sets: tuple[str, ...] = ("labels",)) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = []
    for label_set in sets:
        for number in range(n):
            row: dict[str, object] = {"label_set": label_set, "layer": number // 8}
            row |= {"expert": 7 * number % 60, "label": f"names of $people, number {number}"}
            for kind in ("detection", "fuzzing"):
                f1 = rng.uniform(0.4, 0.9)
                row |= {f"{kind}_f1": f1, f"{kind}_low": f1 - 0.2, f"{kind}_high": f1 + 0.1}
                row |= {f"{kind}_yes": 0.4, f"{kind}_other": f1 / 2}
            rows.append(row)
    return pd.DataFrame(rows)


def states_and_functions(
    keys: tuple[str, ...] = ("upos", "domain"), layers: int = 6
) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for key in keys:
        for layer in range(layers):
            row: dict[str, object] = {"layer": layer, "key": key}
            for measure in ("experts_beyond", "clusters_beyond"):
                estimate, null_mean = rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.3)
                row |= {
                    f"{measure}_null_mean": null_mean,
                    f"{measure}_null_95": null_mean + 0.02,
                    f"{measure}_less_null": estimate - null_mean,
                    f"{measure}_low": estimate - 0.1,
                    f"{measure}_high": estimate + 0.05,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def label_effects(n_experts: int = 12, layer: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows: list[dict[str, object]] = []
    for expert in range(n_experts):
        row: dict[str, object] = {"layer": layer, "expert": expert, "label": f"label no {expert}"}
        for group, size in (("fits", -0.4), ("other", -0.1), ("control_own", -0.15)):
            mean = size * rng.uniform(0.5, 1.5)
            row |= {group: mean, f"{group}_low": mean - 0.1, f"{group}_high": mean + 0.05}
        rows.append(row)
    return pd.DataFrame(rows)
