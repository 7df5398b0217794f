"""What must hold of the values of a run: of its rows, and of its arrays against these."""

from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from moedb.errors import StoreDamagedError
from moedb.schemas.manifests import SEALED_SINCE
from moedb.schemas.tables import EXPERT_COSINES, TABLES, TOKEN_LABELS, VOCABULARY
from moedb.store.arrays.stored import ArrayKey, open_array
from moedb.store.engine.connection import connect
from moedb.store.engine.duckdb_errors import explain_missing_file
from moedb.store.layout import ARRAYS
from moedb.store.reading.places.file_systems import cannot_reach
from moedb.store.reading.snapshot import RunSnapshot, Snapshot

EPSILON = {
    "float32": float(np.finfo(np.float32).eps),
    "float16": float(np.finfo(np.float16).eps),
    "bfloat16": 2.0**-7,
}
"""Distance from 1 to the next number, in the formats that a model runs in."""

RULE_EPSILON = 1e-5
"""How far weights may be from the rule in any format: some routers add 1e-6 to a sum of scores."""

# Each names what is wrong and counts how often; a run is sound where every count is 0.
_INVARIANTS = {
    "decisions without a token": """
        select count(*) from routing anti join tokens using (run_id, token_idx)
    """,
    "tokens without an example": """
        select count(*) from tokens anti join examples using (run_id, example_id)
    """,
    "experts out of range": """
        select count(*) from routing join moe_layers using (run_id, layer)
        where expert < 0 or expert >= n_experts
    """,
    "tokens at a layer whose ranks are not 0 to top_k - 1, each with another expert": """
        select count(*) from (
            select token_idx, layer from routing join moe_layers using (run_id, layer)
            group by token_idx, layer
            having count(*) <> any_value(top_k) or count(distinct rank) <> any_value(top_k)
                or min(rank) <> 0 or max(rank) <> any_value(top_k) - 1
                or count(distinct expert) <> any_value(top_k)
        )
    """,
    "tokens that lack a layer": """
        select count(*) from (
            select token_idx from tokens left join routing using (run_id, token_idx)
            group by token_idx
            having count(distinct layer) <> (select count(*) from moe_layers)
        )
    """,
    "examples whose token count is wrong": """
        select count(*) from (
            select example_id from examples join tokens using (run_id, example_id)
            group by example_id having count(*) <> any_value(n_tokens)
        )
    """,
}

# of rows that were added later too
_OF_LABELS = {
    "labels of tokens without a token": """
        select count(*) from token_labels anti join tokens using (run_id, token_idx)
    """,
    "tokens with two labels of one key": """
        select count(*) from (
            select token_idx, key from token_labels group by token_idx, key having count(*) > 1
        )
    """,
}

_OF_VOCABULARY = {
    "tokens of the vocabulary with several texts": """
        select count(*) from (
            select token_id from vocabulary group by token_id having count(*) > 1
        )
    """,
    "tokens whose text is not the one that the vocabulary has for them": """
        select count(*) from tokens left join vocabulary using (run_id, token_id)
        where vocabulary.token is distinct from tokens.token
    """,
}

_OF_SIMILARITY = {
    "comparisons of experts that the run does not have": """
        select count(*) from expert_cosines left join moe_layers using (run_id, layer)
        where not coalesce(
            0 <= expert_a and expert_a < expert_b and expert_b < n_experts, false
        )
    """,
    "pairs of experts that are compared twice, or not": """
        select count(*) from (
            select moe_layers.layer from moe_layers
            left join expert_cosines using (run_id, layer)
            group by moe_layers.layer
            having count(expert_a) <> any_value(n_experts) * (any_value(n_experts) - 1) // 2
                or count(distinct (expert_a, expert_b)) filter (expert_a is not null)
                    <> count(expert_a)
        )
    """,
    "cosines of experts' weights beyond 1": """
        select count(*) from expert_cosines
        where greatest(
            abs(gate_cosine), abs(up_cosine), abs(down_cosine), abs(expert_cosine),
            abs(matched_cosine), abs(router_cosine)
        ) > 1
    """,
}

