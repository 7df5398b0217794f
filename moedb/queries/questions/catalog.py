"""The named queries that moedb carries, one for each file of ``moedb/sql/queries``."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from moedb.errors import QueryNotFoundError, nearest_names
from moedb.queries.questions.query_file import NamedQuery, parse_query


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
    folder = resources.files("moedb") / "sql" / "queries"
    files = {
        file.name.removesuffix(".sql"): file
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    return MappingProxyType(
        {name: parse_query(name, files[name].read_text(encoding="utf-8")) for name in sorted(files)}
    )
