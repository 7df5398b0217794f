"""The served pages in a browser: silent, whole on a narrow screen, and every control works."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import moedb
from tests.support.drawn.pages import chromium, goes_to, is_cut_off
from tests.support.servers.explorer import Explorer, explorer
from tests.support.stores.made.hostile import MODEL, RUN, RUN_B
from tests.support.stores.made.routed_words import RUN_ID as WORDS_RUN
from tests.support.stores.made.routed_words import write_routed_words
from tests.support.stores.synthetic_ioi import CAPTURED


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@contextmanager
def opened(browser: Any, server: Explorer, width: int = 1440) -> Iterator[Any]:
    """Open the printed address; nothing may be said on the console, or be asked of elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda each: said.extend(_elsewhere(each.url, server)))
    try:
        page.goto(server.address)
        page.wait_for_selector("main[data-shown]", timeout=120_000)
        yield page
        assert said == []
    finally:
        context.close()


def _elsewhere(url: str, server: Explorer) -> list[str]:
    return [] if url.startswith((f"{server.root}/", "data:", "blob:")) else [f"request: {url}"]


def typed(page: Any, statement: str) -> None:
    page.locator("textarea").fill(statement)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")


@pytest.mark.parametrize("width", [1440, 390])
def test_every_page_is_shown_and_nothing_cut_off(
    browser: Any, server: Explorer, width: int
) -> None:
    with opened(browser, server, width) as page:
        assert "token=" not in page.url
        assert page.title() == MODEL + " over numbers"
        assert page.locator("main section").count() >= 6 and not is_cut_off(page)
        for link in ("expert/1/3", "example/1", "sql"):
            goes_to(page, link)
            assert not is_cut_off(page), link
        assert page.title() == MODEL + " over numbers"


def test_an_address_leads_to_a_view(browser: Any, server: Explorer) -> None:
    with opened(browser, server) as page:
        page.goto(f"{server.root}/?run={CAPTURED}#expert/2/1")
        page.wait_for_selector('main[data-shown="#expert/2/1"]')
        assert page.locator("h1").inner_text() == "Layer 2, expert 1"


def test_runs_are_chosen(browser: Any, server: Explorer) -> None:
    with opened(browser, server) as page:
        beside = page.locator(".runs select").nth(1)
        with page.expect_navigation():
            beside.select_option(RUN_B)
        assert page.url.endswith(f"/?run={RUN}&run_b={RUN_B}")
        page.wait_for_selector("main[data-shown]")
        goes_to(page, "example/1")
        assert "Agreement" in page.locator("main").inner_text()
        with page.expect_navigation():
            page.locator(".runs select").first.select_option(CAPTURED)
        page.wait_for_selector("main[data-shown]")
        assert page.locator("h1").inner_text().endswith("over prompts")


def test_sql_is_completed_run_and_copied(browser: Any, server: Explorer, store: Path) -> None:
    with opened(browser, server) as page:
        goes_to(page, "sql")
        page.locator("textarea").fill("")
        page.locator("textarea").type("select layer, count(*) as n from rout")
        page.wait_for_selector(".offers li")
        assert page.locator(".offers li").first.inner_text() == "routing table or view"
        page.keyboard.press("Tab")
        statement = "select layer, count(*) as n from routing group by 1 order by 1"
        assert page.locator("textarea").input_value() == statement.partition(" group")[0]
        typed(page, statement)
        page.wait_for_selector(".tabulator-row")
        page.evaluate("moedb.copy = async (text) => { window.copied = text }")
        page.get_by_role("button", name="Copy as CSV").click()
        with moedb.open(store) as database:
            rows = database.sql(statement).fetchall()
        lines = [("layer", "n"), *rows]
        assert page.evaluate("window.copied") == "".join(f"{a},{b}\r\n" for a, b in lines)
        kept = page.url
        page.goto(f"{server.root}/?run={RUN}")
        page.goto(kept)
        page.wait_for_selector("textarea")
        assert page.locator("textarea").input_value() == statement
        assert page.locator(".tabulator-row").count() == 0  # a link runs nothing


def test_names_that_would_act_are_texts_in_rows(browser: Any, server: Explorer) -> None:
    with opened(browser, server) as page:
        goes_to(page, "sql")
        typed(page, "select distinct token, key from tokens join token_labels using (token_idx)")
        page.wait_for_selector(".tabulator-row")
        assert page.locator("main img").count() == 0
        typed(page, "select '<img src=x onerror=alert(1)>' as \"<b>x</b>\"")
        page.wait_for_selector(".tabulator-row >> text=<img")
        assert page.locator("main img, main b").count() == 0


def test_a_statement_is_stopped(browser: Any, server: Explorer) -> None:
    slow = "select count(*) from range(200000000) a(x), range(200000000) b(y) where x * y = 7"
    with opened(browser, server) as page:
        goes_to(page, "sql")
        typed(page, slow)
        page.get_by_role("button", name="Stop").click()
        page.wait_for_selector("pre.failed >> text=Stopped.")
        typed(page, "select 42 as answer")
        page.wait_for_selector(".tabulator-row >> text=42")


def test_what_is_wrong_is_said_in_the_page(browser: Any, server: Explorer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector("main[data-shown]")
    goes_to(page, "sql")
    typed(page, "drop table runs")
    page.wait_for_selector("pre.failed")
    assert re.search("DROP.*refused", page.locator("pre.failed").inner_text())
    goes_to(page, "expert/99/0")
    assert "no view 'experts-99'" in page.locator("main").inner_text()
    context.close()


def test_a_changed_store_is_noticed(browser: Any, store: Path, tmp_path: Path) -> None:
    copied = tmp_path / "the-store"
    shutil.copytree(store, copied)
    with explorer(copied, RUN, "--no-ci") as server, opened(browser, server) as page:
        write_routed_words(copied, n_examples=3, n_words=6, with_outputs=True)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        with page.expect_navigation():
            page.get_by_text("The store has changed").click(timeout=60_000)
        page.wait_for_selector("main[data-shown]")
        assert page.locator(".runs select").first.locator(f"text={WORDS_RUN}").count() == 1