_OF_ADDED = {
    "token_idx": "{table} anti join tokens using (run_id, token_idx)",
    "example_id": "{table} anti join examples using (run_id, example_id)",
    "layer": "{table} anti join moe_layers using (run_id, layer)",
    "expert": "{table} join moe_layers using (run_id, layer) "
    "where (expert < 0 or expert >= n_experts)",
}
"""What is wrong with a row that was added, by the column that says what it is of."""

_SINCE_FORMAT_2 = {
    "roll-ups by example that are not what its decisions add up to": """
        select count(*) from (
            select example_id, layer, expert, n_decisions, weight from router_mass
        ) as mass
        full join (
            select example_id, layer, expert,
                count(*) as counted, sum(cast(weight as double)) as summed
            from routing join tokens using (run_id, token_idx) group by example_id, layer, expert
        ) as decided using (example_id, layer, expert)
        where n_decisions is distinct from coalesce(counted, 0)
            or not coalesce(
                abs(mass.weight - coalesce(summed, 0)) <= 1e-9 * (1 + abs(mass.weight)), false
            )
    """,
}


def check_values(run: RunSnapshot) -> tuple[int, list[StoreDamagedError]]:
    """Check what must hold of the values of a run whose files are sound.

    Returns
    -------
    tuple
        At how many layers the outputs were added up, and what does not hold.

    Raises
    ------
    StoreError
        If object storage cannot be reached.
    """
    faults = []
    n_layers = 0
    try:
        snapshot = Snapshot(run.layout.store, {run.run_id: run}, remote=run.remote)
        with connect(snapshot) as connection:
            held = run.format >= SEALED_SINCE and run.n_rows("router_mass") > 0
            statements = {**_INVARIANTS, **(_SINCE_FORMAT_2 if held else {}), **_of_added(run)}
            statements |= _OF_VOCABULARY if run.n_rows(VOCABULARY.name) else {}
            statements |= _OF_SIMILARITY if run.n_rows(EXPERT_COSINES.name) else {}
            for wrong, statement in statements.items():
                count = _scalar(connection.execute(statement).fetchone())
                if count:
                    faults.append(StoreDamagedError(f"run {run.run_id}: {count:,} {wrong}"))
            for layer in run.manifest.layers:
                try:
                    n_layers += _check_layer(run, connection, layer)
                except StoreDamagedError as error:
                    faults.append(error)
    except StoreDamagedError as error:
        faults.append(error)
    except (duckdb.Error, IndexError, KeyError, ValueError) as error:
        if run.remote is not None and (unreached := explain_missing_file(error)):
            raise unreached from error
        what = " ".join(str(error).split())
        unread = StoreDamagedError(f"run {run.run_id}: its values cannot be read: {what}")
        # what contradicts itself may not be readable to the end
        faults = faults or [unread]
    return n_layers, faults


def _of_added(run: RunSnapshot) -> dict[str, str]:
    """What must hold of the labels of tokens, and of the tables that additions alone fill."""
    statements = dict(_OF_LABELS) if run.n_rows(TOKEN_LABELS.name) else {}
    for table in TABLES:
        if table.is_captured or not run.n_rows(table.name):
            continue
        for column in {*table.column_names} & {*_OF_ADDED}:
            wrong = _OF_ADDED[column].format(table=table.name)
            if column == "expert" and "layer" not in table.column_names:
                continue
            given = f"{' and' if 'where' in wrong else ' where'} {table.name}.{column} is not null"
            what = f"rows of {table.name} with a {column} that the run does not have"
            statements[what] = f"select count(*) from {wrong}{given}"  # noqa: S608
    return statements


def _scalar(row: Any) -> int:
    return int(row[0]) if row else 0


