"""``--verify data``: every byte of what a question reads, and nothing of what it does not."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreDamagedError
from moedb.store.layout import RunLayout
from tests.support.stores.samples import RUN_ID, write_sample

OTHER = "text-0199999999"

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for run_id in (OTHER, RUN_ID):
        write_sample(tmp_path / "store", n_units=2, run_id=run_id, arrays=("expert_outputs",))
    return tmp_path / "store"


@pytest.fixture
def ask(store: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    def asked(*arguments: str) -> tuple[int, str, str]:
        code = run_cli([*arguments, "--store", str(store), "--format", "csv"])
        return code, *capfd.readouterr()

    return asked


def flip(path: Path) -> None:
    """Change a byte that no reader trips over: of the magic at the beginning."""
    content = bytearray(path.read_bytes())
    content[1] ^= 1
    path.write_bytes(content)


def file_of(store: Path, run_id: str, table: str, unit: str = "000001") -> Path:
    return next((RunLayout(store, run_id).tables / table).glob(f"{unit}-*"))


_watched: list[set[Path]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[0], str | Path):
        _watched[-1].add(Path(arguments[0]))


@contextmanager
def opened_by_python() -> Iterator[set[Path]]:
    """What Python opens meanwhile; DuckDB opens its files by itself."""
    if not _watched:
        sys.addaudithook(_note)
    _watched.append(set())
    try:
        yield _watched[-1]
    finally:
        _watched.append(set())


# what is said of a result counts the examples of the runs that it is from
QUESTIONS = {
    "one table": (("sql", "select count(*) from router_stats"), {"router_stats", "examples"}),
    "a join": (
        ("sql", "select count(*) from routing join tokens using (run_id, token_idx)"),
        {"routing", "tokens", "examples"},
    ),
    "no table": (("sql", "select 1"), set()),
    "runs, which have no file": (("sql", "select run_id from runs order by 1"), {"examples"}),
    "a name in quotes": (
        ("sql", 'select count(*) from "Router_Stats"'),
        {"router_stats", "examples"},
    ),
    "a name put together": (
        ("sql", "select count(*) from query_table('rout' || 'ing')"),
        {"routing", "router_stats", "tokens", "examples"},
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("table", ["routing", "router_stats", "tokens"])
def test_a_flipped_bit_matters_where_it_is_read(
    store: Path, ask: Ask, name: str, table: str
) -> None:
    question, read = QUESTIONS[name]
    before = ask(*question)
    file = file_of(store, RUN_ID, table)
    flip(file)
    assert ask(*question) == before, "DuckDB does not look at that byte"
    code, out, err = ask(*question, "--verify", "data")
    if table in read:
        assert code == 3 and out == ""
        assert f"run {RUN_ID}: unit 000001: {file} is not what was committed" in err
        assert f"moedb rm {RUN_ID}" in err
        assert ask(*question, "--verify", "data", "--run", OTHER)[0] == 0
    else:
        assert (code, out, err) == before


def test_only_the_files_of_what_is_read_are_opened(store: Path, ask: Ask) -> None:
    for (question, read), run_id in zip(
        QUESTIONS.values(), (RUN_ID, OTHER, RUN_ID, OTHER, RUN_ID, OTHER), strict=True
    ):
        with opened_by_python() as opened:
            assert ask(*question, "--verify", "data", "--run", run_id)[0] == 0
        files = {path for path in opened if path.suffix == ".parquet"}
        wanted = {
            path for table in read for path in (RunLayout(store, run_id).tables / table).iterdir()
        }
        assert wanted <= files
        assert files == wanted or ("query_table" in question[1] and wanted < files)
        with opened_by_python() as opened:
            assert ask(*question, "--run", run_id)[0] == 0
        assert not {path for path in opened if path.suffix == ".parquet"}


@pytest.mark.parametrize(
    ("question", "table"),
    [("co-activation", "routing"), ("expert-frequency", "examples")],
)
def test_a_named_query_reads_its_own_run_against_the_hashes(
    store: Path, ask: Ask, question: str, table: str
) -> None:
    """Counting in numpy reads the routing beside the views."""
    before = ask("query", question, "--run", RUN_ID)
    assert before[0] == 0
    flip(file_of(store, OTHER, table))
    flip(file_of(store, RUN_ID, "router_stats"))
    assert ask("query", question, "--run", RUN_ID, "--verify", "data") == before
    file = file_of(store, RUN_ID, table)
    flip(file)
    code, out, err = ask("query", question, "--run", RUN_ID, "--verify", "data")
    assert code == 3 and out == "" and f"unit 000001: {file} is not what was committed" in err


def test_a_query_over_two_runs_reads_both_against_the_hashes(store: Path, ask: Ask) -> None:
    question = ("query", "overlap", "--run", RUN_ID, "-p", "run_b", OTHER, "--verify", "data")
    assert ask(*question)[0] == 0
    file = file_of(store, OTHER, "routing")
    flip(file)
    code, out, err = ask(*question)
    assert code == 3 and out == "" and f"run {OTHER}: unit 000001: {file} is not what" in err


def test_arrays_are_read_against_their_hashes_when_they_are_opened(store: Path) -> None:
    folder = RunLayout(store, RUN_ID).arrays / "expert_outputs/3/c/1"
    (shard,) = (path for path in folder.rglob("*") if path.is_file())
    flip(shard)
    with moedb.open(store) as db:
        assert db.array(RUN_ID, "expert_outputs", layer=3).shape[1:] == (2, 8)
        verified = db.verified()
        assert verified.array(RUN_ID, "expert_outputs", layer=1).shape[1:] == (2, 8)
        with pytest.raises(StoreDamagedError, match=f"unit 000001: {shard} is not what was"):
            verified.array(RUN_ID, "expert_outputs", layer=3)
