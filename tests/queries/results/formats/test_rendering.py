import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moedb.errors import UsageError
from moedb.queries.results.cells import shown_text
from moedb.queries.results.formats.rendering import format_of_path
from moedb.queries.results.sheets import TableOptions
from moedb.queries.results.visible import visible
from moedb.schemas.formats import FORMATS
from tests.support.stores.result_samples import (
    FOOTER,
    HOSTILE,
    a_result,
    render,
    rows_result,
    the_pivot_sample,
    the_sample,
)

GOLDEN = Path(__file__).parent / "golden"
ENDINGS = {
    "table": "txt",
    "csv": "csv",
    "json": "json",
    "jsonl": "jsonl",
    "markdown": "md",
    "latex": "tex",
    "html": "html",
    "parquet": "parquet",
}
PAPER = TableOptions(caption="Use of experts, 50%", label="tab:use", bold="column-max", limit=10)
PIVOT = TableOptions(
    pivot=("layer", "expert", "rate"), bold="row-max", precision=2, header_names={"layer": "Layer"}
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _bytes(format, options, result):
    rendered = render(result, format, options)
    return rendered if isinstance(rendered, bytes) else rendered.encode()


def _check_golden(name, content):
    path = GOLDEN / name
    if os.environ.get("MOEDB_WRITE_GOLDEN"):
        path.write_bytes(content)
    return path.read_bytes()


class TestGolden:
    @pytest.mark.parametrize("format", [f for f in FORMATS if f != "parquet"])
    def test_sample(self, format):
        content = _bytes(format, PAPER, the_sample())
        assert content == _check_golden(f"sample.{ENDINGS[format]}", content)

    @pytest.mark.parametrize("format", [f for f in FORMATS if f != "parquet"])
    def test_pivot(self, format):
        content = _bytes(format, PIVOT, the_pivot_sample())
        assert content == _check_golden(f"pivot.{ENDINGS[format]}", content)

    def test_parquet(self):
        # the bytes name the version of their writer: compare what they hold
        content = _bytes("parquet", PAPER, the_sample())
        golden = _check_golden("sample.parquet", content)
        now, then = pq.read_table(io.BytesIO(content)), pq.read_table(io.BytesIO(golden))
        assert now.schema.equals(then.schema, check_metadata=True)
        assert [repr(row) for row in now.to_pylist()] == [repr(row) for row in then.to_pylist()]

    @pytest.mark.parametrize("format", FORMATS)
    def test_same_bytes_each_time(self, format):
        assert _bytes(format, PAPER, the_sample()) == _bytes(format, PAPER, the_sample())


def test_formats_of_paths():
    assert format_of_path("a/B.TEX") == "latex"
    assert {format_of_path(f"x.{e}") for e in ENDINGS.values() if e != "txt"} == {*FORMATS} - {
        "table"
    }
    with pytest.raises(UsageError, match=r"\.docx") as caught:
        format_of_path("x.docx")
    assert all(e in caught.value.hint for e in (".tex", ".csv", ".md", ".html", ".parquet"))
    with pytest.raises(UsageError, match="without ending"):
        format_of_path("table")


def test_unknown_format():
    with pytest.raises(UsageError, match="'xml'") as caught:
        render(a_result("select 1 as a"), "xml")
    assert "html" in caught.value.hint


class TestTable:
    def test_numbers_are_right_aligned_with_four_digits(self):
        text = render(the_pivot_sample(), "table")
        assert text.splitlines() == [
            "  layer    expert    rate",
            "-------  --------  ------",
            "      0         2       1",
            "      0         1     0.5",
            "      0         0       0",
            "      1         2       0",
            "      1         0    0.25",
        ]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (2 / 3, "0.6667"),
            (1e-9, "1e-09"),
            (9999.4, "9999"),
            (9999.9, "10000"),
            (123456.7, "123457"),
            (1e20, "1e+20"),
            (-0.0, "0"),
            (math.nan, "nan"),
            (-math.inf, "-inf"),
            (3, "3"),
            (True, "true"),
            (None, ""),
            ([1, None, "x"], '[1, null, "x"]'),
        ],
    )
    def test_values(self, value, text):
        assert shown_text(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (2 / 3, "0.67"),
            (-0.001, "0.00"),
            (1e20, "1.00e+20"),
            (5, "5"),
            (1e-5, "1e-05"),  # a setting, and short: no 0
            (-2.5e-7, "-2.5e-07"),
            (1.234e-5, "0.00"),
        ],
    )
    def test_fixed_precision(self, value, text):
        assert shown_text(value, 2) == text

    def test_decimals_without_a_scale_are_integers(self):
        result = a_result("select 10::decimal(38, 0) as a, 1.5::decimal(4, 2) as b")
        assert render(result, "table").splitlines()[2].split() == ["10", "1.5"]
        assert "10 & 1.500" in render(result, "latex")
        assert json.loads(render(result, "json")) == [{"a": 10, "b": 1.5}]

    def test_no_rows(self):
        text = render(a_result("select 1 as a, 'x' as b where false"), "table")
        assert text.splitlines()[0].split() == ["a", "b"]

    @given(st.lists(texts, min_size=1, max_size=4), texts.filter(lambda t: '"' not in t and t))
    @settings(max_examples=30)
    def test_nothing_reaches_the_terminal_raw(self, values, name):
        name = name.replace("\0", "0")
        text = render(rows_result([(name, "VARCHAR")], [(v,) for v in values]), "table")
        assert len(text.splitlines()) == len(text.split("\n")) - 1 == 2 + len(values)
        for character in text.replace("\n", ""):
            assert character == " " or character.isprintable()

    def test_visible_keeps_ordinary_text(self):
        assert visible("a b é 日本 \\ 'x'") == "a b é 日本 \\ 'x'"
        assert visible("  a  b ") == "␣␣a␣␣b␣"
        assert visible("\u202e\ufeff\u2028\xa0\x9b") == "\\u202e\\ufeff\\u2028\\xa0\\x9b"

    @given(texts)
    def test_visible_is_stable(self, text):
        once = visible(text)
        assert visible(once) == once
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in once)


