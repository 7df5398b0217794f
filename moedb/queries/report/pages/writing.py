"""Writing the page of a run: one file that holds everything, or a folder of a part each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moedb.errors import UsageError
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.columns import rows_where
from moedb.queries.report.pages.contents import (
    Makers,
    experts_of,
    footer_of,
    index_of,
    sections_of,
    title_of,
    tokens_of,
)
from moedb.queries.report.pages.rendering import Page, asset_files, render
from moedb.queries.report.pages.subject import Subject
from moedb.queries.report.pages.views.examples.images import has_images
from moedb.queries.report.pages.views.examples.tokens import slices_of
from moedb.queries.results.files import write_together

MOST_DECISIONS = 1_600_000
"""Decisions whose tokens one file shows; about 9 MB."""

MOST_IN_FOLDERS = 400_000
"""The same of a file of a folder, of which a reader opens one after the other."""

LARGE = 15_000_000
"""Bytes of a file from which on a folder is proposed."""

_OF_LAYERS = ("load", "classes", "pairs", "answers", "labels")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes
    ----------
    files
        The files, the one to begin with first.
    notes
        What a reader has to know: what is left out, and how to have it.
    n_bytes
        Bytes of all files together.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]
    n_bytes: int


def write_page(subject: Subject, path: Path) -> Written:
    """Write one file that holds everything, and opens from the disk.

    Parameters
    ----------
    subject
        The run.
    path
        The file.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    slices = slices_of(subject, MOST_DECISIONS)
    notes = []
    if len(slices) > 1:
        notes.append(
            f"The token view holds examples {slices[0].first} to {slices[0].last} of "
            f"{subject.run.row['n_examples']:,}, as all would make a file that opens slowly; "
            f"moedb report {subject.run.run_id} --folder FOLDER writes all."
        )
    shown = slices[:1]
    views = _made({**sections_of(subject), **experts_of(subject), **tokens_of(subject, shown)})
    views["index"] = index_of(subject, shown, notes)
    text = render(_page(subject, views, {})).encode()
    if len(text) > LARGE:
        notes.append(
            f"{path} has {len(text) / 1e6:.0f} MB, and may open slowly; "
            f"moedb report {subject.run.run_id} --folder FOLDER divides it."
        )
    write_together({path: text})
    return Written((path,), tuple(notes), len(text))


def write_folder(subject: Subject, folder: Path) -> Written:
    """Write a folder: an overview, a file for each layer's experts, and files of examples.

    Parameters
    ----------
    subject
        The run.
    folder
        The folder; made if it is not there.

    Raises
    ------
    UsageError
        If the folder cannot be made, or a file not be written.
    """
    try:
        (folder / "assets").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    slices = slices_of(subject, MOST_IN_FOLDERS)
    sections = _made(sections_of(subject))
    index = index_of(subject, slices, [])
    makers = {**experts_of(subject), **tokens_of(subject, slices)}
    chooser = makers.pop("examples")()
    places = {"about": "index.html", **{name: f"{name}.html" for name in makers}}

    def written(name: str, views: Mapping[str, Any]) -> tuple[Path, int]:
        page = _page(subject, {**views, "index": index}, places, "assets")
        return _write(folder / name, render(page).encode())

    files = [_write(folder / "assets" / name, text) for name, text in asset_files().items()]
    for name in each_part([*makers], "files of the report"):
        view = makers[name]()
        beside = {"examples": chooser}
        if "layer" in view:
            parts = {each: _of_layer(sections[each], view["layer"]) for each in _OF_LAYERS}
            # images of an expert stand with their classes
            beside = {**(beside if has_images(subject.run) else {}), **parts}
        files.append(written(f"{name}.html", {**beside, name: view}))
    files.insert(0, written("index.html", sections))
    return Written(tuple(path for path, _ in files), (), sum(n for _, n in files))


def _write(path: Path, text: bytes) -> tuple[Path, int]:
    write_together({path: text})
    return path, len(text)


def _made(makers: Makers) -> dict[str, Any]:
    return {name: makers[name]() for name in each_part([*makers], "parts of the report")}


def _page(
    subject: Subject,
    views: Mapping[str, Any],
    places: Mapping[str, str],
    assets: str | None = None,
) -> Page:
    return Page(
        title=title_of(subject),
        footer=footer_of(subject),
        views=views,
        places=places,
        assets=assets,
    )


def _of_layer(section: Json, layer: int) -> Json:
    """A section with the rows of one layer alone, where its tables have layers."""
    return {**section, "parts": [_part_of_layer(part, layer) for part in section["parts"]]}


def _part_of_layer(part: Json, layer: int) -> Json:
    if "table" not in part or all(each["name"] != "layer" for each in part["table"]["columns"]):
        return part
    return {**part, "table": rows_where(part["table"], "layer", layer)}
