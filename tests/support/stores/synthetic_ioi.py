"""A made-up capture of IOI prompts with their arrays, and a made-up run of interventions on it.

Layers 0 and 2 have an MoE block, layer 0 a shared expert too; layer 1 has none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moedb.schemas.manifests import RunManifest, UnitRange
from moedb.store.arrays.stored import ArrayKey
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass

CAPTURED, INTERVENED = "qwen-ioi-0123456789", "intervene-0123456789"
N_EXPERTS, TOP_K, WIDTH, N_LAYERS = 5, 2, 8, 3
MOE, SHARED = (0, 2), (0,)
BIAS, CONSTANT = 0.25, 0.125
ARRAYS = {
    "logit_direction": (N_LAYERS,),
    "residual_pre": (0, 1, 2, 3),
    "residual_mid": MOE,
    "expert_outputs": MOE,
    "shared_outputs": SHARED,
}
N_UNITS, OF_UNIT = 2, 9

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """A prompt: what is known of its last token.

    Attributes
    ----------
    written
        (component, layer, expert) -> what was written towards the logit difference.
    """

    example_id: int
    split: str
    logit_diff: float | None
    written: Mapping[tuple[str, int | None, int | None], float] = field(default_factory=dict)


def manifest(
    run_id: str,
    job: str,
    arrays: Mapping[str, Sequence[int]],
    parent: str | None = None,
    day: int = 1,
    model: str = "hand-made",
) -> RunManifest:
    row = {
        "job": job,
        "model": model,
        "model_revision": None,
        "model_sha256": "ab" * 32,
        "architecture": "None",
        "dataset": "prompts",
        "dataset_sha256": "cd" * 32,
        "n_examples": N_UNITS * OF_UNIT,
        "n_tokens": N_UNITS * OF_UNIT * 3,
        "d_model": WIDTH,
        "dtype": "float32",
        "seed": 0,
        "parent_run_id": parent,
        "created_at": f"2026-01-0{day}T00:00:00+00:00",
        "moedb_version": "0.1.0",
        "config": "{}",
        "versions": "{}",
    }
    layers = tuple(
        {
            "layer": layer,
            "module": f"model.layers.{layer}.mlp",
            "n_experts": N_EXPERTS,
            "top_k": TOP_K,
            "d_expert": 6,
            "has_shared_expert": int(layer in SHARED),
            "norm_topk_prob": 0,
            "scoring": "softmax",
        }
        for layer in MOE
    )
    units = tuple(
        UnitRange(unit * OF_UNIT, (unit + 1) * OF_UNIT, 3 * OF_UNIT, 3 * OF_UNIT)
        for unit in range(N_UNITS)
    )
    return RunManifest(
        run_id=run_id,
        row=row,
        unit_rows=1024,
        units=units,
        layers=layers,
        arrays={name: tuple(kept) for name, kept in arrays.items()},
    )


def columns(rows: Rows) -> dict[str, list[Any]]:
    """Rows as the writer takes them."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def write_captured(
    store: Path,
    run_id: str = CAPTURED,
    arrays: Mapping[str, Sequence[int]] = ARRAYS,
    last_token_kept: bool = True,
    model: str = "hand-made",
) -> list[Prompt]:
    """Prompts of three tokens; each clean one comes before its twin, the last has no foil."""
    rng = np.random.default_rng(5)
    planned = manifest(run_id, "qwen-ioi", arrays, model=model)
    writer = RunWriter(store, planned)
    writer.begin({"conditions": columns([_condition(0, "none")])})
    prompts: list[Prompt] = []
    for unit in range(N_UNITS):
        rows: dict[str, Rows] = {}
        kept: dict[tuple[str, int], list[np.ndarray]] = {}
        for at in range(OF_UNIT):
            prompts.append(_write_prompt(rng, rows, kept, unit, at, last_token_kept))
        stacked = {
            ArrayKey(name, layer): np.stack(values).astype(np.float32)
            for (name, layer), values in kept.items()
            if layer in arrays.get(name, ())
        }
        tables = with_router_mass({name: columns(each) for name, each in rows.items()})
        writer.commit_unit(unit, tables, stacked)
    writer.finish()
    return prompts


