"""Captures and interventions from Python: the runs that the commands make."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moedb
from moedb.cli import run_cli
from moedb.errors import ModelError, UsageError

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
    with pytest.raises(TypeError, match="did you mean batch_size"):
        moedb.capture_ioi(tmp_path, n=2, batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="no_such_array"):
        moedb.capture_ioi(tmp_path, n=2, arrays="no_such_array")
    with pytest.raises(moedb.MoedbError, match="takes a store in a folder"):
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


def test_a_model_that_is_loaded_is_captured_as_its_folder_is(
    tmp_path: Path, random_model: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(random_model)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    texts = tmp_path / "texts.txt"
    texts.write_text("The cat saw it.\nA dog ran home.\n")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = {type(module) for module in model.modules()}
    store = tmp_path / "live"
    settings: dict[str, object] = {"lines": True, "arrays": ["expert_outputs", "router_logits"]}
    run = moedb.capture_text(texts, store, model=model, tokenizer=tokenizer, **settings)
    # it is left as it was
    assert model.training and {type(module) for module in model.modules()} == kinds
    assert all((value == before[name]).all() for name, value in model.state_dict().items())

    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    other = tmp_path / "folder"
    assert moedb.capture_text(texts, other, model=str(saved), **settings) == run
    with moedb.open(store) as one, moedb.open(other) as two:
        hashes = [db.snapshot.runs[run].row["model_sha256"] for db in (one, two)]
        assert hashes[0] == hashes[1]
        for table in ("routing", "router_stats", "tokens"):
            rows = [db.sql(f"from {table} order by all").fetchall() for db in (one, two)]
            assert rows[0] == rows[1] and rows[0]
        arrays = [db.array(run, "expert_outputs", 1)[:] for db in (one, two)]
        np.testing.assert_array_equal(*arrays)


def test_what_is_no_loaded_model_is_refused(tmp_path: Path, random_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(random_model)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    for given, error, said in (
        ({"model": model}, UsageError, "comes with its tokenizer"),
        ({"model": 3, "tokenizer": tokenizer}, ModelError, "expected a model of transformers"),
        ({"tokenizer": tokenizer}, UsageError, "only a model that is loaded"),
        ({"model": model, "tokenizer": tokenizer, "dtype": "float16"}, UsageError, "runs as it is"),
        ({"model": model, "tokenizer": tokenizer, "device": "cpu"}, UsageError, "where it is"),
    ):
        with pytest.raises(error, match=said):
            moedb.capture_ioi(tmp_path / "store", n=2, **given)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()
