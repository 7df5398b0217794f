"""The rows of a check."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from moedb.experts.checking.planning import Check
from moedb.experts.checking.settings import CheckSettings
from moedb.schemas.interventions import AblationEffect
from moedb.schemas.tables import LABEL_EFFECTS
from moedb.store.writing.tables.parquet import arrow_schema


def table_of(
    check: Check, effects: Mapping[int, Sequence[AblationEffect]], settings: CheckSettings
) -> pa.Table:
    """The rows of a check, from the effects of its ablations by number."""
    place = {
        "layer": check.layer,
        "expert": check.expert,
        "effect_set": settings.called,
        "label_set": settings.labels,
        "kind": settings.kind,
    }
    rows = [
        {
            **place,
            "role": look.role,
            "ablated": look.ablated,
            "token_idx": look.token_idx,
            "example_id": look.example_id,
            "cluster": look.cluster,
            "routed": int(look.place.routed),
            "fits": None if look.place.fits is None else int(look.place.fits),
            "chosen": int(look.chosen),
            "n_following": look.n_following,
            **effects[look.ablation][look.at]._asdict(),
        }
        for look in check.looks
    ]
    fields = [each for each in arrow_schema(LABEL_EFFECTS) if each.name != "run_id"]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