class TestCsv:
    @given(
        st.lists(
            st.tuples(texts, st.none() | st.floats(), st.none() | st.integers(-(2**63), 2**63 - 1)),
            min_size=1,
            max_size=4,
        )
    )
    @settings(max_examples=30)
    def test_reads_back(self, rows):
        result = rows_result([("t", "VARCHAR"), ("x", "DOUBLE"), ("n", "BIGINT")], rows)
        text = render(result, "csv")
        header, *back = csv.reader(io.StringIO(text, newline=""))
        assert header == ["t", "x", "n"]
        for (t, x, n), (t_back, x_back, n_back) in zip(rows, back, strict=True):
            assert t_back == t
            assert repr(float(x_back)) == repr(x) if x is not None else x_back == ""
            assert n_back == ("" if n is None else str(n))

    def test_records_end_as_rfc_4180_says(self):
        assert render(a_result("select 'a,\"b' as x, null as y"), "csv") == 'x,y\r\n"a,""b",\r\n'

    def test_names_stay_whatever_the_header(self):
        options = TableOptions(header_names={"a": "A"})
        assert render(a_result("select 1 as a"), "csv", options) == "a\r\n1\r\n"
        assert render(a_result("select 1 as a"), "table", options).startswith("  A")


class TestJson:
    @given(st.lists(st.tuples(texts, st.none() | st.floats()), max_size=4))
    @settings(max_examples=30)
    def test_reads_back(self, rows):
        result = rows_result([("t", "VARCHAR"), ("x", "DOUBLE")], rows)
        expected = [
            {"t": t, "x": x if x is not None and math.isfinite(x) else None} for t, x in rows
        ]
        assert json.loads(render(result, "json"), parse_constant=pytest.fail) == expected
        lines = render(result, "jsonl")
        assert lines.count("\n") == len(rows)
        assert [json.loads(line) for line in lines.split("\n")[:-1]] == expected

    def test_two_columns_of_one_name_are_refused(self):
        with pytest.raises(UsageError, match="2 columns are named 'a'"):
            render(a_result("select 1 as a, 2 as a"), "json")
        assert render(a_result("select 1 as a, 2 as a"), "csv") == "a,a\r\n1,2\r\n"


