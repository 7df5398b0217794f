"""Tables, and cells of tables, in the prose of a page."""

from pathlib import Path

import pytest

from moedb.commands.studies.pages import write_page
from moedb.errors import UsageError
from moedb.queries.results.export import export
from moedb.queries.results.rows.given import result_of_rows
from moedb.queries.results.sheets import TableOptions

COLUMNS = {
    **{"twin": "VARCHAR", "k": "INTEGER", "note": "VARCHAR"},
    **{"lead": "DOUBLE", "lead_low": "DOUBLE", "lead_high": "DOUBLE"},
}
ROWS = [
    ("active", 1, "a|b*", 0.0086, -0.005, 0.023),
    ("active", 32, "back\\slash", 0.0512, 0.033, 0.069),
    ("total", 1, None, None, None, None),
    (None, 1, "@leads@", 0.25, 0.2, 0.3),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a table, as ``moedb export`` writes it."""
    options = TableOptions(intervals="brackets", bold="column-max", caption="Leads | of experts")
    export(result_of_rows(COLUMNS, ROWS), tmp_path / "leads.md", options)
    return tmp_path


def page(folder: Path, prose: str) -> str:
    (folder / "page.in.md").write_text(prose, encoding="utf-8")
    used = write_page(folder / "page.in.md", folder, folder / "made/page.md")
    assert used[:2] == [folder / "made/page.md", folder / "page.in.md"]
    return used[0].read_text(encoding="utf-8")


def test_cells_are_those_that_the_table_shows(folder: Path) -> None:
    text = page(
        folder,
        "Ahead by @leads[active,1].lead@ and\n@leads[active, 32].lead@\n"
        "(@leads[active,1].note@, @leads[active,32].note@), or @leads[total].lead@none.\n",
    )
    assert text == (
        "Ahead by 0.009 \\[-0.005, 0.023\\] and\n0.051 \\[0.033, 0.069\\]\n"
        "(a\\|b\\*, back\\\\slash), or none.\n"
    )


def test_a_row_may_begin_with_nothing(folder: Path) -> None:
    assert page(
        folder, "k is @leads[,1].k@: @leads[].lead@; write to me@leads.org or x[1].y@z"
    ) == ("k is 1: 0.250 \\[0.200, 0.300\\]; write to me@leads.org or x[1].y@z")


def test_a_table_and_its_cells(folder: Path) -> None:
    table = (folder / "leads.md").read_text(encoding="utf-8").strip()
    assert page(folder, "@leads@\n\nThat is @leads[active,32].k@.\n") == f"{table}\n\nThat is 32.\n"
    # what is set in is not looked through for places
    assert page(folder, "@leads[,1].note@\n") == "@leads@\n"


def test_a_cell_in_bold_is_told_by_what_it_shows(tmp_path: Path) -> None:
    rows = [(0.5, "half"), (0.75, "most")]
    options = TableOptions(precision=2, bold="column-max")
    export(result_of_rows({"x": "DOUBLE", "y": "VARCHAR"}, rows), tmp_path / "t.md", options)
    assert "**0.75**" in (tmp_path / "t.md").read_text()
    assert page(tmp_path, "@t[0.75].y@, @t[0.50].x@") == "most, 0.50"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("@lead[active,1].lead@", "there is no .*lead.md of the table lead"),
        ("@leads[active,1].laed@", "the table leads has no column 'laed'; did you mean lead"),
        (
            "@leads[activ,1].lead@",
            r"no row that begins with \[activ,1\]; its rows are \[active,1,a",
        ),
        ("@leads[active].lead@", r"2 rows that begin with \[active\]"),
        ("@leads[active,1,a,b,c,d,e].lead@", "no row that begins with"),
        ("@leads[].nothing@", "no column 'nothing'"),
        ("@other@", "there is no .*other.md of the table other"),
    ],
)
def test_what_is_not_there_is_said(place: str, said: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        page(folder, f"One\n{place}\n")
    assert "page.in.md" in str(caught.value) and place in str(caught.value)
    assert not (folder / "made/page.md").exists()


def test_a_file_without_a_table_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("no table\n")
    with pytest.raises(UsageError, match="has no column 'x'; there are none yet"):
        page(tmp_path, "@t[a].x@")