def _condition(condition_id: int, kind: str, **of: Any) -> dict[str, Any]:
    params = json.dumps(of.pop("params", {}), sort_keys=True)
    found = {"condition_id": condition_id, "kind": kind, "layer": None, "expert": None}
    return {**found, **of, "params": params}


def _write_prompt(
    rng: np.random.Generator,
    rows: dict[str, Rows],
    kept: dict[tuple[str, int], list[np.ndarray]],
    unit: int,
    at: int,
    last_token_kept: bool,
) -> Prompt:
    example_id = unit * OF_UNIT + at
    has_foil = at != OF_UNIT - 1
    split = "corrupted" if at % 2 and has_foil else "clean"

    def add(name: str, **values: Any) -> None:
        rows.setdefault(name, []).append(values)

    add("examples", example_id=example_id, split=split, text=f"prompt {example_id}", n_tokens=3)
    if has_foil:
        key, other = ("twin_of", example_id - 1) if at % 2 else ("twin", example_id + 1)
        add("example_labels", example_id=example_id, key=key, value=str(other))
        add("example_labels", example_id=example_id, key="template", value=str(at % 3))
    direction = rng.normal(size=WIDTH) if has_foil else np.full(WIDTH, np.nan)
    written: dict[tuple[str, int | None, int | None], float] = {}
    stream = np.zeros(WIDTH)
    for position in range(3):
        token_idx = 3 * example_id + position
        array_row = unit * 1024 + 3 * at + position
        add(
            "tokens",
            token_idx=token_idx,
            example_id=example_id,
            position=position,
            token_id=position,
            token=f" t{position}",
            next_logprob=None if position == 2 else -1.0,
            array_row=array_row if last_token_kept or position < 2 else None,
        )
        written = {}

        def write(name: str, layer: int | None, expert: int | None, value: np.ndarray) -> None:
            written[name, layer, expert] = float(value @ direction)  # noqa: B023

        def keep(name: str, layer: int, value: np.ndarray) -> None:
            kept.setdefault((name, layer), []).append(value)

        stream = rng.normal(size=WIDTH).astype(np.float32).astype(np.float64)
        write("embedding", None, None, stream)
        keep("logit_direction", N_LAYERS, direction)
        for layer in range(N_LAYERS):
            keep("residual_pre", layer, stream)
            attended = rng.normal(size=WIDTH)
            stream = stream + attended
            if layer not in MOE:
                write("dense-layer", layer, None, attended)
                continue
            write("attention", layer, None, attended)
            keep("residual_mid", layer, stream)
            outputs = rng.normal(size=(TOP_K, WIDTH)).astype(np.float32).astype(np.float64)
            # expert 4 is never chosen
            experts = rng.permutation(N_EXPERTS - 1)[:TOP_K]
            weights = np.float32(rng.dirichlet(np.ones(TOP_K)))
            keep("expert_outputs", layer, outputs)
            for rank in range(TOP_K):
                part = float(weights[rank]) * outputs[rank]
                stream = stream + part
                write("expert", layer, int(experts[rank]), part)
                add(
                    "routing",
                    token_idx=token_idx,
                    layer=layer,
                    rank=rank,
                    expert=int(experts[rank]),
                    weight=float(weights[rank]),
                    output_norm=1.0,
                )
            gate = None
            if layer in SHARED:
                gate = float(np.float32(rng.random()))
                shared = rng.normal(size=WIDTH).astype(np.float32).astype(np.float64)
                keep("shared_outputs", layer, shared)
                stream = stream + gate * shared
                write("shared-expert", layer, None, gate * shared)
            constant = np.full(WIDTH, CONSTANT if layer == 2 else 0.0)
            stream = stream + constant
            write("remainder", layer, None, constant)
            add(
                "router_stats",
                token_idx=token_idx,
                layer=layer,
                entropy=1.0,
                margin=0.5,
                logsumexp=1.0,
                topk_mass=0.5,
                shared_gate=gate,
                moe_output_norm=1.0,
            )
        keep("residual_pre", N_LAYERS, stream)
    logit_diff = float(stream @ direction) + BIAS if has_foil else None
    add(
        "predictions",
        condition_id=0,
        example_id=example_id,
        target=" Mary",
        predicted=" Mary",
        correct=1,
        target_logprob=-0.5,
        logit_diff=logit_diff,
    )
    if has_foil:
        for layer, place in ((0, "pre"), (0, "mid"), (0, "post"), (2, "mid"), (2, "post")):
            for position in (1, 2):
                difference = float(np.float32(rng.normal(layer)))
                for candidate, sign in (("target", 1), ("foil", -1)):
                    add(
                        "logit_lens",
                        condition_id=0,
                        example_id=example_id,
                        position=position,
                        layer=layer,
                        place=place,
                        candidate=candidate,
                        target=" Mary",
                        logit=1.0,
                        logprob=float(np.float32(-rng.exponential())),
                        rank=int(rng.integers(4)),
                        logit_diff=sign * difference,
                    )
    return Prompt(example_id, split, logit_diff, written)


