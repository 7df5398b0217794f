"""A report: every figure and table about one run, and a page that puts them in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moedb.errors import MoedbError, RunNotFoundError, UsageError
from moedb.queries.export import export, write_together
from moedb.queries.formats import TableOptions, arrange, render_sheet
from moedb.queries.interventions import captured_run, find_interventions
from moedb.queries.plots import draw
from moedb.queries.result import CORRUPTED

if TYPE_CHECKING:
    from moedb.queries.database import Database
    from moedb.queries.result import Result
    from moedb.store.snapshot import RunSnapshot

PAGE = "ioi.md"
_JOB = "qwen-ioi"
_FIGURES = (".pdf", ".png")
_ROWS_OF_PAGE = 30
_ROWS_OF_TEX = 60

ROUTING_KINDS = (
    "random-routing",
    "uniform-weights",
    "force-experts",
    "swap-routing",
    "ablate-experts",
    "knock-out-shared",
)
"""The kinds of interventions that the report shows as interventions in routing."""

_NEWEST = """
select runs.run_id
from runs
where runs.job = cast($job as varchar)
    and runs.status = 'complete'
order by runs.created_at desc, runs.run_id desc
""".strip()


@dataclass(frozen=True)
class Part:
    """One named query of a report, as a figure, as a table, or as both.

    Attributes
    ----------
    stem
        The name of its files, without ending.
    query, parameters
        What is asked.
    caption
        What it shows.
    figure
        Whether there is one.
    value
        Which column the figure shows; the figure's own choice unless given.
    table
        Whether there is one.
    columns
        Those of the LaTeX table and of the page; all unless given. The CSV has every one.
    pivot
        How the LaTeX table and the page lay it out, in place of columns.
    latex
        Whether the table is there as LaTeX too; not so where its rows are far too many.
    on_page
        Whether the page holds the table too, not only links to it.
    of_interventions
        Whether it needs a run of interventions.
    """

    stem: str
    query: str
    caption: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    figure: bool = False
    value: str | None = None
    table: bool = True
    columns: tuple[str, ...] | None = None
    pivot: tuple[str, str, str] | None = None
    latex: bool = True
    on_page: bool = True
    of_interventions: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    text: str
    parts: tuple[Part, ...]


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


def _effect_columns(name: str) -> tuple[str, ...]:
    interval = (f"change_{name}", f"change_{name}_low", f"change_{name}_high")
    return ("kind", "params", "layer", "expert", "n_prompts", name, *interval)


_ROUTING = {"kind": ",".join(ROUTING_KINDS), "split": "clean"}
_ACTIVE = (
    *("layer", "n_examples", "n_experts", "experts_ever", "experts_50", "experts_90"),
    *("most", "uniform", "share_50", "share_90"),
)
_NORMALIZED = ("normalized", "normalized_low", "normalized_high")

IOI_SECTIONS = (
    Section(
        "The task",
        "The logit difference is the logit of the indirect object less that of the subject, after "
        "the prompt's last token.",
        (
            Part(
                "logit-diff",
                "ioi-logit-diff",
                "Logit difference and accuracy by template",
                columns=(
                    *("value", "n_prompts", "accuracy", "mean_logit_diff", "se_logit_diff"),
                    "top1_accuracy",
                ),
            ),
        ),
    ),
    Section(
        "Which experts are active",
        "Which experts each prompt is routed to: a row is a prompt, with its template at the "
        "left, a column is an expert, and an expert that is active in every prompt an unbroken "
        "line. Then how many experts of a layer are active in half of the prompts or more, beside "
        "the share of prompts that uniform routing would make an expert active in; the share of "
        "tokens that choose each expert; and how much of a layer's decisions its most used "
        "experts take.",
        (
            Part(
                "routing-by-prompt",
                "routing-by-example",
                "Experts chosen at the last token of each prompt, and their weight",
                figure=True,
                latex=False,
                on_page=False,
            ),
            Part(
                "active-experts",
                "active-experts",
                "Experts active at the last token of most prompts",
                columns=_ACTIVE,
            ),
            Part(
                "routing-by-prompt-all-tokens",
                "routing-by-example",
                "Share of the tokens of each prompt that choose each expert",
                {"scope": "example"},
                figure=True,
                value="share",
                table=False,
            ),
            Part(
                "active-experts-all-tokens",
                "active-experts",
                "Experts active at any token of most prompts",
                {"scope": "example"},
                columns=_ACTIVE,
            ),
            Part(
                "expert-frequency",
                "expert-frequency",
                "Share of tokens that choose each expert",
                figure=True,
                pivot=("expert", "layer", "frequency"),
                on_page=False,
            ),
            Part("concentration", "concentration", "Concentration of routing decisions"),
            Part(
                "routing-by-template",
                "routing-by-class",
                "Experts chosen, by template",
                {"key": "template"},
                on_page=False,
            ),
        ),
    ),
    Section(
        "Interventions in routing, by layer",
        "The change of the indirect object's probability when the routing of one layer is changed, "
        "against the untouched model on the same prompts.",
        (
            Part(
                "routing-interventions",
                "intervention-effect",
                "Change of probability of the indirect object, by layer of the intervention",
                _ROUTING,
                figure=True,
                value="change_probability",
                columns=_effect_columns("probability"),
                of_interventions=True,
            ),
        ),
    ),
    Section(
        "Logit difference by layer",
        "What the model would answer if the residual stream ended at a layer: the stream goes "
        "through the final norm and the unembedding.",
        (
            Part(
                "logit-lens",
                "logit-lens",
                "Logit difference by layer",
                figure=True,
                columns=(
                    *("layer", "place", "n_prompts", "mean_logit_diff", "mean_logit_diff_low"),
                    *("mean_logit_diff_high", "share_ahead", "mean_logprob", "median_rank"),
                ),
            ),
            Part(
                "logit-lens-logprob",
                "logit-lens",
                "Log-probability of the indirect object by layer",
                figure=True,
                value="mean_logprob",
                table=False,
            ),
        ),
    ),
    Section(
        "Logit difference after intervention",
        "The same interventions as above, measured by the change of the logit difference.",
        (
            Part(
                "intervention-logit-diff",
                "intervention-effect",
                "Change of logit difference, by layer of the intervention",
                _ROUTING,
                figure=True,
                value="change_logit_diff",
                columns=_effect_columns("logit_diff"),
                of_interventions=True,
            ),
        ),
    ),
    Section(
        "Patching",
        "Values of a prompt's twin put into the prompt. The logit difference is normalized: 0 is "
        "that of the corrupted prompts, 1 that of the clean ones.",
        (
            Part(
                "patching",
                "intervention-effect",
                "Normalized logit difference after patching, by layer",
                {"kind": "patch"},
                figure=True,
                value="normalized",
                columns=(
                    *("params", "split", "layer", "expert", "n_prompts", "logit_diff"),
                    *_NORMALIZED,
                ),
                of_interventions=True,
            ),
        ),
    ),
    Section(
        "What the experts write",
        "With the final norm's scale frozen, the logit difference is a sum over what the "
        "embedding, the attention and the experts write at the last token.",
        (
            Part(
                "expert-attribution",
                "expert-attribution",
                "Logit difference written by each expert",
                figure=True,
                on_page=False,
            ),
            Part(
                "attribution-by-layer",
                "expert-attribution",
                "Logit difference written, by layer",
                {"level": "layers"},
                columns=("component", "layer", "n_prompts", "attribution", "share"),
            ),
            Part(
                "attribution-largest",
                "expert-attribution",
                "The parts that write most",
                {"top": 20},
            ),
        ),
    ),
    Section(
        "Ablation beside attribution",
        "The change of the logit difference when an expert is ablated, beside what the expert "
        "writes and how often it is used; and rank correlations of these.",
        (
            Part(
                "expert-effect",
                "expert-effect",
                "Ablation of each expert, and what it writes",
                figure=True,
                on_page=False,
                of_interventions=True,
            ),
            Part(
                "expert-effect-by-layer",
                "expert-effect",
                "Rank correlations by layer",
                {"level": "layers"},
                columns=(
                    *("params", "layer", "n_experts", "n_prompts"),
                    *("spearman_frequency", "spearman_attribution"),
                ),
                of_interventions=True,
            ),
        ),
    ),
)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error

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
                if part.query == "intervention-effect" and interventions is not None:
                    asked["run"] = changed[0].run_id
                elif part.of_interventions and interventions is not None:
                    asked["interventions"] = changed[0].run_id
                lines = _write_part(database, part, asked, folder, files, missing)
            body += [*lines, ""]
    page = [*_head(database, captured, changed, missing), *body]
    write_together({folder / PAGE: ("\n".join(page).rstrip() + "\n").encode()})
    return Report((*files, folder / PAGE), tuple(dict.fromkeys(missing)))


def _captured(database: "Database", run: str | None) -> "RunSnapshot":
    if run is None:
        newest = database.sql(_NEWEST, {"job": _JOB}).fetchall()
        if not newest:
            raise RunNotFoundError(
                f"no complete run of {_JOB} in {database.snapshot.store}", f"moedb capture {_JOB}"
            )
        return database.snapshot.run(newest[0][0])
    found = captured_run(database, run)
    if found.row["job"] != _JOB:
        raise UsageError(
            f"run {found.run_id} is of the job {found.row['job']}; a report on IOI needs {_JOB}",
            "moedb runs",
        )
    return found


def _head(
    database: "Database",
    captured: "RunSnapshot",
    changed: "Sequence[RunSnapshot]",
    missing: Sequence[str],
) -> list[str]:
    every = database.query("ioi-logit-diff", run=captured.run_id, split="all")
    footer = every.provenance.footer()
    lines = ["# Indirect object identification", "", f"Captured: {footer}.", ""]
    if changed:
        lines += [f"Interventions: run {', '.join(run.run_id for run in changed)}.", ""]
    lines += [
        "Intervals are 95 % percentile bootstrap intervals over prompts. Beside each file is a "
        "`.provenance.json` with its query, parameters, runs and hashes.",
        "",
    ]
    if any(CORRUPTED in (run.splits or ()) for run in every.provenance.runs):
        lines += ["The corrupted twins count in the section on patching alone.", ""]
    if missing:
        lines += ["Missing:", "", *(f"- {each}" for each in dict.fromkeys(missing)), ""]
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
            raise UsageError("the runs have no rows for it")
    except MoedbError as error:
        return [_not_made(part.caption, error, missing)]
    lines: list[str] = []
    if part.figure:
        for stem, caption, rows in _figures_of(database, part, asked, result):
            options = {} if part.value is None else {"value": part.value}
            try:
                for ending in _FIGURES:
                    files += draw(part.query, rows, folder / f"{stem}{ending}", **options)
            except UsageError as error:
                lines += [_not_made(f"Figure: {caption}", error, missing), ""]
                continue
            lines += [f"![{caption}]({stem}.png)", "", f"{caption}. [PDF]({stem}.pdf)", ""]
    if part.table:
        lines += _write_table(part, result, folder, files)
    return lines


def _figures_of(
    database: "Database", part: Part, asked: Mapping[str, object], result: "Result"
) -> "list[tuple[str, str, Result]]":
    """The figures of a part: one, or one for each kind of intervention where those are many."""
    from moedb.queries.ioi_figures import MOST_SERIES, n_series

    if part.query == "intervention-effect":
        frame = result.df()
        kinds = list(dict.fromkeys(frame["kind"]))
        if n_series(frame) > MOST_SERIES and len(kinds) > 1:
            return [
                (
                    f"{part.stem}-{kind}",
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
    return f"Missing: {what}: {error.message}{hint}."
