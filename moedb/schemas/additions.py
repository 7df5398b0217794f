"""An addition: rows that are added to a complete run later, as a unit of their own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from moedb.errors import StoreDamagedError, UsageError
from moedb.schemas.version import __version__

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Addition:
    """What an addition is, as each of its manifests says.

    Attributes
    ----------
    name
        Its name, one of its own among those of the run.
    kind
        What made it, such as ``concepts``.
    config
        What it was made with, as JSON text: what has to be the same for its rows to be the same.
    version
        The version of moedb that wrote it.
    added_at
        When its first part was committed, ISO 8601, UTC; empty in one that is not written yet.
    parts
        The names of the parts that a segment of it holds; empty for one that was added whole.
    """

    name: str
    kind: str
    config: str = "{}"
    version: str = field(default=__version__)
    added_at: str = ""
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "kind", "config", "version", "added_at"):
            _expect_text(getattr(self, name), f"addition: {name}")
        for part in self.parts:
            _expect_text(part, "addition: parts")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make one of what a manifest holds; fields that it does not know are passed over.

        Raises
        ------
        StoreDamagedError
            If it is none.
        """
        if not isinstance(content, dict):
            raise StoreDamagedError(f"addition: expected dict, got {content!r}")
        texts = {name: content[name] for name in ("name", "kind", "config", "version", "added_at")}
        parts = content["parts"]
        if not isinstance(parts, list):
            raise StoreDamagedError(f"addition: parts: expected list, got {parts!r}")
        return cls(**texts, parts=tuple(parts))

    def to_dict(self) -> dict[str, Any]:
        """The addition as it stands in a manifest."""
        return {**vars(self), "parts": list(self.parts)}


def check_addition_name(name: str) -> None:
    """Check that an addition may be called ``name``.

    Raises
    ------
    UsageError
        If it may not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"no name for an addition: {name!r}",
            "up to 100 letters, digits, dots, hyphens and underscores; the first is a letter or "
            "digit",
        )


def _expect_text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise StoreDamagedError(f"{where}: expected str, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise StoreDamagedError(f"{where}: expected Unicode text, got {value!r}") from error
    if "\0" in value:
        raise StoreDamagedError(f"{where}: expected no null character, got {value!r}")
