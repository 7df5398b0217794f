"""Adding the labels of files to a complete run."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.experts.additions import addition_there, expect_tokens
from moedb.experts.importing.files import read_given, sha256_of
from moedb.experts.importing.forms.registry import format_of
from moedb.experts.importing.found import Choices, FoundLabel, FoundLabels, Judged
from moedb.experts.importing.placing import Place
from moedb.experts.labelling.drawing import KINDS, ScoredContext
from moedb.experts.labelling.rows import ExpertLabel, Origin, Verdicts, tables_of
from moedb.experts.labelling.settings import KIND
from moedb.queries.database import open_database
from moedb.schemas.additions import Addition, check_addition_name
from moedb.store.writing.complete.additions import add
from moedb.store.writing.writability import check_writable

if TYPE_CHECKING:
    import pyarrow as pa

COMMAND = "moedb import labels"
UNKNOWN = "unknown"
"""The reader of labels of which the files do not say who read."""


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported.

    Attributes
    ----------
    run
        The run, or an unambiguous beginning of its name.
    paths
        Files, and folders of them.
    name
        What the labels are called together.
    form
        Of what form they are; None to find out.
    choices
        What the files do not say themselves.
    samples, seed
        Draws of the bootstrap behind the intervals, and their seed.
    is_dry
        Whether nothing is added.
    """

    run: str
    paths: Sequence[Path]
    name: str
    form: str | None = None
    choices: Choices = field(default_factory=Choices)
    samples: int = 1000
    seed: int = 0
    is_dry: bool = False


@dataclass
class Imported:
    """What came of importing.

    Attributes
    ----------
    run_id, model
        The run, and the model that it is of.
    form
        The form of the files.
    about
        The model that the labels are of, where the files say it.
    sha256
        The hash of what was given.
    experts
        The experts that have a label now, by layer and expert.
    passed_over
        What was not taken, and how often.
    """

    run_id: str
    model: str
    form: str
    about: str | None
    sha256: str
    experts: list[ExpertLabel] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def import_labels(store: Path, request: ImportRequest) -> Imported:
    """Read labels of experts from files, and add them to a complete run, all or none.

    Raises
    ------
    UsageError
        If the files cannot be read, name an expert twice, or have nothing of the run; or the run
        has an addition of this name.
    StoreError
        If the run is incomplete or damaged, or the store cannot be written.
    """
    check_addition_name(request.name)
    with open_database(store) as whole:
        run = whole.snapshot.run(request.run)
        expect_tokens(run, f"{COMMAND} FILE --run")
        if not request.is_dry:
            check_writable(store, run.run_id)
            if addition_there(run, request.name, KIND) is not None:
                raise UsageError(
                    f"run {run.title} has labels named {request.name!r} already",
                    "choose another name (--name NAME), or take them out: moedb label-experts "
                    f"{run.run_id} --remove --name {request.name}",
                )
        given = read_given(request.paths)
        form = format_of(given, request.form)
        found = form.read(given, request.choices)
        place = Place(whole.of_run(run.run_id), run, "import")
        model = str(run.manifest.row["model"])
        done = Imported(run.run_id, model, form.name, found.about, sha256_of(given))
        done.passed_over.update(found.passed_over)
        done.experts = _experts(found, place, done)
        if request.is_dry:
            return done
        origin = Origin(request.name, form.name, samples=request.samples, seed=request.seed)
        tables: dict[str, list[pa.Table]] = {}
        for expert in done.experts:
            for name, rows in tables_of(expert, origin).items():
                tables.setdefault(name, []).extend(rows)
        config = {
            "source": form.name,
            "sha256": done.sha256,
            "files": sorted(file.name for file in given)[:20],
            "n_files": len(given),
            "about": found.about,
            "samples": request.samples,
            "seed": request.seed,
            "layer": request.choices.layer,
        }
        content = json.dumps(config, sort_keys=True, ensure_ascii=False)
        add(store, run.run_id, Addition(request.name, KIND, content), tables)
    return done


def _experts(found: FoundLabels, place: Place, done: Imported) -> list[ExpertLabel]:
    """The labels that have a place in the run."""
    where: dict[tuple[int, int], str] = {}
    kept: dict[tuple[int, int], FoundLabel] = {}
    for label in found.labels:
        wrong = place.why_not(label)
        if wrong is not None:
            done.passed_over[wrong] += 1
            continue
        layer = place.layer_of(label.layer)
        key = int(layer if layer is not None else 0), label.expert
        if key in where:
            raise UsageError(
                f"layer {key[0]}, expert {key[1]} has two labels: {where[key]} and {label.where}",
                "take one of them out",
            )
        where[key], kept[key] = label.where, label
    if not kept:
        listed = "; ".join(f"{n:,} {what}" for what, n in done.passed_over.most_common(5))
        raise UsageError(
            f"no label has a place in run {done.run_id}" + (f": {listed}" if listed else ""),
            f"its layers are {place.layers}",
        )
    return [_expert(key, kept[key], place) for key in sorted(kept)]


def _expert(key: tuple[int, int], label: FoundLabel, place: Place) -> ExpertLabel:
    layer, expert = key
    has_label = label.label is not None
    made = ExpertLabel(
        layer,
        expert,
        label.model or UNKNOWN,
        n_decisions=place.n_decisions.get(key, 0),
        label=label.label,
        status="labelled" if has_label else "nonsense",
        reason=None if has_label else "the imported file has no label for it",
    )
    examples = place.examples_of(layer, expert, label.verdicts)
    for kind in KINDS:
        judged = [each for each in label.verdicts if each.kind == kind]
        if judged and has_label:
            made.verdicts[kind] = Verdicts(
                list(_contexts(judged, examples)),
                [each.says_yes for each in judged],
                [each.other_says_yes for each in judged],
            )
    return made


def _contexts(
    judged: Sequence[Judged], examples: dict[int, tuple[int, int]]
) -> Iterator[ScoredContext]:
    """Contexts as they are stored; those of no known example have clusters of their own."""
    own: dict[str | int, int] = {}
    for number, each in enumerate(judged):
        known = examples.get(each.token_idx) if each.token_idx is not None else None
        if known is None:
            alike = own.setdefault(each.text if each.text is not None else number, len(own))
            example, cluster = None, -1 - alike
        else:
            example, cluster = known
        yield ScoredContext(
            each.text,
            each.is_positive,
            each.against,
            cluster,
            each.has_others,
            each.token_idx,
            example,
        )
