"""Tokens that experts' outputs promote, as a hint for who explains the experts."""

import logging
from collections.abc import Collection

from moedb.errors import ArrayNotFoundError
from moedb.queries.analyses.experts.contexts.choosing import Choice
from moedb.queries.analyses.experts.promoted.reading import promoted_by_experts, promoting_layers
from moedb.queries.database import Database

logger = logging.getLogger(__name__)


def layers_that_promote(database: Database, run_id: str, wanted: Collection[int]) -> list[int]:
    """Those of the layers of which it can be told; where it cannot, say so, once."""
    try:
        kept = promoting_layers(database.snapshot.run(run_id))
    except ArrayNotFoundError as error:
        logger.warning("labelled without tokens that outputs promote: %s", error.message)
        return []
    lacking = sorted(set(wanted) - set(kept))
    if lacking:
        logger.warning(
            "labelled without tokens that outputs promote: the run keeps no expert_outputs of the "
            "layers %s",
            ", ".join(map(str, lacking)),
        )
    return sorted(set(wanted) & set(kept))


def promoted_tokens(
    database: Database, run_id: str, layer: int, n: int, n_contexts: int
) -> dict[int, tuple[str, ...]]:
    """For each expert of a layer the ``n`` tokens that it promotes most, over its top contexts."""
    found = promoted_by_experts(
        database,
        run_id,
        [layer],
        Choice("top", n_contexts),
        n,
        with_shares=False,
        asked_by="label-experts",
    )
    return {
        own.expert: tuple(each.token for each in own.tokens if each.direction == "promotes")
        for own in found
    }
