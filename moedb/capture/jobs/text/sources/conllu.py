"""CoNLL-U files, the format of Universal Dependencies: each sentence a row."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moedb.capture.jobs.text.sources.rows import shown
from moedb.errors import DatasetError

FIELDS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
TAGS = {"upos": 3, "xpos": 4, "deprel": 7}
_ID = re.compile(r"(\d+)(?:-(\d+)|\.\d+)?")
_COMMENT = re.compile(r"#\s*([^=]+?)\s*=\s*(.*)")


def conllu_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read sentences: where each stands, and its values.

    The columns are ``text``; the parallel lists ``words``, ``upos``, ``xpos`` and ``deprel``; and
    each comment of the form ``# key = value``, such as ``sent_id``. A multiword token (French *du*
    for *de* + *le*) is one word, with the tags of its parts joined: ``ADP+DET``.

    Raises
    ------
    DatasetError
        If a line is malformed, or the file is not UTF-8.
    """
    lines: list[tuple[int, str]] = []
    number = sentences = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    lines.append((number, line.rstrip("\r\n")))
                elif lines:
                    sentences += 1
                    yield _sentence(path, sentences, lines)
                    lines = []
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}, after line {number}: not text in UTF-8: {error}") from error
    if lines:
        yield _sentence(path, sentences + 1, lines)


def _sentence(
    path: Path, number: int, lines: Sequence[tuple[int, str]]
) -> tuple[str, dict[str, Any]]:
    comments: dict[str, Any] = {}
    words: list[list[str]] = []
    tags: dict[str, list[str | None]] = {key: [] for key in TAGS}
    parts: list[list[str]] = []
    last_part = 0
    for line_number, line in lines:
        place = f"{path.name}, line {line_number}"
        if line.startswith("#"):
            if match := _COMMENT.fullmatch(line):
                comments[match.group(1)] = match.group(2)
            continue
        fields = line.split("\t")
        match = _ID.fullmatch(fields[0])
        if len(fields) != len(FIELDS) or match is None:
            raise DatasetError(
                f"{place}: {shown(line)} has {len(fields)} fields; expected the {len(FIELDS)} of "
                f"CoNLL-U with tabs between: {' '.join(FIELDS)}, ID such as 8, 8-9 or 8.1"
            )
        if "." in fields[0]:
            continue
        if match.group(2):
            words.append(fields)
            parts, last_part = [], int(match.group(2))
        elif int(match.group(1)) <= last_part:
            parts.append(fields)
            if int(match.group(1)) == last_part:
                _join(tags, parts)
        else:
            words.append(fields)
            _join(tags, [fields])
    if any(len(values) != len(words) for values in tags.values()):
        raise DatasetError(
            f"{path.name}, sentence {number} (line {lines[0][0]}) lacks words of a multiword token"
        )
    row = {
        "text": "".join(f[1] + ("" if _closes_up(f) else " ") for f in words).rstrip(),
        **comments,
        "words": [fields[1] for fields in words],
        **tags,
    }
    return f"{path.name}, sentence {number} (line {lines[0][0]})", row


def _join(tags: Mapping[str, list[str | None]], parts: Sequence[Sequence[str]]) -> None:
    for key, index in TAGS.items():
        given = [fields[index] for fields in parts if fields[index] != "_"]
        tags[key].append("+".join(given) or None)


def _closes_up(fields: Sequence[str]) -> bool:
    return "SpaceAfter=No" in fields[9].split("|")
