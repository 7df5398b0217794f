"""Two runs over the same tokens whose names, tokens and labels would act if read as markup."""

from pathlib import Path
from typing import Any

import numpy as np

from moedb.schemas.manifests import RunManifest
from moedb.store.writing.run_writer import RunWriter
from tests.support.stores.router_mass import with_router_mass
from tests.support.stores.samples import LAYERS, N_EXPERTS, sample_manifest, unit_rows

RUN, RUN_B = "text-00000bad00", "text-00000bad01"
MODEL = "</script><script>document.title='owned'</script>"
KEY = "<img src=x onerror=\"document.title='owned'\">"
VALUES = ("{{ 7 * 7 }}", "$\\input{/etc/passwd}")
TOKENS = (
    "<script>document.title='owned'</script>",
    "</script><!--",
    " \x1b[31mred\x1b[0m",
    "{{ config }}",
    "a\u2028b\u202egnp",
    "<img src=x onerror=\"document.title='owned'\">",
    "é&amp;\n",
)
LABELLED = 10
"""Tokens that carry a label."""


def write_hostile(store: Path) -> None:
    """Write both; of the second every other token goes to other experts."""
    for run_id in (RUN, RUN_B):
        made = sample_manifest(run_id=run_id, arrays=())
        manifest = RunManifest(
            run_id, {**made.row, "model": MODEL}, made.unit_rows, made.units, made.layers, {}
        )
        writer = RunWriter(store, manifest)
        writer.begin({})
        for unit in range(len(made.units)):
            tables, _ = unit_rows(manifest, unit)
            writer.commit_unit(unit, _hostile(tables, unit, run_id == RUN_B), {})
        writer.finish()


def _hostile(tables: Any, unit: int, is_other: bool) -> Any:
    token_idx = np.asarray(tables["tokens"]["token_idx"])
    changed = dict(tables)
    words = [TOKENS[each % len(TOKENS)] for each in token_idx]
    changed["tokens"] = {
        **tables["tokens"],
        "token": words,
        "array_row": [None] * len(token_idx),
    }
    changed["examples"] = {**tables["examples"], "text": ["".join(words)]}
    labelled = [each for each in token_idx.tolist() if each < LABELLED]
    if labelled:
        changed["token_labels"] = {
            "token_idx": labelled,
            "key": [KEY] * len(labelled),
            "value": [VALUES[each % 2] for each in labelled],
        }
    changed["example_labels"] = {
        "example_id": [unit],
        "key": ["template"],
        "value": [VALUES[unit % 2]],
    }
    if is_other:
        routing = dict(tables["routing"])
        routing["expert"] = [
            (expert + token % 2) % N_EXPERTS
            for expert, token in zip(routing["expert"], routing["token_idx"], strict=True)
        ]
        changed["routing"] = routing
    return with_router_mass(changed, dict.fromkeys(LAYERS, N_EXPERTS))
