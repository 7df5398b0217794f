"""What there is to see of a run: its views by their names, and the index that leads to them."""

from collections.abc import Callable, Mapping
from functools import partial

from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.rendering import last_part
from moedb.queries.report.pages.subject import Subject
from moedb.queries.report.pages.views.examples.images import has_images
from moedb.queries.report.pages.views.examples.tokens import Slice, examples, tokens
from moedb.queries.report.pages.views.experts import experts
from moedb.queries.report.pages.views.sections import SECTIONS

Makers = Mapping[str, Callable[[], Json]]
"""For each view what makes it."""


def sections_of(subject: Subject) -> Makers:
    """The sections of the overview."""
    return {name: partial(view, subject) for name, view in SECTIONS.items()}


def experts_of(subject: Subject) -> Makers:
    """The experts of each layer."""
    return {f"experts-{layer}": partial(experts, subject, layer) for layer in subject.layers}


def tokens_of(subject: Subject, slices: list[Slice]) -> Makers:
    """The examples, and the tokens of each slice of them."""
    made = {
        f"tokens-{number}": partial(tokens, subject, part, number)
        for number, part in enumerate(slices)
    }
    return {"examples": partial(examples, subject, slices), **made}


def index_of(subject: Subject, slices: list[Slice], notes: list[str]) -> Json:
    """What a page has to know of the run before any view: its layers, its slices, its links."""
    first_layer, first_example = subject.layers[0], slices[0].first if slices else 0
    if has_images(subject.run):
        one_by_one = ("Images", "images")
    else:
        one_by_one = ("Tokens", f"example/{first_example}")
    return {
        "title": title_of(subject),
        "sections": [*SECTIONS],
        "layers": [[layer, n] for layer, n in subject.contents.experts.items()],
        "links": [
            ("Overview", ""),
            ("Load", "section/load"),
            ("Classes", "section/classes"),
            ("Pairs", "section/pairs"),
            ("Answers", "section/answers"),
            ("Labels", "section/labels"),
            ("Experts", f"expert/{first_layer}/0"),
            one_by_one,
        ],
        "slices": [[part.first, part.last] for part in slices],
        "notes": notes,
    }


def title_of(subject: Subject) -> str:
    """What a page of the run is called."""
    row = subject.run.row
    model, dataset = (last_part(str(row[name])) for name in ("model", "dataset"))
    return f"{model} over {dataset}"


def footer_of(subject: Subject) -> str:
    """Where the numbers of a page are from."""
    found = subject.database.query("expert-frequency", run=subject.run.run_id).provenance
    beside = "" if subject.run_b is None else f"; beside it run {subject.run_b.title}"
    return f"{found.footer()}{beside}; snapshot {found.snapshot}"
