"""Intervals in the cells of their estimates, read off what is written."""

import csv
import html
import io
import json
import math
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moedb
from moedb.errors import UsageError
from moedb.queries.report.pinned import check_file
from moedb.queries.results.cells import Estimate, interval_text
from moedb.queries.results.export import export
from moedb.queries.results.formats.rendering import render_stream
from moedb.queries.results.result import Resampled, Result
from moedb.queries.results.rows.streaming import RowStream
from moedb.queries.results.sheets import LACKING, TableOptions, arrange
from tests.support.stores.result_samples import a_provenance, render, rows_result

NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
CELL = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]")
HALF = re.compile(rf"({NUMBER}) ± ({NUMBER})")

COLUMNS = (
    ("layer", "INTEGER"),
    ("expert", "INTEGER"),
    ("rate", "DOUBLE"),
    ("rate_low", "DOUBLE"),
    ("rate_high", "DOUBLE"),
    ("rate_null", "DOUBLE"),
    ("rate_null_low", "DOUBLE"),
    ("rate_null_high", "DOUBLE"),
    ("rate_p", "DOUBLE"),
    ("n", "BIGINT"),
)
ROWS: list[tuple[Any, ...]] = [
    (0, 0, 0.25, 0.2196, 0.2901, 0.1, 0.05, 0.15, 0.01, 5),
    (0, 1, -0.5, -0.53, -0.47, 0.1, 0.0999, 0.1001, 0.5, 6),
    (1, 0, 0.75, None, None, None, None, None, None, 7),
    (1, 1, 2.0, 1.5, math.inf, 0.1, None, 0.2, 1.0, 8),
]


def asked(result: Result) -> Result:
    """The result as one that intervals were asked for."""
    told = a_provenance(name=None, intervals=Resampled("95 % intervals: drawn", {}))
    return replace(result, find_provenance=lambda: told)


def sample() -> Result:
    return asked(rows_result(COLUMNS, ROWS))


def markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in cells]


def latex_rows(text: str) -> list[list[str]]:
    head, body = text.split(r"\midrule")
    lines = [head.strip().splitlines()[-1], *body.split(r"\bottomrule")[0].strip().splitlines()]
    rows = [[cell.strip() for cell in line.removesuffix(r" \\").split(" & ")] for line in lines]
    plain = ((r"\pm", "±"), (r"\_", "_"), ("$", ""), (r"\infty", "inf"))
    for old, new in plain:
        rows = [[cell.replace(old, new) for cell in row] for row in rows]
    return rows


