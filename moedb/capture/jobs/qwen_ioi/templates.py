"""The material of IOI prompts: templates, names, places and objects, read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from moedb.errors import DatasetError, UsageError

SLOTS = ("[A]", "[B]", "[PLACE]", "[OBJECT]")
SLOT = re.compile(r"\[[^\[\]]*\]")
_SHAPE = "a JSON object with the keys source, templates_baba, names, places and objects"
_LISTS = ("templates_baba", "names", "places", "objects")


@dataclass(frozen=True)
class IOITemplates:
    """The material prompts are made of, checked when it is built.

    Parameters
    ----------
    source : str
        Where the sentences come from.
    templates_baba : tuple of str
        Sentences with the slots ``[A]`` (IO), ``[B]`` (S), ``[PLACE]`` and ``[OBJECT]``. The names
        stand in the order B, A, B, A, each after a space, and the last ``[A]`` ends the sentence.
    names, places, objects : tuple of str
        What the slots are filled with.

    Raises
    ------
    DatasetError
        When a template or a list cannot make prompts.
    """

    source: str
    templates_baba: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.templates_baba:
            raise DatasetError("templates_baba is empty: IOI prompts need at least one template")
        for index, template in enumerate(self.templates_baba):
            _check_template(index, template)
        for key in ("names", "places", "objects"):
            _check_words(key, getattr(self, key))
        if len(self.names) < 2:
            raise DatasetError(
                f"names has {len(self.names)} entries: IOI prompts need at least 2 different names"
            )
        for slot, key in (("[PLACE]", "places"), ("[OBJECT]", "objects")):
            users = [i for i, text in enumerate(self.templates_baba) if slot in text]
            if users and not getattr(self, key):
                raise DatasetError(f"{key} is empty, but template {users[0]} has the slot {slot}")


def _check_template(index: int, template: str) -> None:
    what = f"template {index} {template!r}"
    found = SLOT.findall(template)
    unknown = sorted(set(found) - set(SLOTS))
    if unknown:
        raise DatasetError(f"{what} has the unknown slot {unknown[0]}; valid: {', '.join(SLOTS)}")
    if re.search(r"[\[\]]", SLOT.sub("", template)):
        raise DatasetError(f"{what} has a bracket that belongs to no slot")
    if not template.endswith("[A]"):
        raise DatasetError(f"{what} must end with [A], the name that answers the prompt")
    named = [slot for slot in found if slot in ("[A]", "[B]")]
    if named != ["[B]", "[A]", "[B]", "[A]"]:
        raise DatasetError(
            f"{what} has the name slots {' '.join(named)}; the BABA form is [B] [A] [B] [A]"
        )
    for match in SLOT.finditer(template):
        if match.group() in ("[A]", "[B]") and template[: match.start()][-1:] != " ":
            raise DatasetError(
                f"{what} must have a space before each name, and so cannot start with one"
            )
    if re.search(r"\s\s", template) or template != template.strip():
        raise DatasetError(f"{what} has white space at an end or twice in a row")


def _check_words(key: str, words: Sequence[str]) -> None:
    seen: set[str] = set()
    for word in words:
        if not word or word != word.strip() or "[" in word or "]" in word:
            raise DatasetError(f"{key} has the entry {word!r}; valid: a word without brackets")
        if key == "names" and re.search(r"\s", word):
            raise DatasetError(f"names has the entry {word!r}; valid: one word")
        if word in seen:
            raise DatasetError(f"{key} has {word!r} twice; valid: each entry once")
        seen.add(word)


def load_ioi_templates(path: str | Path | None = None) -> IOITemplates:
    """Read and check a template file.

    Parameters
    ----------
    path : str or Path, optional
        A JSON file with the keys ``source``, ``templates_baba``, ``names``, ``places`` and
        ``objects`` (``slots`` is a description and may be left out). Without it, the templates
        that come with the package.

    Returns
    -------
    IOITemplates

    Raises
    ------
    UsageError
        When there is no such file.
    DatasetError
        When the file is not JSON or cannot make prompts.
    """
    if path is None:
        shown = "the templates of the package"
        file = resources.files("moedb.capture.jobs.qwen_ioi") / "ioi.json"
        text = file.read_text("utf-8")
    else:
        shown = str(path)
        try:
            text = Path(path).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{shown}: not UTF-8 text ({error.reason}); valid: {_SHAPE}"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{shown}: cannot read the template file ({error.strerror}); valid: {_SHAPE}"
            ) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{shown}: not JSON ({error}); valid: {_SHAPE}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{shown}: found a JSON {type(content).__name__}; valid: {_SHAPE}")
    missing = [
        k for k in ("source", "templates_baba", "names", "places", "objects") if k not in content
    ]
    if missing:
        raise DatasetError(f"{shown}: the key {missing[0]} is missing; valid: {_SHAPE}")
    if not isinstance(content["source"], str):
        raise DatasetError(f"{shown}: source must be text, found {content['source']!r:.80}")
    _check_slots(shown, content.get("slots", {}))
    lists = {key: _words(shown, key, content[key]) for key in list(content) if key in _LISTS}
    try:
        return IOITemplates(source=content["source"], **lists)
    except DatasetError as error:
        raise DatasetError(f"{shown}: {error}") from error


def _check_slots(shown: str, slots: Any) -> None:
    if not isinstance(slots, dict) or not set(slots) <= set(SLOTS):
        raise DatasetError(
            f"{shown}: slots is {slots!r:.80}; valid: an object that describes {', '.join(SLOTS)}"
        )


def _words(shown: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise DatasetError(f"{shown}: {key} is {value!r:.80}; valid: a list of texts")
    return tuple(value)
