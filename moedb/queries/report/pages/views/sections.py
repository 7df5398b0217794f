"""The sections of a page: main figures and tables, in order."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.subject import Subject
from moedb.queries.report.pages.views.about import about
from moedb.queries.report.pages.views.answers import answers
from moedb.queries.report.pages.views.classes import classes
from moedb.queries.report.pages.views.labels import labels
from moedb.queries.report.pages.views.load import load
from moedb.queries.report.pages.views.pairs import pairs

SECTIONS: Mapping[str, Callable[[Subject], Json]] = MappingProxyType(
    {
        "about": about,
        "load": load,
        "classes": classes,
        "pairs": pairs,
        "answers": answers,
        "labels": labels,
    }
)
"""The sections by the names that links have for them."""
