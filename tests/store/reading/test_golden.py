"""Stores of every format that was released are read as they were."""

from pathlib import Path

import pytest

from moedb.store.reading.snapshot import take_snapshot
from moedb.store.verification.run import verify_run
from tests.support.stores.golden import contents, expected, unpack

FORMATS = ["format-1", "format-2"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_of_each_format_is_read(tmp_path: Path, name: str) -> None:
    store = unpack(name, tmp_path)
    snapshot = take_snapshot(store)
    assert not snapshot.damaged
    assert contents(store, expected(name)) == expected(name)
    states = {run.run_id: run.row["status"] for run in snapshot.runs.values()}
    assert states["text-aaaaaaaaaa"] == "incomplete"
    assert [*states.values()].count("complete") == 3
    for run in snapshot.runs.values():
        verify_run(run)
