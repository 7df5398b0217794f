"""Which store a command is given: a URL, a place that cannot be written, a run by half its name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreError, UsageError
from moedb.store.layout import RunLayout, store_path
from moedb.store.reading.snapshot import take_snapshot
from moedb.store.writing import writability
from moedb.store.writing.removal import remove_run
from moedb.store.writing.writability import check_worth_capturing, check_writable
from tests.support.stores.samples import RUN_ID, write_sample
from tests.support.unwritable import unwritable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return call


COMMANDS = (
    ("capture", "qwen-ioi"),
    ("capture", "cifar-moe"),
    ("capture", "text", "--dataset", "x.txt"),
    ("intervene", "--run", "x", "--kind", "random-routing"),
    ("runs",),
    ("show", "x"),
    ("query", "expert-frequency"),
    ("sql", "select 1"),
    ("export", "expert-frequency", "-o", "x.csv"),
    ("plot", "expert-frequency", "-o", "x.pdf"),
    ("report", "ioi", "-o", "x"),
    ("verify",),
    ("rm", "x", "--yes"),
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("url", ["s3://bucket/../x", "file:///tmp/x"])
def test_a_url_is_no_store(
    run: Run,
    command: tuple[str, ...],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = [(*command, "--store", url), ("--store", url, *command)]
    for arguments in calls:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and _refusal(url) in err, arguments
    monkeypatch.setenv("MOEDB_STORE", url)
    code, out, err = run(*command)
    assert (code, out) == (2, "") and _refusal(url) in err
    assert list(tmp_path.iterdir()) == []


def _refusal(url: str) -> str:
    """What commands that write say, and what those that read do."""
    return url.partition(":")[0] + "://"


def test_a_url_is_no_store_in_python_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOEDB_STORE", "ftp://somebody/store")
    for store in ("s3://bucket/../x", Path("s3://bucket/x"), None):
        with pytest.raises(UsageError, match="s3://"):
            moedb.open(store)


@pytest.mark.parametrize(
    "store", ["moedb-store", "C:/stores/a", "./s3:/x", "a:b/c", "/data/run:1/x", "../x"]
)
def test_a_folder_is_a_store(store: str) -> None:
    assert store_path(store) == Path(store)


def test_a_run_to_delete_is_named_whole(run: Run, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    write_sample(tmp_path / "store", n_units=1)
    code, out, err = run("rm", "text", "--yes", "--store", store)
    assert code == 2 and f"moedb rm {RUN_ID}" in err and "rm text --yes" not in err
    code, out, err = run("rm", "text", "--store", store)
    assert code == 2 and f"moedb rm {RUN_ID}" in err and "rm text --yes" not in err
    write_sample(tmp_path / "store", n_units=1, run_id="text-ffffffffff")
    code, out, err = run("rm", "text-", "--store", store)
    assert code == 2 and f"moedb rm {RUN_ID}" in err and "moedb rm text-ffffffffff" in err
    code, out, err = run("rm", RUN_ID, "--store", store)
    assert code == 2 and f"moedb rm {RUN_ID} --yes" in err
    assert len(take_snapshot(tmp_path / "store").runs) == 2
    assert run("rm", RUN_ID, "--yes", "--store", store)[0] == 0
    code, out, _ = run("runs", "--store", store, "--format", "json")
    assert [row["run_id"] for row in json.loads(out)] == ["text-ffffffffff"]


@pytest.mark.parametrize("job", COMMANDS[:3])
def test_a_store_that_cannot_be_made_is_told_of_at_once(
    run: Run, job: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for store in ("file/store", "file", "dangling"):
        code, out, err = run(*job, "--store", str(tmp_path / store))
        assert (code, out) == (3, "") and str(tmp_path / store) in err
        assert "--store DIR" in err and "not an error that moedb expects" not in err
    with unwritable(tmp_path):
        code, out, err = run(*job, "--store", str(tmp_path / "store"))
        assert code == 3 and "cannot write the store" in err
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_may_hold_what_is_asked_for(tmp_path: Path) -> None:
    store = tmp_path / "store"
    writer = write_sample(store, n_units=1)
    with unwritable(store / "runs"):
        check_worth_capturing(store)
        with pytest.raises(StoreError, match="cannot write the store"):
            check_writable(store)
        with pytest.raises(StoreError, match=f"cannot delete run {RUN_ID}"):
            remove_run(store, RUN_ID)
        assert take_snapshot(store).runs[RUN_ID].is_complete
    writer.layout.segment("final").unlink()
    with unwritable(store / "runs"), pytest.raises(StoreError, match="cannot write the store"):
        check_worth_capturing(store)
    with unwritable(writer.layout.folder):
        check_writable(store)
        with pytest.raises(StoreError, match="cannot write the store"):
            check_writable(store, RUN_ID)


def test_a_refusal_of_the_system_is_a_clear_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the above, where folders cannot be made immutable."""
    store = tmp_path / "store"
    write_sample(store, n_units=1)

    def refuse(*given: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writability.tempfile, "mkdtemp", refuse)
    with pytest.raises(StoreError, match=r"cannot write the store .*: Permission denied"):
        check_writable(store, RUN_ID)
    monkeypatch.setattr(Path, "rename", refuse)
    code, _, err = run("rm", RUN_ID, "--yes", "--store", str(store))
    assert code == 3 and f"cannot delete run {RUN_ID}" in err and "Permission denied" in err
    assert "not an error that moedb expects" not in err


def test_looking_whether_a_store_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "store")
    assert list(tmp_path.iterdir()) == []
    write_sample(tmp_path / "store", n_units=1)
    layout = RunLayout(tmp_path / "store", RUN_ID)
    before = sorted(tmp_path.rglob("*"))
    check_writable(tmp_path / "store", RUN_ID)
    check_writable(tmp_path / "store", "text-new")
    assert sorted(tmp_path.rglob("*")) == before and layout.folder.exists()
