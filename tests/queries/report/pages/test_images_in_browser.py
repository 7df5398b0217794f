"""Images in a browser: chosen by class, expert and answer, read aloud, and led through."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import moedb
from moedb.queries.report.pages.subject import subject_of
from moedb.queries.report.pages.writing import write_folder, write_page
from moedb.queries.results.visible import visible
from tests.support.drawn.pages import goes_to, is_cut_off, opened
from tests.support.stores.made.pictured import (
    CLASSES,
    LAYER,
    N_EXPERTS,
    N_IMAGES,
    NOT_KEPT,
    colours,
    write_pictured,
)

WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictured") / "store"
    write_pictured(folder)
    return folder


@pytest.fixture(scope="module")
def path(pictured: Path) -> Path:
    made = pictured.parent / "images.html"
    with moedb.open(pictured) as database:
        write_page(subject_of(database), made)
    return made


def control(page: Any, name: str) -> Any:
    """The choice that a label begins with."""
    return page.locator("label", has_text=re.compile(f"^{name}")).locator("select")


def shown_count(page: Any) -> str:
    return str(page.locator("main [role=status]").first.inner_text())


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_of_images_fits_and_every_control_works(
    browser: Any, path: Path, width: int
) -> None:
    with opened(browser, path, width) as page:
        title = page.title()
        for link in ("images", "example/0", f"example/{NOT_KEPT}", f"expert/{LAYER}/1"):
            goes_to(page, link)
            assert not is_cut_off(page), link
            for select in page.locator("main select").all():
                for option in range(select.locator("option").count()):
                    select.select_option(index=option)
                select.select_option(index=0)
            assert not is_cut_off(page), link
        assert page.title() == title
        assert page.locator("main img").count() == 0 and page.locator("main script").count() == 0


def test_images_are_chosen_by_class_expert_and_answer(
    browser: Any, path: Path, pictured: Path
) -> None:
    with opened(browser, path) as page, moedb.open(pictured) as database:
        goes_to(page, "images")
        assert shown_count(page) == f"{N_IMAGES} of {N_IMAGES} images"
        assert page.locator(".image").count() == 200
        page.get_by_role("button", name="Show 100 more").click()
        assert page.locator(".image").count() == N_IMAGES
        legend = page.locator(".legend li").all_inner_texts()
        used = database.query("expert-frequency").df().sort_values("expert")
        assert legend == [
            f"expert {e}: {n}" for e, n in zip(used["expert"], used["n_decisions"], strict=True)
        ]

        control(page, "class").select_option(visible(CLASSES[0]))
        control(page, "expert").select_option("2")
        control(page, "answer").select_option("wrong")
        control(page, "order").select_option("largest weight first")
        asked = database.sql(
            "select example_id, expert, weight, predicted from routing"
            " join tokens using (run_id, token_idx)"
            " join example_labels using (run_id, example_id)"
            " join predictions using (run_id, example_id)"
            " where expert = 2 and value = $value and correct = 0 order by weight desc",
            {"value": CLASSES[0]},
        ).df()
        assert shown_count(page) == f"{len(asked)} of {N_IMAGES} images" and len(asked) > 5
        links = [each.get_attribute("href") for each in page.locator(".image").all()]
        assert links == [f"#example/{example}" for example in asked["example_id"]]


def test_an_image_is_told_in_words_and_leads_to_all_of_it(
    browser: Any, path: Path, pictured: Path
) -> None:
    example = 17
    with moedb.open(pictured) as database:
        chosen = database.sql(
            "select expert, weight, output_norm from routing where token_idx = 17 order by rank"
        ).fetchall()
        [[name, predicted, correct]] = database.sql(
            "select target, predicted, correct from predictions where example_id = 17"
        ).fetchall()
        given = database.sql(
            "select probability from router_mass where example_id = 17 order by expert"
        ).fetchall()
    decisions = ", ".join(f"expert {e}, weight {w:.4g}" for e, w, _ in chosen)
    text = f"image 17, class {visible(name)}, {decisions}, predicted {visible(predicted)}"
    with opened(browser, path) as page:
        goes_to(page, "images")
        picture = page.locator(f'.image[href="#example/{example}"] .picture')
        assert picture.get_attribute("role") == "img"
        assert picture.get_attribute("aria-label") == text
        assert colour_of(page, picture) == pytest.approx(colours()[example].tolist(), abs=6)
        picture.click()
        page.wait_for_selector(f'main[data-shown="#example/{example}"]')
        facts = page.locator("dl.facts").inner_text().split("\n")
        assert visible(name) in facts
        assert f"{visible(predicted)} ({'right' if correct else 'wrong'})" in facts
        shown = page.locator("table.plain").first.locator("td").all_inner_texts()[1:]
        assert shown == [f"expert {e}\nweight {w:.4g}\nscore {w * n:.4g}" for e, w, n in chosen]
        cells = page.locator("table.plain").nth(1).locator("td").all_inner_texts()
        assert cells[1::2] == [f"{float(f'{value:.4g}'):g}" for (value,) in given]
        assert len(cells) == 2 * N_EXPERTS
        page.get_by_role("button", name="Next").click()
        page.wait_for_selector('main[data-shown="#example/18"]')
        page.get_by_role("link", name="All images").click()
        page.wait_for_selector('main[data-shown="#images"]')


def test_an_expert_shows_images_in_the_order_of_its_contexts(
    browser: Any, path: Path, pictured: Path
) -> None:
    with moedb.open(pictured) as database:
        rows = database.query("top-contexts", layer=LAYER, expert=1, n=5).df()
    with opened(browser, path) as page:
        goes_to(page, f"expert/{LAYER}/1")
        grids = page.locator(".images")
        assert grids.count() == 3
        shown = grids.first.locator(".image")
        assert [each.get_attribute("href") for each in shown.all()] == [
            f"#example/{example}" for example in rows["example_id"]
        ]
        first = shown.first.locator(".picture")
        expected = colours()[rows["example_id"][0]].tolist()
        assert colour_of(page, first) == pytest.approx(expected, abs=6)
        label = str(first.get_attribute("aria-label"))
        assert f"expert 1, weight {rows['weight'][0]:.4g}" in label


def test_images_of_a_folder_and_its_experts(browser: Any, pictured: Path, tmp_path: Path) -> None:
    with moedb.open(pictured) as database:
        write_folder(subject_of(database), tmp_path / "folder")
    with opened(browser, tmp_path / "folder" / "index.html", 390) as page:
        page.get_by_role("link", name="Images").click()
        page.wait_for_url("**/tokens-0.html#images")
        page.wait_for_selector('main[data-shown="#images"]')
        page.locator(".legend a").nth(1).click()
        page.wait_for_url(f"**/experts-{LAYER}.html#expert/{LAYER}/1")
        page.wait_for_selector(f'main[data-shown="#expert/{LAYER}/1"]')
        assert page.locator(".images").count() == 3 and not is_cut_off(page)


def colour_of(page: Any, picture: Any) -> list[int]:
    """The colour in the middle of what is drawn of a picture."""
    picture.scroll_into_view_if_needed()
    drawn = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
    return list(drawn.getpixel((drawn.width // 2, drawn.height // 2)))
