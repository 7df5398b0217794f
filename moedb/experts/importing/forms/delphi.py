"""Results of EleutherAI's delphi: a folder with ``explanations`` and ``scores``.

``explanations/layers.5.mlp_latent12.txt`` has the label of latent 12 as a JSON text, and the files
of the same names in ``scores/detection`` and ``scores/fuzz`` what was judged of each context. Taken
is the latent for the expert, and the hookpoint for the layer.
"""

import re
from collections.abc import Sequence
from typing import Any

from moedb.errors import UsageError
from moedb.experts.importing.files import GivenFile
from moedb.experts.importing.found import (
    Choices,
    FoundLabel,
    FoundLabels,
    Judged,
    Kind,
    label_or_none,
    text_or_none,
    truth_of,
)
from moedb.experts.labelling.rows import IMPORTED

_NAME = re.compile(r"(?P<layer>.+)_latent(?P<latent>\d{1,9})\.(?:txt|json)")
_KINDS: dict[str, Kind] = {"detection": "detection", "fuzz": "fuzzing", "fuzzing": "fuzzing"}
_TRUTH = ("activating", "ground_truth")
"""Whether a context is the latent's: today's name, and that of older versions."""


def fits(files: Sequence[GivenFile]) -> bool:
    """Whether there are explanations of latents among these files."""
    return any(_place(file) is not None and isinstance(file.json, str) for file in files)


def read(files: Sequence[GivenFile], choices: Choices) -> FoundLabels:
    """Read labels and verdicts.

    Raises
    ------
    UsageError
        If a file is not what its place says.
    """
    found = FoundLabels()
    by_place: dict[tuple[str, int], FoundLabel] = {}
    scores: list[tuple[Kind, tuple[str, int], GivenFile]] = []
    for file in files:
        place = _place(file)
        if place is None:
            found.passed_over["files that are no results of a latent"] += 1
            continue
        folder = file.name.rsplit("/", 2)[-2] if "/" in file.name else ""
        kind = _KINDS.get(folder)
        if kind is not None:
            scores.append((kind, place, file))
        elif isinstance(file.json, str):
            if place in by_place:
                raise UsageError(f"two explanations: {by_place[place].where} and {file.name}")
            label = label_or_none(file.json, file.name)
            by_place[place] = FoundLabel(_layer(place[0], choices), place[1], label, file.name)
        else:
            what = f"scores of another kind ({folder})" if folder else "files that are no text"
            found.passed_over[what] += 1
    for kind, place, file in scores:
        owner = by_place.get(place)
        if owner is None:
            found.passed_over["scores of a latent without an explanation"] += 1
            continue
        owner.verdicts += _verdicts(kind, file)
    found.labels = list(by_place.values())
    return found


def _place(file: GivenFile) -> tuple[str, int] | None:
    """The hookpoint and the latent that a file is of; None for another file."""
    parts = _NAME.fullmatch(file.name.rsplit("/", 1)[-1])
    return None if parts is None else (parts["layer"].replace("--", "/"), int(parts["latent"]))


def _layer(hookpoint: str, choices: Choices) -> int | str:
    return hookpoint if choices.layer is None else choices.layer


def _verdicts(kind: Kind, file: GivenFile) -> list[Judged]:
    contexts: Any = file.json
    if not isinstance(contexts, list):
        raise UsageError(f"{file.name}: no JSON list of contexts")
    verdicts = []
    for number, context in enumerate(contexts):
        where = f"{file.name}, context {number}"
        if not isinstance(context, dict):
            raise UsageError(f"{where}: no JSON object")
        truth = next((context[name] for name in _TRUTH if name in context), None)
        is_positive = truth_of(truth, _TRUTH[0], where)
        if is_positive is None:
            raise UsageError(f"{where}: nothing says whether it is of the latent ({_TRUTH[0]})")
        tokens = context.get("str_tokens")
        whole = tokens if isinstance(tokens, list) else []
        text = "".join(token for token in whole if isinstance(token, str))
        said = truth_of(context.get("prediction"), "prediction", where)
        against = "" if is_positive else IMPORTED
        verdicts.append(Judged(kind, is_positive, said, against, text_or_none(text), where=where))
    return verdicts
