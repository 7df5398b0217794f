"""The views of ``moedb/sql/views``, as their headers describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from moedb.queries.questions.header import read_columns, read_header
from moedb.queries.questions.question import OutputColumn
from moedb.store.engine.views import derived_view_texts


@dataclass(frozen=True)
class DescribedView:
    """A view, as its file describes it.

    Attributes
    ----------
    name
        Its name in SQL.
    answers
        The question that its rows answer.
    columns
        Its columns, in order.
    """

    name: str
    answers: str
    columns: tuple[OutputColumn, ...]


@cache
def described_views() -> Mapping[str, DescribedView]:
    """Return the views by name, in the order in which they build on each other."""
    return MappingProxyType(
        {name: _described(name, text) for name, text in derived_view_texts().items()}
    )


def _described(name: str, text: str) -> DescribedView:
    file = f"the view {name}"
    header = read_header(file, text, ("title", "answers", "column"))
    return DescribedView(name, dict(header)["answers"], read_columns(file, header))
