"""What two runs differ in: model, data, settings, layers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from moedb.queries.results.result import Result
from moedb.queries.results.rows.given import result_of_rows
from moedb.store.engine.quoting import quoted
from moedb.store.reading.snapshot import RunSnapshot

_ROW = (
    *("job", "model", "model_revision", "model_sha256", "architecture", "dataset"),
    *("dataset_sha256", "n_examples", "n_tokens", "d_model", "dtype", "seed", "moedb_version"),
)
"""What of a run is compared beside its configuration, versions, labels and layers."""


def run_differences(one: RunSnapshot, other: RunSnapshot) -> Result:
    """List what two runs differ in.

    Returns
    -------
    Result
        The columns ``setting``, ``a`` and ``b``; null where a run does not have it.
    """
    of_one, of_other = dict(_settings(one)), dict(_settings(other))
    every = dict.fromkeys([*of_one, *of_other])
    rows = [
        (name, of_one.get(name), of_other.get(name))
        for name in every
        if of_one.get(name) != of_other.get(name)
    ]
    return result_of_rows(dict.fromkeys(("setting", "a", "b"), "VARCHAR"), rows)


def largest_differences(result: Result, column: str, n: int) -> Result:
    """Return the rows of a comparison with the largest differences, the largest first.

    Parameters
    ----------
    result
        The comparison.
    column
        The estimate.
    n
        How many rows.
    """
    order = f"abs({quoted(f'{column}_difference')}) desc nulls last"
    return replace(result, relation=result.relation.order(order).limit(n))


def _settings(run: RunSnapshot) -> Iterator[tuple[str, str]]:
    for name in _ROW:
        if run.row.get(name) is not None:
            yield name, str(run.row[name])
    for group in ("config", "versions"):
        yield from _flat(group, json.loads(str(run.row.get(group) or "{}")))
    yield from _flat("label", run.named.labels)
    layers = run.manifest.layers
    yield "layers", ", ".join(str(layer["layer"]) for layer in layers)
    for name in ("n_experts", "top_k"):
        yield name, ", ".join(dict.fromkeys(str(layer[name]) for layer in layers))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}.{key}", each)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value, sort_keys=True)
