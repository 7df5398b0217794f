"""Finding text data by what a user typed: a file, a folder, or a hub id."""

import difflib
import re
from contextlib import suppress
from pathlib import Path

from moedb.capture.text.files import FORMATS, open_files
from moedb.capture.text.hub import open_hub
from moedb.capture.text.rows import Source
from moedb.errors import DatasetError, UsageError

_ALIKE = 0.6
_HUB_ID = re.compile(r"[A-Za-z0-9][\w-]*|[A-Za-z0-9][\w.-]*/[\w.-]+")


def open_source(
    dataset: str, *, split: str | None = None, subset: str | None = None, lines: bool = False
) -> Source:
    """Open text data.

    Parameters
    ----------
    dataset
        A file, a folder of files of one kind, or the id of a dataset on the hub.
    split, subset
        Which part of a dataset on the hub.
    lines
        Whether each line of a plain text file is a document.

    Raises
    ------
    DatasetError
        If there is no such data, or it is of no kind that is read.
    UsageError
        If an option does not go with the data.
    """
    path = Path(dataset).expanduser()
    for value, option in ((split, "--split"), (subset, "--subset")):
        if value is not None and path.exists():
            raise UsageError(f"{option} {value} is for datasets of the hub; {dataset} is local")
    if path.exists():
        return open_files(path, lines=lines)
    if path.suffix.lower() in FORMATS or not _HUB_ID.fullmatch(dataset):
        raise _missing(dataset, path)
    if lines:
        raise UsageError(f"--lines is for plain text files; {dataset} is no file here")
    return open_hub(dataset, split=split, subset=subset)


def _missing(dataset: str, path: Path) -> DatasetError:
    near = _near_files(path)
    there = f"; {near}" if near else ""
    return DatasetError(
        f"--dataset {dataset}: no such file or folder, and no hub id (OWNER/NAME){there}",
        f"--dataset FILE, ending in {', '.join(FORMATS)}; a folder of such files; or OWNER/NAME",
    )


def _near_files(path: Path) -> str:
    """The files beside one that is missing that are spelled like it and can be read, as a question.

    What counts is the name without its ending: the endings of all files are alike.
    """
    with suppress(OSError):
        beside = [
            found
            for found in path.parent.iterdir()
            if found.suffix.lower() in FORMATS and found.is_file()
        ]
        stems = {found.stem.lower() for found in beside}
        near = difflib.get_close_matches(path.stem.lower(), stems, n=3, cutoff=_ALIKE)
        names = sorted(found.name for found in beside if found.stem.lower() in near)[:3]
        if names:
            return f"did you mean {' or '.join(names)}?"
    return ""
