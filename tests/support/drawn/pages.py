"""Reading the pages of runs: the blocks of data in a file, and a browser that opens it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest


class _Blocks(HTMLParser):
    """Gathers the blocks of JSON, the scripts, and every address in a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: dict[str, str] = {}
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.policy = ""
        self._open: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag == "script":
            is_data = given.get("type") == "application/json"
            self._open = ("data", given["id"]) if is_data else ("script", "")

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            kind, name = self._open
            if kind == "data":
                self.blocks[name] = self.blocks.get(name, "") + data
            else:
                self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._open = None


class ReadPage:
    """A page as it was written.

    Attributes
    ----------
    text
        Its file.
    views
        What its blocks of data hold, by name.
    scripts, addresses, policy
        Its scripts, what it links to, and what it may load.
    """

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        found = _Blocks()
        found.feed(self.text)
        self.views: dict[str, Any] = {
            name.removeprefix("view-"): json.loads(block) for name, block in found.blocks.items()
        }
        self.scripts, self.addresses, self.policy = found.scripts, found.addresses, found.policy

    def parts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The parts of its sections."""
        for name, view in self.views.items():
            for part in view.get("parts", ()) if isinstance(view, dict) else ():
                yield name, part


def chromium() -> str:
    """The browser, or the reason why there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed: the extra browser")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if found is None:
        pytest.skip("there is no chromium on this machine")
    return found


@contextmanager
def opened(
    browser: Any, path: Path, width: int = 1440, dark: bool = False, has_touch: bool = False
) -> Iterator[Any]:
    """Open a page, wait until it is drawn, and hold it to what every page has to be: silent."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        has_touch=has_touch,
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: (
            said.append(f"request: {request.url}")
            if not re.match(r"(file|data|blob):", request.url)
            else None
        ),
    )
    try:
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("main[data-shown]", timeout=120_000)
        yield page
        assert said == []
    finally:
        context.close()


def goes_to(page: Any, link: str) -> None:
    """Follow a link of the page, and wait until what it leads to is drawn."""
    page.evaluate("link => { location.hash = link }", link)
    page.wait_for_selector(f'main[data-shown="#{link}"]', timeout=120_000)


def is_cut_off(page: Any) -> bool:
    """Whether something is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))
