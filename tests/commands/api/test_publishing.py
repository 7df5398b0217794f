"""Tables and figures from Python: the bytes that the commands write."""

from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import UsageError
from tests.support.stores.samples import RUN_ID, write_sample


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store")
    return tmp_path / "store"


def command(*arguments: object) -> None:
    assert run_cli([str(argument) for argument in arguments]) == 0


def test_functions_and_commands_write_the_same_bytes(store: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with moedb.open(store) as db:
        written = moedb.export(
            db.query("expert-frequency"),
            one / "a.tex",
            columns=["layer", "expert", "share"],
            rename={"share": "Share"},
            caption="Use",
            longtable=True,
            font_size="small",
            precision=2,
        )
        written += moedb.plot(
            db.query("expert-frequency"), one / "b.svg", width="text", title="Even?", footer=False
        )
    asked = ("--store", store, "-o")
    command(
        *("export", "expert-frequency", *asked, other / "a.tex", "--columns", "layer,expert,share"),
        *("--rename", "share=Share", "--caption", "Use", "--longtable", "--font-size", "small"),
        *("--precision", 2),
    )
    command(
        *(
            "plot",
            "expert-frequency",
            *asked,
            other / "b.svg",
            "--width",
            "text",
            "--title",
            "Even?",
        ),
        "--no-footer",
    )
    assert sorted(path.name for path in written) == sorted(path.name for path in other.iterdir())
    for path in written:
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_what_does_not_fit_is_refused(store: Path, tmp_path: Path) -> None:
    with moedb.open(store) as db:
        rows = db.query("expert-frequency", run=RUN_ID)
        with pytest.raises(UsageError, match="do not go together"):
            moedb.export(rows, tmp_path / "a.tex", longtable=True, table_star=True)
        with pytest.raises(UsageError, match="no column 'laier'"):
            moedb.export(rows, tmp_path / "a.tex", columns=["laier"])
        with pytest.raises(UsageError, match="no figure of SQL that was typed"):
            moedb.plot(db.sql("from routing"), tmp_path / "a.png")
        with pytest.raises(UsageError, match="no figure of 'active-experts'"):
            moedb.plot(db.query("active-experts"), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_page_is_the_same_from_python(store: Path, tmp_path: Path) -> None:
    with moedb.open(store) as db:
        (one,) = moedb.report(db, tmp_path / "one.html", RUN_ID, resampling=moedb.Resampling())
        files = moedb.report(db, tmp_path / "folder")
    command("report", RUN_ID, "--store", store, "-o", tmp_path / "other.html")
    assert one.read_bytes() == (tmp_path / "other.html").read_bytes()
    assert files[0] == tmp_path / "folder" / "index.html"
    with moedb.open(store) as db, pytest.raises(UsageError, match="compared with itself"):
        moedb.report(db, tmp_path / "x.html", RUN_ID, run_b=RUN_ID)
