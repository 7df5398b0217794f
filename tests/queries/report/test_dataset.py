"""Runs as a data set: the rows are those of the store, texts are left out, and the card is read."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
import zarr

import moedb
from moedb.cli import run_cli
from moedb.errors import StoreDamagedError, StoreError, UsageError
from moedb.schemas.tables import TABLES
from moedb.store.reading.snapshot import read_run
from tests.support.stores.samples import RUN_ID, sample_manifest, unfinish, unit_rows, write_sample
from tests.support.unwritable import unwritable

OTHER = "text-ffffffffff"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_sample(tmp_path / "store")
    write_sample(tmp_path / "store", run_id=OTHER)
    return tmp_path / "store"


def front_matter(folder: Path) -> dict[str, object]:
    _, found, _ = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(found)  # type: ignore[no-any-return]


def test_the_rows_are_those_of_the_store(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    done = moedb.publish([RUN_ID, OTHER], folder, store, with_texts=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert (done.runs, done.n_files) == ((RUN_ID, OTHER), len(files))
    assert done.n_bytes == sum(path.stat().st_size for path in files)
    with moedb.open(store) as db:
        for table in TABLES:
            expected = db.sql(f"select * from {table.name} order by all").fetchall()
            place = folder / "data" / table.name
            assert place.exists() == bool(expected)
            if expected:
                found = duckdb.sql(f"select * from '{place}/*.parquet' order by all")
                assert found.columns == list(table.column_names)
                assert found.fetchall() == expected
    configs = front_matter(folder)["configs"]
    assert isinstance(configs, list)
    listed = {c["config_name"]: c["data_files"][0]["path"] for c in configs}
    assert {*listed} == {path.name for path in (folder / "data").iterdir()}
    for pattern in listed.values():
        assert len(list(folder.glob(pattern))) == 2
    assert sum(1 for config in configs if config.get("default")) == 1


def test_texts_are_left_out_unless_asked_for(store: Path, tmp_path: Path) -> None:
    moedb.publish(RUN_ID, tmp_path / "set", store)
    for table, column in (("examples", "text"), ("tokens", "token")):
        rows = pq.read_table(tmp_path / "set" / "data" / table / f"{RUN_ID}.parquet")
        assert rows.num_rows and rows[column].null_count == rows.num_rows
        assert str(rows.schema.field(column).type) in ("string", "large_string")
    card = (tmp_path / "set" / "README.md").read_text()
    assert "left null here" in card and "are not in here" in card and "number 0" not in card
    assert "moedb does not record the licences" in card
    for path in (tmp_path / "set").rglob("*"):
        assert not path.is_file() or b"number 0" not in path.read_bytes()


def test_arrays_are_written_where_asked_for(store: Path, tmp_path: Path) -> None:
    moedb.publish(RUN_ID, tmp_path / "set", store, arrays=True)
    place = tmp_path / "set" / "arrays" / RUN_ID / "arrays.zarr"
    with moedb.open(store) as db:
        for name in ("router_logits", "expert_outputs"):
            found = np.asarray(zarr.open_array(place, path=f"{name}/1", mode="r")[:5])
            np.testing.assert_array_equal(found, np.asarray(db.array(RUN_ID, name, 1)[:5]))
    assert "`router_logits`" in (tmp_path / "set" / "README.md").read_text()


def hostile_store(store: Path, name: str) -> str:
    from moedb.schemas.manifests import RunManifest
    from moedb.store.writing.run_writer import RunWriter

    made = sample_manifest(n_units=1, run_id="text-00000000ee")
    row = {**made.row, "model": name, "dataset": name, "model_revision": name.strip("/")}
    writer = RunWriter(
        store, RunManifest(made.run_id, row, 1024, made.units, made.layers, made.arrays)
    )
    writer.begin({})
    writer.commit_unit(0, *unit_rows(writer.manifest, 0))
    writer.finish()
    return made.run_id


@pytest.mark.parametrize(
    "name",
    [
        'x"\n---\n# title',
        "x: [y, {z}] # & * ! | > ' % @ `",
        "<script>alert(1)</script>",
        "[click](javascript:x) ![y](http://z) | a | b |",
        "\u202eabc\x1b[2J\\",
        "- !!python/object:os.system",
    ],
)
def test_hostile_names_are_texts_in_the_card(tmp_path: Path, name: str) -> None:
    run = hostile_store(tmp_path / "store", name)
    moedb.publish(run, tmp_path / "set", tmp_path / "store", license=name)
    card = (tmp_path / "set" / "README.md").read_text()
    found = front_matter(tmp_path / "set")
    assert set(found) == {"pretty_name", "license", "tags", "configs"}
    assert isinstance(found["license"], str) and isinstance(found["pretty_name"], str)
    assert "\x1b" not in card and "\u202e" not in card and "<script" not in card.replace("\\<", "")
    body = card.split("---\n", 2)[2]
    assert body.count("\n# ") == 1 and "[click]" not in body.replace("\\[", "")
    (row,) = [line for line in body.splitlines() if line.startswith(f"| {run} ")]
    assert row.replace("\\|", "").count("|") == 12


def test_a_models_folder_is_not_told(tmp_path: Path) -> None:
    run = hostile_store(tmp_path / "store", "/home/somebody/models/tiny")
    moedb.publish(run, tmp_path / "set", tmp_path / "store")
    card = (tmp_path / "set" / "README.md").read_text()
    assert "Routing of tiny" in card and "/home" not in card


def test_what_cannot_be_published_is_told(store: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UsageError, match="no empty folder"):
        moedb.publish(RUN_ID, tmp_path / "full", store)
    unfinish(store, OTHER, "000001")
    with pytest.raises(UsageError, match="only complete runs are published"):
        moedb.publish([RUN_ID, OTHER], tmp_path / "set", store)
    with pytest.raises(UsageError, match="no run named"):
        moedb.publish("nothing", tmp_path / "set", store)
    with unwritable(tmp_path), pytest.raises(StoreError, match="cannot write"):
        moedb.publish(RUN_ID, tmp_path / "set", store)
    path = read_run(store, RUN_ID).files("routing")[0]
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreDamagedError, match="not what was committed"):
        moedb.publish(RUN_ID, tmp_path / "set", store)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["full", "store"]


def test_without_a_token_nothing_goes_to_the_hub(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code = run_cli(["publish", RUN_ID, "--to", "hf://me/set", "--store", str(store)])
    assert code == 2 and "no token for the hub" in capfd.readouterr().err
    code = run_cli(["publish", RUN_ID, "--to", "hf://me", "--store", str(store)])
    assert code == 2 and "no data set of the hub" in capfd.readouterr().err


def test_the_command_says_how_much_it_is(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_cli(["publish", "text-0", "--to", str(tmp_path / "set"), "--store", str(store)])
    out, _ = capfd.readouterr()
    assert code == 0 and RUN_ID in out and " MB)" in out
    assert json.loads(json.dumps(front_matter(tmp_path / "set")))["license"] == "unknown"