def html_rows(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", text.split("<tfoot>")[0])
    return [[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t", row)] for row in rows]


def terminal_rows(text: str) -> list[list[str]]:
    head, _, *body = text.splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in (head, *body)]


READERS = {
    "markdown": markdown_rows,
    "latex": latex_rows,
    "html": html_rows,
    "table": terminal_rows,
}


@pytest.mark.parametrize("format", READERS)
def test_an_estimate_and_its_ends_are_one_column_for_people(format: str) -> None:
    options = TableOptions(precision=3, limit=2)
    head, first, second = READERS[format](str(render(sample(), format, options)))
    assert head == ["layer", "expert", "rate", "rate_null", "rate_p", "n"]
    assert first == ["0", "0", "0.250 [0.220, 0.290]", "0.100 [0.050, 0.150]", "0.010", "5"]
    # the ends of the second null differ in the fourth digit
    assert second[2:4] == ["-0.500 [-0.530, -0.470]", "0.1000 [0.0999, 0.1001]"]


def test_without_a_precision_paper_and_terminal_print_their_digits() -> None:
    for format, cell in (
        ("markdown", "0.250 [0.220, 0.290]"),
        ("table", "0.2500 [0.2196, 0.2901]"),
    ):
        assert READERS[format](str(render(sample(), format)))[1][2] == cell


@pytest.mark.parametrize("format", READERS)
def test_half_the_width_stands_only_where_both_ends_are_as_far(format: str) -> None:
    options = TableOptions(precision=2, intervals="plus-minus", limit=2)
    _, first, second = READERS[format](str(render(sample(), format, options)))
    assert first[2:4] == ["0.25 [0.22, 0.29]", "0.10 ± 0.05"]
    assert second[2] == "-0.50 ± 0.03"


def test_latex_sets_signs_as_formulas() -> None:
    options = TableOptions(precision=2, intervals="plus-minus", columns=("rate",))
    lines = str(render(sample(), "latex", options)).splitlines()
    assert r"$-$0.50 $\pm$ 0.03 \\" in lines
    assert r"2.00 [1.50, $\infty$] \\" in lines
    brackets = replace(options, intervals="brackets")
    assert r"$-$0.50 [$-$0.53, $-$0.47] \\" in str(render(sample(), "latex", brackets))


def test_an_end_that_is_missing_is_said_and_explained() -> None:
    text = str(render(sample(), "markdown", TableOptions(precision=2)))
    rows = markdown_rows(text)
    assert rows[3][2:5] == ["0.75 [n/a]", "", ""]
    assert rows[4][2:4] == ["2.00 [1.50, inf]", "0.10 [n/a, 0.20]"]
    assert re.sub(r"\\(.)", r"\1", text).rstrip().endswith(f"; {LACKING}")
    whole = str(render(sample().limit(2), "markdown", TableOptions()))
    assert "n/a" not in whole
    stream = RowStream.of(sample(), TableOptions())
    assert not stream.lacks_an_end
    "".join(str(piece) for piece in render_stream(stream, "table", TableOptions()))
    assert stream.lacks_an_end


def test_columns_stay_where_nobody_asked_for_intervals() -> None:
    plain = rows_result(COLUMNS, ROWS)
    names = [name for name, _ in COLUMNS]
    assert markdown_rows(str(render(plain, "markdown")))[0] == names
    options = TableOptions(intervals="columns")
    assert markdown_rows(str(render(sample(), "markdown", options)))[0] == names
    told = markdown_rows(str(render(plain, "markdown", TableOptions(intervals="brackets"))))
    assert told == markdown_rows(str(render(sample(), "markdown")))
    chance = a_provenance(chance=Resampled("chance: shuffled", {}))
    only_null = replace(plain, find_provenance=lambda: chance)
    assert "rate_null_low" not in markdown_rows(str(render(only_null, "markdown")))[0]


def test_columns_and_heads_take_the_interval_with_the_estimate() -> None:
    options = TableOptions(columns=("rate", "layer"), header_names={"rate": "Rate"}, precision=2)
    for format, read in READERS.items():
        stream = RowStream.of(sample(), options)
        found = "".join(str(piece) for piece in render_stream(stream, format, options))
        assert found == render(sample(), format, options)
        rows = read(found)
        assert rows[:2] == [["Rate", "layer"], ["0.25 [0.22, 0.29]", "0"]], format


def test_an_end_that_is_named_keeps_its_column() -> None:
    options = TableOptions(columns=("rate", "rate_high", "rate_null"), precision=2)
    head, first = markdown_rows(str(render(sample(), "markdown", options)))[:2]
    assert head == ["rate", "rate_high", "rate_null"]
    assert first == ["0.25", "0.29", "0.10 [0.05, 0.15]"]


def test_a_pivot_has_intervals_in_its_cells() -> None:
    options = TableOptions(pivot=("layer", "expert", "rate"), precision=2, bold="row-max")
    rows = latex_rows(str(render(sample().limit(3), "latex", options)))
    assert rows == [
        ["layer", "0", "1"],
        ["0", r"\textbf{0.25 [0.22, 0.29]}", "-0.50 [-0.53, -0.47]"],
        ["1", r"\textbf{0.75 [n/a]}", "--"],
    ]


def test_a_pivot_for_machines_has_ends_behind_each_value(tmp_path: Path) -> None:
    options = TableOptions(pivot=("layer", "expert", "rate"))
    for ending in ("csv", "parquet"):
        export(sample().limit(3), tmp_path / f"pivot.{ending}", options)
    read = list(csv.reader((tmp_path / "pivot.csv").open(newline="")))
    assert read == [
        ["layer", "0", "0_low", "0_high", "1", "1_low", "1_high"],
        ["0", "0.25", "0.2196", "0.2901", "-0.5", "-0.53", "-0.47"],
        ["1", "0.75", "", "", "", "", ""],
    ]
    table = pq.read_table(tmp_path / "pivot.parquet")
    assert table.column("0_high").to_pylist() == [0.2901, None]
    # where nobody asked for intervals a pivot is of the one column
    export(rows_result(COLUMNS, ROWS), tmp_path / "plain.csv", options)
    assert (tmp_path / "plain.csv").read_text().splitlines()[0] == "layer,0,1"


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_files_for_machines_keep_columns(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    export(sample(), path)
    names = [name for name, _ in COLUMNS]
    if ending == "parquet":
        found = pq.read_table(path).to_pylist()
    elif ending == "csv":
        found = list(csv.DictReader(io.StringIO(path.read_text())))
    else:
        text = path.read_text()
        found = json.loads(text) if ending == "json" else [*map(json.loads, text.splitlines())]
    assert list(found[0]) == names
    assert [float(found[0][name]) for name in names] == [float(value) for value in ROWS[0]]
    with pytest.raises(UsageError, match="keeps intervals in columns"):
        export(sample(), path, TableOptions(intervals="brackets"))


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="not shown as 'bracket'"):
        TableOptions(intervals="bracket")  # type: ignore[arg-type]
    bare = rows_result(COLUMNS[:3], [row[:3] for row in ROWS])
    with pytest.raises(UsageError, match="no column X has columns X_low and X_high"):
        arrange(bare, TableOptions(intervals="plus-minus"))
    assert arrange(bare, TableOptions(intervals="columns")).columns[2].name == "rate"


def test_a_glimpse_in_python_has_intervals_in_cells() -> None:
    assert "0.2500 [0.2196, 0.2901]" in repr(sample())
    assert '<td style="text-align: right">0.2500 [0.2196, 0.2901]</td>' in sample()._repr_html_()
    assert "[0.2196" not in repr(rows_result(COLUMNS, ROWS))


sane = st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 6))