def _check_layer(run: RunSnapshot, connection: Any, row: dict[str, Any]) -> int:
    """Check weights against logits, and the parts of the block's output against its norm."""
    layer, top_k = row["layer"], row["top_k"]
    kept = {name for name, layers in run.manifest.arrays.items() if layer in layers}
    if not kept & {"router_logits", "expert_outputs"}:
        return 0
    rows = connection.execute(
        "select array_row, expert, weight, shared_gate, moe_output_norm "
        "from routing join tokens using (run_id, token_idx) "
        "join router_stats using (run_id, token_idx, layer) "
        "where layer = $layer and array_row is not null order by array_row, rank",
        {"layer": layer},
    ).fetchnumpy()
    n_tokens = len(rows["array_row"]) // top_k
    if not n_tokens:
        return 0
    shape = (n_tokens, top_k)
    array_rows = rows["array_row"].reshape(shape)[:, 0]
    experts, weights = rows["expert"].reshape(shape), rows["weight"].reshape(shape)
    epsilon = EPSILON[run.manifest.row["dtype"]]
    where = f"run {run.run_id}, layer {layer}"
    if "router_logits" in kept and row["scoring"] != "other":
        logits = _rows(run, "router_logits", layer, array_rows)
        expected = _weights(logits, experts, row["scoring"], bool(row["norm_topk_prob"]))
        ratio = weights / np.maximum(expected, 1e-30)
        # Some models scale every weight by one constant; it must be the same everywhere.
        gap = np.abs(ratio / np.median(ratio) - 1)
        allowed = max(8 * epsilon, RULE_EPSILON)
        _expect_small(gap, allowed, f"{where}: weights against the router's rule")
    has_shared = bool(row["has_shared_expert"])
    if "expert_outputs" not in kept or (has_shared and "shared_outputs" not in kept):
        return 0
    outputs = _rows(run, "expert_outputs", layer, array_rows)
    total = np.einsum("trd,tr->td", outputs, weights.astype(np.float64))
    scale = (np.linalg.norm(outputs, axis=-1) * np.maximum(np.abs(weights), 1)).max(axis=1)
    if has_shared:
        gate = np.ma.filled(rows["shared_gate"].reshape(shape)[:, 0], np.nan)
        shared = _rows(run, "shared_outputs", layer, array_rows)
        total += shared * gate.astype(np.float64)[:, None]
        scale = np.maximum(scale, np.linalg.norm(shared, axis=-1))
    norms = rows["moe_output_norm"].reshape(shape)[:, 0]
    gap = np.abs(np.linalg.norm(total, axis=-1) - norms) / np.maximum(scale, 1e-30)
    _expect_small(gap, (top_k + 8) * epsilon, f"{where}: expert outputs against the block's output")
    return 1


def _rows(run: RunSnapshot, name: str, layer: int, rows: NDArray[Any]) -> NDArray[np.float64]:
    stored = open_array(run, ArrayKey(name, layer))
    try:
        return np.asarray(stored.oindex[rows]).astype(np.float64)
    except Exception as error:  # of any kind: each file system has its own
        if run.remote is None:
            raise
        raise cannot_reach(f"{run.place.root}/{ARRAYS}/{stored.path}", error) from error


def _weights(
    logits: NDArray[np.float64], experts: NDArray[Any], scoring: str, normalized: bool
) -> NDArray[np.float64]:
    """The weights that the router's rule gives the chosen experts."""
    if scoring == "softmax":
        scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
    else:
        scores = 1 / (1 + np.exp(-logits))
    chosen: NDArray[np.float64] = np.take_along_axis(scores, experts.astype(np.int64), axis=-1)
    return chosen / chosen.sum(axis=-1, keepdims=True) if normalized else chosen


def _expect_small(gap: NDArray[np.float64], allowed: float, what: str) -> None:
    worst = float(np.nan_to_num(gap, nan=np.inf).max())
    if not worst <= allowed:
        raise StoreDamagedError(f"{what} differ by {worst:.3g}, rounding explains {allowed:.3g}")