class TestMarkdown:
    def test_cells_survive_and_rows_are_lines(self):
        text = render(the_sample(), "markdown")
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len(table) == 2 + len(HOSTILE)
        for line, hostile in zip(table[2:], HOSTILE, strict=True):
            cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
            assert len(cells) == 8
            assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cells[3]).strip() == visible(hostile)
        assert table[1].split("|")[1].endswith(":")

    def test_footer_and_caption(self):
        text = render(the_sample(), "markdown", TableOptions(caption="A | b"))
        assert text.startswith("Table: A \\| b\n")
        assert text.endswith(f"\n\n{FOOTER}\n")
        assert FOOTER not in render(the_sample(), "markdown", TableOptions(footer=False))

    def test_bold(self):
        text = render(the_pivot_sample(), "markdown", PIVOT)
        assert re.findall(r"\*\*(.*?)\*\*", text) == ["1.00", "0.25"]


class TestHtml:
    def test_is_escaped_and_well_formed(self):
        from xml.etree import ElementTree

        text = render(the_sample(), "html", PAPER)
        body = text.split('<meta charset="utf-8">', 1)[1]
        tree = ElementTree.fromstring(f"<x>{body}</x>")  # noqa: S314 - our own
        rows = tree.findall(".//tbody/tr")
        assert ["".join(row[2].itertext()) for row in rows] == [visible(t) for t in HOSTILE[:10]]
        assert "".join(tree.find(".//tfoot").itertext()).strip() == "first 10 rows; " + FOOTER
        assert tree.find(".//caption").text == "Use of experts, 50%"

    def test_a_pivot_has_a_spanner(self):
        assert '<th></th><th colspan="3">expert</th>' in render(the_pivot_sample(), "html", PIVOT)


class TestParquet:
    def test_values_types_and_provenance_come_back(self):
        result = the_sample()
        table = pq.read_table(io.BytesIO(render(result, "parquet")))
        assert repr([tuple(row.values()) for row in table.to_pylist()]) == repr(result.fetchall())
        assert table.schema.field("layer").type == pa.int32()
        meta = json.loads(table.schema.metadata[b"moedb"])
        assert meta["runs"][0]["run_id"] == "qwen-ioi-9f8e7d"

    def test_zstd(self):
        file = pq.ParquetFile(io.BytesIO(render(the_sample(), "parquet")))
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"

    def test_columns_and_limit(self):
        options = TableOptions(columns=("rate", "layer"), limit=2)
        table = pq.read_table(io.BytesIO(render(the_sample(), "parquet", options)))
        assert table.to_pydict() == {"rate": [0.25, -1 / 3], "layer": [0, 1]}

    def test_pivot(self):
        table = pq.read_table(io.BytesIO(render(the_pivot_sample(), "parquet", PIVOT)))
        assert table.to_pydict() == {
            "layer": [0, 1],
            "0": [0.0, 0.25],
            "1": [0.5, None],
            "2": [1, 0],
        }
        assert table.schema.field("layer").type == pa.int64()

    def test_sums_of_integers_are_integers(self):
        table = pq.read_table(
            io.BytesIO(render(a_result("select sum(i) as s from range(9) t(i)"), "parquet"))
        )
        assert table.schema.field("s").type == pa.int64()
        assert table.to_pylist() == [{"s": 36}]
        sums = (
            "select i % 2 as r, i % 3 as c, sum(i) as s from range(9) t(i) group by all order by r"
        )
        options = TableOptions(pivot=("r", "c", "s"))
        table = pq.read_table(io.BytesIO(render(a_result(sums), "parquet", options)))
        assert table.to_pylist() == [
            {"r": 0, "0": 6, "1": 4, "2": 10},
            {"r": 1, "0": 3, "1": 8, "2": 5},
        ]


def test_formats_of_the_terminal_import_neither_pandas_nor_pyarrow():
    code = """
import sys, duckdb
from moedb.queries.results.formats.rendering import render_sheet
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.sheets import TableOptions, arrange
connection = duckdb.connect()
result = Result(connection.sql("select 1 as a, 2.5 as b, 'x' as c"),
                lambda: Provenance(None, "", {}, (), "", ""), connection)
for format in ("table", "csv", "json", "jsonl"):
    render_sheet(arrange(result, TableOptions()), format, TableOptions())
print({"pandas", "pyarrow", "numpy", "matplotlib", "torch"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
