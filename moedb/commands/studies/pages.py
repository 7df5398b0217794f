"""Pages: tables that a study wrote set into prose, and single cells of them into its lines."""

import re
from pathlib import Path

from moedb.commands.studies.page_tables import PageTable
from moedb.errors import MoedbError, UsageError

_PLACE = re.compile(
    r"@(?P<of>[\w.-]+)\[(?P<row>[^\]\n]*)\]\.(?P<column>[\w-]+)@|^@(?P<whole>\S+)@$",
    flags=re.MULTILINE,
)


def write_page(template: Path, folder: Path, page: Path) -> list[Path]:
    """Write a page: prose in which tables and cells of them have places.

    A line ``@NAME@`` stands for the table ``NAME.md``; ``@NAME[a,1].lead@`` in a line stands for
    the cell in the column ``lead`` of that row of it which begins with the cells ``a`` and ``1``.

    Parameters
    ----------
    template
        The prose.
    folder
        Where the tables are, as ``moedb export NAME -o FOLDER/NAME.md`` writes them.
    page
        The file to write.

    Returns
    -------
    list
        The page, and the files that it was made of.

    Raises
    ------
    UsageError
        If there is no such prose, or a table, a row or a column of it is not there.
    """
    if not template.is_file():
        raise UsageError(f"there is no file {template}, which the page is made of")
    tables: dict[str, PageTable] = {}

    def shown(place: re.Match[str]) -> str:
        name = place["of"] or place["whole"]
        try:
            if name not in tables:
                tables[name] = PageTable.read(name, folder / f"{name}.md")
            table = tables[name]
            return table.text if place["whole"] else table.cell(place["row"], place["column"])
        except UsageError as error:
            raise UsageError(f"{template}: {place[0]}: {error.message}", error.hint) from error

    text = _PLACE.sub(shown, template.read_text(encoding="utf-8"))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MoedbError(f"{page} cannot be written: {error}") from error
    return [page, template, *(folder / f"{name}.md" for name in tables)]
