"""How a run, or a file that was written from one, is cited: BibTeX and a paragraph of methods."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from moedb.queries.analyses.registry import find_question
from moedb.queries.results.visible import visible
from moedb.schemas.version import __version__
from moedb.store.reading.snapshot import RunSnapshot

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "#$%&_"},
}


def cited(runs: Sequence[RunSnapshot], told: Mapping[str, Any] | None = None) -> str:
    """Return BibTeX entries of moedb and of runs, and a paragraph that says what was done.

    Parameters
    ----------
    runs
        The runs.
    told
        The sidecar of a file that was written from them; None where the runs are cited as such.

    Examples
    --------
    >>> print(cited([]).splitlines()[0])
    @software{moedb,
    """
    entries = [_software()]
    entries += [_entry(run) for run in runs]
    return "\n\n".join([*entries, _methods(runs, told)])


def _software() -> str:
    return _bibtex(
        "software",
        "moedb",
        {
            "title": "{moedb}: a database of what Mixture-of-Experts models do inside",
            "version": __version__,
        },
    )


def _entry(run: RunSnapshot) -> str:
    row = run.row
    return _bibtex(
        "misc",
        _key(run),
        {
            "title": _tex(
                f"Run {run.run_id} of {_last_part(row['model'])} over {_last_part(row['dataset'])}"
            ),
            "howpublished": r"captured with moedb \cite{moedb}",
            "year": str(row["created_at"])[:4],
            "note": _tex(
                f"model sha256 {row['model_sha256']}"
                + (f", revision {row['model_revision']}" if row["model_revision"] else "")
                + f"; data sha256 {row['dataset_sha256']}; {row['n_examples']} examples, "
                f"{row['n_tokens']} tokens; moedb {row['moedb_version']}"
            ),
        },
    )


def _bibtex(kind: str, key: str, values: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in values.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _methods(runs: Sequence[RunSnapshot], told: Mapping[str, Any] | None) -> str:
    sentences = [_captured(run) for run in runs]
    if told is not None:
        sentences += _asked(told)
    version = __version__ if told is None else str(told["moedb_version"])
    sentences.append(f"Tables and figures were made with moedb {_tex(version)} \\cite{{moedb}}.")
    return " ".join(sentences)


def _captured(run: RunSnapshot) -> str:
    row = run.row
    revision = f", revision {row['model_revision']}" if row["model_revision"] else ""
    seed = "" if row["seed"] is None else f", seed {row['seed']}"
    state = "" if run.is_complete else " (incomplete)"
    model, dataset = _last_part(row["model"]), _last_part(row["dataset"])
    return (
        f"Routing of {_tex(model)} ({_tex(str(row['architecture']))}{_tex(revision)}, weights of "
        f"SHA-256 {str(row['model_sha256'])[:12]}, run in {_tex(str(row['dtype']))}) was captured "
        f"over {_tex(dataset)}: {row['n_examples']:,} examples, {row['n_tokens']:,} tokens{seed} "
        f"\\cite{{{_key(run)}}}{state}."
    )


def _key(run: RunSnapshot) -> str:
    return re.sub(r"[^\w.+-]", "-", run.run_id)


def _last_part(name: object) -> str:
    """A name, or the last part of a path, which is one machine's."""
    path = PurePath(str(name))
    return path.name if path.is_absolute() and path.name else str(name)


def _asked(told: Mapping[str, Any]) -> list[str]:
    name = told.get("name")
    if name is None:
        return ["The numbers are those of an SQL statement, which the sidecar of the file holds."]
    question = find_question(str(name))
    given = {key: value for key, value in told["parameters"].items() if value is not None}
    chosen = ", ".join(f"{key} {value}" for key, value in given.items() if key != "run")
    said = f"The measure is {_tex(question.name)}" + (f" ({_tex(chosen)})" if chosen else "")
    sentences = [f"{said}; definition: {_tex(question.source)}." if question.source else f"{said}."]
    if int(given.get("samples") or 0):
        sentences.append(
            f"Intervals are 95 \\% BCa bootstrap intervals over clusters of examples, "
            f"{given['samples']} samples, seed {given.get('seed', 0)}."
        )
    if told.get("where"):
        sentences.append(f"Rows are those where {_tex(str(told['where']))}.")
    return sentences


def _tex(text: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in visible(text))
