"""Tables of plain text."""

import tabulate as tabulating
from hypothesis import given
from hypothesis import strategies as st
from tabulate import tabulate

from moedb.queries.results.cells import plain_table, shown_text
from moedb.queries.results.visible import visible

# a wide character is one, whether wcwidth is installed or not
tabulating.WIDE_CHARS_MODE = False

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(st.data())
def test_a_table_is_laid_out_as_tabulate_does(data: st.DataObject) -> None:
    n_columns = data.draw(st.integers(1, 4))
    headers = data.draw(st.lists(texts, min_size=n_columns, max_size=n_columns))
    kinds = data.draw(
        st.lists(st.sampled_from(["text", "integer"]), min_size=n_columns, max_size=n_columns)
    )
    row = st.lists(texts.map(shown_text), min_size=n_columns, max_size=n_columns)
    rows = data.draw(st.lists(row, max_size=4))
    expected = tabulate(
        rows,
        headers=[visible(header) for header in headers],
        tablefmt="simple",
        colalign=["left" if kind == "text" else "right" for kind in kinds],
        disable_numparse=True,
    )
    lines = [line.rstrip() for line in expected.split("\n")]
    assert plain_table(headers, kinds, rows) == "\n".join(lines) + "\n"
