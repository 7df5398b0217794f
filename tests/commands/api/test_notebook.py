"""What a notebook shows and offers: lists, frames, tables of HTML."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

import moedb
from moedb.errors import UsageError
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.questions.catalog import catalog
from moedb.schemas.run_names import RunName
from moedb.schemas.tables import TABLES
from moedb.store.writing.naming import name_run
from tests.support.stores.samples import RUN_ID, write_sample


class Cells(HTMLParser):
    """The texts of a table's cells, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def db(tmp_path: Path) -> moedb.Database:
    write_sample(tmp_path / "store")
    name_run(tmp_path / "store", RUN_ID, RunName("numbers"))
    return moedb.open(tmp_path / "store")


def test_a_database_lists_what_it_holds_and_what_can_be_asked(db: moedb.Database) -> None:
    runs = db.runs().df()
    assert runs[["run_id", "name", "status"]].to_numpy().tolist() == [
        [RUN_ID, "numbers", "complete"]
    ]
    assert set(db.queries().df()["name"]) == {*catalog(), *ANALYSES}
    assert {table.name for table in TABLES} <= set(db.tables().df()["name"])
    assert {RUN_ID, "numbers"} <= {*Cells(db._repr_html_()).texts}


def test_a_result_is_a_table_in_which_nothing_is_markup(db: moedb.Database) -> None:
    result = db.sql("""select '<script>x</script>&' as "<b>", 1.5 as n, null as nothing""")
    shown = Cells(result._repr_html_())
    assert shown.tags == {"table", "thead", "tbody", "tr", "th", "td", "small"}
    assert shown.texts[:3] == ["<b>", "n", "nothing"]
    assert shown.texts[3:5] == ["<script>x</script>&", "1.5"]
    assert shown.texts[-1] == "from no run; moedb " + moedb.__version__


def test_long_and_empty_results_say_so(db: moedb.Database) -> None:
    many = Cells(db.sql("from range(50)")._repr_html_())
    assert many.texts[-1].startswith("first 20 rows; ")
    assert [text for text in many.texts if text.isdigit()] == [str(n) for n in range(20)]
    none = Cells(db.sql("from routing where layer = 99")._repr_html_())
    assert none.texts[-1].startswith("no rows: ")


def test_rows_come_as_a_polars_frame(db: moedb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = db.query("expert-frequency")
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(UsageError, match="polars is not installed"):
        rows.pl()
    monkeypatch.undo()
    polars = pytest.importorskip("polars")
    assert rows.pl().equals(polars.from_arrow(rows.arrow()))
    assert rows.pl().shape == (rows.df().shape[0], len(rows.columns))
