"""Whether a store still gives the numbers of a file that was written from it."""

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from moedb.errors import MoedbError, UsageError
from moedb.queries.analyses.uncertainty.resampling.settings import Null, Resampling
from moedb.queries.database import Database
from moedb.queries.figures.drawing import draw
from moedb.queries.figures.parts.layout import Layout
from moedb.queries.report.duckdb_file import is_current
from moedb.queries.results.export import SIDECAR_ENDING, export_counted, sidecar_path
from moedb.queries.results.result import Provenance, Result
from moedb.queries.results.rows.refinement import Refinement, refined
from moedb.queries.results.sheets import TableOptions
from moedb.schemas.formats import DUCKDB, FORMATS
from moedb.schemas.version import __version__

Status = Literal["same", "differs", "edited", "unknown"]

_LARGEST = 1 << 24
"""Bytes of a sidecar at most."""
_SHOWN = 80
"""Characters of a line that are shown."""
_ROUNDING = 1e-12
"""What the order in which threads add up may change of a number, beside its size."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)", re.IGNORECASE)
"""A number that is not whole, as it is written in a text."""


class Checked(NamedTuple):
    """What became of a file's numbers.

    Attributes
    ----------
    file
        The file.
    status
        ``same``: the store gives the same file, but for the last digits of numbers that are written
        with all they have; ``differs``: another one; ``edited``: the file is
        not what was written; ``unknown``: it cannot be said.
    detail
        The first line that differs, or what is in the way.
    """

    file: str
    status: Status
    detail: str


def check_file(database: Database, path: Path) -> Checked:
    """Compute a table or a figure again, as its sidecar says, and compare.

    Parameters
    ----------
    database
        The store, as it is now.
    path
        The file, or its sidecar.
    """
    if path.name.endswith(SIDECAR_ENDING):
        path = path.with_name(path.name.removesuffix(SIDECAR_ENDING))
    try:
        told, content = read_sidecar(path), path.read_bytes()
        if hashlib.sha256(content).hexdigest() != told.get("sha256"):
            return Checked(str(path), "edited", "its bytes are not those that its sidecar hashes")
        if told.get("format") == DUCKDB:
            if is_current(database, told):
                return Checked(str(path), "same", "")
            return Checked(str(path), "differs", "the tables of its runs have other files now")
        again = _written_again(database, told, path.name)
    except MoedbError as error:
        return Checked(str(path), "unknown", error.message)
    except OSError as error:
        return Checked(str(path), "unknown", f"cannot be read: {error.strerror}")
    # a newer version may give the same numbers, and names itself below them
    before = content.replace(_version(told), _version({"moedb_version": __version__}))
    if again == before or _is_rounding(before, again, told):
        return Checked(str(path), "same", "")
    return Checked(str(path), "differs", _difference(before, again, told))


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read what the sidecar of a file says.

    Raises
    ------
    UsageError
        If there is none, or it is none of moedb's.
    """
    beside = sidecar_path(path)
    try:
        if beside.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        told = json.loads(beside.read_text(encoding="utf-8"))
        runs, parameters = told["runs"], told["parameters"]
        if not isinstance(runs, list) or not isinstance(parameters, dict):
            raise TypeError("runs or parameters are none")
        _ = [run["run_id"] for run in runs], str(told["sql"]), str(told["moedb_version"])
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} has no sidecar: {beside.name} is not beside it",
            "moedb export and moedb plot write one with each file",
        ) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{beside} is no sidecar of moedb's: {error}") from error
    found: dict[str, Any] = told
    return found


def _written_again(database: Database, told: Mapping[str, Any], name: str) -> bytes:
    result = refined(
        _asked_again(database, told), Refinement(told.get("where"), told.get("order_by"))
    )
    result = replace(result, find_provenance=partial(_as_called_then, told, result))
    options = dict(told.get("options") or {})
    with tempfile.TemporaryDirectory(prefix="moedb-check-") as folder:
        path = Path(folder) / name
        try:
            if "plot" in told:
                layout = Layout(**told.get("layout", {}))
                draw(str(told["plot"]), result, path, layout, allow_empty=True, **options)
            else:
                if told.get("format") not in FORMATS:
                    raise UsageError(f"no format {told.get('format')!r}")
                export_counted(result, path, _table_options(options), told["format"], True)
        except TypeError as error:
            raise _unknown_options(error) from error
        return path.read_bytes()


def _as_called_then(told: Mapping[str, Any], result: Result) -> Provenance:
    """Where rows are from, with the names that runs had when the file was written."""
    names = {str(run["run_id"]): run.get("name") for run in told["runs"]}
    found = result.provenance
    runs = (replace(run, name=names.get(run.run_id, run.name)) for run in found.runs)
    return replace(found, runs=tuple(runs))


def _asked_again(database: Database, told: Mapping[str, Any]) -> Result:
    """The rows, from the runs that were read then."""
    parameters = dict(told["parameters"])
    run_ids = [str(run["run_id"]) for run in told["runs"]]
    for run_id in run_ids:
        database.snapshot.run(run_id)  # says which one is gone
    if told.get("name") is None:
        run = run_ids[0] if len(run_ids) == 1 else None
        return database.sql(str(told["sql"]), parameters, run=run)
    label = parameters.pop("by_label", None)
    asked = {"intervals": Resampling, "chance": Null}
    doubt = {key: make(**told[key]["settings"]) for key, make in asked.items() if told.get(key)}
    if doubt:
        database = database.resampled(doubt.get("intervals"), doubt.get("chance"))
    if isinstance(parameters.get("compare"), list):
        one, other = map(str, parameters.pop("compare"))
        return database.compare(str(told["name"]), one, other, **parameters)
    if isinstance(parameters.get("run"), list):
        return database.query_runs(
            str(told["name"]), parameters.pop("run"), label and str(label), **parameters
        )
    return database.query(str(told["name"]), **parameters)


def _table_options(options: dict[str, Any]) -> TableOptions:
    known = {field.name for field in fields(TableOptions)}
    if not known.issuperset(options):
        raise _unknown_options(", ".join(sorted(set(options) - known)))
    for name in ("columns", "pivot"):
        if options.get(name) is not None:
            options[name] = tuple(options[name])
    return TableOptions(**options)


def _unknown_options(what: object) -> UsageError:
    return UsageError(f"its sidecar has options that this moedb does not know: {what}")


def _version(told: Mapping[str, Any]) -> bytes:
    return f"moedb {told['moedb_version']}".encode()


def _is_rounding(before: bytes, after: bytes, told: Mapping[str, Any]) -> bool:
    """Whether texts with all digits of their numbers differ in the last of these alone."""
    if "plot" in told or told.get("format") not in ("csv", "json", "jsonl"):
        return False
    old, new = (text.decode("utf-8", "replace") for text in (before, after))
    if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
        return False
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    return all(
        math.isclose(float(was), float(now), rel_tol=_ROUNDING, abs_tol=_ROUNDING)
        for was, now in pairs
    )


def _difference(before: bytes, after: bytes, told: Mapping[str, Any]) -> str:
    if "plot" in told or told.get("format") == "parquet":
        return "the bytes differ; libraries that draw and write may, too"
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (before, after))
    for number, (was, now) in enumerate(zip(old, new, strict=False), 1):
        if was != now:
            return f"line {number}: {was[:_SHOWN]!r} is now {now[:_SHOWN]!r}"
    return f"{len(old)} lines are now {len(new)}"
