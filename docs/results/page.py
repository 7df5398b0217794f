"""What the scripts of the result pages share: tables set into prose.

The prose of a page is in NAME.in.md, where a line ``@table@`` stands for a table and ``@=value@``
for a number in a line. What is between the lines ``@begin section@`` and ``@end section@`` is there
where the store has what the section is about. The page is NAME.md; what it shows lies beside it in
NAME/, each file with a sidecar that says from which runs it came.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from moedb.queries.results.export import export
from moedb.queries.results.result import Result
from moedb.queries.results.sheets import TableOptions

HERE = Path(__file__).parent
_PLACE = re.compile(r"^@(\S+)@$", flags=re.MULTILINE)
_VALUE = re.compile(r"@=(\S+?)@")
_SECTION = re.compile(r"^@begin (\S+)@\n(.*?)^@end \1@\n", flags=re.MULTILINE | re.DOTALL)


def cleared(name: str) -> Path:
    """The folder of a page's files, emptied."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder


def write_page(
    name: str,
    tables: Mapping[str, tuple[Result, TableOptions]],
    values: Mapping[str, str] | None = None,
    sections: Collection[str] = (),
) -> None:
    """Write a page, and every table of it as CSV.

    Parameters
    ----------
    name
        The page's name.
    tables
        For each table its rows, and how the page shows them.
    values
        The numbers in lines.
    sections
        The sections that are there.
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
    (HERE / f"{name}.md").write_text(filled(prose, shown, values or {}, sections), encoding="utf-8")


def filled(
    prose: str, tables: Mapping[str, str], values: Mapping[str, str], sections: Collection[str]
) -> str:
    """Prose with its tables, its values and its sections."""
    prose = _SECTION.sub(lambda found: found[2] if found[1] in sections else "", prose)
    prose = _PLACE.sub(lambda found: tables[found[1]], prose)
    return _VALUE.sub(lambda found: values[found[1]], prose)
