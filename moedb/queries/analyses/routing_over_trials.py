"""Routing by class over trials of one model that were trained anew.

Training gives the experts of each trial an order of its own. Before anything is averaged, the
experts of the trials are matched by the shares of the classes that they take.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.queries.analyses.analysis import SPLIT, Analysis, AnalysisColumn
from moedb.queries.questions.parameters import Parameter
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

TRAINING = ("variant", "experts", "gate", "balance", "aux_coefficient")
"""What trials that may be averaged have in common: columns of the view ``trials``."""

_LEAST_GAIN = 1e-9

_COUNTS = """
with chosen_trials as (
    select
        trials.run_id,
        trials.variant,
        trials.experts,
        trials.gate,
        trials.balance,
        trials.aux_coefficient,
        trials.trial
    from trials
    where (cast($variant as varchar) is null or trials.variant = cast($variant as varchar))
        and (cast($experts as integer) is null or trials.experts = cast($experts as integer))
        and (cast($gate as varchar) is null or trials.gate = cast($gate as varchar))
        and (cast($balance as varchar) is null or trials.balance = cast($balance as varchar))
        and (
            cast($aux_coefficient as double) is null
            or trials.aux_coefficient = cast($aux_coefficient as double)
        )
),

class_counts as (
    select
        class_sizes.run_id,
        class_sizes.value,
        class_sizes.n_tokens
    from class_sizes
    join chosen_trials using (run_id)
    where class_sizes.selection = coalesce(cast($split as varchar), 'default')
        and class_sizes.key = cast($key as varchar)
),

decisions as (
    select
        class_routing.run_id,
        class_routing.layer,
        class_routing.value,
        class_routing.expert,
        class_routing.n_decisions
    from class_routing
    join chosen_trials using (run_id)
    where class_routing.selection = coalesce(cast($split as varchar), 'default')
        and class_routing.key = cast($key as varchar)
)

select
    chosen_trials.run_id,
    chosen_trials.variant,
    chosen_trials.experts,
    chosen_trials.gate,
    chosen_trials.balance,
    chosen_trials.aux_coefficient,
    experts.layer,
    class_counts.value,
    experts.expert,
    coalesce(decisions.n_decisions, 0) as n_decisions,
    class_counts.n_tokens
from chosen_trials
join experts using (run_id)
join class_counts using (run_id)
left join decisions using (run_id, layer, value, expert)
where cast($layer as integer) is null or experts.layer = cast($layer as integer)
order by
    chosen_trials.variant,
    chosen_trials.experts,
    chosen_trials.gate,
    chosen_trials.balance,
    chosen_trials.aux_coefficient,
    experts.layer,
    try_cast(class_counts.value as double) nulls last,
    class_counts.value,
    chosen_trials.trial,
    chosen_trials.run_id,
    experts.expert
""".strip()


def match_experts(
    shares: "Sequence[NDArray[np.floating[Any]]]",
) -> "list[NDArray[np.intp]]":
    """Put the experts of several trials into one order.

    The second trial is aligned to the first, the third to the mean of these two, and so on; then
    each trial in turn is aligned to the mean of all others, until nothing changes. To align is to
    find, by optimal assignment, the order of the experts for which the products of the shares add
    up to most, which is also the order at the smallest squared distance. Each step adds to the
    products summed over all pairs of trials, so there is an end.

    Parameters
    ----------
    shares
        For each trial (class, expert): the share of the class's decisions that the expert takes.

    Returns
    -------
    list of NDArray
        For each trial which of its experts comes first, second, and so on, so that
        ``shares[i][:, order[i]]`` agree. The first trial's expert comes first where it was in its
        own order.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    trials = [np.asarray(trial, dtype=np.float64) for trial in shares]
    orders = [np.arange(trial.shape[1]) for trial in trials]
    total = np.zeros_like(trials[0])

    def best_order(trial: "NDArray[np.float64]") -> "NDArray[np.intp]":
        _, order = linear_sum_assignment(total.T @ trial, maximize=True)
        return np.asarray(order, dtype=np.intp)

    for number, trial in enumerate(trials):
        if number:
            orders[number] = best_order(trial)
        total += trial[:, orders[number]]
    changed = len(trials) > 2
    while changed:
        changed = False
        for number, trial in enumerate(trials):
            total -= trial[:, orders[number]]
            order = best_order(trial)
            gain = float((total * (trial[:, order] - trial[:, orders[number]])).sum())
            # two orders may be equally good: only a better one counts, lest it go round for ever
            if gain > _LEAST_GAIN:
                orders[number] = order
                changed = True
            total += trial[:, orders[number]]
    # one order for all of them is as good as another: keep that of the first trial
    common = np.argsort(orders[0])
    return [order[common] for order in orders]


