import datetime
import json
import math
import subprocess
import sys

import pytest

from moedb.errors import SqlError
from moedb.queries.results.cells import json_value
from moedb.queries.results.result import RunReference
from tests.support.stores.result_samples import FOOTER, RUN, a_provenance, a_result

BOTH = "5 examples and their 5 corrupted twins"


def _run(number: int, **changes: object) -> RunReference:
    values = {
        "run_id": f"text-{number}",
        "job": "text",
        "model": f"model-{number}",
        "model_sha256": f"{number:064x}"[::-1],
        "dataset": "pile",
        "n_examples": 10 * number,
        "status": "complete",
    }
    return RunReference(**(values | changes))


class TestProvenance:
    def test_footer_names_model_run_and_version(self):
        assert a_provenance().footer() == FOOTER

    def test_footer_names_up_to_four_runs(self):
        footer = a_provenance(*(_run(n) for n in range(1, 5))).footer()
        assert all(f"model-{n}" in footer and f"run text-{n}" in footer for n in range(1, 5))
        assert footer.endswith("; moedb 0.1.0")

    def test_footer_counts_more_than_four_runs(self):
        runs = [_run(n, model="m", model_sha256="ab" * 32) for n in range(1, 7)]
        assert a_provenance(*runs).footer() == "6 runs of model m (sha256 abababab); moedb 0.1.0"

    def test_footer_counts_more_than_four_models(self):
        footer = a_provenance(*(_run(n) for n in range(1, 8))).footer()
        assert footer.startswith("7 runs of model model-1")
        assert "model-5" not in footer
        assert "3 more models" in footer

    def test_footer_without_runs_says_so(self):
        assert a_provenance().footer() != "from no run; moedb 0.1.0"
        none = a_provenance(RUN)
        none = type(none)(None, "select 1", {}, (), "c0ffee", "0.1.0")
        assert none.footer() == "from no run; moedb 0.1.0"

    def test_footer_says_when_a_run_is_incomplete(self):
        assert "run text-1 (incomplete), 10" in a_provenance(_run(1, status="incomplete")).footer()
        many = [_run(n, status="incomplete" if n == 2 else "complete") for n in range(1, 7)]
        assert "6 runs (1 incomplete)" in a_provenance(*many).footer()

    @pytest.mark.parametrize(
        ("splits", "read", "words"),
        [
            (None, None, "10 examples"),
            ({"clean": 5, "corrupted": 5}, None, BOTH),
            ({"clean": 5, "corrupted": 1}, ("clean",), "5 examples without their 1 corrupted twin"),
            ({"clean": 5, "corrupted": 5}, ("corrupted",), "5 of 10 examples (split corrupted)"),
            ({"clean": 5, "corrupted": 5}, ("clean", "corrupted"), BOTH),
            ({"clean": 5, "corrupted": 5}, ("no such",), "0 of 10 examples (split no such)"),
            ({"test": 7, "train": 1}, None, "8 examples"),
            ({"test": 7, "train": 1}, ("test", "train"), "8 examples"),
            ({"test": 7, "train": 1}, ("train",), "1 of 8 examples (split train)"),
            ({"corrupted": 5}, None, "5 examples"),
            ({"corrupted": 5}, (), "0 examples without their 5 corrupted twins"),
            ({"clean": 1}, ("clean",), "1 example"),
            ({}, None, "0 examples"),
        ],
    )
    def test_footer_says_what_was_read(self, splits, read, words):
        footer = a_provenance(_run(1, splits=splits, splits_read=read)).footer()
        assert f"run text-1, {words};" in footer

    def test_footer_is_one_line_without_the_folders_of_a_model(self):
        footer = a_provenance(_run(1, model="/home/someone/models/mini\nmoe")).footer()
        assert "\n" not in footer
        assert "someone" not in footer

    def test_to_dict_is_json(self):
        provenance = a_provenance(parameters={"day": datetime.date(2026, 1, 31), "x": math.inf})
        back = json.loads(json.dumps(provenance.to_dict(), allow_nan=False))
        assert back["parameters"] == {"day": "2026-01-31", "x": None}
        assert back["runs"][0]["model_sha256"] == RUN.model_sha256
        assert back["snapshot"] == "c0ffee"


class TestResult:
    sql = "select i::int as i, i / 4.0::float as x from range(30) t(i) order by i desc"

    def test_columns_and_types(self):
        result = a_result(self.sql)
        assert result.columns == ["i", "x"]
        assert result.types == ["INTEGER", "FLOAT"]

    def test_rows_are_the_same_every_time(self):
        result = a_result(self.sql)
        rows = [(i, i / 4.0) for i in reversed(range(30))]
        assert result.fetchall() == rows
        assert result.fetchmany(3) == rows[:3]
        assert result.fetchmany(3) == rows[:3]
        assert result.fetchall() == rows
        assert result.limit(2).fetchall() == rows[:2]
        assert result.limit(2).provenance is result.provenance
        for _ in range(2):
            assert result.arrow().to_pylist() == [{"i": i, "x": x} for i, x in rows]
            assert list(result.df().itertuples(index=False, name=None)) == rows

    def test_relation_can_be_built_on(self):
        assert a_result(self.sql).relation.filter("i < 2").fetchall() == [(1, 0.25), (0, 0.0)]

    def test_repr_shows_a_table_and_its_cut(self):
        text = repr(a_result(self.sql))
        assert text.splitlines()[0].split() == ["i", "x"]
        assert text.splitlines()[2].split() == ["29", "7.25"]
        assert text.splitlines()[-1] == "first 20 rows; " + FOOTER
        assert "first" not in repr(a_result("select 1 as a"))

    def test_an_error_while_running_is_duckdbs_own(self):
        result = a_result("select ('x' || i)::int as a from range(3) t(i)")
        for ask in (result.fetchall, result.df, result.arrow, lambda: result.fetchmany(1)):
            with pytest.raises(SqlError, match="Could not convert string 'x"):
                ask()
        assert "Could not convert" in repr(result)


def test_json_value_of_nested_values():
    (row,) = a_result(
        "select [1.5::double, 'nan'::double, null] as l, {'a': 1, 'b': '\\xAA'::blob} as s, "
        "map {1: 'x'} as m, 1.25::decimal(5, 2) as d, 7::hugeint as h, "
        "timestamp '2026-01-31 01:02:03' as t"
    ).fetchall()
    assert [json_value(value) for value in row] == [
        [1.5, None, None],
        {"a": 1, "b": "aa"},
        {"1": "x"},
        1.25,
        7,
        "2026-01-31 01:02:03",
    ]


def test_importing_costs_nothing():
    heavy = "{'duckdb', 'pandas', 'pyarrow', 'numpy', 'tabulate', 'matplotlib', 'torch'}"
    code = f"import sys, moedb.queries.results.result; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
