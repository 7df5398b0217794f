"""Specialization of experts by hand, and the information of a label against plain counting."""

import json
import math
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import ParameterError
from moedb.queries.analyses.label_information import label_information
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.counting.decisions.order import UnorderedError
from moedb.queries.questions.binding import bind
from moedb.queries.results.result import Computed
from moedb.store.reading.snapshot import Snapshot
from tests.queries.analyses.test_trials import write_trial
from tests.queries.questions.test_named_queries import KEYS, ask, make_small_run
from tests.support.oracles import oracle
from tests.support.stores import synthetic

ANALYSIS = ANALYSES["label-information"]
SEEDS = (0, 1)


class TestExpertSpecialization:
    def test_by_hand(self) -> None:
        # expert 0: a a a b; expert 1: b b; expert 2: b a, equal, so a is on top
        choices = [(0,), (0,), (0,), (0,), (1,), (1,), (2,), (2,)]
        small = make_small_run(choices, 4, ["a", "a", "a", "b", "b", "b", "b", "a"])
        rows = ask(small, "expert-specialization", {"key": "group", "min_decisions": 1})
        assert rows["expert"].tolist() == [1, 0, 2]
        assert rows["n_decisions"].tolist() == [2, 4, 2]
        assert rows["n_values"].tolist() == [1, 2, 2]
        assert rows["top_value"].tolist() == ["b", "a", "a"]
        assert rows["n_top"].tolist() == [2, 3, 1]
        assert rows["exclusivity"].tolist() == [1, 0.75, 0.5]
        bits = 0.75 * math.log2(4 / 3) + 0.25 * 2
        assert rows["conditional_entropy"].tolist() == pytest.approx([0, bits, 1])
        assert rows["normalized_entropy"].tolist() == pytest.approx([0, bits, 1])
        # a and b have half of the decisions each
        assert rows["pmi"].tolist() == pytest.approx([1, math.log2(1.5), 0])

    def test_experts_with_few_decisions_are_left_out(self) -> None:
        small = make_small_run([(0, 1)] * 20 + [(0, 2)] * 19, 3, ["a"] * 20 + ["b"] * 19)
        rows = ask(small, "expert-specialization", {"key": "group"})
        assert rows["expert"].tolist() == [1, 0]
        rows = ask(small, "expert-specialization", {"key": "group", "min_decisions": 19})
        # equally exclusive: the smaller expert comes first
        assert rows["expert"].tolist() == [1, 2, 0]

    def test_of_equal_values_the_smaller_number_is_on_top(self) -> None:
        small = make_small_run([(0,)] * 3, 1, ["odd", "10", "9"])
        row = ask(small, "expert-specialization", {"key": "group", "min_decisions": 1}).iloc[0]
        assert (row["top_value"], row["n_values"]) == ("9", 3)
        assert row["normalized_entropy"] == pytest.approx(1)

    def test_a_single_value_has_no_normalized_entropy(self) -> None:
        small = make_small_run([(0,)] * 3, 1, ["a"] * 3)
        row = ask(small, "expert-specialization", {"key": "group", "min_decisions": 1}).iloc[0]
        assert pd.isna(row["normalized_entropy"])
        assert (row["exclusivity"], row["conditional_entropy"], row["pmi"]) == (1, 0, 0)
        assert math.copysign(1, row["conditional_entropy"]) == 1


