"""Writing a report: the figures and tables of its sections, and a page that puts them in order."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import MoedbError, RunNotFoundError, UsageError
from moedb.queries.analyses.predictions.intervention_runs import captured_run, find_interventions
from moedb.queries.analyses.registry import find_question
from moedb.queries.figures.drawing import draw
from moedb.queries.reading.run_contents import RunContents
from moedb.queries.report.ioi import IOI_SECTIONS
from moedb.queries.report.sections import Part
from moedb.queries.results.export import export
from moedb.queries.results.files import write_together
from moedb.queries.results.formats.markdown import escape_markdown
from moedb.queries.results.formats.rendering import render_sheet
from moedb.queries.results.result import CORRUPTED
from moedb.queries.results.sheets import TableOptions, arrange
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from moedb.queries.database import Database
    from moedb.queries.results.result import Result
    from moedb.store.reading.snapshot import RunSnapshot

PAGE = "ioi.md"
_JOB = "qwen-ioi"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_FIGURES = (".pdf", ".png")
_ROWS_OF_PAGE = 40
_ROWS_OF_TEX = 60

_NEWEST = """
select runs.run_id
from runs
where runs.job = cast($job as varchar)
    and runs.status = 'complete'
order by runs.created_at desc, runs.run_id desc
""".strip()


@dataclass(frozen=True)
class Report:
    """What was written, and what could not be.

    Attributes
    ----------
    files
        The files, the page last.
    missing
        For each thing that is missing a sentence that says why.
    """

    files: tuple[Path, ...]
    missing: tuple[str, ...]


def write_ioi_report(
    database: "Database",
    folder: str | Path,
    run: str | None = None,
    interventions: str | None = None,
) -> Report:
    """Write the figures, tables and page of a capture of IOI prompts.

    What cannot be made is left out, and the page says what and why.

    Parameters
    ----------
    database
        The store.
    folder
        Where to write; made if it is not there.
    run
        The captured run; the newest complete one of the job qwen-ioi unless given.
    interventions
        The run with the interventions on it; every complete one unless given.

    Raises
    ------
    RunNotFoundError
        If there is no such run.
    UsageError
        If the run is none of IOI prompts, or the folder cannot be made.
    """
    folder = Path(folder)
    captured = _captured(database, run)
    without: str | None = None
    changed: list[RunSnapshot] = []
    try:
        changed = find_interventions(database, captured.run_id, interventions)
    except RunNotFoundError as error:
        if interventions is not None:
            raise
        without = error.message
    head = database.query("ioi-logit-diff", run=captured.run_id, split="all")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error

    kinds = RunContents(database, tuple(changed)).kinds() if changed else []
    files: list[Path] = []
    missing: list[str] = []
    body: list[str] = []
    for number, section in enumerate(IOI_SECTIONS, start=1):
        body += [f"## {number}. {section.title}", "", section.text, ""]
        for part in section.parts:
            if part.of_interventions and not changed:
                lines = [f"Missing: {part.caption}. It needs a run of interventions."]
                missing.append(f"{part.caption}: {without}")
            else:
                asked = dict(part.parameters) | {"run": captured.run_id}
                if part.of_interventions and interventions is not None:
                    asked[_run_parameter(part.query)] = changed[0].run_id
                if "kind" in asked:
                    asked["kind"] = _kinds_there(str(asked["kind"]), kinds)
                lines = _write_part(database, part, asked, folder, files, missing)
            body += [*lines, ""]
    page = [*_head(head, changed, missing), *body]
    write_together({folder / PAGE: ("\n".join(page).rstrip() + "\n").encode()})
    return Report((*files, folder / PAGE), tuple(dict.fromkeys(missing)))


def _captured(database: "Database", run: str | None) -> "RunSnapshot":
    if run is None:
        newest = database.sql(_NEWEST, {"job": _JOB}).fetchall()
        if not newest:
            raise RunNotFoundError(
                f"no complete run of {_JOB} in {database.snapshot.title}", f"moedb capture {_JOB}"
            )
        return database.snapshot.run(newest[0][0])
    found = captured_run(database, run)
    if found.row["job"] != _JOB:
        raise UsageError(
            f"run {found.run_id} is of the job {found.row['job']}; a report on IOI needs {_JOB}",
            "moedb runs",
        )
    return found


def _run_parameter(query: str) -> str:
    """The parameter of a query about interventions that names the run that has them."""
    names = {parameter.name for parameter in find_question(query).parameters}
    return "interventions" if "interventions" in names else "run"


def _kinds_there(wanted: str, there: Sequence[str]) -> str:
    """Those of the kinds that a part shows that the runs have; all of them where they have none."""
    return ",".join(kind for kind in wanted.split(",") if kind in there) or wanted


def _head(every: "Result", changed: "Sequence[RunSnapshot]", missing: Sequence[str]) -> list[str]:
    footer = every.provenance.footer()
    lines = ["# Indirect object identification", "", f"Captured: {_written(footer)}.", ""]
    if changed:
        ran = ", ".join(run.run_id for run in changed)
        lines += [f"Interventions: run {_written(ran)}.", ""]
    lines += [
        "Intervals are of 95 %: of means by bootstrap over prompts (BCa), of changes of a share by "
        "Wilson's intervals of both. Beside each file is a `.provenance.json` with its query, "
        "parameters, runs and hashes.",
        "",
    ]
    if any(CORRUPTED in (run.splits or ()) for run in every.provenance.runs):
        lines += ["The corrupted twins count in the section on patching alone.", ""]
    if missing:
        lines += ["Missing:", "", *(f"- {_written(each)}" for each in dict.fromkeys(missing)), ""]
    return lines


def _write_part(
    database: "Database",
    part: Part,
    asked: Mapping[str, object],
    folder: Path,
    files: list[Path],
    missing: list[str],
) -> list[str]:
    """Write the files of a part; return its lines of the page."""
    try:
        result = database.query(part.query, **asked)
        if not result.fetchmany(1):
            raise UsageError(result.why_empty())
    except MoedbError as error:
        return [_not_made(part.caption, error, missing)]
    lines: list[str] = []
    if part.figure:
        for stem, caption, rows in _figures_of(database, part, asked, result):
            options: dict[str, Any] = {} if part.value is None else {"value": part.value}
            try:
                for ending in _FIGURES:
                    files += draw(part.query, rows, folder / f"{stem}{ending}", **options)
            except UsageError as error:
                lines += [_not_made(f"Figure: {caption}", error, missing), ""]
                continue
            named = _written(caption)
            lines += [f"![{named}]({stem}.png)", "", f"{named}. [PDF]({stem}.pdf)", ""]
    if part.table:
        lines += _write_table(part, result, folder, files)
    return lines if lines[-1] else lines[:-1]


def _figures_of(
    database: "Database", part: Part, asked: Mapping[str, object], result: "Result"
) -> "list[tuple[str, str, Result]]":
    """The figures of a part: one, or one for each kind of intervention."""
    from moedb.queries.figures.predictions.interventions import MOST_SERIES, n_series

    if part.of_interventions and "kind" in result.columns:
        frame = result.df()
        kinds = list(dict.fromkeys(frame["kind"]))
        if part.by_kind or (n_series(frame) > MOST_SERIES and len(kinds) > 1):
            return [
                (
                    f"{part.stem}-{_NOT_IN_NAMES.sub('-', kind)}",
                    f"{part.caption}: {kind}",
                    database.query(part.query, **{**asked, "kind": kind}),
                )
                for kind in kinds
            ]
    return [(part.stem, part.caption, result)]


def _write_table(part: Part, result: "Result", folder: Path, files: list[Path]) -> list[str]:
    files += export(result, folder / f"{part.stem}.csv")
    layout: dict[str, Any] = {"columns": part.columns, "pivot": part.pivot}
    links = f"[CSV]({part.stem}.csv)"
    if part.latex:
        printed = TableOptions(
            caption=part.caption, label=f"tab:{part.stem}", limit=_ROWS_OF_TEX, **layout
        )
        files += export(result, folder / f"{part.stem}.tex", printed)
        links += f", [LaTeX]({part.stem}.tex)"
    if not part.on_page:
        return [f"Table: {links}"]
    sheet = arrange(result, TableOptions(limit=_ROWS_OF_PAGE, footer=False, **layout))
    cut = f"; the first {_ROWS_OF_PAGE} rows" if sheet.truncated else ""
    shown = str(render_sheet(sheet, "markdown", TableOptions(footer=False)))
    return [f"{part.caption}{cut}. {links}", "", shown.rstrip()]


def _not_made(what: str, error: MoedbError, missing: list[str]) -> str:
    hint = f" ({error.hint})" if error.hint else ""
    missing.append(f"{what}: {error.message}{hint}")
    return f"Missing: {_written(f'{what}: {error.message}{hint}')}."


def _written(text: str) -> str:
    """Text as a line of the page prints it: names come from the store, whoever made it."""
    return escape_markdown(visible(text))
