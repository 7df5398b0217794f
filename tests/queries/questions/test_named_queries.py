"""Every named query against numpy, as a statement and as a macro."""

import itertools
import math

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import named_query
from tests.support.oracles import example_oracle, oracle, routing_oracle
from tests.support.stores import synthetic

ORACLES = {**oracle.ORACLES, **example_oracle.ORACLES, **routing_oracle.ORACLES}
SEEDS = (0, 1)
SELECTIONS: list[dict[str, object]] = [
    {},
    {"split": "held-out"},
    {"run": synthetic.OLDER, "split": "all"},
]
KEYS = ("template", "role", "model", "kind")

SETTINGS: dict[str, list[dict[str, object]]] = {
    "expert-frequency": [{}],
    "concentration": [{}],
    "routing-by-class": [
        *({"key": key} for key in KEYS),
        {"key": "template", "layer": 5},
        {"key": "no such key"},
    ],
    "expert-specialization": [
        *({"key": key} for key in KEYS),
        {"key": "template", "layer": 5, "min_decisions": 1},
        {"key": "role", "min_decisions": 0},
        {"key": "no such key"},
    ],
    "pair-specialization": [
        *({"key": key, "min_decisions": 3} for key in KEYS),
        {"key": "template", "layer": 5, "min_decisions": 0},
        {"key": "no such key"},
    ],
    "routing-by-example": [
        {},
        {"scope": "example", "key": "kind"},
        {"position": 3, "layer": 5},
        {"position": 3, "scope": "example", "key": "no such key", "layer": 2},
    ],
    "active-experts": [{}, {"scope": "example"}, {"position": 3}, {"position": 99}],
    "co-activation": [{}, {"layer": 2}],
    "co-activation-adjacent": [{}, {"layer": 2}],
    "overlap": [
        {},
        {"key": "template", "value_a": "1", "value_b": "2"},
        {"key": "template", "value_a": "1", "value_b": "10", "m": 1},
        {"key": "role", "value_a": "IO", "m": 3},
        {"key": "kind", "value_a": "'s", "value_b": "all", "m": 100},
        {"run_b": synthetic.OLDER},
        {"run_b": synthetic.NEWER, "key": "template", "value_a": "2", "value_b": "2", "m": 5},
        {"key": "template", "value_a": "no such value"},
        {"value_a": "1"},
    ],
    "load-balance": [{}],
    "router-confidence": [{}, *({"key": key} for key in KEYS)],
    "top-tokens": [
        {},
        {"by": "lift"},
        {"layer": 2, "expert": 3, "n": 2},
        {"layer": 5, "by": "lift", "min_count": 1, "n": 100},
        {"expert": 0, "min_count": 10},
    ],
    "cross-layer": [{}, {"layer": 3}, {"pairs": "rank-aligned"}, {"layer": 5}],
    "saturation": [{"run_b": synthetic.NEWER}, {"run_b": synthetic.OLDER}],
    "vocabulary-specialization": [{}, {"min_count": 1}, {"of": "next", "min_count": 3}],
    "ioi-logit-diff": [{}, {"key": "kind", "condition": 1}, {"key": "role"}],
}


@pytest.fixture(scope="module", params=SEEDS)
def tables(request: pytest.FixtureRequest) -> dict[str, pd.DataFrame]:
    return synthetic.make_tables(request.param)


@pytest.fixture(scope="module")
def connection(tables: dict[str, pd.DataFrame]) -> duckdb.DuckDBPyConnection:
    return synthetic.connect(tables)


@pytest.fixture(scope="module")
def shuffled(tables: dict[str, pd.DataFrame]) -> duckdb.DuckDBPyConnection:
    return synthetic.connect(tables, seed=7)


def every_setting(name: str) -> list[dict[str, object]]:
    return [selection | given for selection in SELECTIONS for given in SETTINGS[name]]


def ask(connection: duckdb.DuckDBPyConnection, name: str, given: dict[str, object]) -> pd.DataFrame:
    """Run a query's SQL with its values, the run that none is given for looked up."""
    query = named_query(name)
    values = bind(query, given)
    if "run" in values and values["run"] is None and not query.reads_trials:
        ((values["run"],),) = connection.execute("from latest_run").fetchall()
    return connection.execute(query.sql, values).df()


