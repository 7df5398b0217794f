"""Labels of others from Python, as the command ``import labels`` adds them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moedb.experts.importing.adding import Imported
    from moedb.queries.results.result import Result


def import_labels(
    run: str,
    files: str | Path | Sequence[str | Path],
    store: str | Path | None = None,
    *,
    name: str,
    form: str | None = None,
    layer: int | None = None,
    model: str | None = None,
    samples: int = 1000,
    seed: int = 0,
    dry_run: bool = False,
) -> "Result":
    """Add published labels of experts to a stored run, and score their verdicts.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    files
        A file, a folder, or several.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    name
        What the labels are called together.
    form
        ``herbst2026``, ``delphi``, ``neuronpedia`` or ``moedb``; None to tell by the content.
    layer
        The layer that they are of, where the files do not say it.
    model
        Of files with labels of several models: which are taken.
    samples, seed
        Draws of the bootstrap behind the intervals, and their seed.
    dry_run
        Whether nothing is added.

    Returns
    -------
    Result
        The experts that have a label now, with what it is worth where the files have verdicts.

    Raises
    ------
    MoedbError
        As the command ``moedb import labels`` says.

    Examples
    --------
    >>> import moedb
    >>> moedb.import_labels("text-3f", "labels.jsonl", name="theirs")  # doctest: +SKIP
    >>> moedb.open().query("labelled-experts").df()  # doctest: +SKIP
    """
    from moedb.experts.importing.adding import ImportRequest
    from moedb.experts.importing.adding import import_labels as imported
    from moedb.experts.importing.found import Choices
    from moedb.queries.database import chosen_store

    given = [files] if isinstance(files, str | Path) else files
    paths = [Path(each).expanduser() for each in given]
    choices = Choices(layer, model)
    request = ImportRequest(run, paths, name, form, choices, samples, seed, dry_run)
    return rows_of_imported(imported(chosen_store(store), request), seed)


def rows_of_imported(found: "Imported", seed: int) -> "Result":
    """The experts that have a label, each with its scores against all negatives."""
    from moedb.experts.labelling.rows import score_rows
    from moedb.queries.results.rows.given import result_of_rows

    rows: list[tuple[object, ...]] = []
    for expert in found.experts:
        scores = {
            row["kind"]: row for row in score_rows(expert, 0, seed) if row["against"] == "all"
        }
        numbers = [
            scores.get(kind, {}).get(column)
            for kind in ("detection", "fuzzing")
            for column in ("n", "f1", "balanced_accuracy")
        ]
        rows.append((expert.layer, expert.expert, expert.label, *numbers))
    types = {"layer": "INTEGER", "expert": "INTEGER", "label": "VARCHAR"}
    for kind in ("detection", "fuzzing"):
        types |= {f"{kind}_n": "INTEGER", f"{kind}_f1": "DOUBLE", f"{kind}_balanced": "DOUBLE"}
    return replace(result_of_rows(types, rows), explain=lambda: "no label was found")
