"""What is computed once, what is computed anew, and that it makes no difference to the rows."""

from pathlib import Path

import pytest

import moedb
from moedb.errors import MoedbError
from moedb.queries.analyses.predictions import interventions
from moedb.queries.database import Database
from tests.queries.analyses.test_ioi_analyses import make_settings
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.samples import unfinish
from tests.support.stores.synthetic_ioi import CAPTURED


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memo") / "store"
    prompts = ioi.write_captured(folder)
    splits = {p.example_id: p.split for p in prompts}
    ioi.write_interventions(folder, make_settings(prompts), splits, {})
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the arrays that databases open, one for each time."""
    names: list[str] = []
    plain = Database.array

    def array(self: Database, run: str | None, name: str, layer: int) -> object:
        names.append(name)
        return plain(self, run, name, layer)

    monkeypatch.setattr(Database, "array", array)
    return names


ASKED: list[tuple[str, dict[str, object]]] = [
    ("expert-attribution", {}),
    ("expert-attribution", {"level": "layers"}),
    ("expert-attribution", {"top": 3}),
    ("expert-effect", {"samples": 0}),
    ("expert-effect", {"samples": 0, "level": "layers"}),
]


def test_attribution_is_computed_once_for_a_run_and_a_split(store: Path, opened: list[str]) -> None:
    alone = []
    for name, given in ASKED:
        with moedb.open(store) as database:
            alone.append(database.query(name, run=CAPTURED, **given).fetchall())
    assert opened.count("logit_direction") == len(ASKED)
    opened.clear()
    with moedb.open(store) as database:
        together = [database.query(name, run=CAPTURED, **given).fetchall() for name, given in ASKED]
        assert opened.count("logit_direction") == 1
        database.query("expert-attribution", run=CAPTURED, split="corrupted")
        assert opened.count("logit_direction") == 2
    assert all(alone)
    assert together == alone


def test_interventions_are_read_once_for_the_same_parameters(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    plain = interventions.answers_of

    def answers_of(*given: object) -> object:
        read.append(given)
        return plain(*given)

    monkeypatch.setattr(interventions, "answers_of", answers_of)
    with moedb.open(store) as database:
        first = database.query("intervention-effect", run=CAPTURED, samples=50).fetchall()
        again = database.query("intervention-effect", run=CAPTURED, samples=50).fetchall()
        assert len(read) == 1
        assert first == again
        other = database.query("intervention-effect", run=CAPTURED, samples=50, seed=1).fetchall()
        patch = database.query("intervention-effect", run=CAPTURED, samples=50, kind="patch").df()
        assert len(read) == 3
        assert other != first
        assert set(patch["kind"]) == {"patch"}


def test_nothing_is_kept_of_a_run_that_is_being_written(tmp_path: Path, opened: list[str]) -> None:
    store = tmp_path / "store"
    ioi.write_captured(store)
    hidden = unfinish(store, CAPTURED, "000001")
    with moedb.open(store) as database:
        for level in ("experts", "layers"):
            rows = database.query("expert-attribution", run=CAPTURED, level=level).df()
            assert set(rows["n_prompts"]) == {4}
    assert opened.count("logit_direction") == 2
    for file, content in hidden.items():
        file.write_bytes(content)
    with moedb.open(store) as database:
        rows = database.query("expert-attribution", run=CAPTURED).df()
        assert set(rows["n_prompts"]) == {8}


def test_nothing_is_kept_of_a_closed_database(store: Path, opened: list[str]) -> None:
    database = moedb.open(store)
    database.query("expert-attribution", run=CAPTURED)
    database.close()
    with pytest.raises(MoedbError):
        database.query("expert-attribution", run=CAPTURED)
    assert opened.count("logit_direction") == 1