@given(st.tuples(sane, sane, sane).map(sorted), st.none() | st.integers(0, 6), st.booleans())
def test_every_cell_is_rounded_alike_and_tells_its_ends_apart(
    numbers: list[float], precision: int | None, plus_minus: bool
) -> None:
    low, value, high = numbers
    text = interval_text(Estimate(value, low, high, plus_minus), precision)
    found = CELL.fullmatch(text) or HALF.fullmatch(text)
    assert found is not None, text
    decimals = {len(each.partition(".")[2]) for each in found.groups()}
    assert len(decimals) == 1
    (digits,) = decimals
    tolerance = 0.5000001 * 10.0**-digits
    assert math.isclose(float(found[1]), value, abs_tol=tolerance)
    if precision is not None:
        assert digits >= precision
    if len(found.groups()) == 2:
        assert plus_minus
        half = float(found[2])
        assert half > 0
        for distance in (value - low, high - value, (high - low) / 2):
            assert math.isclose(half, distance, abs_tol=tolerance)
        return
    assert math.isclose(float(found[2]), low, abs_tol=tolerance)
    assert math.isclose(float(found[3]), high, abs_tol=tolerance)
    assert float(found[2]) <= float(found[1]) <= float(found[3])
    assert (found[2] == found[3]) == (low == high)


def test_numbers_too_close_or_too_small_are_powers_of_ten() -> None:
    assert interval_text(Estimate(2e-12, 1e-12, 3e-12), 3) == "2.000e-12 [1.000e-12, 3.000e-12]"
    assert interval_text(Estimate(3, 2, 5)) == "3 [2, 5]"
    assert interval_text(Estimate(3, 2.5, 5.0), 1) == "3.0 [2.5, 5.0]"


def test_decimals_and_what_is_not_finite() -> None:
    half = Estimate(Decimal("2.50"), 2.25, 2.75, plus_minus=True)
    assert interval_text(half, 2) == "2.50 ± 0.25"
    assert interval_text(Estimate(None, 0.1, 0.2), 1) == "n/a [0.1, 0.2]"
    nothing = asked(rows_result(COLUMNS[2:5], [(math.nan, None, None), (None, None, None)]))
    assert [row for (row,) in arrange(nothing, TableOptions()).rows] == [
        pytest.approx(math.nan, nan_ok=True),
        None,
    ]


@pytest.mark.model
def test_a_table_with_intervals_is_made_again_from_its_sidecar(
    mini_store: Path, tmp_path: Path
) -> None:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling

    with moedb.open(mini_store) as database:
        drawn = database.resampled(Resampling("percentile", 100), None)
        tables = {
            "plain.tex": TableOptions(),
            "half.md": TableOptions(intervals="plus-minus", columns=("layer", "gini")),
            "columns.html": TableOptions(intervals="columns"),
            "data.csv": TableOptions(),
        }
        for name, options in tables.items():
            export(drawn.query("load-balance"), tmp_path / name, options)
            before = (tmp_path / name).read_bytes()
            export(drawn.query("load-balance"), tmp_path / name, options)
            assert (tmp_path / name).read_bytes() == before
            told = json.loads((tmp_path / f"{name}.provenance.json").read_text())
            assert told["options"]["intervals"] == options.intervals
            assert check_file(database, tmp_path / name).status == "same"
        rows = list(csv.DictReader((tmp_path / "data.csv").open()))
        cells = [row[1] for row in markdown_rows((tmp_path / "half.md").read_text())[1:]]
    for row, cell in zip(rows, cells, strict=True):
        value, low, high = (float(row[name]) for name in ("gini", "gini_low", "gini_high"))
        found = CELL.fullmatch(cell) or HALF.fullmatch(cell)
        assert found is not None
        assert math.isclose(float(found[1]), value, abs_tol=5.1e-4)
        ends = found.groups()[1:]
        expected = (low, high) if len(ends) == 2 else ((high - low) / 2,)
        assert [float(end) for end in ends] == pytest.approx(expected, abs=5.1e-4)
