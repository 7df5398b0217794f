"""Writing the page of a run: one file that holds everything, or a folder of a part each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moedb.queries.report.pages.rendering as rendering
from moedb.errors import UsageError
from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.columns import rows_where
from moedb.queries.report.pages.rendering import Page
from moedb.queries.report.pages.subject import Subject
from moedb.queries.report.pages.views.experts import experts
from moedb.queries.report.pages.views.sections import SECTIONS
from moedb.queries.report.pages.views.tokens import Slice, examples, slices_of, tokens
from moedb.queries.results.files import write_together

MOST_DECISIONS = 1_600_000
"""Decisions whose tokens one file shows; about 9 MB."""

LARGE = 15_000_000
"""Bytes of a file from which on a folder is proposed."""

_OF_LAYERS = ("load", "classes", "pairs", "answers")


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


Doing = Callable[[str], None]
"""Told what is being done."""


def write_page(subject: Subject, path: Path, doing: Doing = lambda what: None) -> Written:
    """Write one file that holds everything, and opens from the disk.

    Parameters
    ----------
    subject
        The run.
    path
        The file.
    doing
        Told what is being asked.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    slices = slices_of(subject, MOST_DECISIONS)
    shown, notes = slices[:1], []
    if len(slices) > 1:
        last = shown[0]
        notes.append(
            f"The token view holds examples {last.first} to {last.last} of "
            f"{subject.run.row['n_examples']:,}, as all would make a file that opens slowly; "
            f"moedb report {subject.run.run_id} --folder FOLDER writes all."
        )
    views = _sections(subject, doing)
    for layer in subject.layers:
        doing(f"experts of layer {layer}")
        views[f"experts-{layer}"] = experts(subject, layer)
    views.update(_tokens(subject, shown, doing))
    views["index"] = _index(subject, shown, notes)
    text = rendering.render(_page(subject, views, {})).encode()
    if len(text) > LARGE:
        notes.append(
            f"{path} has {len(text) / 1e6:.0f} MB, and may open slowly; "
            f"moedb report {subject.run.run_id} --folder FOLDER divides it."
        )
    write_together({path: text})
    return Written((path,), tuple(notes), len(text))


def write_folder(subject: Subject, folder: Path, doing: Doing = lambda what: None) -> Written:
    """Write a folder: an overview, a file for each layer's experts, and files of examples.

    Parameters
    ----------
    subject
        The run.
    folder
        The folder; made if it is not there.
    doing
        Told what is being asked.

    Raises
    ------
    UsageError
        If the folder cannot be made, or a file not be written.
    """
    try:
        (folder / "assets").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    slices = slices_of(subject, MOST_DECISIONS)
    sections = _sections(subject, doing)
    index = _index(subject, slices, [])
    places = {"about": "index.html"}
    places |= {f"experts-{layer}": f"experts-{layer}.html" for layer in subject.layers}
    places |= {f"tokens-{number}": f"tokens-{number}.html" for number in range(len(slices))}
    files: dict[Path, bytes] = {}
    n_bytes = 0

    def write(name: str, views: Mapping[str, Any]) -> None:
        nonlocal n_bytes
        page = _page(subject, {**views, "index": index}, places, assets="assets")
        place, text = folder / name, rendering.render(page).encode()
        write_together({place: text})
        files[place] = b""
        n_bytes += len(text)

    for name, text in rendering.asset_files().items():
        write_together({folder / "assets" / name: text})
        files[folder / "assets" / name] = b""
        n_bytes += len(text)
    for layer in subject.layers:
        doing(f"experts of layer {layer}")
        own = {name: _of_layer(sections[name], layer) for name in _OF_LAYERS}
        write(f"experts-{layer}.html", {**own, f"experts-{layer}": experts(subject, layer)})
    for number, part in enumerate(slices):
        doing(f"tokens, {number + 1} of {len(slices)}")
        views = {
            "examples": examples(subject, slices),
            f"tokens-{number}": tokens(subject, part, number),
        }
        write(f"tokens-{number}.html", views)
    write("index.html", sections)
    return Written(
        (folder / "index.html", *(file for file in files if file.name != "index.html")), (), n_bytes
    )


def _sections(subject: Subject, doing: Doing) -> dict[str, Any]:
    views: dict[str, Any] = {}
    for name, view in SECTIONS.items():
        doing(name)
        views[name] = view(subject)
    return views


def _tokens(subject: Subject, slices: list[Slice], doing: Doing) -> dict[str, Any]:
    doing("tokens")
    views: dict[str, Any] = {"examples": examples(subject, slices)}
    for number, part in enumerate(slices):
        views[f"tokens-{number}"] = tokens(subject, part, number)
    return views


def _index(subject: Subject, slices: list[Slice], notes: list[str]) -> Json:
    first_layer, first_example = subject.layers[0], slices[0].first if slices else 0
    return {
        "title": _title(subject),
        "sections": [*SECTIONS],
        "links": [
            ("Overview", ""),
            ("Load", "section/load"),
            ("Classes", "section/classes"),
            ("Pairs", "section/pairs"),
            ("Answers", "section/answers"),
            ("Experts", f"expert/{first_layer}/0"),
            ("Tokens", f"example/{first_example}"),
        ],
        "slices": [[part.first, part.last] for part in slices],
        "notes": notes,
    }


def _title(subject: Subject) -> str:
    row = subject.run.row
    model, dataset = (rendering.last_part(str(row[name])) for name in ("model", "dataset"))
    return f"{model} over {dataset}"


def _page(
    subject: Subject,
    views: Mapping[str, Any],
    places: Mapping[str, str],
    assets: str | None = None,
) -> Page:
    footer = subject.database.query("expert-frequency", run=subject.run.run_id).provenance
    beside = "" if subject.run_b is None else f"; beside it run {subject.run_b.title}"
    return Page(
        title=_title(subject),
        footer=f"{footer.footer()}{beside}; snapshot {footer.snapshot}",
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
