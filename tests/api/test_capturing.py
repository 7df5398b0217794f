"""Captures and interventions from Python: the runs that the commands make."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import UsageError

pytestmark = pytest.mark.model


def command(*arguments: str, store: Path) -> None:
    assert run_cli([*arguments, "--store", str(store)]) == 0


def test_functions_and_commands_make_the_same_runs(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"He ran {n} miles.", "kind": "a"}) + "\n" for n in (1, 2))
    )
    by_hand, by_command = tmp_path / "functions", tmp_path / "commands"
    prompts = moedb.capture_ioi(by_hand, n=3, arrays="none", name="prompts")
    changed = moedb.intervene("prompts", by_hand, kind="knock-out-shared", layers="2", note="one")
    prose = moedb.capture_text(texts, by_hand, label=["kind"], arrays=["expert_outputs@2"])
    command("capture", "qwen-ioi", "--n", "3", "--arrays", "none", store=by_command)
    command(
        *("intervene", "--run", prompts, "--kind", "knock-out-shared", "--layers", "2"),
        store=by_command,
    )
    command(
        *("capture", "text", "--dataset", str(texts), "--label", "kind"),
        *("--arrays", "expert_outputs@2"),
        store=by_command,
    )
    with moedb.open(by_hand) as one, moedb.open(by_command) as other:
        assert set(one.snapshot.runs) == set(other.snapshot.runs) == {prompts, changed, prose}
        assert one.snapshot.run("prompts").run_id == prompts
        assert one.snapshot.runs[changed].named.note == "one"
        for table in ("routing", "predictions", "example_labels", "conditions"):
            rows = [db.sql(f"from {table} order by all").fetchall() for db in (one, other)]
            assert rows[0] == rows[1] and rows[0]
    # again: nothing to do
    assert moedb.capture_ioi(by_hand, n=3, arrays="none") == prompts


def test_settings_are_checked_as_the_commands_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be called 'a b'"):
        moedb.capture_ioi(tmp_path, n=2, name="a b")
    with pytest.raises(TypeError, match="batchsize"):
        moedb.capture_ioi(tmp_path, n=2, batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="no_such_array"):
        moedb.capture_ioi(tmp_path, n=2, arrays="no_such_array")
    with pytest.raises(moedb.MoedbError, match="looks like a URL"):
        moedb.capture_ioi("s3://bucket/store")
    assert not list(tmp_path.iterdir())


def test_the_public_names_are_listed_documented_and_lazy() -> None:
    assert set(dir(moedb)) == {*moedb.__all__, "__doc__"}
    for name in moedb.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(moedb, name)), name
    assert (Path(moedb.__file__).parent / "py.typed").exists()
    code = "import sys, moedb; print(sorted({'torch', 'duckdb', 'rich', 'numpy'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
