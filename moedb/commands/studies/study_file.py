"""The file of a study: what can be set, and its steps in order."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from moedb.commands.studies.command_lines import check_command, names_in, words_of
from moedb.errors import UsageError, did_you_mean

OUTPUT = "output"
"""What the folder of the study's files is called in its commands."""

HERE = "here"
"""What the folder of the study's file is called in its commands."""

PAGE = "page"
"""The first word of a step that is no command: tables set into prose."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Setting:
    """What may be chosen for a study.

    Attributes
    ----------
    value
        What it is unless given; None where it has to be given.
    about
        What it means.
    rehearsed
        Two smaller values, of which the second is larger, that a rehearsal takes; None where a
        rehearsal takes the value itself.
    """

    value: str | None
    about: str
    rehearsed: tuple[int, int] | None = None


@dataclass(frozen=True)
class Step:
    """A step of a study.

    Attributes
    ----------
    name
        Its name; in later commands ``${NAME}`` is the run that it made.
    words
        Its command, in words, without ``moedb``; settings and runs are not filled in yet. Of a page
        ``page``, the file of its prose and the one to write.
    when
        The setting that has to be given for it to be done; None where it always is.
    folder
        Where the study's file lies: ``${here}`` in its command.
    """

    name: str
    words: tuple[str, ...]
    when: str | None = None
    folder: Path = field(default=Path(), compare=False)


@dataclass(frozen=True)
class Study:
    """A study as its file says it.

    Attributes
    ----------
    name, about
        What it is called, and what it asks.
    settings
        What may be chosen, by name.
    steps
        What is done, in order.
    source
        The text of the file.
    """

    name: str
    about: str
    settings: Mapping[str, Setting]
    steps: tuple[Step, ...]
    source: str

    @property
    def size(self) -> str | None:
        """The setting that says how much there is to do; None where none does."""
        return next((name for name, each in self.settings.items() if each.rehearsed), None)

    def chosen(self, given: Mapping[str, str]) -> dict[str, str]:
        """The values of the settings; those that are not given and have none are left out.

        Raises
        ------
        UsageError
            If there is no such setting, or one has to be given and is not.
        """
        for name in given:
            if name not in self.settings:
                raise UsageError(
                    f"the study {self.name} has no setting {name!r}; "
                    f"{did_you_mean(name, self.settings)}",
                    f"moedb study {self.name} --show",
                )
        values = {name: given.get(name, each.value) for name, each in self.settings.items()}
        optional = {step.when for step in self.steps}
        lacking = [name for name, value in values.items() if value is None and name not in optional]
        if lacking:
            first = lacking[0]
            raise UsageError(
                f"the study {self.name} needs {first}: {self.settings[first].about}",
                f"moedb study {self.name} --set {first}=...",
            )
        return {name: value for name, value in values.items() if value is not None}


def packaged() -> dict[str, Path]:
    """The studies that come with moedb, by name."""
    folder = Path(str(files("moedb.commands.studies") / "data"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_study(named: str) -> Study:
    """Read a study that comes with moedb, or one in a file.

    Raises
    ------
    UsageError
        If there is none, or it is not as it has to be.
    """
    known = packaged()
    if named in known:
        return read_study(known[named])
    path = Path(named)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(
            f"there is no study {named!r}; {did_you_mean(named, known)}, or a file .yaml",
            "moedb study",
        )
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "moedb study ioi --show > mine.yaml")
    return read_study(path)


def read_study(path: Path) -> Study:
    """Read the file of a study, and check every line of it.

    Raises
    ------
    UsageError
        If it is not as it has to be: which step, and what is wrong with it.
    """
    import yaml

    if path.stat().st_size > _MOST_BYTES:
        raise UsageError(f"{path} is larger than a study: over {_MOST_BYTES:,} bytes")
    source = path.read_text(encoding="utf-8")
    try:
        told = yaml.safe_load(source)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML: {str(error).replace(chr(10), ' ')}") from error
    return _Reader(path).study(told, source)


class _Reader:
    """What a file says, read into a study; errors name the file and the place in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def study(self, told: Any, source: str) -> Study:
        """The whole of it."""
        told = self._mapping(told, "the file", ("about", "begins_with", "settings", "steps"))
        first = self._before(told.get("begins_with"))
        settings = {} if first is None else dict(first.settings)
        settings |= {
            self._name(name, "a setting"): self._setting(str(name), each)
            for name, each in self._mapping(told.get("settings") or {}, "settings", None).items()
        }
        for taken, what in ((OUTPUT, "the study's folder"), (HERE, "the folder of its file")):
            if taken in settings:
                raise self._error(f"a setting cannot be called {taken}: that is {what}")
        steps = [] if first is None else list(first.steps)
        for number, each in enumerate(self._list(told.get("steps"), "steps"), start=1):
            steps.append(self._step(each, f"step {number}", settings, steps))
        if sum(bool(each.rehearsed) for each in settings.values()) > 1:
            raise self._error("more than one setting has smaller values to rehearse")
        about = str(told.get("about") or "").strip()
        return Study(self._path.stem, about, settings, tuple(steps), source)

    def _before(self, named: Any) -> Study | None:
        """The study that comes with moedb and is done first."""
        if named is None:
            return None
        known = packaged()
        if named not in known or known[named].resolve() == self._path.resolve():
            raise self._error(
                f"begins_with: no such study comes with moedb: {named!r}; "
                f"{did_you_mean(str(named), known)}"
            )
        return read_study(known[named])

    def _setting(self, name: str, told: Any) -> Setting:
        told = told if isinstance(told, dict) else {"value": told}
        place = f"setting {name}"
        told = self._mapping(told, place, ("value", "about", "rehearsed"))
        value, sizes = told.get("value"), told.get("rehearsed")
        if isinstance(value, dict | list):
            raise self._error(f"{place}: a value is a text or a number")
        if sizes is not None and not (
            isinstance(sizes, list)
            and len(sizes) == 2
            and all(type(size) is int for size in sizes)
            and 0 < sizes[0] < sizes[1]
        ):
            raise self._error(f"{place}: rehearsed takes two numbers, the second larger: [8, 24]")
        rehearsed = None if sizes is None else (sizes[0], sizes[1])
        return Setting(
            None if value is None else str(value), str(told.get("about") or ""), rehearsed
        )

    def _step(
        self, told: Any, place: str, settings: Mapping[str, Setting], before: list[Step]
    ) -> Step:
        told = self._mapping(told, place, ("name", "command", "page", "when"))
        name = self._name(told.get("name"), f"{place}: its name")
        if name in {OUTPUT, HERE, *settings, *(step.name for step in before)}:
            raise self._error(f"{place}: there is a {name!r} already")
        command, page, when = told.get("command"), told.get("page"), told.get("when")
        if (command is None) == (page is None) or not isinstance(command or page, str | dict):
            raise self._error(f"{place} ({name}): expected a command: moedb capture qwen-ioi ...")
        if when is not None and when not in settings:
            raise self._error(
                f"{place} ({name}): when: there is no setting {when!r}; "
                f"{did_you_mean(str(when), settings)}"
            )
        if page is not None:
            return Step(name, self._page(page, f"{place} ({name})"), when, self._path.parent)
        known = {OUTPUT, HERE, *settings, *(step.name for step in before)}
        try:
            words = words_of(str(command))
            check_command(words)
            for each in names_in(words):
                if each not in known:
                    raise UsageError(
                        f"${{{each}}} is no setting and no step before; {did_you_mean(each, known)}"
                    )
        except UsageError as error:
            raise UsageError(
                f"{self._path}: {place} ({name}): {error.message}", error.hint
            ) from error
        return Step(name, words, when, self._path.parent)

    def _page(self, told: Any, place: str) -> tuple[str, ...]:
        """The words of a page: its prose lies beside this file."""
        told = self._mapping(told, f"{place}: page", ("of", "to"))
        if not all(isinstance(told.get(each), str) for each in ("of", "to")):
            raise self._error(f"{place}: page takes the file of its prose and its own: of, to")
        return (PAGE, f"${{{HERE}}}/{told['of']}", told["to"])

    def _name(self, told: Any, what: str) -> str:
        if not isinstance(told, str) or not _NAME.fullmatch(told):
            raise self._error(f"{what} is of small letters, digits, - and _, not {told!r}")
        return told

    def _mapping(self, told: Any, place: str, known: tuple[str, ...] | None) -> dict[str, Any]:
        if not isinstance(told, dict):
            raise self._error(f"{place}: expected names with values, got {type(told).__name__}")
        for name in told:
            if known is not None and name not in known:
                raise self._error(f"{place}: {name!r} is unknown; {did_you_mean(str(name), known)}")
        return told

    def _list(self, told: Any, place: str) -> list[Any]:
        if not isinstance(told, list) or not told:
            raise self._error(f"{place}: expected a list of steps, got {told!r:.40}")
        return told

    def _error(self, what: str) -> UsageError:
        return UsageError(f"{self._path}: {what}", "moedb study ioi --show")
