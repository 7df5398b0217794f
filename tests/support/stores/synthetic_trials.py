"""Made-up trials of a small image classifier, as captures of the job cifar-moe would write them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moedb.schemas.tables import TABLES
from tests.support.stores import synthetic

CLASSES = ("airplane", "cat", "dog", "ship", "truck")
N_IMAGES = 60
FORCED_LAYER = 2
ABLATIONS = ("random-routing", "random-routing-reweighted", "reinitialize-experts")


@dataclass(frozen=True)
class Trial:
    """One run to make up.

    Attributes
    ----------
    run_id, variant, experts, trial
        Its name and labels.
    created_at, status
        When it was captured, and whether that came to its end.
    n_draws
        Draws of each of the ablations.
    gate, balance, aux_coefficient
        Labels too; a run from before there were such labels has None.
    """

    run_id: str
    variant: str
    experts: int
    trial: int
    created_at: str = "2026-02-01"
    status: str = "complete"
    n_draws: int = 3
    gate: str | None = None
    balance: str | None = None
    aux_coefficient: float | None = None


NEWEST = (
    Trial("cifar-moe-b20", "base", 2, 0),
    Trial("cifar-moe-b21", "base", 2, 1),
    Trial("cifar-moe-b2a", "base", 2, 10),
    Trial("cifar-moe-b30", "base", 3, 0, "2026-02-03"),
    Trial("cifar-moe-b31", "base", 3, 1),
    Trial("cifar-moe-s20", "short", 2, 0),
    Trial("cifar-moe-s21", "short", 2, 1),
    Trial("cifar-moe-s30", "short", 3, 0, n_draws=0),
    # trained otherwise than s20 and s21, which are said to be weighted and mean by no label
    Trial("cifar-moe-t20", "short", 2, 0, "2026-02-04", "complete", 3, "weighted", "mean", 1e-5),
    Trial("cifar-moe-t21", "short", 2, 1, "2026-02-04", "complete", 3, "weighted", "mean", 1e-5),
    Trial("cifar-moe-k20", "short", 2, 0, "2026-02-04", "complete", 3, "weighted", "mean", 1e-2),
    Trial("cifar-moe-c20", "short", 2, 0, "2026-02-04", "complete", 3, "weighted", "count", 1e-5),
    Trial("cifar-moe-g20", "short", 2, 0, "2026-02-04", "complete", 3, "unweighted", "mean", 1e-5),
    Trial("cifar-moe-g21", "short", 2, 1, "2026-02-04", "complete", 3, "unweighted", "mean", 1e-5),
    Trial("cifar-moe-g30", "short", 3, 0, "2026-02-04", "complete", 3, "unweighted", "sum", 1e-5),
)
"""The trials that the view shows; ``s30`` has no ablations."""

OTHERS = (
    # captured before b30, and at the same time as b21 under an earlier name
    Trial("cifar-moe-z30", "base", 3, 0, "2026-02-02"),
    Trial("cifar-moe-a21", "base", 2, 1),
    # an earlier capture of g20
    Trial("cifar-moe-h20", "short", 2, 0, "2026-02-01", "complete", 3, "unweighted", "mean", 1e-5),
    Trial("cifar-moe-u22", "base", 2, 2, "2026-02-09", "incomplete"),
    Trial("cifar-moe-u20", "base", 2, 0, "2026-02-09", "incomplete"),
)


def make_tables(seed: int) -> dict[str, pd.DataFrame]:
    """The trials, captures that they replace, unfinished runs, and runs of another job."""
    rng = np.random.default_rng(seed)
    return as_tables(
        [_make_run(rng, trial) for trial in (*OTHERS, *NEWEST)], synthetic.make_tables(seed)
    )


def as_tables(
    runs: Sequence[dict[str, list[dict[str, object]]]],
    others: dict[str, pd.DataFrame] | None = None,
) -> dict[str, pd.DataFrame]:
    """Tables from the rows of some runs, behind those of other tables."""
    tables = {}
    for table in TABLES:
        rows = pd.DataFrame([row for run in runs for row in run.get(table.name, [])])
        rows = rows.reindex(columns=list(table.column_names)).astype(object)
        if others is not None:
            rows = pd.concat([others[table.name].astype(object), rows], ignore_index=True)
        for column in table.columns:
            if column.type == "float":
                rows[column.name] = rows[column.name].astype("float32")
        # an object column with a gap would hold floats: give DuckDB whole numbers and nulls
        tables[table.name] = rows.astype(
            {
                column.name: "Int64" if column.type.startswith("int") else "object"
                for column in table.columns
                if column.type != "float"
            }
        )
    return tables


def _make_run(rng: np.random.Generator, trial: Trial) -> dict[str, list[dict[str, object]]]:
    rows: dict[str, list[dict[str, object]]] = {table.name: [] for table in TABLES}

    def add(name: str, **values: object) -> None:
        rows[name].append({"run_id": trial.run_id, **values})

    add(
        "runs",
        job="cifar-moe",
        status=trial.status,
        created_at=trial.created_at,
        n_examples=N_IMAGES,
    )
    labels = {
        "variant": trial.variant,
        "experts": str(trial.experts),
        "trial": str(trial.trial),
        "seed": "7",
    }
    for key in ("gate", "balance", "aux_coefficient"):
        if getattr(trial, key) is not None:
            labels[key] = str(getattr(trial, key))
    for key, value in labels.items():
        add("run_labels", key=key, value=value)
    # three experts: a second layer, of another size
    layers = {FORCED_LAYER: trial.experts} | ({4: 5} if trial.experts == 3 else {})
    for layer, n_experts in layers.items():
        add("moe_layers", layer=layer, n_experts=n_experts, top_k=1, scoring="softmax")

    classes = rng.integers(len(CLASSES), size=N_IMAGES)
    classes[:8] = 3  # ship, which is kept even between two experts below
    classes[8:][classes[8:] == 3] = 1
    for image in range(N_IMAGES):
        add("examples", example_id=image, split="test", n_tokens=1)
        add("tokens", token_idx=image, example_id=image, position=0)
        add("example_labels", example_id=image, key="class", value=CLASSES[classes[image]])
        if image % 5:
            size = ("2", "10", "1e1", "odd")[int(rng.integers(4))]
            add("example_labels", example_id=image, key="size", value=size)

    for layer, n_experts in layers.items():
        logits = rng.normal(size=(N_IMAGES, n_experts))
        logits += 2 * rng.normal(size=(len(CLASSES), n_experts))[classes]
        if layer == 4:
            logits[:, 2] -= 50.0
        if n_experts == 2:
            logits[np.arange(8), np.arange(8) % 2] = 9.0
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for image in range(N_IMAGES):
            expert = int(probabilities[image].argmax())
            add(
                "routing",
                token_idx=image,
                layer=layer,
                rank=0,
                expert=expert,
                weight=float(probabilities[image, expert]),
                output_norm=1.0,
            )
            for each in range(n_experts):
                add(
                    "router_mass",
                    example_id=image,
                    layer=layer,
                    expert=each,
                    probability=float(probabilities[image, each]),
                )

    conditions: list[tuple[str, float, dict[str, int]]] = [("none", 0.8, {})]
    for kind, skill in zip(ABLATIONS, (0.6, 0.65, 0.1), strict=True):
        conditions += [(kind, skill, {})] * trial.n_draws
    for expert in range(trial.experts):
        conditions.append(("force-experts", 0.4, {"layer": FORCED_LAYER, "expert": expert}))
    for condition_id, (kind, skill, of) in enumerate(conditions):
        add("conditions", condition_id=condition_id, kind=kind, params="{}", **of)
        for image in range(N_IMAGES):
            target = CLASSES[classes[image]]
            guess = CLASSES[int(rng.integers(len(CLASSES)))]
            predicted = target if rng.random() < skill else guess
            add(
                "predictions",
                condition_id=condition_id,
                example_id=image,
                target=target,
                predicted=predicted,
                correct=int(predicted == target),
                target_logprob=float(-rng.exponential()),
            )
    return rows
