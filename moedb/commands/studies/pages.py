"""Pages: tables that a study wrote, set into prose."""

import re
from pathlib import Path

from moedb.errors import MoedbError, UsageError

_PLACE = re.compile(r"^@(\S+)@$", flags=re.MULTILINE)


def write_page(template: Path, folder: Path, page: Path) -> list[Path]:
    """Write a page: prose, in which a line ``@NAME@`` stands for the table ``NAME.md``.

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
        If there is no such prose, or a table is not there.
    """
    if not template.is_file():
        raise UsageError(f"there is no file {template}, which the page is made of")

    files = [page, template]

    def table(found: re.Match[str]) -> str:
        file = folder / f"{found[1]}.md"
        if not file.is_file():
            raise UsageError(
                f"{template} names the table {found[1]}, and there is no {file}",
                f"a step before: moedb export ... -o ${{output}}/{found[1]}.md",
            )
        files.append(file)
        return file.read_text(encoding="utf-8").strip()

    text = _PLACE.sub(table, template.read_text(encoding="utf-8"))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MoedbError(f"{page} cannot be written: {error}") from error
    return files
