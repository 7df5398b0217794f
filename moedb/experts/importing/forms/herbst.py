"""Files of Herbst et al. 2026 (arXiv 2604.02178): one JSON for a layer, and a list of all labels.

The JSON has for each expert its ``hypothesis``; in ``labels`` whether each context that was judged
is the expert's, in ``scores`` what the reader said. Which layer it is of, its name says:
``OLMoE-1B-7B-0125_L11_auto_interp.json``. The list has a line for each expert.
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
    label_or_none,
    number_of,
    text_or_none,
    truth_of,
)
from moedb.experts.labelling.rows import IMPORTED

_NAME = re.compile(r"(?P<model>.*)_L(?P<layer>\d{1,6})(?:_[\w-]*)?\.json")
_LINE = re.compile(
    r"(?:Model (?P<model>.{1,200}?) )?Layer (?P<layer>\d{1,6}), Expert (?P<expert>\d{1,6}): "
    r"(?P<label>.*)"
)
_SNIPPET = re.compile(r'<example id="\d+">\s*<snippet>(.*?)</snippet>', re.DOTALL)


def fits(files: Sequence[GivenFile]) -> bool:
    """Whether these are files of this form."""
    return all(_is_layer(file) or _is_list(file) for file in files)


def read(files: Sequence[GivenFile], choices: Choices) -> FoundLabels:
    """Read labels and verdicts.

    Raises
    ------
    UsageError
        If nothing says which layer a file is of, or which of several models is meant.
    """
    found = FoundLabels()
    names: set[str] = set()
    for file in files:
        if _is_layer(file):
            names |= _read_layer(file, choices, found)
        else:
            names |= _read_list(file, choices, found)
    if len(names) > 1:
        raise UsageError(
            f"labels of several models: {', '.join(sorted(names)[:20])}",
            "say which are of this run's: --model NAME",
        )
    found.about = next(iter(names), None)
    return found


def _is_layer(file: GivenFile) -> bool:
    content = file.json if file.text.lstrip()[:1] == "{" else None
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            key.isascii() and key.isdigit() and isinstance(value, dict) and "hypothesis" in value
            for key, value in content.items()
        )
    )


def _is_list(file: GivenFile) -> bool:
    first = next(file.lines(), ("", ""))[1]
    return _LINE.fullmatch(first.strip()) is not None


def _read_layer(file: GivenFile, choices: Choices, found: FoundLabels) -> set[str]:
    named = _NAME.fullmatch(file.name.rsplit("/", 1)[-1])
    if choices.layer is None and named is None:
        raise UsageError(
            f"nothing says which layer {file.name} is of", "its name (..._L11_...), or --layer 11"
        )
    layer = int(named["layer"]) if choices.layer is None and named else choices.layer
    model = named["model"] if named else None
    if choices.model is not None and model is not None and model != choices.model:
        found.passed_over[f"labels of {model}"] += len(file.json)
        return set()
    for key, value in file.json.items():
        where = f"{file.name}, expert {key[:20]}"
        label = FoundLabel(
            int(layer or 0),
            number_of(key, "expert", where),
            label_or_none(value["hypothesis"], where),
            where,
            verdicts=_verdicts(value, where, found),
        )
        found.labels.append(label)
    return {model} if model else set()


def _verdicts(value: dict[str, Any], where: str, found: FoundLabels) -> list[Judged]:
    truths, said = value.get("labels"), value.get("scores")
    if not said and value["hypothesis"] is None:
        return []
    if not isinstance(truths, list) or not isinstance(said, list) or len(truths) != len(said):
        found.passed_over["experts whose verdicts are not as many as their contexts"] += 1
        return []
    prompt = value.get("scorer_prompt")
    texts: list[str | None] = _SNIPPET.findall(prompt) if isinstance(prompt, str) else []
    if len(texts) != len(truths):
        texts = [None] * len(truths)
    verdicts = []
    for number, (truth, verdict, text) in enumerate(zip(truths, said, texts, strict=True)):
        at = f"{where}, context {number}"
        is_positive = truth_of(truth, "label", at)
        if is_positive is None:
            raise UsageError(f"{at}: nothing says whether it is of the expert")
        # the reader saw which tokens the expert was chosen for, of another expert in negative ones
        against = "" if is_positive else IMPORTED
        verdicts.append(
            Judged(
                "fuzzing",
                is_positive,
                truth_of(verdict, "score", at),
                against,
                text_or_none(text),
                where=at,
            )
        )
    return verdicts


def _read_list(file: GivenFile, choices: Choices, found: FoundLabels) -> set[str]:
    names: set[str] = set()
    for where, line in file.lines():
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise UsageError(f"{where}: not 'Model NAME Layer 3, Expert 7: LABEL'")
        model = parts["model"]
        if choices.model is not None and model is not None and model != choices.model:
            found.passed_over[f"labels of {model}"] += 1
            continue
        layer = int(parts["layer"])
        if choices.layer is not None and layer != choices.layer:
            found.passed_over[f"labels of layer {layer}"] += 1
            continue
        names |= {model} if model else set()
        label = label_or_none(parts["label"], where)
        found.labels.append(FoundLabel(layer, int(parts["expert"]), label, where))
    return names