class TestPairSpecialization:
    def test_by_hand(self) -> None:
        # two experts that each say nothing: a where they are together, b where they are apart
        choices = [(0, 1)] * 4 + [(2, 3)] * 4 + [(0, 2)] * 2 + [(1, 3)] * 2 + [(0, 3), (1, 2)] * 2
        small = make_small_run(choices, 4, ["a"] * 8 + ["b"] * 8)
        rows = ask(small, "pair-specialization", {"key": "group", "min_decisions": 3})
        assert rows[["expert_a", "expert_b"]].values.tolist() == [[0, 1], [2, 3]]
        assert (
            rows[["n_both", "n_a", "n_b", "n_values", "n_top"]].values.tolist()
            == [[4, 8, 8, 1, 4]] * 2
        )
        assert rows["top_value"].tolist() == ["a", "a"]
        assert rows["exclusivity"].tolist() == [1, 1]
        assert rows["conditional_entropy"].tolist() == [0, 0]
        assert rows["pmi"].tolist() == [1, 1]
        assert (
            rows[["exclusivity_a", "exclusivity_b", "gain"]].values.tolist()
            == [[0.5, 0.5, 0.5]] * 2
        )
        assert rows["independent"].tolist() == [0.5, 0.5]

    def test_a_pair_that_says_what_its_better_expert_says(self) -> None:
        # expert 0 is of a alone, expert 1 of both alike, and expert 2 with either
        choices = [(0, 1)] * 3 + [(0, 2)] * 3 + [(1, 2)] * 3
        small = make_small_run(choices, 3, ["a"] * 6 + ["b"] * 3)
        rows = ask(small, "pair-specialization", {"key": "group", "min_decisions": 1})
        row = rows[(rows["expert_a"] == 0) & (rows["expert_b"] == 1)].iloc[0]
        assert (row["exclusivity"], row["exclusivity_a"], row["exclusivity_b"]) == (1, 1, 0.5)
        assert (row["gain"], row["independent"]) == (0, 1)
        # experts 1 and 2 take b together: each alone takes 3 of 6 a and all 3 b
        row = rows[(rows["expert_a"] == 1) & (rows["expert_b"] == 2)].iloc[0]
        assert (row["top_value"], row["exclusivity"], row["gain"]) == ("b", 1, 0.5)
        # of a: 3 * 3 / 6, of b: 3 * 3 / 3
        assert row["independent"] == pytest.approx(3 / 4.5)
        assert row["pmi"] == pytest.approx(math.log2(3))

    def test_pairs_of_few_tokens_are_left_out(self) -> None:
        small = make_small_run([(0, 1)] * 20 + [(0, 2)] * 19, 3, ["a"] * 20 + ["b"] * 19)
        rows = ask(small, "pair-specialization", {"key": "group"})
        assert rows[["expert_a", "expert_b"]].values.tolist() == [[0, 1]]

    def test_where_a_token_has_one_expert_there_are_none(self) -> None:
        small = make_small_run([(0,)] * 30, 2, ["a", "b"] * 15)
        assert ask(small, "pair-specialization", {"key": "group", "min_decisions": 0}).empty


