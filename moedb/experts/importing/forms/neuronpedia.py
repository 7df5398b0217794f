"""Explanations as Neuronpedia exports them: JSON lines with ``modelId``, ``layer``, ``index``.

``layer`` is the layer's number and the name of what was explained there (``5-router``); ``index``
is taken for the expert. A line has no verdicts.
"""

import re
from collections.abc import Sequence

from moedb.errors import UsageError
from moedb.experts.importing.files import GivenFile
from moedb.experts.importing.found import (
    Choices,
    FoundLabel,
    FoundLabels,
    label_or_none,
    number_of,
    one_line,
    shown,
)

_FIELDS = {"modelId", "layer", "index", "description"}


def fits(files: Sequence[GivenFile]) -> bool:
    """Whether these are files of this form."""
    return all(_is_export(file) for file in files)


def read(files: Sequence[GivenFile], choices: Choices) -> FoundLabels:
    """Read labels.

    Raises
    ------
    UsageError
        If a line lacks what it needs, or there are labels of several models.
    """
    found = FoundLabels()
    names: set[str] = set()
    for file in files:
        for where, row in file.objects():
            model = one_line(str(row.get("modelId", "")), 100)
            if choices.model is not None and model != choices.model:
                found.passed_over[f"labels of {model}"] += 1
                continue
            names.add(model)
            reader = row.get("explanationModelName")
            found.labels.append(
                FoundLabel(
                    _layer(row.get("layer"), where) if choices.layer is None else choices.layer,
                    number_of(row.get("index"), "index", where),
                    label_or_none(row.get("description"), where),
                    where,
                    one_line(reader, 200) if isinstance(reader, str) and reader else None,
                )
            )
    if len(names) > 1:
        raise UsageError(
            f"labels of several models: {', '.join(sorted(names)[:20])}",
            "say which are of this run's: --model NAME",
        )
    found.about = next(iter(names), None)
    return found


def _is_export(file: GivenFile) -> bool:
    if file.text.lstrip()[:1] != "{":
        return False
    try:
        return next(file.objects(), ("", {}))[1].keys() >= _FIELDS
    except UsageError:
        return False


def _layer(value: object, where: str) -> int:
    parts = re.match(r"(\d{1,6})(?:-|$)", str(value))
    if parts is None:
        raise UsageError(f"{where}: layer begins with no number: {shown(value)}", "--layer N")
    return int(parts[1])
