"""What a reader has to know of the rows of a query, lest they read more into them than is there."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def caution(name: str, relation: "duckdb.DuckDBPyRelation") -> str | None:
    """Return what there is to know of the rows of a query, None where there is nothing.

    Parameters
    ----------
    name
        The named query or analysis.
    relation
        Its rows.
    """
    find = _CAUTIONS.get(name)
    return None if find is None else find(relation)


def _of_two_experts(relation: "duckdb.DuckDBPyRelation") -> str | None:
    if not relation.filter("experts = 2 and correlation is not null").limit(1).fetchall():
        return None
    return (
        "of two experts the shares add up to 1, so a trial's correlation is 1 or -1 by necessity: "
        "a mean over trials says only in how many of them two classes lean to the same expert"
    )


_CAUTIONS: Mapping[str, Callable[["duckdb.DuckDBPyRelation"], str | None]] = {
    "class-correlation": _of_two_experts
}
