"""A store on object storage, explored: its views are those of the same store in a folder."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import moedb
from moedb.queries.report.pages.columns import read_column, read_table
from tests.support.servers.explorer import Explorer, explorer
from tests.support.servers.s3_buckets import SECRET, Bucket, Server
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.made.hostile import RUN, RUN_B, write_hostile
from tests.support.stores.made.pictured import RUN as PICTURED
from tests.support.stores.made.pictured import write_pictured
from tests.support.stores.made.routed_words import write_routed_words
from tests.support.stores.synthetic_ioi import CAPTURED


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere") / "store"
    ioi.write_captured(folder)
    write_hostile(folder)
    write_pictured(folder)
    return folder


@pytest.fixture(scope="module")
def bucket_of_module(s3_server: Server) -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        yield Bucket(s3_server)


@pytest.fixture(scope="module")
def url(store: Path, bucket_of_module: Bucket) -> str:
    return bucket_of_module.put(store)


@pytest.fixture(scope="module")
def remote(url: str) -> Iterator[Explorer]:
    with explorer(url, CAPTURED, "--no-ci") as running:
        yield running


@pytest.fixture(scope="module")
def local(store: Path) -> Iterator[Explorer]:
    with explorer(store, CAPTURED, "--no-ci") as running:
        yield running


def names_of(client: httpx.Client, run: str) -> list[str]:
    """The views that the page of a run may ask for."""
    text = client.get("/", params={"run": run}).text
    layers = re.search(r'"layers":\[(\[.*?\])\],', text)
    assert layers is not None
    numbers = [int(each) for each in re.findall(r"\[(\d+),", layers[1])]
    sections = ["about", "load", "classes", "pairs", "answers", "labels", "examples", "tokens-0"]
    return [*sections, *(f"experts-{layer}" for layer in numbers)]


@pytest.mark.parametrize(("run", "run_b"), [(CAPTURED, None), (RUN, RUN_B), (PICTURED, None)])
def test_views_are_those_of_a_folder(
    remote: Explorer, local: Explorer, store: Path, url: str, run: str, run_b: str | None
) -> None:
    given = {"run": run, **({} if run_b is None else {"run_b": run_b})}
    with remote.client() as there, local.client() as here:
        for name in names_of(here, run):
            found = there.get(f"/view/{name}", params=given)
            expected = here.get(f"/view/{name}", params=given)
            assert found.status_code == expected.status_code == 200, (name, found.text)
            assert unpacked(found.json()) == pytest.approx(unpacked(expected.json()), nan_ok=True)


def unpacked(view: object) -> dict[str, object]:
    """A view as numbers and texts by their places: columns are packed by their bytes."""
    found: dict[str, object] = {}

    def walk(value: object, place: str) -> None:
        if isinstance(value, dict) and {"type", "n", "data"} <= {*value}:
            read = read_column(value)
            for at, each in enumerate(read if isinstance(read, list) else read.tolist()):
                found[f"{place}/{at}"] = each
        elif isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{place}/{key}")
        elif isinstance(value, list):
            for at, each in enumerate(value):
                walk(each, f"{place}/{at}")
        elif not place.endswith(("/missing", "/footer")):  # these name the store
            found[place] = value

    walk(view, "")
    return found


def test_statements_are_answered_and_guarded(remote: Explorer, url: str, store: Path) -> None:
    statement = "select layer, count(*) as n from routing group by layer order by layer"
    with remote.client() as client:
        text = client.get("/").text
        assert SECRET not in text
        version = re.search(r'"snapshot":"([0-9a-f]{64})"', text)
        assert version is not None
        sent = {"statement": statement, "run": CAPTURED, "snapshot": version[1]}
        columns = read_table(client.post("/sql", json=sent).json()["table"])
        with moedb.open(store) as database:
            expected = database.sql(statement, run=CAPTURED).fetchall()
        assert [*zip(columns["layer"], columns["n"], strict=True)] == expected
        refused = client.post("/sql", json={**sent, "statement": f"from read_text('{url}/*')"})
        assert refused.status_code == 400 and SECRET not in refused.text


def test_pixels_come_from_there(remote: Explorer, store: Path) -> None:
    with remote.client() as client:
        view = client.get("/view/tokens-0", params={"run": PICTURED}).json()
        images = client.get("/view/experts-3", params={"run": PICTURED}).json()["contexts"][0]
    assert len(view["images"]["sheets"]) == 2 and images["images"]["sheets"]


def test_what_changes_there_is_seen(store: Path, bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.put(store)
    with explorer(url, CAPTURED, "--no-ci") as server, server.client() as client:
        assert client.get("/news").json() == {"changed": False}
        write_routed_words(tmp_path / "more", n_examples=3, n_words=6, with_outputs=True)
        bucket.put(tmp_path / "more", url)
        time.sleep(6)  # it is not looked at every time
        assert client.get("/news").json() == {"changed": True}
        assert client.get("/", params={"run": CAPTURED, "fresh": "1"}).status_code == 303
        assert "text-00000f00d5" in client.get("/").text
        code, err = server.end()
    assert code == 0 and "Traceback" not in err and SECRET not in err


def test_what_is_gone_there_is_said_without_secrets(store: Path, bucket: Bucket) -> None:
    url = bucket.put(store)
    with explorer(url, RUN, "--no-ci") as server, server.client() as client:
        for path in bucket.files.find(url.removeprefix("s3://")):
            if path.endswith(".parquet"):
                bucket.files.rm(path)
        found = client.get("/view/tokens-0", params={"run": RUN})
        assert found.status_code == 500
        # the table's file, or a run that was compacted, by what reads first
        assert "tokens" in found.text or "is gone" in found.text
        assert SECRET not in found.text and "Traceback" not in found.text