def number_experts(shares: "NDArray[np.floating[Any]]") -> "NDArray[np.intp]":
    """Return the order in which matched experts are numbered.

    First comes the expert with the largest share of the first class, then of the experts left the
    one with the largest share of the second class, and so on; after the last class the first one
    is asked again. Of equal shares the expert that is first in ``shares`` wins.

    Parameters
    ----------
    shares
        (class, expert): mean shares over the trials, classes in the order of the table.
    """
    import numpy as np

    left = list(range(shares.shape[1]))
    order: list[int] = []
    while left:
        of_class = shares[len(order) % shares.shape[0]]
        order.append(left.pop(int(np.argmax(of_class[left]))))
    return np.array(order, dtype=np.intp)


class RoutingByClassOverTrialsRow(NamedTuple):
    """A row of the analysis ``routing-by-class-over-trials``."""

    variant: str | None
    experts: int
    gate: str
    balance: str
    aux_coefficient: float | None
    layer: int
    value: str
    expert: int
    n_trials: int
    share: float
    sd: float | None
    lowest: float
    highest: float
    n_decisions: int
    n_tokens: int


def routing_by_class_over_trials(
    reader: "SnapshotReader", parameters: "Mapping[str, Value]"
) -> Computed:
    """Compute the analysis ``routing-by-class-over-trials``.

    Parameters
    ----------
    reader
        The store; its view ``trials`` says which runs are trials of what.
    parameters
        key, variant, experts, gate, balance, aux_coefficient, split and layer.
    """
    counts = reader.sql(_COUNTS, parameters).df()
    rows = [
        row
        for _, group in counts.groupby([*TRAINING, "layer"], sort=False, dropna=False)
        for row in _matched_rows(group)
    ]
    return Computed(rows, _COUNTS, tuple(counts["run_id"].drop_duplicates()))


def _matched_rows(group: "pd.DataFrame") -> Iterable[RoutingByClassOverTrialsRow]:
    """The rows of the trials of one model, training and layer."""
    import numpy as np
    import pandas as pd

    values = list(group["value"].drop_duplicates())
    runs = list(group["run_id"].drop_duplicates())
    n_experts = int(group["expert"].max()) + 1
    at = (
        group["run_id"].map({run: index for index, run in enumerate(runs)}).to_numpy(int),
        group["value"].map({value: index for index, value in enumerate(values)}).to_numpy(int),
    )
    decisions = np.zeros((len(runs), len(values), n_experts), dtype=np.int64)
    decisions[(*at, group["expert"].to_numpy(int))] = group["n_decisions"]
    tokens = np.zeros((len(runs), len(values)), dtype=np.int64)
    tokens[at] = group["n_tokens"]

    has_class = tokens > 0
    shares = decisions / np.maximum(decisions.sum(axis=2, keepdims=True), 1)
    orders = match_experts(list(shares))
    shares = np.stack([trial[:, order] for trial, order in zip(shares, orders, strict=True)])
    decisions = np.stack([trial[:, order] for trial, order in zip(decisions, orders, strict=True)])
    means = shares.sum(axis=0) / has_class.sum(axis=0)[:, None]
    numbering = number_experts(means)

    first = group.iloc[0]
    for c, value in enumerate(values):
        own = shares[has_class[:, c], c]
        for number, expert in enumerate(numbering):
            of_trials = own[:, expert]
            yield RoutingByClassOverTrialsRow(
                variant=None if first["variant"] is None else str(first["variant"]),
                experts=int(first["experts"]),
                gate=str(first["gate"]),
                balance=str(first["balance"]),
                aux_coefficient=(
                    None if pd.isna(first["aux_coefficient"]) else float(first["aux_coefficient"])
                ),
                layer=int(first["layer"]),
                value=value,
                expert=number,
                n_trials=len(of_trials),
                share=float(means[c, expert]),
                sd=float(of_trials.std(ddof=1)) if len(of_trials) > 1 else None,
                lowest=float(of_trials.min()),
                highest=float(of_trials.max()),
                n_decisions=int(decisions[:, c, expert].sum()),
                n_tokens=int(tokens[:, c].sum()),
            )


