"""The named queries that moedb carries, one for each file of ``moedb/sql/queries``.

What several of them begin with is written once: ``-- part NAME``, after ``with``, stands for the
parts of a statement in ``moedb/sql/parts/NAME.sql``. The query's text is whole, to be pasted.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

from moedb.errors import QueryNotFoundError, nearest_names
from moedb.queries.questions.query_file import NamedQuery, parse_query

_FOLDER = resources.files("moedb") / "sql"
_PART = re.compile(r"^-- part (\w+)$", re.MULTILINE)


def catalog() -> Mapping[str, NamedQuery]:
    """Return the named queries by name, in alphabetical order."""
    return _catalog()


def named_query(name: str) -> NamedQuery:
    """Return the query called ``name``; underscores do for hyphens.

    Raises
    ------
    QueryNotFoundError
        If there is no such query.
    """
    queries = catalog()
    found = queries.get(name.replace("_", "-"))
    if found is None:
        raise no_such_query(name, queries)
    return found


def no_such_query(name: str, known: Iterable[str]) -> QueryNotFoundError:
    """The error that says which of the ``known`` names are nearest to ``name``."""
    near = nearest_names(name.replace("_", "-"), known)
    return QueryNotFoundError(
        f"no query named {name!r}" + (f"; {near}" if near else ""),
        "all names are listed by: moedb query",
    )


@cache
def _catalog() -> Mapping[str, NamedQuery]:
    files = {
        file.name.removesuffix(".sql"): file
        for file in (_FOLDER / "queries").iterdir()
        if file.name.endswith(".sql")
    }
    return MappingProxyType({name: parse_query(name, _text(files[name])) for name in sorted(files)})


def _text(file: Traversable) -> str:
    """The text of a query with the parts that it has in common with others."""

    def part(mark: re.Match[str]) -> str:
        written = _FOLDER / "parts" / f"{mark[1]}.sql"
        return f"{written.read_text(encoding='utf-8').rstrip()},\n"

    return _PART.sub(part, file.read_text(encoding="utf-8"))