def ask_macro(
    connection: duckdb.DuckDBPyConnection, name: str, given: dict[str, object]
) -> pd.DataFrame:
    written = ", ".join(
        f'"{key}" := '
        + ("'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value))
        for key, value in given.items()
    )
    return connection.execute(f"from {named_query(name).macro_name}({written})").df()


def test_every_query_has_an_oracle_and_settings() -> None:
    assert set(ORACLES) == set(SETTINGS) == oracle.queries_over_one_run()


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_query_gives_what_numpy_gives(
    name: str,
    tables: dict[str, pd.DataFrame],
    connection: duckdb.DuckDBPyConnection,
    shuffled: duckdb.DuckDBPyConnection,
) -> None:
    n_rows = 0
    for given in every_setting(name):
        parameters = {key: value for key, value in given.items() if key != "run"}
        run_id = given.get("run", synthetic.NEWER)
        expected = ORACLES[name](tables, run_id, **parameters)
        actual = ask(connection, name, given)
        oracle.assert_same_rows(actual, expected)
        pd.testing.assert_frame_equal(ask(shuffled, name, given), actual, rtol=1e-12)
        pd.testing.assert_frame_equal(ask_macro(connection, name, given), actual, rtol=1e-12)
        n_rows += len(actual)
    assert n_rows > 0


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_without_their_order_rows_are_the_same(
    name: str, connection: duckdb.DuckDBPyConnection
) -> None:
    query = named_query(name)
    values = bind(query, {"run": synthetic.NEWER, **SETTINGS[name][0]})
    ordered, unordered = (
        connection.execute(sql, values).fetchall() for sql in (query.sql, query.unordered)
    )
    left_out = query.sql.removeprefix(query.unordered)
    assert left_out.startswith("order by")
    assert "from" not in left_out
    assert sorted(unordered, key=repr) == sorted(ordered, key=repr)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_types_are_those_any_engine_has(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    given = SETTINGS[name][0]
    query = named_query(name)
    described = connection.execute(
        f"describe from {query.macro_name}({_literal_call(given)})"
    ).fetchall()
    types = {column: column_type for column, column_type, *_ in described}
    assert tuple(types) == query.column_names
    assert set(types.values()) <= {"BIGINT", "INTEGER", "DOUBLE", "VARCHAR"}
    for column, column_type in types.items():
        is_count = column.startswith(("n_", "experts_")) or column in {"m", "place"}
        assert (column_type == "BIGINT") == is_count, column


def _literal_call(given: dict[str, object]) -> str:
    return ", ".join(f"{key} := '{value}'" for key, value in given.items())


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_null_parameters_are_the_defaults(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    query = named_query(name)
    required = {parameter.name: "kind" for parameter in query.parameters if parameter.required}
    optional = [parameter.name for parameter in query.parameters if not parameter.required]
    nulls = ", ".join(
        [f"{key} := '{value}'" for key, value in required.items()]
        + [f'"{key}" := null' for key in optional]
    )
    pd.testing.assert_frame_equal(
        connection.execute(f"from {query.macro_name}({nulls})").df(),
        ask(connection, name, {**required, **dict.fromkeys(optional)}),
    )


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_run_without_tokens_gives_no_error(
    name: str, tables: dict[str, pd.DataFrame], connection: duckdb.DuckDBPyConnection
) -> None:
    for extra in ({"split": "no such split"}, {"run": "no such run"}):
        for given in SETTINGS[name]:
            result = ask(connection, name, {**given, **extra})
            if "split" in extra:
                expected = ORACLES[name](tables, synthetic.NEWER, **{**given, **extra})
                oracle.assert_same_rows(result, expected)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_what_is_undefined_is_null_and_not_nan(
    name: str, connection: duckdb.DuckDBPyConnection
) -> None:
    query = named_query(name)
    for given in SETTINGS[name]:
        for extra in ({}, {"split": "no such split"}):
            rows = connection.execute(query.sql, bind(query, {**given, **extra})).fetchall()
            floats = [value for row in rows for value in row if isinstance(value, float)]
            assert all(math.isfinite(value) for value in floats)


def test_newest_complete_run_is_the_default(connection: duckdb.DuckDBPyConnection) -> None:
    default = ask(connection, "expert-frequency", {})
    pd.testing.assert_frame_equal(
        default, ask(connection, "expert-frequency", {"run": synthetic.NEWER})
    )
    unfinished = ask(connection, "expert-frequency", {"run": synthetic.UNFINISHED})
    assert unfinished["uniform"].tolist() == [0.25] * 4


def test_rates_add_up(connection: duckdb.DuckDBPyConnection) -> None:
    by_class = ask(connection, "routing-by-class", {"key": "template"})
    sums = by_class.groupby(["layer", "value"])[["rate", "share", "weight_share"]].sum()
    np.testing.assert_allclose(sums["rate"], 4)
    np.testing.assert_allclose(sums["share"], 1)
    np.testing.assert_allclose(sums["weight_share"], 1)
    assert (by_class["n_decisions"] == 0).any()
    frequency = ask(connection, "expert-frequency", {})
    np.testing.assert_allclose(frequency.groupby("layer")["share"].sum(), 1)
    assert (frequency["n_decisions"] == 0).any()


def test_values_that_are_numbers_come_by_size(connection: duckdb.DuckDBPyConnection) -> None:
    by_template = ask(connection, "ioi-logit-diff", {})["value"].tolist()
    assert by_template == ["1", "2", "10", "odd", "all"]
    by_kind = ask(connection, "ioi-logit-diff", {"key": "kind", "split": "all"})
    assert by_kind["value"].tolist() == ["'s", "all", "all"]


def test_a_group_overlaps_itself_wholly(connection: duckdb.DuckDBPyConnection) -> None:
    same = ask(connection, "overlap", {"run_b": synthetic.NEWER})
    assert (same["jaccard"] == 1).all()
    assert (same["overlap_coefficient"] == 1).all()
    assert (same["weighted_jaccard"] == 1).all()
    assert (same["jensen_shannon"] == 0).all()


@pytest.mark.parametrize("split", [None, "all", "corrupted"])
def test_saturation_of_two_checkpoints(tables: dict[str, pd.DataFrame], split: str | None) -> None:
    """The later run orders its tokens the other way, lacks some, and has other experts for some."""
    rng = np.random.default_rng(11)
    later = {
        name: rows[rows["run_id"] == synthetic.NEWER].assign(run_id="later")
        for name, rows in tables.items()
    }
    last = later["tokens"]["token_idx"].max()
    for name in ("tokens", "routing"):
        later[name]["token_idx"] = last - later[name]["token_idx"]
    other_id = rng.random(len(later["tokens"])) < 0.2
    later["tokens"].loc[other_id, "token_id"] = 99
    turned = later["routing"]["token_idx"] % 3 == 0
    n_experts = later["moe_layers"].set_index("layer")["n_experts"]
    moved = (later["routing"]["expert"] + 1) % later["routing"]["layer"].map(n_experts)
    later["routing"]["expert"] = later["routing"]["expert"].where(~turned, moved).astype(int)
    both = {name: pd.concat([tables[name], later[name]], ignore_index=True) for name in tables}

    given = {"run": synthetic.NEWER, "run_b": "later", "split": split}
    found = ask(synthetic.connect(both), "saturation", given)
    expected = routing_oracle.saturation(both, synthetic.NEWER, run_b="later", split=split)
    oracle.assert_same_rows(found, expected)
    assert (found["n_unmatched"] > 0).all() and found["saturation"].between(0.6, 0.99).all()


def test_layers_that_choose_alike_share_all_information() -> None:
    connection = make_small_run([(0, 1), (1, 0), (2, 0), (0, 2)], 3, ["a"] * 4)
    connection.execute(
        "insert into files.moe_layers (run_id, layer, n_experts, top_k) values ('r', 1, 3, 2)"
    )
    # the next layer has the next expert at each rank
    connection.execute(
        "insert into files.routing (run_id, token_idx, layer, rank, expert, weight) "
        "select run_id, token_idx, 1, rank, (expert + 1) % 3, weight from files.routing"
    )
    aligned = ask(connection, "cross-layer", {"pairs": "rank-aligned"})
    assert aligned["next_expert"].tolist() == [1, 2, 0]
    assert aligned["n_both"].tolist() == [4, 2, 2]
    assert aligned["p_next_given"].tolist() == [1.0, 1.0, 1.0]
    # expert 0 is first of two tokens and second of two, and so is its partner: 2 x 2/4 + 2 x 2/4
    assert aligned["expected"].tolist() == [2.0, 0.5, 0.5]
    assert aligned["information"].tolist() == [1.5] * 3
    every = ask(connection, "cross-layer", {})
    assert every.groupby("expert")["p_next_given"].sum().tolist() == [2.0] * 3
    assert every["information"].max() < 1.5


def test_a_token_id_that_occurs_once_has_the_highest_score(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    small = ask(connection, "vocabulary-specialization", {"min_count": 1})
    large = ask(connection, "vocabulary-specialization", {"min_count": 10})
    assert (small["n_token_ids"] > large["n_token_ids"]).all()
    assert (large["weighted"] >= large["baseline"]).all()
    alone = make_small_run([(0,), (1,), (1,)], 2, ["a"] * 3)
    alone.execute("update files.tokens set token_id = token_idx")
    (row,) = ask(alone, "vocabulary-specialization", {"min_count": 1}).itertuples(index=False)
    assert tuple(row) == (0, 3, 3, 1.0, 1.0, 2 / 3)


def make_small_run(
    choices: list[tuple[int, ...]], n_experts: int, group_of: list[str]
) -> duckdb.DuckDBPyConnection:
    """One layer, one example for each token, with a label ``group`` and an even router."""
    tables = synthetic.no_rows()
    run = {"run_id": "r"}
    rows: dict[str, list[dict[str, object]]] = {
        "runs": [{**run, "status": "complete", "created_at": "2026"}],
        "moe_layers": [{**run, "layer": 0, "n_experts": n_experts, "top_k": len(choices[0])}],
    }
    for token, chosen in enumerate(choices):
        rows.setdefault("examples", []).append(
            {**run, "example_id": token, "split": "clean", "n_tokens": 1}
        )
        rows.setdefault("tokens", []).append(
            {**run, "token_idx": token, "example_id": token, "position": 0}
        )
        rows.setdefault("example_labels", []).append(
            {**run, "example_id": token, "key": "group", "value": group_of[token]}
        )
        for rank, expert in enumerate(chosen):
            rows.setdefault("routing", []).append(
                {**run, "token_idx": token, "layer": 0, "rank": rank, "expert": expert, "weight": 1}
            )
        for expert in range(n_experts):
            rows.setdefault("router_mass", []).append(
                {
                    **run,
                    "example_id": token,
                    "layer": 0,
                    "expert": expert,
                    "probability": 0.75 if expert == chosen[0] else 0.25 / (n_experts - 1),
                }
            )
    for name, values in rows.items():
        tables[name] = pd.DataFrame(values).reindex(columns=tables[name].columns)
    return synthetic.connect(tables, macros=False)


def test_overlap_by_hand() -> None:
    # group a: experts 0, 0, 1, 2; group b: experts 0, 1, 3, 3
    small = make_small_run([(0, 1), (0, 2), (0, 3), (1, 3)], 5, ["a", "a", "b", "b"])
    given = {"key": "group", "value_a": "a", "value_b": "b"}
    row = ask(small, "overlap", given).iloc[0]
    # the 2 most used: {0, 1} (1 before 2) and {3, 0} (0 before 1)
    assert (row["n_tokens_a"], row["n_tokens_b"], row["m"], row["n_shared"]) == (2, 2, 2, 1)
    assert row["jaccard"] == pytest.approx(1 / 3)
    # two of five, twice: they share one in 6 of 10 cases, and two in 1
    assert row["expected_jaccard"] == pytest.approx(0.6 / 3 + 0.1)
    assert row["overlap_coefficient"] == pytest.approx(1 / 2)
    # shares (1/2, 1/4, 1/4, 0, 0) and (1/4, 1/4, 0, 1/2, 0)
    assert row["weighted_jaccard"] == pytest.approx(0.5 / 1.5)
    # mean (3/8, 1/4, 1/8, 1/4): its entropy less the 1.5 bits that both have
    mixed = -sum(p * math.log2(p) for p in (3 / 8, 1 / 4, 1 / 8, 1 / 4))
    assert row["jensen_shannon"] == pytest.approx(mixed - 1.5)
    # only 3 experts of each group are used
    wide = ask(small, "overlap", {**given, "m": 5}).iloc[0]
    assert (wide["m"], wide["n_shared"]) == (5, 2)
    assert wide["jaccard"] == pytest.approx(2 / 4)
    # three of five, twice: one, two or three of them
    assert wide["expected_jaccard"] == pytest.approx(0.3 / 5 + 0.6 / 2 + 0.1)
    assert wide["overlap_coefficient"] == pytest.approx(2 / 3)


def test_disjoint_groups_diverge_by_one_bit() -> None:
    small = make_small_run([(0,), (1,), (2,), (3,)], 4, ["a", "a", "b", "b"])
    row = ask(small, "overlap", {"key": "group", "value_a": "a", "value_b": "b"}).iloc[0]
    assert (row["jaccard"], row["weighted_jaccard"], row["jensen_shannon"]) == (0, 0, 1)


def test_random_sets_of_every_size_overlap_as_the_hypergeometric_distribution_has_it() -> None:
    # group a uses experts 0 to 5 of 9, most the first; group b 2 to 8, most the last
    chosen = [(expert,) for expert in range(6) for _ in range(6 - expert)]
    other = [(expert,) for expert in range(2, 9) for _ in range(expert)]
    values = ["a"] * len(chosen) + ["b"] * len(other)
    small = make_small_run([*chosen, *other], 9, values)
    given = {"key": "group", "value_a": "a", "value_b": "b"}
    for m in range(1, 10):
        row = ask(small, "overlap", {**given, "m": m}).iloc[0]
        n_a, n_b = min(m, 6), min(m, 7)
        sets = [[set(of) for of in itertools.combinations(range(9), n)] for n in (n_a, n_b)]
        ways = [len(a & b) / len(a | b) for a in sets[0] for b in sets[1]]
        assert row["expected_jaccard"] == pytest.approx(sum(ways) / len(ways), rel=1e-12)
    # without tokens of one of them there is nothing to share; all experts are the same twice
    empty = ask(small, "overlap", {**given, "value_b": "none"}).iloc[0]
    assert (empty["jaccard"], empty["expected_jaccard"]) == (0, 0)
    neither = ask(small, "overlap", {**given, "value_a": "none", "value_b": "none"}).iloc[0]
    assert neither[["jaccard", "expected_jaccard"]].isna().all()
    full = make_small_run([(0, 1), (0, 1)], 2, ["a", "b"])
    assert ask(full, "overlap", given).iloc[0]["expected_jaccard"] == 1


@pytest.mark.parametrize(("n_experts", "m"), [(1000, 300), (1000, 900), (384, 8)])
def test_random_sets_of_many_experts_overlap_as_scipy_has_it(n_experts: int, m: int) -> None:
    everything = [(expert,) for expert in range(n_experts)]
    small = make_small_run(everything * 2, n_experts, ["a"] * n_experts + ["b"] * n_experts)
    given = {"key": "group", "value_a": "a", "value_b": "b", "m": m}
    found = ask(small, "overlap", given).iloc[0]["expected_jaccard"]
    shared = np.arange(m + 1)
    chances = hypergeom.pmf(shared, n_experts, m, m)
    assert found == pytest.approx((chances * shared / (2 * m - shared)).sum(), rel=1e-9)


def test_load_balance_by_hand() -> None:
    # counts 3, 1, 0, 0
    small = make_small_run([(0,), (0,), (0,), (1,)], 4, ["a"] * 4)
    row = ask(small, "load-balance", {}).iloc[0]
    assert (row["n_experts"], row["n_decisions"], row["n_used"], row["n_dead"]) == (4, 4, 2, 2)
    bits = 0.75 * math.log2(4 / 3) + 0.25 * 2
    assert row["normalized_entropy"] == pytest.approx(bits / 2)
    assert row["effective_experts"] == pytest.approx(2**bits)
    # sum of |x - y| over the 16 ordered pairs is 20: 20 / (2 * 16 * 1)
    assert row["gini"] == pytest.approx(20 / 32)
    assert row["cv"] == pytest.approx(math.sqrt((4 + 0 + 1 + 1) / 4))
    assert row["max_over_mean"] == pytest.approx(3)
    # mean probabilities: (3 * 3/4 + 1/12) / 4 and (3 * 1/12 + 3/4) / 4
    expected = 4 * (0.75 * (9 / 4 + 1 / 12) / 4 + 0.25 * (1 / 4 + 3 / 4) / 4)
    assert row["switch_loss"] == pytest.approx(expected, rel=1e-6)


def test_even_load_is_balanced() -> None:
    small = make_small_run([(0,), (1,), (2,), (3,)], 4, ["a"] * 4)
    row = ask(small, "load-balance", {}).iloc[0]
    assert row["normalized_entropy"] == 1
    assert row["effective_experts"] == 4
    assert (row["gini"], row["cv"], row["max_over_mean"]) == (0, 0, 1)
    assert row["switch_loss"] == pytest.approx(1, rel=1e-6)


def test_switch_loss_is_null_without_router_mass() -> None:
    tables = synthetic.make_tables(0)
    tables["router_mass"] = tables["router_mass"].iloc[:0]
    balance = ask(synthetic.connect(tables), "load-balance", {})
    assert balance["switch_loss"].isna().all()
    assert balance["gini"].notna().all()


def test_concentration_counts_a_share_of_exactly_90_percent() -> None:
    small = make_small_run([(0,)] * 9 + [(1,)], 3, ["a"] * 10)
    rows = ask(small, "concentration", {})
    assert rows["n_top"].tolist() == [1, 2, 3]
    assert rows["share"].tolist() == [0.9, 1.0, 1.0]
    assert rows.iloc[0][["experts_50", "experts_90", "experts_99"]].tolist() == [1, 1, 2]


def test_active_experts_by_hand() -> None:
    # expert 0 is active in all ten examples, expert 1 in nine of them, expert 2 in one
    small = make_small_run([(0, 1)] * 9 + [(0, 2)], 4, ["a"] * 10)
    row = ask(small, "active-experts", {}).iloc[0]
    assert row[["n_examples", "n_experts", "experts_ever"]].tolist() == [10, 4, 3]
    assert row[["experts_50", "experts_90", "n_most"]].tolist() == [2, 2, 10]
    assert row[["n_decisions", "n_decisions_50", "n_decisions_90"]].tolist() == [20, 19, 19]
    assert row[["most", "uniform", "share_50", "share_90"]].tolist() == [1.0, 0.5, 0.95, 0.95]


def test_routing_by_example_puts_corrupted_examples_last() -> None:
    found = ask(synthetic.connect(synthetic.make_tables(0)), "routing-by-example", {"split": "all"})
    assert list(dict.fromkeys(found["split"])) == ["clean", "held-out", "corrupted"]
    of_split = found[found["split"] == "clean"]
    assert [v for v in dict.fromkeys(of_split["value"]) if isinstance(v, str)] == [
        *("1", "2", "10", "odd")
    ]
    assert (found.groupby(["example_id", "layer"]).size() == 4).all()
    assert (found["share"] == 1).all()


def test_neighbours_by_hand() -> None:
    small = make_small_run([(2, 0, 1), (1, 0, 2), (0, 1, 2)], 4, ["a"] * 3)
    pairs = ask(small, "co-activation", {})
    assert pairs["n_both"].tolist() == [3, 3, 3]
    assert pairs["lift"].tolist() == [1, 1, 1]
    adjacent = ask(small, "co-activation-adjacent", {})
    assert adjacent[["expert_a", "expert_b", "n_adjacent"]].to_numpy().tolist() == [
        [0, 1, 3],
        [0, 2, 2],
        [1, 2, 1],
    ]
    # every pair is there 3 times in 3 tokens, and 2 of a token's 3 pairs are adjacent
    assert adjacent["expected"].tolist() == [2, 2, 2]
