"""Captures as they are planned, by a command as by a function."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from moedb.capture.jobs.model_outline import ModelOutline
    from moedb.capture.jobs.text.documents import TextColumns
    from moedb.capture.pipeline.plan import CaptureOptions, CapturePlan


def options_of(settings: Mapping[str, Any]) -> "CaptureOptions":
    """The options of a capture, with gigabytes turned into bytes.

    Raises
    ------
    TypeError
        If there is no such setting.
    UsageError
        If a value is not valid.
    """
    from moedb.capture.pipeline.plan import CaptureOptions

    valid = {field.name for field in fields(CaptureOptions)} - {"max_bytes"} | {"max_memory"}
    for name in settings:
        if name not in valid:
            raise TypeError(f"no capture has the setting {name!r}; {did_you_mean(name, valid)}")
    given: dict[str, Any] = {"model": "qwen-moe-mini", **settings}
    if "budget" in given:
        given["budget"] = in_bytes(given["budget"])
    if "max_memory" in given:
        given["max_bytes"] = in_bytes(given.pop("max_memory"))
    if "arrays" in given:
        arrays = given["arrays"]
        given["arrays"] = (arrays,) if isinstance(arrays, str) else tuple(arrays)
    return CaptureOptions(**given)


def in_bytes(gigabytes: float | None) -> int | None:
    """Gigabytes as bytes; None stays None."""
    return None if gigabytes is None else int(gigabytes * 1e9)


def plan_text(
    dataset: str,
    columns: "TextColumns",
    settings: Mapping[str, Any],
    outline: "ModelOutline | None" = None,
    *,
    split: str | None,
    subset: str | None,
    lines: bool,
    dense: bool = False,
    **chosen: Any,
) -> "CapturePlan":
    """Plan a capture of texts.

    Parameters
    ----------
    dataset
        A file, a folder of files of one kind, or a hub id.
    columns
        Its columns.
    settings
        The settings of the capture, see :func:`options_of`.
    outline
        The model, where it is not to be found by its name.
    split, subset, lines
        What of the dataset is read, and how.
    dense
        Whether the model is a dense one.
    **chosen
        The other fields of ``TextOptions``.

    Raises
    ------
    MoedbError
        If data, model or an option are not what they have to be.
    """
    from moedb.capture.jobs.text.sources.opening import open_source

    source = open_source(dataset, split=split, subset=subset, lines=lines)
    source.check_columns(columns.options)
    # these import torch, which takes seconds: not before the data are there
    from moedb.capture.jobs.language import plan_language_capture
    from moedb.capture.jobs.text.job import TextOptions, text_dataset

    made = partial(text_dataset, source=source, options=TextOptions(columns=columns, **chosen))
    options = options_of({**settings, "seed": chosen.get("seed", 0)})
    return plan_language_capture(options, made, outline=outline, dense=dense)


def plan_cifar(
    models: Sequence[Path],
    settings: Mapping[str, Any],
    *,
    data: Path | None,
    n: int | None,
    draws: int,
    seed: int,
) -> "list[CapturePlan]":
    """Plan a capture of CIFAR-10's test images for each of some models.

    Parameters
    ----------
    models
        Trained models' folders, or folders of them.
    settings
        The settings of the captures, see :func:`options_of`; a name is for one model.
    data, n, draws, seed
        Where CIFAR-10 is, how many images, and what is drawn.

    Raises
    ------
    MoedbError
        If data, models or an option are not what they have to be.
    """
    from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset, find_trials
    from moedb.capture.jobs.cifar_moe.images import load_cifar10
    from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture

    folders = find_trials(models)
    if len(folders) > 1 and settings.get("name") is not None:
        raise UsageError(
            f"--name is for one run, and there are {len(folders)} models, each a run",
            "name them afterwards: moedb name RUN NAME",
        )
    dataset = cifar_dataset(load_cifar10(data, "test"), n=n, draws=draws, seed=seed)
    return [
        plan_cifar_capture(options_of({**settings, "model": str(folder), "seed": seed}), dataset)
        for folder in folders
    ]
