"""One database of the server, with what was made over it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from moedb.commands.asking.exploring.completing import Names, names_over
from moedb.errors import UsageError, did_you_mean
from moedb.queries.database import Database
from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.contents import Makers, experts_of, sections_of, tokens_of
from moedb.queries.report.pages.subject import Subject, subject_of
from moedb.queries.report.pages.views.examples.tokens import Slice, slices_of

if TYPE_CHECKING:
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling
    from moedb.store.reading.snapshot import Snapshot

MOST_DECISIONS = 200_000
"""Decisions whose tokens one view shows: it is asked for while somebody waits."""


class NoSuchViewError(UsageError, LookupError):
    """There is no view of this name."""


@dataclass(frozen=True)
class Shown:
    """What a page shows.

    Attributes
    ----------
    run, run_b
        The run, and one beside it; None for the newest, and for none.
    """

    run: str | None
    run_b: str | None = None


@dataclass(frozen=True)
class Explored:
    """A run that is looked at: what is asked of it, and what its views are.

    Attributes
    ----------
    subject
        The run and how it is asked.
    slices
        Examples whose tokens are shown together.
    """

    subject: Subject
    slices: list[Slice]

    @cached_property
    def makers(self) -> Makers:
        """For each view what makes it."""
        subject = self.subject
        return {
            **sections_of(subject),
            **experts_of(subject),
            **tokens_of(subject, self.slices),
        }

    def view(self, name: str) -> Json:
        """Make a view.

        Raises
        ------
        NoSuchViewError
            If the run has none of this name.
        """
        if name not in self.makers:
            groups = {each.partition("-")[0] for each in self.makers}
            hint = did_you_mean(name, groups)
            raise NoSuchViewError(f"there is no view {name!r} of this run", hint)
        return self.makers[name]()


@dataclass
class Desk:
    """A database, and what was found over it; used by one thread at a time.

    Attributes
    ----------
    snapshot
        What is read.
    resampling
        How intervals are found; None for none.
    """

    snapshot: "Snapshot"
    resampling: "Resampling | None"
    _explored: dict[Shown, Explored] = field(default_factory=dict)

    @cached_property
    def database(self) -> Database:
        """The database."""
        return Database(self.snapshot)

    def explored(self, shown: Shown) -> Explored:
        """What a page shows, found once."""
        if shown not in self._explored:
            subject = subject_of(self.database, shown.run, shown.run_b, self.resampling)
            self._explored[shown] = Explored(subject, slices_of(subject, MOST_DECISIONS))
        return self._explored[shown]

    @cached_property
    def names(self) -> Names:
        """What can be named in SQL."""
        return names_over(self.database)


def encoded(value: Mapping[str, object]) -> bytes:
    """Return JSON as it is sent."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()
