"""A page as HTML: the template, the client, the libraries, and the data of views.

Nothing of the data is markup. It stands in blocks of JSON, in which no character ends the block,
and the client shows texts as text. The page's policy lets only the scripts run that were put into
it, by their hashes, and lets it load nothing.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from moedb.queries.results.formats.latex_text import latex_tables
from moedb.queries.results.visible import visible
from moedb.schemas.version import __version__

_HERE = Path(__file__).parent
_LIBRARIES = ("d3.min.js", "plot.umd.min.js", "tabulator.min.js")
_SCRIPTS = (
    *("parts/elements.js", "parts/texts.js", "parts/data.js", "parts/copying.js"),
    *("parts/tables.js", "parts/plain.js", "parts/pictures.js"),
    *("figures/frame.js", "figures/scales.js", "figures/heatmap.js", "figures/dots.js"),
    *("figures/pairs.js", "figures/graph.js"),
    *("views/sections.js", "views/experts.js", "views/tokens.js", "views/images.js"),
)
"""The client, in the order in which its files build on each other."""

_LIVE = ("live/fetching.js", "live/runs.js", "live/completing.js", "live/sql.js")
"""What only a page has that a server gives."""

_START = "views/routes.js"
"""What shows the first page, once all is there."""

_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Page:
    """What is in one file.

    Attributes
    ----------
    title
        What the window is called.
    footer
        Where its data is from.
    views
        What views gave, by name.
    places
        For each view that is in another file of a folder its name; for one of its own nothing.
    assets
        The folder of the scripts beside the file; None where they are in it.
    policy
        What the page may load; None for that of a file.
    """

    title: str
    footer: str
    views: Mapping[str, Any]
    places: Mapping[str, str]
    assets: str | None = None
    policy: str | None = None


def render(page: Page) -> str:
    """Return the text of a page's file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "client"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    is_whole = page.assets is None
    scripts = script_texts() if is_whole else ()
    return environment.get_template("page.html").render(
        title=visible(page.title),
        footer=visible(page.footer),
        version=__version__,
        policy=_policy(scripts) if page.policy is None else page.policy,
        styles=style_texts() if is_whole else (),
        style_files=() if is_whole else [f"{page.assets}/page.css"],
        scripts=scripts,
        script_files=() if is_whole else [f"{page.assets}/page.js"],
        blocks=[(name, json_block(view)) for name, view in _blocks(page).items()],
        licences=(_HERE / "bundle" / "LICENSES.txt").read_text(encoding="utf-8"),
    )


def _blocks(page: Page) -> dict[str, Any]:
    return {**page.views, "places": page.places, "latex": latex_tables()}


def asset_files(is_live: bool = False) -> dict[str, bytes]:
    """The scripts and the styles as files beside those of a folder; those of a server with more."""
    licences = (_HERE / "bundle" / "LICENSES.txt").read_bytes()
    return {
        "page.js": "\n".join(script_texts(is_live)).encode(),
        "page.css": "\n".join(style_texts()).encode(),
        "LICENSES.txt": licences,
    }


def last_part(name: str) -> str:
    """A name; of a path on the machine that captured it the last part."""
    path = PurePath(name)
    return path.name if path.is_absolute() and path.name else name


def json_block(value: object) -> str:
    r"""Return JSON that may stand in a block of a page: nothing in it ends the block.

    Examples
    --------
    >>> json_block(["</script>"])
    '["\\\\u003c/script\\\\u003e"]'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPED)


@cache
def script_texts(is_live: bool = False) -> tuple[str, ...]:
    """The libraries and the client, in the order in which they run."""
    files = [_HERE / "bundle" / name for name in _LIBRARIES]
    client = (*_SCRIPTS, *(_LIVE if is_live else ()), _START)
    files += [_HERE / "client" / name for name in client]
    return tuple(_script(path) for path in files)


@cache
def style_texts() -> tuple[str, ...]:
    """The styles."""
    files = (_HERE / "bundle" / "tabulator.min.css", _HERE / "client" / "page.css")
    return tuple(path.read_text(encoding="utf-8") for path in files)


def _script(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"{path} cannot stand in a page: it holds what ends a script")
    return text


def _policy(scripts: Sequence[str]) -> str:
    """What the page may do: run these scripts, nothing else; load nothing.

    Styles are inline, as Plot writes some into its figures; what they can load is forbidden too.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    allowed = hashes or "file: 'self'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline' file: 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
