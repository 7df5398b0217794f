"""Pages in a browser: nothing is said on its console, nothing cut off, and every control works."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import moedb
from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
from moedb.queries.report.pages.subject import subject_of
from moedb.queries.report.pages.writing import write_folder, write_page
from moedb.queries.results.formats.latex_text import escape_latex
from moedb.queries.results.visible import visible
from moedb.schemas.additions import Addition
from moedb.schemas.tables import EXPERT_LABEL_SCORES, EXPERT_LABELS
from moedb.store.writing.complete.additions import add
from moedb.store.writing.tables.parquet import arrow_schema
from tests.support.drawn.pages import goes_to, is_cut_off, opened
from tests.support.stores.made.hostile import KEY, MODEL, RUN, RUN_B, TOKENS, VALUES
from tests.support.stores.made.routed_words import RUN_ID as WORDS_RUN
from tests.support.stores.made.routed_words import write_routed_words
from tests.support.stores.synthetic_ioi import CAPTURED

WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def prompts(store: Path) -> Path:
    path = store.parent / "prompts.html"
    with moedb.open(store) as database:
        write_page(subject_of(database, CAPTURED, resampling=Resampling(samples=100)), path)
    return path


@pytest.fixture(scope="module")
def hostile(store: Path) -> Path:
    path = store.parent / "hostile.html"
    with moedb.open(store) as database:
        write_page(subject_of(database, RUN, RUN_B), path)
    return path


def figure(page: Any, caption: str) -> Any:
    """The figure below a heading."""
    return page.locator("h3", has_text=caption).locator("xpath=following-sibling::figure[1]")


def told(page: Any, canvas: Any) -> dict[str, str]:
    lines = canvas.locator(".told div").all_inner_texts()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_every_page_fits_and_every_control_works(
    browser: Any, prompts: Path, width: int, dark: bool
) -> None:
    with opened(browser, prompts, width, dark) as page:
        assert not is_cut_off(page)
        for select in page.locator("main select").all():
            for option in range(select.locator("option").count()):
                select.select_option(index=option)
        for summary in page.locator("main summary").all():
            if summary.locator("xpath=..").get_attribute("open") is None:
                summary.click()
        page.wait_for_function(
            "document.querySelectorAll('details[open]').length >= 20"
            " && document.querySelectorAll('.tabulator').length >= 10"
        )
        assert not is_cut_off(page)
        for link in ("expert/0/1", "expert/2/4", "example/0", "example/17/2"):
            goes_to(page, link)
            assert not is_cut_off(page), link
            for select in page.locator("main select").all():
                for option in range(select.locator("option").count()):
                    select.select_option(index=option)
            assert not is_cut_off(page), link


def test_what_is_told_of_a_cell_is_what_the_query_gives(
    browser: Any, prompts: Path, store: Path
) -> None:
    with moedb.open(store) as database:
        sure = database.resampled(Resampling(samples=100))
        rows = sure.query("expert-frequency", run=CAPTURED).df()
    with opened(browser, prompts) as page:
        canvas = figure(page, "Share of the tokens").locator(".canvas")
        canvas.locator("rect[data-item]").nth(6).hover()
        by_mouse = told(page, canvas)
        title = canvas.locator(".told b").inner_text()
        row = rows[(rows["layer"] == 2) & (rows["expert"] == 1)].iloc[0]
        assert title == "layer 2, expert 1"
        value, ends = by_mouse["frequency"].split(" ", 1)
        assert float(value) == pytest.approx(row["frequency"], rel=5e-4)
        low, high = (float(end) for end in ends.strip("[]").split(", "))
        assert low == pytest.approx(row["frequency_low"], rel=5e-4)
        assert high == pytest.approx(row["frequency_high"], rel=5e-4)
        assert by_mouse["n_decisions"] == f"{row['n_decisions']:.0f}"
        # the same with keys: the first cell, one down, one to the right
        page.mouse.move(0, 0)
        canvas.focus()
        for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        assert told(page, canvas) == by_mouse
        page.keyboard.press("Enter")
        page.wait_for_selector('main[data-shown="#expert/2/1"]')
        assert page.locator("h1").inner_text() == "Layer 2, expert 1"


def test_a_finger_sees_a_value_before_it_follows_its_link(browser: Any, prompts: Path) -> None:
    with opened(browser, prompts, 390, has_touch=True) as page:
        canvas = figure(page, "Share of the tokens").locator(".canvas")
        cell = canvas.locator("rect[data-item]").nth(3)
        cell.tap()
        assert "frequency" in told(page, canvas)
        assert page.locator("h1").inner_text() != "Layer 0, expert 3"
        cell.tap()
        page.wait_for_selector('main[data-shown="#expert/0/3"]')


def test_a_table_is_sorted_filtered_and_copied(browser: Any, prompts: Path, store: Path) -> None:
    with opened(browser, prompts) as page:
        page.evaluate("moedb.copy = async (text) => { window.copied = text }")
        section = page.locator("details", has=page.locator("summary", has_text="Table: 10 rows"))
        section.first.locator("summary").click()
        header = section.first.locator(".tabulator-col[tabulator-field=frequency]")
        header.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == "descending"
        section.first.locator(".tabulator-col[tabulator-field=layer] input").press_sequentially("2")
        status = section.first.get_by_role("status")
        status.filter(has_text="5 of 10 rows").wait_for()
        section.first.get_by_role("button", name="Copy as CSV").click()
        copied = list(csv.DictReader(io.StringIO(page.evaluate("window.copied"))))
        section.first.get_by_role("button", name="Copy as LaTeX").click()
        latex = page.evaluate("window.copied")
    with moedb.open(store) as database:
        rows = database.query("expert-frequency", run=CAPTURED).df()
    wanted = rows[rows["layer"] == 2].sort_values("frequency", ascending=False, kind="stable")
    assert [float(row["frequency"]) for row in copied] == wanted["frequency"].tolist()
    assert {row["layer"] for row in copied} == {"2"}
    assert latex.count(r"\\") == 6 and r"n\_decisions" in latex and r"\toprule" in latex


@pytest.mark.parametrize(
    "text", [*TOKENS, *VALUES, KEY, "50% of E_1 & {é, ␣Mary, 日本}", "a--b", "ǖ ñ ç ı", "`''\"[*]"]
)
def test_latex_is_escaped_as_in_exports(browser: Any, prompts: Path, text: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(prompts.as_uri())
    assert page.evaluate("text => moedb.asLatexText(text)", text) == escape_latex(text)
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_names_are_texts(browser: Any, hostile: Path, width: int) -> None:
    with opened(browser, hostile, width) as page:
        title = page.title()
        assert visible(MODEL) in page.locator("h1").inner_text()
        assert KEY in page.locator("#section-classes").inner_text()
        for summary in page.locator("main summary").all():
            if summary.locator("xpath=..").get_attribute("open") is None:
                summary.click()
        assert not is_cut_off(page)
        goes_to(page, "expert/1/0")
        shown = page.locator("main").inner_text()
        assert "<script>document.title='owned'</script>" in shown and "{{ config }}" in shown
        assert "\\x1b[31mred" in shown and "\x1b" not in shown
        goes_to(page, "example/0/2")
        shown = page.locator("main").inner_text()
        assert all(value in shown for value in VALUES[:1]) and KEY in shown
        assert "\\x1b[31mred" in shown
        assert not is_cut_off(page)
        assert page.title() == title and title != "owned"
        assert page.locator("main img").count() == 0 and page.locator("main script").count() == 0


def test_bars_of_scores_are_told(browser: Any, prompts: Path, store: Path) -> None:
    with moedb.open(store) as database:
        scores = database.sql(
            "select weight * output_norm as score from routing"
            " join tokens using (run_id, token_idx) join examples using (run_id, example_id)"
            " where layer = 2 and expert = 1 and split <> 'corrupted'",
            run=CAPTURED,
        ).df()["score"]
    most = scores.max()
    expected = [0] * 20
    for score in scores:
        expected[min(int(score * 20 / most), 19)] += 1
    with opened(browser, prompts) as page:
        goes_to(page, "expert/2/1")
        canvas = page.locator("section", has=page.get_by_role("heading", name="Scores")).locator(
            ".canvas"
        )
        canvas.scroll_into_view_if_needed()
        canvas.locator("rect[data-item]").first.wait_for(state="attached")
        assert canvas.locator("rect[data-item]").count() == 20
        canvas.focus()
        counts = []
        for _ in range(20):
            page.keyboard.press("ArrowRight")
            counts.append(int(told(page, canvas)["decisions"]))
    assert counts == expected


def test_experts_of_two_layers_stand_across_and_down(
    browser: Any, prompts: Path, store: Path
) -> None:
    with moedb.open(store) as database:
        rows = database.resampled(Resampling(samples=100)).query("cross-layer", run=CAPTURED).df()
    with opened(browser, prompts) as page:
        canvas = figure(page, "Experts of the next layer").locator(".canvas")
        canvas.scroll_into_view_if_needed()  # what is far down is not drawn
        canvas.locator("rect[data-item]").nth(3).hover()
        title = canvas.locator(".told b").inner_text()
        by_mouse = told(page, canvas)
        expert, next_expert = (int(each.split(" ")[1]) for each in title.split(", "))
        is_row = (rows["expert"] == expert) & (rows["next_expert"] == next_expert)
        row = rows[is_row].iloc[0]
        value, ends = by_mouse["p_next_given"].split(" ", 1)
        assert float(value) == pytest.approx(row["p_next_given"], rel=5e-4)
        low, high = (float(end) for end in ends.strip("[]").split(", "))
        assert low == pytest.approx(row["p_next_given_low"], rel=5e-4, abs=1e-4)
        assert high == pytest.approx(row["p_next_given_high"], rel=5e-4)
        assert int(by_mouse["n_both"]) == row["n_both"]
        canvas.locator("rect[data-item]").nth(3).click()
        page.wait_for_selector(f'main[data-shown="#expert/2/{next_expert}"]')
        goes_to(page, f"expert/0/{expert}")
        table = page.get_by_role("region", name="Experts of the next layer that its tokens choose")
        shown = table.locator("tbody tr").first.locator("td").all_inner_texts()
        own = rows[rows["expert"] == expert].sort_values("p_next_given", ascending=False).iloc[0]
        assert float(shown[1].split(" ")[0]) == pytest.approx(own["p_next_given"], rel=5e-4)


def test_the_tokens_of_two_runs_and_their_agreement(
    browser: Any, hostile: Path, store: Path
) -> None:
    with opened(browser, hostile) as page:
        goes_to(page, "example/1")
        page.get_by_label("colour by").select_option("agreement")
        page.get_by_label("layer").select_option("3")
        said = page.locator(".token small").all_inner_texts()
        page.locator(".token").nth(2).click()
        assert page.get_by_role("heading", name="Token", exact=True).is_visible()
        links = page.locator("table.plain a").all_inner_texts()
        page.locator("table.plain a").first.click()
        page.wait_for_selector('main[data-shown^="#expert/1/"]')
    with moedb.open(store) as database:
        chosen = {
            run: {
                (layer, token): [expert for *_, expert in group]
                for layer in (1, 3)
                for token in range(5, 10)
                for group in [
                    database.sql(
                        "select rank, expert from routing where layer = $layer"
                        " and token_idx = $token order by rank",
                        {"layer": layer, "token": token},
                        run=run,
                    ).fetchall()
                ]
            }
            for run in (RUN, RUN_B)
        }
    shared = [len({*chosen[RUN][3, token]} & {*chosen[RUN_B][3, token]}) for token in range(5, 10)]
    assert said == [f"{n} of 2" for n in shared]
    assert links == [f"expert {e}" for layer in (1, 3) for e in chosen[RUN][layer, 7]]


def test_labels_stand_with_their_scores_and_effects(browser: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_routed_words(store, 8, 10, with_outputs=True)
    label = {"source": "reader", "model": "m", "label_set": "s", "layer": 1, "expert": 2}
    named = {**label, "label": "<b>cats</b>", "status": "labelled", "n_decisions": 5}
    score = {
        **dict.fromkeys(("n", "tp", "fp", "fn", "tn"), 3),
        **{"f1": 0.75, "f1_low": 0.5, "f1_high": 0.875, "always_yes_f1": 0.625, "other_f1": 0.25},
    }
    scores = {**label, "kind": "detection", "against": "all", **score}
    rows = {
        "expert_labels": [rows_of(EXPERT_LABELS, [{**named, "n_contexts": 5}])],
        "expert_label_scores": [rows_of(EXPERT_LABEL_SCORES, [scores])],
    }
    add(store, WORDS_RUN, Addition("s", "expert-labels"), rows)
    path = tmp_path / "labels.html"
    with moedb.open(store) as database:
        write_page(subject_of(database), path)
        promoted = database.query("promoted-tokens", run=WORDS_RUN, layer=1, expert=2).df()
    with opened(browser, path) as page:
        goes_to(page, "expert/1/2")
        shown = page.locator("main").inner_text()
        assert "<b>cats</b>" in shown
        assert "0.75 [0.5, 0.875]; yes to everything 0.625, another expert's label 0.25" in shown
        first = page.locator("table.plain", has_text="promotes").locator("tbody tr").first
        assert first.locator("td").first.inner_text() == visible(promoted["token"][0])
        page.evaluate("location.hash = 'expert/1/3'")
        page.wait_for_selector('main[data-shown="#expert/1/3"]')
        assert "It has no label." in page.locator("main").inner_text()


def rows_of(described: Any, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table of a run has them; what is not given is null."""
    fields = [field for field in arrow_schema(described) if field.name != "run_id"]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def test_prompts_stand_beside_their_twins(browser: Any, prompts: Path) -> None:
    with opened(browser, prompts) as page:
        goes_to(page, "example/0")
        assert page.locator(".tokens").count() == 2
        assert page.locator("h2", has_text="Its twin, example 1").count() == 1
        page.get_by_role("button", name="Next").click()
        page.wait_for_selector('main[data-shown="#example/1"]')
        page.get_by_role("spinbutton", name="example").fill("4")
        page.get_by_role("spinbutton", name="example").press("Enter")
        page.wait_for_selector('main[data-shown="#example/4"]')
        page.get_by_role("searchbox").fill("t1 t2")
        page.get_by_role("searchbox").press("Enter")
        assert page.locator("li a", has_text="example").count() == 18


def test_the_theme_can_be_switched(browser: Any, prompts: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, prompts) as page:
        before = page.evaluate(background)
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(background) != before
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(background) == before
    with opened(browser, prompts, dark=True) as page:
        assert page.evaluate(background) != before
        page.emulate_media(media="print")
        assert page.evaluate(background) == before


def test_a_folder_leads_from_file_to_file(browser: Any, store: Path, tmp_path: Path) -> None:
    with moedb.open(store) as database:
        write_folder(subject_of(database, CAPTURED), tmp_path / "folder")
    with opened(browser, tmp_path / "folder" / "index.html", 390) as page:
        page.get_by_role("link", name="Experts").click()
        page.wait_for_url("**/experts-0.html#expert/0/0")
        page.wait_for_selector('main[data-shown="#expert/0/0"]')
        assert page.locator("h2", has_text="Classes by lift").count() == 1
        page.get_by_role("link", name="Tokens").click()
        page.wait_for_url("**/tokens-0.html#example/0")
        page.wait_for_selector('main[data-shown="#example/0"]')
        page.get_by_role("link", name="Classes").click()
        page.wait_for_url("**/index.html#section/classes")
        page.wait_for_selector("#section-classes")