class Asked:
    """As much of a database as the analysis asks, over made-up tables."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def sql(self, statement: str, parameters: dict[str, object]) -> duckdb.DuckDBPyRelation:
        return self.connection.sql(statement, params=parameters)

    @property
    def snapshot(self) -> Snapshot:
        raise UnorderedError  # there are no files whose order could be known


def compute(connection: duckdb.DuckDBPyConnection, **given: object) -> pd.DataFrame:
    computed: Computed = label_information(Asked(connection), bind(ANALYSIS, given))  # type: ignore[arg-type]
    return pd.DataFrame(computed.rows, columns=list(ANALYSIS.column_names))


def information_of(pairs: list[tuple[object, object]]) -> float:
    """From a list of (label, expert), by H(label) + H(expert) - H(label, expert)."""
    parts = [[a for a, _ in pairs], [b for _, b in pairs], pairs]
    first, second, both = (
        oracle.entropy_bits(np.array(list(Counter(part).values())) / len(part)) for part in parts
    )
    return first + second - both


def decisions_of(
    tables: dict[str, pd.DataFrame], run: str, key: str, split: str | None, layer: int
) -> pd.DataFrame:
    """One row for each value and decision: token_idx, example_id, value, expert."""
    tokens = oracle.selected_tokens(tables, run, split)[["token_idx", "example_id"]]
    values = oracle.token_values(tables, run, key)
    labelled = pd.DataFrame(
        [(token, value) for value, carriers in values.items() for token in carriers],
        columns=["token_idx", "value"],
    )
    routing = oracle.of_run(tables, "routing", run)
    routing = routing.loc[routing["layer"] == layer, ["token_idx", "expert"]]
    return tokens.merge(labelled, on="token_idx").merge(routing, on="token_idx")


def add_labels(connection: duckdb.DuckDBPyConnection, key: str, values: list[str | None]) -> None:
    """Label the examples of a small run, in their order; None for no label."""
    rows = [("r", at, key, value) for at, value in enumerate(values) if value is not None]
    connection.register("incoming", pd.DataFrame(rows, columns=list("abcd")))
    connection.execute(
        "insert into files.example_labels (run_id, example_id, key, value) from incoming"
    )
    connection.unregister("incoming")


@pytest.fixture(scope="module", params=SEEDS)
def tables(request: pytest.FixtureRequest) -> dict[str, pd.DataFrame]:
    return synthetic.make_tables(request.param)


@pytest.fixture(scope="module")
def connection(tables: dict[str, pd.DataFrame]) -> duckdb.DuckDBPyConnection:
    return synthetic.connect(tables)


class TestLabelInformation:
    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize(
        ("run", "split"),
        [(synthetic.NEWER, None), (synthetic.NEWER, "held-out"), (synthetic.OLDER, "all")],
    )
    def test_agrees_with_counting_the_decisions(self, tables, connection, key, run, split) -> None:
        found = compute(connection, key=key, run=run, split=split, permutations=3)
        layers = sorted(oracle.of_run(tables, "moe_layers", run)["layer"])
        assert found["layer"].tolist() == layers
        for row in found.to_dict("records"):
            expected = decisions_of(tables, run, key, split, row["layer"])
            assert row["n_decisions"] == len(expected)
            assert row["n_examples"] == expected["example_id"].nunique()
            assert row["n_clusters"] == row["n_examples"]
            assert row["n_values"] == expected["value"].nunique()
            pairs = list(zip(expected["value"], expected["expert"], strict=True))
            assert row["information"] == pytest.approx(information_of(pairs), abs=1e-9)
            own = oracle.entropy_bits(expected["value"].value_counts(normalize=True).to_numpy())
            assert row["label_entropy"] == pytest.approx(own)
            if own:
                assert row["normalized"] == pytest.approx(row["information"] / own)
            else:
                assert pd.isna(row["normalized"])
            on_tokens = key in {"role", "template"}
            assert row["permuted"] == ("tokens within examples" if on_tokens else "examples")

    def test_the_null_over_examples_permutes_their_labels(self, tables, connection) -> None:
        run, key = synthetic.NEWER, "kind"
        found = compute(connection, key=key, run=run, permutations=200, seed=5)
        for row in found.to_dict("records"):
            decisions = decisions_of(tables, run, key, None, row["layer"])
            of_example = decisions.drop_duplicates("example_id").set_index("example_id")["value"]
            rng = np.random.default_rng(8)
            null = []
            for _ in range(200):
                moved = dict(zip(of_example.index, rng.permutation(of_example), strict=True))
                labels = decisions["example_id"].map(moved)
                null.append(information_of(list(zip(labels, decisions["expert"], strict=True))))
            # two samples of one distribution
            spread = math.sqrt(2 / 200) * np.std(null)
            assert abs(row["null_mean"] - np.mean(null)) < 4 * spread
            p_value = (1 + np.sum(np.array(null) >= row["information"])) / 201
            assert abs(row["p_value"] - p_value) < 0.2
            assert row["null_mean"] <= row["null_highest"]

    def test_the_null_of_tokens_permutes_within_examples(self, tables, connection) -> None:
        run, key = synthetic.NEWER, "role"
        found = compute(connection, key=key, run=run, permutations=200, seed=5)
        for row in found.to_dict("records"):
            decisions = decisions_of(tables, run, key, None, row["layer"])
            tokens = decisions.drop_duplicates("token_idx").set_index("token_idx")
            rng = np.random.default_rng(8)
            null = []
            for _ in range(60):
                moved = tokens.groupby("example_id")["value"].transform(
                    lambda values, rng=rng: rng.permutation(values.to_numpy())
                )
                labels = decisions["token_idx"].map(moved)
                null.append(information_of(list(zip(labels, decisions["expert"], strict=True))))
            # two samples of one distribution
            spread = math.sqrt(1 / 60 + 1 / 200) * np.std(null)
            assert abs(row["null_mean"] - np.mean(null)) < 4 * spread

    def test_the_seed_decides_and_neither_order_nor_layers_do(self, tables, connection) -> None:
        for key in ("kind", "role", "template"):
            first = compute(connection, key=key, permutations=9, run=synthetic.NEWER)
            again = compute(connection, key=key, permutations=9, run=synthetic.NEWER)
            pd.testing.assert_frame_equal(again, first, check_exact=True)
            shuffled = synthetic.connect(tables, seed=7)
            elsewhere = compute(shuffled, key=key, permutations=9, run=synthetic.NEWER)
            pd.testing.assert_frame_equal(elsewhere, first, check_exact=True)
            other = compute(connection, key=key, permutations=9, run=synthetic.NEWER, seed=1)
            assert (other["null_mean"] != first["null_mean"]).any()
            assert (other["information"] == first["information"]).all()
            alone = compute(connection, key=key, permutations=9, run=synthetic.NEWER, layer=3)
            expected = first[first["layer"] == 3].reset_index(drop=True)
            pd.testing.assert_frame_equal(alone, expected, check_exact=True)

    def test_a_label_that_decides_the_expert(self) -> None:
        groups = ["a", "b", "c", "d"] * 6
        small = make_small_run([("abcd".index(group),) for group in groups], 4, groups)
        row = compute(small, run="r", key="group").iloc[0]
        assert row["information"] == row["label_entropy"] == 2
        assert (row["normalized"], row["p_value"]) == (1, 1 / 101)
        assert row["null_highest"] < 2
        assert compute(small, run="r", key="group", permutations=19)["p_value"].iloc[0] == 1 / 20

    def test_a_label_that_has_nothing_to_do_with_the_expert(self) -> None:
        groups = ["a", "b"] * 20
        small = make_small_run([(token // 2 % 4,) for token in range(40)], 4, groups)
        row = compute(small, run="r", key="group").iloc[0]
        assert row["information"] == pytest.approx(0, abs=1e-12)
        assert (row["p_value"], row["permuted"]) == (1, "examples")
        assert row["null_mean"] > 0

    @pytest.mark.parametrize("seed", range(3))
    def test_a_random_label_is_rarely_rare(self, seed) -> None:
        rng = np.random.default_rng([3, seed])
        choices = [tuple(rng.permutation(5)[:2].tolist()) for _ in range(60)]
        small = make_small_run(choices, 5, rng.choice(["a", "b", "c"], 60).tolist())
        assert compute(small, run="r", key="group")["p_value"].iloc[0] > 0.02

    def test_labels_of_tokens_that_follow_their_example_are_not_news(self) -> None:
        # the example decides both the label of its tokens and their expert
        small = make_small_run([(0,), (1,)] * 5, 2, ["a", "b"] * 5)
        small.execute("update files.tokens set example_id = token_idx % 2")
        small.execute(
            "insert into files.token_labels by name select run_id, token_idx, "
            "'role' as key, case when token_idx % 2 = 0 then 'x' else 'y' end as value "
            "from files.tokens"
        )
        row = compute(small, run="r", key="role").iloc[0]
        assert (row["information"], row["null_mean"], row["p_value"]) == (1, 1, 1)
        assert (row["permuted"], row["n_examples"]) == ("tokens within examples", 2)
        # with other examples the same labels are news
        small.execute("update files.tokens set example_id = token_idx // 5")
        row = compute(small, run="r", key="role").iloc[0]
        assert row["information"] == 1
        assert row["p_value"] < 0.05

    def test_labels_of_documents_are_permuted_by_document(self) -> None:
        # 40 documents of 5 windows: a document's windows agree, its label is drawn at random
        n_documents, n_windows, trials = 40, 5, 60
        p_values: dict[str, list[float]] = {"document": [], "window": []}
        for seed in range(trials):
            rng = np.random.default_rng([6, seed])
            favourite = rng.integers(6, size=n_documents)
            document = np.repeat(np.arange(n_documents), n_windows)
            loyal = rng.random(len(document)) < 0.8
            expert = np.where(loyal, favourite[document], rng.integers(6, size=len(document)))
            groups = rng.choice(["a", "b"], n_documents)[document].tolist()
            small = make_small_run([(int(chosen),) for chosen in expert], 6, groups)
            add_labels(small, "document", [str(each) for each in document])
            add_labels(small, "window", [str(each) for each in range(len(document))])
            row = compute(small, run="r", key="group", permutations=39).iloc[0]
            assert (row["permuted"], row["n_examples"]) == ("examples by document", 200)
            assert row["n_clusters"] == n_documents
            p_values["document"].append(row["p_value"])
            row = compute(small, run="r", key="group", permutations=39, cluster="window").iloc[0]
            assert (row["permuted"], row["n_clusters"]) == ("examples", 200)
            p_values["window"].append(row["p_value"])
        # 5 % are expected: 3 of 60, with a deviation of 1.7
        assert sum(p <= 0.05 for p in p_values["document"]) <= 8
        assert 0.35 < np.mean(p_values["document"]) < 0.65
        # as if windows were independent most labels drawn at random look like news
        assert sum(p <= 0.05 for p in p_values["window"]) > 30

    def test_a_label_of_documents_that_decides_the_expert_is_found(self) -> None:
        documents = [str(at // 4) for at in range(80)]
        groups = ["ab"[at // 4 % 2] for at in range(80)]
        small = make_small_run([("ab".index(group),) for group in groups], 2, groups)
        add_labels(small, "document", documents)
        row = compute(small, run="r", key="group", permutations=200).iloc[0]
        assert (row["information"], row["p_value"]) == (1, 1 / 201)

    def test_a_label_that_differs_within_a_document_is_permuted_there(self) -> None:
        # the document decides the expert, and is twice as often of one value as of the other
        groups = ["a", "a", "b"] * 5 + ["b", "b", "a"] * 5
        small = make_small_run([(0,)] * 15 + [(1,)] * 15, 2, groups)
        row = compute(small, run="r", key="group", permutations=99).iloc[0]
        assert row["permuted"] == "examples" and row["p_value"] < 1
        add_labels(small, "work", ["one"] * 15 + ["two"] * 15)
        row = compute(small, run="r", key="group", permutations=99, cluster="work").iloc[0]
        assert (row["permuted"], row["n_clusters"]) == ("examples within work", 2)
        assert (row["p_value"], row["null_mean"]) == (1, pytest.approx(row["information"]))
        # what differs with the label within the work is seen
        choices = [("ab".index(group) + 2 * (at >= 15),) for at, group in enumerate(groups)]
        small = make_small_run(choices, 4, groups)
        add_labels(small, "work", ["one"] * 15 + ["two"] * 15)
        row = compute(small, run="r", key="group", permutations=99, cluster="work").iloc[0]
        assert row["p_value"] == 1 / 100

    def test_examples_without_a_cluster_are_their_own(self) -> None:
        small = make_small_run([(0,), (1,)] * 3, 2, ["a", "b"] * 3)
        add_labels(small, "work", ["x", None, "x", None, None, None])
        row = compute(small, run="r", key="group", cluster="work").iloc[0]
        assert (row["n_clusters"], row["permuted"]) == (5, "examples by work")

    def test_a_prompt_and_its_twin_are_one_cluster(self) -> None:
        small = make_small_run([(0,), (1,)] * 6, 2, ["a", "a", "b", "b"] * 3)
        add_labels(small, "twin", [str(at + 1) if at % 2 == 0 else None for at in range(12)])
        add_labels(small, "twin_of", [str(at - 1) if at % 2 else None for at in range(12)])
        row = compute(small, run="r", key="group").iloc[0]
        assert (row["n_clusters"], row["permuted"]) == (6, "examples by twin")
        small.execute("update files.examples set split = 'corrupted' where example_id % 2 = 1")
        row = compute(small, run="r", key="group").iloc[0]
        assert (row["n_clusters"], row["permuted"]) == (6, "examples")

    def test_clusters_that_cannot_be_told(self) -> None:
        small = make_small_run([(0,), (1,)], 2, ["a", "b"])
        with pytest.raises(ParameterError, match=r"cluster is .gruop.*did you mean group"):
            compute(small, run="r", key="group", cluster="gruop")
        add_labels(small, "work", ["x", "y"])
        add_labels(small, "work", ["z", "y"])
        with pytest.raises(ParameterError, match="example 0 has the values 'x' and 'z'"):
            compute(small, run="r", key="group", cluster="work")

    def test_without_permutations_or_rows(self, connection) -> None:
        given = {"run": synthetic.NEWER, "permutations": 0}
        found = compute(connection, key="kind", **given)
        assert found["null_mean"].isna().all() and found["null_highest"].isna().all()
        assert found["p_value"].isna().all()
        single = compute(connection, key="model", run=synthetic.NEWER, permutations=4)
        assert (single["information"] == 0).all() and (single["label_entropy"] == 0).all()
        assert single["normalized"].isna().all() and (single["p_value"] == 1).all()
        for extra in ({"key": "none"}, {"key": "kind", "split": "none"}):
            assert compute(connection, **given, **extra).empty
        assert compute(connection, key="kind", layer=99, **given).empty

    def test_bad_requests(self, connection) -> None:
        for name in ("permutations", "seed"):
            with pytest.raises(ParameterError, match=f"{name} is -1, not 0 (or more|to 1000000)"):
                compute(connection, key="kind", run=synthetic.NEWER, **{name: -1})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specialization") / "store"
    write_trial(folder, 0, "base", 3, 0, "2026-01-01")
    return folder


class TestStore:
    def test_columns_and_types_are_those_declared(self, store) -> None:
        with moedb.open(store) as db:
            result = db.query("label-information", key="class")
            assert result.columns == list(ANALYSIS.column_names)
            assert result.types == [column.sql_type for column in ANALYSIS.columns]
            with pytest.raises(ParameterError, match="no label key 'colour' in run"):
                db.query("label-information", key="colour")
            row = db.query("label-information", key="class").df().iloc[0]
            # of ten images eight follow their class
            assert row["p_value"] == 1 / 101 and row["normalized"] > 0.2
            assert row["label_entropy"] == pytest.approx(math.log2(3), abs=0.1)

    def test_query_and_export(self, store, tmp_path, capfd) -> None:
        chosen = ["label-information", "-p", "key", "class", "--store", str(store)]
        assert run_cli(["query", *chosen, "--format", "csv"]) == 0
        lines = capfd.readouterr().out.splitlines()
        assert lines[0] == ",".join(ANALYSIS.column_names) and len(lines) == 2
        table = tmp_path / "t.csv"
        assert run_cli(["export", *chosen, "-p", "seed", "4", "-o", str(table)]) == 0
        assert table.read_text().splitlines()[0] == lines[0]
        sidecar = json.loads((tmp_path / "t.csv.provenance.json").read_text())
        assert "moedb.queries.analyses.label_information.label_information" in sidecar["sql"]
        assert (sidecar["parameters"]["seed"], sidecar["parameters"]["permutations"]) == (4, 100)
        assert run_cli(["query", "label-information", "--store", str(store)]) == 2
        assert "needs the parameter 'key'" in capfd.readouterr().err
