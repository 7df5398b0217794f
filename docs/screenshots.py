"""Take the pictures of the README: the report of a run, an expert's page, and an example's tokens.

python docs/screenshots.py --report report.html

The report is one of IOI prompts, such as the study of the gallery makes (``docs/gallery.yaml``).
It takes the extra ``browser`` and a Chromium, whose program ``--chromium`` names.
"""

import shutil
from pathlib import Path

import click
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent / "screenshots"

PICTURES = {
    "report": ("#section/load", 1200, 760),
    "expert": ("#expert/3/17", 1200, 1000),
    "tokens": ("#example/0/3", 1200, 760),
}
"""For each picture where it is in the report, its width and its height."""


def take(page: Page, report: Path, name: str) -> None:
    """Take a picture once what it shows is drawn."""
    place, width, height = PICTURES[name]
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{report.resolve().as_uri()}{place}")
    page.locator("#main[data-shown]").wait_for()
    page.wait_for_timeout(1000)  # figures are drawn as they come into view
    page.screenshot(path=HERE / f"{name}.png")


@click.command()
@click.option("--report", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--chromium", default=shutil.which("chromium"), help="Chromium's program.")
def main(report: Path, chromium: str) -> None:
    """Take all pictures of REPORT."""
    HERE.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for name in PICTURES:
            take(page, report, name)
        browser.close()


if __name__ == "__main__":
    main()
