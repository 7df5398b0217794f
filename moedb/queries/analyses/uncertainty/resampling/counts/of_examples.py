"""What examples add to the views that SQL adds up from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXAMPLE_USAGE = f"""
select
    example_routing.example_id,
    example_routing.layer,
    example_routing.expert,
    example_routing.n_decisions
from example_routing
where
    example_routing.run_id = cast($run as varchar)
    and example_routing.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
"""How often each example of a run and a split chose each expert."""

_SIZES = f"""
select examples.example_id, examples.n_tokens
from examples
where
    examples.run_id = cast($run as varchar)
    and examples.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
_MASS = f"""
select
    router_mass.example_id,
    router_mass.layer,
    router_mass.expert,
    cast(router_mass.probability as double) as probability
from router_mass
where
    router_mass.run_id = cast($run as varchar)
    and router_mass.example_id in {SELECTED_EXAMPLES}
"""  # noqa: S608
_LABELLED = f"""
with of_examples as (
    select distinct example_values.example_id, example_values.value
    from example_values
    where
        example_values.run_id = cast($run as varchar)
        and example_values.key = cast($key as varchar)
        and example_values.example_id in {SELECTED_EXAMPLES}
),

-- an example and a token of it may carry the same label: the token counts once
of_tokens as (
    select distinct tokens.example_id, tokens.token_idx, token_labels.value
    from token_labels
    join tokens using (run_id, token_idx)
    where
        token_labels.run_id = cast($run as varchar)
        and token_labels.key = cast($key as varchar)
        and tokens.example_id in {SELECTED_EXAMPLES}
        and not exists (
            select 1
            from of_examples
            where
                of_examples.example_id = tokens.example_id
                and of_examples.value = token_labels.value
        )
)
"""  # noqa: S608
_CLASSES = f"""{_LABELLED}
select
    of_examples.example_id,
    of_examples.value,
    example_routing.layer,
    example_routing.expert,
    example_routing.n_decisions,
    cast(example_routing.weight as double) as weight
from example_routing
join of_examples using (example_id)
where example_routing.run_id = cast($run as varchar)
union all
select
    of_tokens.example_id,
    of_tokens.value,
    routing.layer,
    routing.expert,
    count(*) as n_decisions,
    sum(cast(routing.weight as double)) as weight
from routing
join of_tokens using (token_idx)
where routing.run_id = cast($run as varchar)
group by of_tokens.example_id, of_tokens.value, routing.layer, routing.expert
"""  # noqa: S608
_CLASS_SIZES = f"""{_LABELLED}
select of_examples.example_id, of_examples.value, examples.n_tokens
from examples
join of_examples using (example_id)
where examples.run_id = cast($run as varchar)
union all
select of_tokens.example_id, of_tokens.value, count(*) as n_tokens
from of_tokens
group by of_tokens.example_id, of_tokens.value
"""  # noqa: S608
_SUMS = """
    count(*) as n_tokens,
    sum(cast(router_stats.entropy as double)) as entropy,
    sum(power(cast(router_stats.entropy as double), 2)) as squares,
    sum(cast(router_stats.margin as double)) as margin,
    sum(cast(router_stats.topk_mass as double)) as topk_mass,
    sum(cast(router_stats.logsumexp as double)) as logsumexp
"""
_STATS = f"""
select tokens.example_id, router_stats.layer, {_SUMS}
from router_stats
join tokens using (run_id, token_idx)
where
    router_stats.run_id = cast($run as varchar)
    and tokens.example_id in {SELECTED_EXAMPLES}
group by tokens.example_id, router_stats.layer
"""  # noqa: S608
_CLASS_STATS = f"""
with of_tokens as (
    select distinct labels.example_id, labels.token_idx, labels.value
    from labels
    where
        labels.run_id = cast($run as varchar)
        and labels.key = cast($key as varchar)
        and labels.example_id in {SELECTED_EXAMPLES}
)

select of_tokens.example_id, of_tokens.value, router_stats.layer, {_SUMS}
from router_stats
join of_tokens using (token_idx)
where router_stats.run_id = cast($run as varchar)
group by of_tokens.example_id, of_tokens.value, router_stats.layer
"""  # noqa: S608


@dataclass(frozen=True)
class Added:
    """How a view is added up.

    Attributes
    ----------
    sql
        Gives what each example adds, ``example_id`` its first column.
    keys
        The columns that tell its rows apart.
    sums
        The columns that are added up, the one that counts first.
    """

    sql: str
    keys: Sequence[str]
    sums: Sequence[str]


_STATISTICS = ("n_tokens", "entropy", "squares", "margin", "topk_mass", "logsumexp")

OF_EXAMPLES: Mapping[str, Added] = MappingProxyType(
    {
        "class_router_stats": Added(_CLASS_STATS, ("value", "layer"), _STATISTICS),
        "class_routing": Added(_CLASSES, ("value", "layer", "expert"), ("n_decisions", "weight")),
        "class_sizes": Added(_CLASS_SIZES, ("value",), ("n_tokens",)),
        "expert_mass": Added(_MASS, ("layer", "expert"), ("probability",)),
        "expert_usage": Added(EXAMPLE_USAGE, ("layer", "expert"), ("n_decisions",)),
        "selection_router_stats": Added(_STATS, ("layer",), _STATISTICS),
        "selection_sizes": Added(_SIZES, (), ("n_tokens",)),
    }
)
"""The views that SQL adds up, by their names."""


def means_of_sums(rows: "Mapping[str, NDArray[np.float64]]") -> "dict[str, NDArray[np.float64]]":
    """Work out the means of the views of router statistics from sums over tokens."""
    import numpy as np

    n = rows["n_tokens"]
    of_sums = ("entropy", "squares", "margin", "topk_mass", "logsumexp")
    found = {name: values for name, values in rows.items() if name not in of_sums}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in ("entropy", "margin", "topk_mass", "logsumexp"):
            found[f"mean_{name}"] = rows[name] / n
        spread = np.maximum(rows["squares"] - rows["entropy"] ** 2 / n, 0)
        found["sd_entropy"] = np.sqrt(np.where(n > 1, spread / (n - 1), np.nan))
    return found
