"""The card of a data set: README.md with the front matter that the hub of Hugging Face reads."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from moedb.queries.results.formats.markdown import escape_markdown
from moedb.queries.results.visible import visible
from moedb.schemas.arrays import array_spec
from moedb.schemas.tables import Table
from moedb.schemas.version import __version__
from moedb.store.reading.snapshot import RunSnapshot


@dataclass(frozen=True)
class PublishedTable:
    """A table, how many rows of it were written, and the columns that were left null."""

    table: Table
    n_rows: int
    withheld: tuple[str, ...]


@dataclass(frozen=True)
class CardOfRuns:
    """What a card is about.

    Attributes
    ----------
    runs, tables
        The runs, and the tables that they fill.
    with_texts, with_arrays
        Whether texts and arrays were written.
    license
        The licence, as who publishes says.
    place
        Where the data are; None for the folder of the card.
    """

    runs: Sequence[RunSnapshot]
    tables: Sequence[PublishedTable]
    with_texts: bool
    with_arrays: bool
    license: str | None
    place: str | None


def card_of(about: CardOfRuns) -> str:
    """The text of README.md."""
    parts = [
        _front_matter(about),
        f"# {_text(_title(about))}",
        "What Mixture-of-Experts models did inside: routing decisions and what was recorded beside "
        f"them, captured by moedb {_text(__version__)} and written as plain Parquet, a folder for "
        "each table and a file for each run.",
        _runs(about.runs),
        _licences(about),
        _reading(about),
        _tables(about.tables),
        *([_arrays(about.runs)] if about.with_arrays else []),
        _citation(about),
    ]
    return "\n\n".join(parts) + "\n"


def _title(about: CardOfRuns) -> str:
    models = dict.fromkeys(_model(run) for run in about.runs)
    return f"Routing of {', '.join(models)}"


def _model(run: RunSnapshot) -> str:
    return _without_folders(run.row["model"])


def _without_folders(name: str) -> str:
    """Of a path on the machine that captured it the last part; else the name."""
    return (PurePath(name).name or name) if PurePath(name).is_absolute() else name


def _front_matter(about: CardOfRuns) -> str:
    """YAML; texts are written as JSON, which is YAML too."""
    lines = [
        f"pretty_name: {_yaml(_title(about))}",
        f"license: {_yaml(about.license or 'unknown')}",
        "tags:",
        "- mixture-of-experts",
        "- interpretability",
        "- moedb",
        "configs:",
    ]
    for number, each in enumerate(about.tables):
        lines += [
            f"- config_name: {each.table.name}",
            "  data_files:",
            "  - split: train",
            f"    path: data/{each.table.name}/*.parquet",
        ]
        if number == 0:
            lines.append("  default: true")
    return "\n".join(["---", *lines, "---"])


def _runs(runs: Sequence[RunSnapshot]) -> str:
    rows = []
    for run in runs:
        row = run.row
        rows.append(
            (
                run.title,
                row["job"],
                _model(run),
                row["model_revision"] or "none known",
                row["model_sha256"],
                _without_folders(row["dataset"]),
                f"{row['n_examples']:,}",
                f"{row['n_tokens']:,}",
                row["dtype"],
                row["created_at"],
                row["moedb_version"],
            )
        )
    heads = (
        "run",
        "job",
        "model",
        "revision",
        "SHA-256 of the model",
        "data",
        "examples",
        "tokens",
        "format",
        "captured",
        "moedb",
    )
    return "## Runs\n\n" + _table(heads, rows)


def _licences(about: CardOfRuns) -> str:
    said = (
        f"Who published this says: {_text(about.license)}."
        if about.license
        else "Whoever published this did not say."
    )
    texts = (
        "The texts of the data are in here (`examples.text`, `tokens.token`, `label_requests`): "
        "the licence of the data is that of these texts."
        if about.with_texts
        else "The texts of the data are not in here: `examples.text`, `tokens.token`, and prompts "
        "and answers in `label_requests` are null. Labels are, as they were given."
    )
    return (
        f"## Licence\n\n{said} moedb does not record the licences of models and data: look them up "
        f"by the names above. {texts}"
    )


def _reading(about: CardOfRuns) -> str:
    place = about.place or "."
    table = next(
        (each.table.name for each in about.tables if each.table.name == "routing"),
        about.tables[0].table.name if about.tables else "runs",
    )
    config = (
        "\n\n```python\nfrom datasets import load_dataset\n"
        f'load_dataset({json.dumps(place.removeprefix("hf://datasets/"))}, "{table}")\n```'
        if place.startswith("hf://")
        else ""
    )
    return (
        "## Reading it\n\n"
        f"```sql\n-- in DuckDB\nselect * from '{place}/data/{table}/*.parquet' limit 10;\n```\n\n"
        f'```python\nimport pandas as pd\npd.read_parquet("{place}/data/{table}/")\n```'
        f"{config}\n\n"
        "Tables are joined by `run_id` and by `token_idx`, `example_id`, `layer` and `expert`. "
        "moedb's named questions, figures and checks need the store that this was made of; "
        "`moedb schema` describes tables and views."
    )


def _tables(tables: Sequence[PublishedTable]) -> str:
    parts = ["## Tables"]
    for each in tables:
        rows = [
            (
                f"`{column.name}`",
                column.sql_type,
                column.doc + (" (left null here)" if column.name in each.withheld else ""),
            )
            for column in each.table.columns
        ]
        parts.append(
            f"### {each.table.name}\n\nA row is {_text(each.table.row)}; {each.n_rows:,} rows.\n\n"
            + _table(("column", "type", "what it holds"), rows, is_safe=True)
        )
    return "\n\n".join(parts)


def _arrays(runs: Sequence[RunSnapshot]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.manifest.arrays)
    rows = [(f"`{name}`", array_spec(name).doc) for name in names]
    return (
        "## Arrays\n\nZarr format 3, in `arrays/RUN/arrays.zarr`, an array for each name and "
        "layer; its rows are `tokens.array_row`.\n\n"
        + _table(("array", "what it holds"), rows, True)
    )


def _citation(about: CardOfRuns) -> str:
    which = "; ".join(
        f"{_model(run)} (SHA-256 {str(run.row['model_sha256'])[:12]}), run {run.run_id}"
        for run in about.runs
    )
    return (
        "## Citing it\n\nName the model and the data by their own citations, and this data set by "
        f"what identifies it:\n\n> {_text(which)}; captured with moedb {_text(__version__)}."
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]], is_safe: bool = False) -> str:
    heads = list(heads)
    lines = [_line(heads), _line(["---"] * len(heads))]
    lines += [_line(str(v) if is_safe else _text(str(v)) for v in row) for row in rows]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """A text from outside, in Markdown, on one line."""
    return escape_markdown(visible(text))


def _yaml(text: str) -> str:
    """A text as a scalar of YAML that is one whatever it holds."""
    return json.dumps(visible(text), ensure_ascii=True).replace("<", "\\u003c")
