"""Probing a run: every candidate of every layer for every concept, and the scores added to it."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from moedb.errors import ArrayNotFoundError, UsageError
from moedb.experts.additions import expect_tokens, parts_there
from moedb.experts.probing.concepts import Concept, concepts_of, tokens_of
from moedb.experts.probing.layer_probing import LayerProbing, ProbeRow
from moedb.experts.probing.neurons import LayerNeurons
from moedb.experts.probing.seeing import expect_same_tokens
from moedb.experts.probing.settings import ProbeSettings
from moedb.queries.database import Database, open_database
from moedb.schemas.additions import check_addition_name
from moedb.schemas.tables import PROBE_SCORES
from moedb.store.reading.snapshot import RunSnapshot
from moedb.store.writing.complete.additions import append
from moedb.store.writing.tables.parquet import arrow_schema
from moedb.store.writing.writability import check_writable

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Is told what is counted and how many there are; gives what is called after each."""


@dataclass
class Probed:
    """What a probing gave.

    Attributes
    ----------
    run_id, name
        The run, and what the probes are called together.
    n_probes
        Probes that were fitted and scored now, shuffled ones included.
    n_there
        Layers times concepts that were there already.
    passed_over
        Why candidates had no probe, and how many.
    """

    run_id: str
    name: str
    n_probes: int = 0
    n_there: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)


def probe(store: Path, settings: ProbeSettings, progress: Progress) -> Probed:
    """Probe the neurons of a complete run, and add the scores to it, a layer at a time.

    What is there already of this name is not done again, so that a run that was stopped goes on.

    Parameters
    ----------
    store
        The store's folder.
    settings
        What is asked.
    progress
        Is told how far it is.

    Raises
    ------
    UsageError
        If the run has no such labels, layers or neurons, or probes of this name that were made
        with other settings.
    StoreError
        If the run is incomplete or damaged, or the store cannot be written.
    """
    from threadpoolctl import threadpool_limits

    check_addition_name(settings.name)
    with open_database(store) as whole, threadpool_limits(1):
        run = whole.snapshot.run(settings.run)
        check_writable(store, run.run_id)
        expect_tokens(run, "moedb probe")
        layers = _layers(run, settings)
        database = whole.of_run(run.run_id)
        other = None
        if settings.tokens_of is not None:
            settings, other = _other(whole, database, run, settings, layers)
        there = parts_there(run, settings.addition, "moedb probe")
        tokens = tokens_of(database, run.run_id, settings.cluster)
        concepts = list(concepts_of(database, run.run_id, settings.concepts, tokens))
        found = Probed(run.run_id, settings.name)
        todo = {layer: [c for c in concepts if _part(layer, c) not in there] for layer in layers}
        found.n_there = len(layers) * len(concepts) - sum(map(len, todo.values()))
        sizes = _sizes(run, settings, whole)
        n_candidates = sum(sizes[layer] for layer, missing in todo.items() if missing)
        with progress("candidates", n_candidates) as advance:
            for layer, missing in todo.items():
                if not missing:
                    continue
                used = np.logical_or.reduce([concept.is_asked for concept in missing])
                neurons = LayerNeurons(database, layer, settings, tokens, used, other)
                asked = LayerProbing(neurons, settings, tokens)
                for concept, rows in asked.rows(missing, advance):
                    _add(store, run.run_id, settings, _part(layer, concept), rows)
                    found.n_probes += len(rows)
                found.passed_over += asked.passed_over
                for _ in range(sizes[layer] - neurons.n_candidates):
                    advance()  # experts that no token chose
        return found


def _add(
    store: Path, run_id: str, settings: ProbeSettings, part: str, rows: list[ProbeRow]
) -> None:
    fields = [each for each in arrow_schema(PROBE_SCORES) if each.name != "run_id"]
    table = pa.Table.from_pylist(
        [{"probe": settings.name, **row._asdict()} for row in rows], schema=pa.schema(fields)
    )
    append(store, run_id, settings.addition, part, {PROBE_SCORES.name: [table]})


def _part(layer: int, concept: Concept) -> str:
    return f"layer-{layer}-{concept.label}"


def _layers(run: RunSnapshot, settings: ProbeSettings) -> tuple[int, ...]:
    kept = run.manifest.arrays.get(settings.array, ())
    if not kept:
        raise ArrayNotFoundError(
            f"run {run.title} keeps no {settings.array}",
            f"capture it again with --arrays {settings.array}",
        )
    for layer in settings.layers:
        if layer not in kept:
            raise UsageError(
                f"run {run.title} keeps no {settings.array} of layer {layer}; "
                f"it does of {', '.join(map(str, kept))}"
            )
    return settings.layers or tuple(kept)


def _other(
    whole: Database,
    database: Database,
    run: RunSnapshot,
    settings: ProbeSettings,
    layers: tuple[int, ...],
) -> tuple[ProbeSettings, Database]:
    """The settings with the whole name of the run whose tokens are taken, and what reads it."""
    other = whole.snapshot.run(str(settings.tokens_of))
    expect_tokens(other, f"moedb probe {run.run_id} --tokens-of")
    there = sorted(row["layer"] for row in other.manifest.layers)
    for layer in layers:
        if layer not in there:
            raise UsageError(
                f"run {other.title} has no experts at layer {layer}; it has at layers "
                f"{', '.join(map(str, there))}",
                "take those: --layers LAYERS",
            )
    reader = whole.of_run(other.run_id)
    expect_same_tokens(database, run, reader, other)
    return replace(settings, tokens_of=other.run_id), reader


def _sizes(run: RunSnapshot, settings: ProbeSettings, whole: Database) -> dict[int, int]:
    """The candidates of each layer, those that no token chose included."""
    if settings.tokens_of is not None:
        run = whole.snapshot.run(settings.tokens_of)
        return {row["layer"]: row["n_experts"] for row in run.manifest.layers}
    experts = {row["layer"]: row["n_experts"] for row in run.manifest.layers}
    if settings.groups or settings.array == "shared_neurons":
        return dict.fromkeys(experts, settings.groups or 1)
    return experts
