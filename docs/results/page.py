"""What the scripts of the result pages share: tables set into prose.

The prose of a page is in NAME.in.md, where a line ``@table@`` stands for a table. The page is
NAME.md; what it shows lies beside it in NAME/, each file with a sidecar that says from which runs
it came.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from moedb.queries.results.export import export
from moedb.queries.results.result import Result
from moedb.queries.results.sheets import TableOptions

HERE = Path(__file__).parent
_PLACE = re.compile(r"^@(\S+)@$", flags=re.MULTILINE)


def cleared(name: str) -> Path:
    """The folder of a page's files, emptied."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder


def write_page(name: str, tables: Mapping[str, tuple[Result, TableOptions]]) -> None:
    """Write a page, and every table of it as CSV.

    Parameters
    ----------
    name
        The page's name.
    tables
        For each table its rows, and how the page shows them.
    """
    folder = HERE / name
    shown = {}
    for stem, (result, options) in tables.items():
        export(result, folder / f"{stem}.csv")
        page, sidecar = export(result, folder / f"{stem}.md", options)
        shown[stem] = page.read_text(encoding="utf-8").strip()
        page.unlink()
        sidecar.unlink()
    prose = (HERE / f"{name}.in.md").read_text(encoding="utf-8")
    text = _PLACE.sub(lambda match: shown[match.group(1)], prose)
    (HERE / f"{name}.md").write_text(text, encoding="utf-8")
