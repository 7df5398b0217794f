"""moedb's own form: JSON lines or CSV, a row for each label and each verdict."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moedb.errors import UsageError
from moedb.experts.importing.files import GivenFile
from moedb.experts.importing.found import (
    AGAINST,
    Choices,
    FoundLabel,
    FoundLabels,
    Judged,
    label_or_none,
    number_of,
    shown,
    text_or_none,
    truth_of,
)
from moedb.experts.labelling.rows import IMPORTED

KINDS = ("detection", "fuzzing")
_MOST_IDX = 2**63


def fits(files: Sequence[GivenFile]) -> bool:
    """Whether these are files of this form: their first row says layer and expert."""
    return all({"layer", "expert"} <= _first(file) for file in files)


def read(files: Sequence[GivenFile], choices: Choices) -> FoundLabels:
    """Read labels and verdicts; a row with a ``kind`` is a verdict.

    Raises
    ------
    UsageError
        If a row is neither.
    """
    found = FoundLabels()
    verdicts: list[tuple[str, int | str, int, Judged]] = []
    for file in files:
        for where, row in _rows(file):
            layer, expert = _layer(row, where), number_of(row.get("expert"), "expert", where)
            if row.get("kind") in (None, ""):
                if "label" not in row:
                    raise UsageError(
                        f"{where}: neither a label (label) nor a verdict (kind, is_positive)"
                    )
                model = row.get("model")
                found.labels.append(
                    FoundLabel(
                        layer,
                        expert,
                        label_or_none(row["label"], where),
                        where,
                        model if isinstance(model, str) and model else None,
                    )
                )
            else:
                verdicts.append((where, layer, expert, _verdict(row, where)))
    by_place = {(str(each.layer), each.expert): each for each in found.labels}
    for where, layer, expert, verdict in verdicts:
        owner = by_place.get((str(layer), expert))
        if owner is None:
            raise UsageError(
                f"{where}: a verdict on layer {layer}, expert {expert}, of which there is no label"
            )
        owner.verdicts.append(verdict)
    return found


def _layer(row: Mapping[str, Any], where: str) -> int | str:
    layer = row.get("layer")
    if isinstance(layer, str) and layer.strip() and not layer.strip().isdigit():
        return layer.strip()
    return number_of(layer, "layer", where)


def _verdict(row: Mapping[str, Any], where: str) -> Judged:
    kind, against = row["kind"], row.get("against") or ""
    if kind not in KINDS:
        raise UsageError(f"{where}: kind is {shown(kind)}; valid: {', '.join(KINDS)}")
    is_positive = truth_of(row.get("is_positive"), "is_positive", where)
    if is_positive is None:
        raise UsageError(f"{where}: a verdict without is_positive")
    if is_positive and against:
        raise UsageError(f"{where}: against {shown(against)} of a positive context")
    if against and against not in AGAINST:
        raise UsageError(f"{where}: against is {shown(against)}; valid: {', '.join(AGAINST)}")
    token_idx = row.get("token_idx")
    if isinstance(token_idx, str):
        token_idx = int(token_idx) if token_idx.isascii() and token_idx.isdigit() else token_idx
    if token_idx in (None, ""):
        token_idx = None
    elif type(token_idx) is not int or not 0 <= token_idx < _MOST_IDX:
        raise UsageError(f"{where}: token_idx is no number from 0 on: {shown(token_idx)}")
    return Judged(
        kind,
        is_positive,
        truth_of(row.get("says_yes"), "says_yes", where),
        "" if is_positive else against or IMPORTED,
        text_or_none(row.get("text")),
        token_idx,
        truth_of(row.get("other_says_yes"), "other_says_yes", where),
        truth_of(row.get("has_others"), "has_others", where),
        where,
    )


def _first(file: GivenFile) -> set[str]:
    """What the first row names."""
    try:
        if _is_json(file):
            return set(next(file.objects(), ("", {}))[1])
        return set(next(csv.reader(io.StringIO(file.text[:10_000])), []))
    except (UsageError, csv.Error):
        return set()


def _is_json(file: GivenFile) -> bool:
    return file.text.lstrip()[:1] == "{"


def _rows(file: GivenFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if _is_json(file):
        yield from file.objects()
        return
    reader = csv.DictReader(io.StringIO(file.text, newline=""), strict=True)
    try:
        for row in reader:
            where = f"{file.name}, line {reader.line_num}"
            if None in row:
                raise UsageError(f"{where}: more fields than the header names")
            yield where, row
    except csv.Error as error:
        raise UsageError(f"{file.name}, line {reader.line_num}: no CSV: {error}") from error
