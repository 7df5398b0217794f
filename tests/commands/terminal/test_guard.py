"""Exit codes of what is no error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stores.samples import write_sample

_MAIN = "from moedb.cli import main; main()"


@pytest.mark.parametrize("format", ["csv", "table", "jsonl"])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, format: str) -> None:
    write_sample(tmp_path / "store")
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "sql", "from range(300000)", "--format", format],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MOEDB_STORE": str(tmp_path / "store")},
    )
    assert process.stdout is not None and process.stderr is not None
    assert "range" in process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == 0, err
    assert err == ""