ROUTING_BY_CLASS_OVER_TRIALS = Analysis(
    name="routing-by-class-over-trials",
    title="Routing by class over trials",
    answers="Which experts does each class choose, on average over trials trained anew, once "
    "the experts of the trials are matched?",
    subject="trials",
    parameters=(
        Parameter(
            "key", "varchar", "class", False, "the label's key, of an example, a token or a run"
        ),
        Parameter("variant", "varchar", None, False, "the trials' variant; all when null"),
        Parameter(
            "experts", "integer", None, False, "the trials' number of experts; all when null"
        ),
        Parameter(
            "gate",
            "varchar",
            None,
            False,
            "the trials' gate, weighted or unweighted; all when null",
            ("weighted", "unweighted"),
        ),
        Parameter(
            "balance",
            "varchar",
            None,
            False,
            "the trials' balance loss, mean, count or sum; all when null",
            ("mean", "count", "sum"),
        ),
        Parameter(
            "aux_coefficient", "double", None, False, "the factor of that loss; all when null"
        ),
        SPLIT,
        Parameter("layer", "integer", None, False, "the MoE layer; all when null"),
    ),
    columns=(
        AnalysisColumn("variant", "the trials' variant", "VARCHAR"),
        AnalysisColumn("experts", "the trials' number of experts", "INTEGER"),
        AnalysisColumn(
            "gate",
            "whether expert outputs are multiplied by the router's probability (weighted) or not",
            "VARCHAR",
        ),
        AnalysisColumn(
            "balance",
            "how the load balancing loss adds up a step's images: mean, count or sum",
            "VARCHAR",
        ),
        AnalysisColumn(
            "aux_coefficient",
            "the factor of that loss; null where the run does not say",
            "DOUBLE",
        ),
        AnalysisColumn("layer", "the MoE layer", "INTEGER"),
        AnalysisColumn("value", "the label's value, the class", "VARCHAR"),
        AnalysisColumn(
            "expert",
            "the matched expert: 0 is the one with the largest share of the first class, 1 of "
            "the rest the one with the largest of the second, and so on",
            "INTEGER",
        ),
        AnalysisColumn("n_trials", "trials that have tokens of the class", "INTEGER"),
        AnalysisColumn(
            "share",
            "mean over the trials of N(e,c) over the decisions of the class's tokens; sums to "
            "1 over the experts",
            "DOUBLE",
        ),
        AnalysisColumn("sd", "its sample deviation over the trials; null for one", "DOUBLE"),
        AnalysisColumn("lowest", "the smallest share of a trial", "DOUBLE"),
        AnalysisColumn("highest", "the largest share of a trial", "DOUBLE"),
        AnalysisColumn("n_decisions", "N(e,c), added up over the trials", "BIGINT"),
        AnalysisColumn("n_tokens", "tokens of the class, added up over the trials", "BIGINT"),
    ),
    source="Poetzscher, tables 2 and 3; matching by optimal assignment (Kuhn 1955)",
    function=routing_by_class_over_trials,
    row=RoutingByClassOverTrialsRow,
)
