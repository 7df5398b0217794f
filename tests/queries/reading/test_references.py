"""The runs that a result names."""

from pathlib import Path

import pytest

from moedb.queries.reading.references import SplitSize, references
from moedb.store.reading.snapshot import take_snapshot
from tests.support.stores.samples import RUN_ID, write_sample


def test_examples_are_counted_only_where_there_is_a_run(tmp_path: Path) -> None:
    write_sample(tmp_path / "store")
    snapshot = take_snapshot(tmp_path / "store")
    assert references(snapshot, [], lambda: pytest.fail("counted for no run")) == ()
    (named,) = references(snapshot, [RUN_ID, RUN_ID], lambda: {RUN_ID: {"train": SplitSize(3, 15)}})
    assert (named.run_id, named.splits) == (RUN_ID, {"train": 3})
