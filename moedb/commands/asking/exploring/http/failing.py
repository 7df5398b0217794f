"""What a browser is told of what goes wrong: no traceback, and no place outside the store."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moedb
from moedb.commands.asking.exploring.desk import NoSuchViewError
from moedb.commands.asking.exploring.open_store import MovedError
from moedb.commands.asking.exploring.workers import TooLongError
from moedb.errors import MoedbError, RunNotFoundError, StoreError, UsageError
from moedb.queries.report.pages.asking import Json
from moedb.store.engine.spilling import spill_folder
from moedb.store.reading.places.file_systems import without_secrets

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import Snapshot

logger = logging.getLogger(__name__)

_STATUS = (
    (NoSuchViewError, 404),
    (RunNotFoundError, 404),
    (MovedError, 409),
    (TooLongError, 504),
    (StoreError, 500),
    (UsageError, 400),
)


class BadRequestError(UsageError):
    """What is asked is not what this server answers."""


class Failures:
    """Turns errors into what is sent.

    Parameters
    ----------
    snapshot
        Of the store: of its address only the name is told.
    """

    def __init__(self, snapshot: "Snapshot") -> None:
        places: dict[str, str] = {}
        if snapshot.remote is None:
            folder = snapshot.store.absolute()
            for each in (folder.resolve(), folder, snapshot.store):
                places[str(each)] = folder.name
        private = [
            Path(moedb.__file__).parent,
            Path.cwd(),
            Path.home(),
            Path(tempfile.gettempdir()),
        ]
        spill = spill_folder()
        for path in ([] if spill is None else [Path(spill)]) + private:
            places.setdefault(str(path), "...")
            places.setdefault(str(path.resolve()), "...")
        # what holds others last
        self._places = sorted(
            (pair for pair in places.items() if len(pair[0]) > 1), key=lambda pair: -len(pair[0])
        )

    def told(self, error: Exception) -> tuple[int, str, str | None]:
        """The status, what is wrong, and what to do."""
        if not isinstance(error, MoedbError):
            logger.warning("a request failed: %s: %s", type(error).__name__, error, exc_info=True)
            return 500, "something went wrong here; the terminal of moedb explore says what", None
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        hint = None if error.hint is None else self._plain(error.hint)
        return status, self._plain(error.message), hint

    def without_places(self, view: Json) -> Json:
        """A view whose parts say why they are missing as errors do; all else is left as it is."""
        return {
            key: [self._with_plain_reason(part) for part in value]
            if isinstance(value, list)
            else value
            for key, value in view.items()
        }

    def _with_plain_reason(self, part: Any) -> Any:
        if isinstance(part, dict) and "missing" in part:
            return {**part, "missing": self._plain(part["missing"])}
        return part

    def _plain(self, text: str) -> str:
        text = without_secrets(text)
        for place, name in self._places:
            text = text.replace(place, name)
        return text
