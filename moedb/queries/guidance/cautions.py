"""What a reader has to know of the rows of a query, lest they read more into them than is there."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from moedb.queries.results.result import Result


def caution(name: str) -> Callable[[Result], str | None] | None:
    """Return what finds what there is to know of the rows of a query, None where nothing is."""
    return _CAUTIONS.get(name)


def _of_two_experts(result: Result) -> str | None:
    of_two = result.relation.filter("experts = 2 and correlation is not null")
    if not replace(result, relation=of_two).fetchmany(1):
        return None
    return (
        "of two experts the shares add up to 1, so a trial's correlation is 1 or -1 by necessity: "
        "a mean over trials says only in how many of them two classes lean to the same expert"
    )


def _of_one_value(result: Result) -> str | None:
    # each expert of several values may have one alone, and then another one
    of_experts = "count(distinct top_value)" if "top_value" in result.columns else "1"
    ((n_values,),) = result.aggregate(f"greatest(max(n_values), {of_experts})").fetchall()
    if n_values != 1:
        return None
    return (
        "every token that has the label has the same value, and tokens without it are left out: "
        "so nothing is told apart, whatever the experts do; lift of routing-by-class is over all "
        "tokens"
    )


_CAUTIONS: Mapping[str, Callable[[Result], str | None]] = {
    "class-correlation": _of_two_experts,
    "expert-specialization": _of_one_value,
    "kmeans-baseline": _of_one_value,
    "label-information": _of_one_value,
    "pair-specialization": _of_one_value,
}
