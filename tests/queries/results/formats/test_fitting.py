"""Tables as wide as a terminal."""

import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from moedb.queries.results.formats.fitting import cell_width, fit, wrap
from moedb.queries.results.rows.streaming import RowStream
from tests.support.stores.result_samples import a_result

words = st.lists(st.text("abé中文字🙂-", min_size=1, max_size=30), min_size=1, max_size=8)


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@given(words.map(" ".join), st.integers(2, 40))
def test_wrapped_lines_fit_and_hold_the_whole_text(text: str, columns: int) -> None:
    lines = wrap(text, columns)
    assert all(width(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    # no word begins a line that the line before had room for
    for before, after in pairwise(lines):
        assert width(f"{before} {after.split(' ')[0]}") > columns


@given(st.text("abé中文字🙂", max_size=30))
def test_widths_are_those_of_unicode(text: str) -> None:
    assert cell_width(text) == width(text)


def test_columns_are_left_out_from_the_right() -> None:
    names = [f"column_{n}" for n in range(9)]
    result = a_result("select " + ", ".join(f"{n} as {name}" for n, name in enumerate(names)))
    for columns in range(1, 100):
        table = fit(RowStream(result), columns)
        shown = [column.name for column in table.columns]
        assert [*shown, *table.left_out] == names
        n_that_fit = (columns + 2) // (len("column_0") + 2)
        assert len(shown) == max(1, min(n_that_fit, len(names)))
        assert all(width(line) <= max(columns, 2) for line in table.lines(8))
    everything = fit(RowStream(result), 10, keep_all=True)
    assert everything.left_out == [] and len(everything.columns) == len(names)


def test_a_long_text_gives_way_to_a_number_behind_it() -> None:
    result = a_result("select 1 as layer, repeat('text ', 39) || 'text' as text, 0.5 as share")
    table = fit(RowStream(result), 50)
    lines = list(table.lines(20))
    assert table.left_out == [] and table.cut == []
    assert lines[0].split() == ["layer", "text", "share"]
    assert lines[2].split()[0] == "1" and lines[2].split()[-1] == "0.5"
    assert " ".join(lines[2:]).split().count("text") == 40
    cut = list(table.lines(2))
    assert len(cut) == 4 and cut[-1].endswith("…") and table.cut == ["text"]


def test_columns_that_were_asked_about_stay_where_they_stand() -> None:
    names = [f"column_{n}" for n in range(9)]
    result = a_result("select " + ", ".join(f"{n} as {name}" for n, name in enumerate(names)))
    table = fit(RowStream(result), 38, asked={"column_7"})
    assert [column.name for column in table.columns] == [names[0], names[1], names[2], names[7]]
    assert table.left_out == [names[3], names[4], names[5], names[6], names[8]]
    head, _, row = table.lines(8)
    assert head.split() == [names[0], names[1], names[2], names[7]]
    assert row.split() == ["0", "1", "2", "7"]
    assert fit(RowStream(result), 8, asked={"column_7"}).left_out == names[1:]
