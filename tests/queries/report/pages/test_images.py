"""Images on pages: the pixels are the run's, and what stands beside them is what the tables say."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import moedb
from moedb.queries.report.pages.columns import read_column, read_table
from moedb.queries.report.pages.subject import subject_of
from moedb.queries.report.pages.writing import write_folder, write_page
from tests.support.drawn.pages import ReadPage
from tests.support.stores.made.pictured import (
    CLASSES,
    LAYER,
    N_EXPERTS,
    N_IMAGES,
    NOT_KEPT,
    RUN,
    SHAPE,
    TOP_K,
    colours,
    write_pictured,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "store"
    write_pictured(folder)
    return folder


@pytest.fixture(scope="module")
def page(store: Path) -> ReadPage:
    path = store.parent / "report.html"
    with moedb.open(store) as database:
        write_page(subject_of(database), path)
    return ReadPage(path)


def decoded(given: dict) -> np.ndarray:
    """(image, height, width, channel), cut out of the sheets as the client does."""
    height, width, across = given["height"], given["width"], given["across"]
    found = []
    for sheet in given["sheets"]:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))).convert("RGB"))
        n = pixels.shape[0] // height * across
        for at in range(n):
            top, left = at // across * height, at % across * width
            found.append(pixels[top : top + height, left : left + width])
    return np.stack(found)


def test_each_image_is_the_run_s(page: ReadPage) -> None:
    given = page.views["tokens-0"]["images"]
    assert (given["height"], given["width"]) == SHAPE[:2] and len(given["sheets"]) == 2
    is_there = read_column(given["is_there"]).astype(bool)
    assert np.flatnonzero(~is_there).tolist() == [NOT_KEPT] and len(is_there) == N_IMAGES
    examples = read_column(page.views["tokens-0"]["example_id"])
    shown = decoded(given)[:N_IMAGES].reshape(N_IMAGES, -1, 3).astype(int)
    expected = colours()[examples][:, None, :]
    # a JPEG rounds; images of other places differ by far more
    assert np.abs(shown - expected)[is_there].max() <= 6
    assert not shown[NOT_KEPT].any()


def test_answers_weights_and_scores_are_those_of_the_tables(page: ReadPage, store: Path) -> None:
    view = page.views["tokens-0"]
    [layer] = view["layers"]
    with moedb.open(store) as database:
        predictions = database.sql(
            "select predicted, correct, target_logprob from predictions order by example_id"
        ).df()
        routing = database.sql(
            "select expert, weight, output_norm from routing order by token_idx, rank"
        ).df()
        mass = database.sql("select probability from router_mass order by example_id, expert").df()
    assert read_column(view["answers"]["predicted"]) == predictions["predicted"].tolist()
    assert read_column(view["answers"]["correct"]).tolist() == predictions["correct"].tolist()
    np.testing.assert_array_equal(
        read_column(view["answers"]["target_logprob"]), predictions["target_logprob"]
    )
    assert read_column(layer["expert"]).tolist() == routing["expert"].tolist()
    np.testing.assert_array_equal(read_column(layer["weight"]), routing["weight"])
    np.testing.assert_array_equal(read_column(layer["norm"]), routing["output_norm"])
    np.testing.assert_array_equal(read_column(layer["probability"]), mass["probability"])
    assert len(routing) == N_IMAGES * TOP_K and len(mass) == N_IMAGES * N_EXPERTS


def test_an_expert_has_the_images_of_its_contexts(page: ReadPage) -> None:
    view = page.views[f"experts-{LAYER}"]
    for told in view["contexts"]:
        rows = read_table(told["table"])
        shown = decoded(told["images"])
        for at, example in enumerate(rows["example_id"]):
            is_there = bool(read_column(told["images"]["is_there"])[at])
            assert is_there == (example != NOT_KEPT)
            if is_there:
                assert np.abs(shown[at].astype(int) - colours()[example]).max() <= 6


def test_the_links_lead_to_the_images(page: ReadPage, store: Path, tmp_path: Path) -> None:
    assert page.views["index"]["links"][-1] == ["Images", "images"]
    for name in CLASSES:
        outside = page.text
        for script in page.scripts:
            outside = outside.replace(script, "")
        assert name not in outside
    with moedb.open(store) as database:
        write_folder(subject_of(database, RUN), tmp_path / "folder")
    one = ReadPage(tmp_path / "folder" / "tokens-0.html")
    assert one.views["tokens-0"]["images"] == page.views["tokens-0"]["images"]


def test_a_run_without_them_is_shown_as_before(tmp_path: Path) -> None:
    write_pictured(tmp_path / "store", with_images=False)
    with moedb.open(tmp_path / "store") as database:
        write_page(subject_of(database), tmp_path / "report.html")
    found = ReadPage(tmp_path / "report.html").views
    assert found["index"]["links"][-1] == ["Tokens", "example/0"]
    assert found["tokens-0"]["images"] is None and "norm" not in found["tokens-0"]["layers"][0]