@dataclass(frozen=True)
class Setting:
    """A condition, and what the model answers under it: a row for each example."""

    kind: str
    layer: int | None = None
    expert: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[int, tuple[float | None, float, int]] = field(default_factory=dict)


def write_interventions(
    store: Path,
    settings: Sequence[Setting],
    splits: Mapping[int, str],
    twins: Mapping[int, int],
    run_id: str = INTERVENED,
    parent: str | None = CAPTURED,
    day: int = 2,
    with_lens: bool = False,
) -> None:
    """A run of interventions.

    Parameters
    ----------
    settings
        The conditions; answers are logit difference, log-probability, whether it is the target.
    splits
        For each example its split.
    twins
        For each clean example its twin.
    with_lens
        Whether there are readings of the logit lens, after layer 2, from the answers.
    """
    planned = manifest(run_id, "intervene", {}, parent, day)
    writer = RunWriter(store, planned)
    conditions = [
        _condition(number, each.kind, layer=each.layer, expert=each.expert, params=each.params)
        for number, each in enumerate(settings)
    ]
    writer.begin({"conditions": columns(conditions)})
    for unit in range(N_UNITS):
        mine = [e for e in splits if unit * OF_UNIT <= e < (unit + 1) * OF_UNIT]
        rows: dict[str, Rows] = {
            "examples": [
                {"example_id": e, "split": splits[e], "text": "", "n_tokens": 3} for e in mine
            ],
            "example_labels": [
                {"example_id": e, "key": key, "value": str(other)}
                for clean, twin in twins.items()
                for key, e, other in (("twin", clean, twin), ("twin_of", twin, clean))
                if e in mine
            ],
            "predictions": [
                {
                    "condition_id": number,
                    "example_id": e,
                    "target": " Mary",
                    "predicted": " Mary" if each.answers[e][2] else " John",
                    "correct": each.answers[e][2],
                    "target_logprob": each.answers[e][1],
                    "logit_diff": each.answers[e][0],
                }
                for number, each in enumerate(settings)
                for e in mine
                if e in each.answers
            ],
        }
        if with_lens:
            rows["logit_lens"] = [
                {
                    "condition_id": row["condition_id"],
                    "example_id": row["example_id"],
                    "position": 2,
                    "layer": 2,
                    "place": "post",
                    "candidate": candidate,
                    "target": " Mary",
                    "logit": 1.0,
                    "logprob": -1.0,
                    "rank": 0,
                    "logit_diff": sign * row["logit_diff"],
                }
                for row in rows["predictions"]
                if row["logit_diff"] is not None
                for candidate, sign in (("target", 1), ("foil", -1))
            ]
        tables = {name: columns(each) for name, each in rows.items() if each}
        writer.commit_unit(unit, tables, {})
    writer.finish()
