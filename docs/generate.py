"""Write the pages of docs/ that are made from the code: data-model.md and cli.md.

Run by ``make docs``; a test fails when a page is out of date.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from moedb.cli import cli
from moedb.queries.analyses.analysis import Analysis
from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.analyses.uncertainty.over_trials import OVER_TRIALS, how_over_trials
from moedb.queries.analyses.uncertainty.without import WITHOUT
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.query_file import NamedQuery
from moedb.schemas.arrays import ARRAY_FUNCTIONS, ARRAYS, CHUNK_ROWS, SHARD_ROWS
from moedb.schemas.manifests import FORMAT_VERSION
from moedb.schemas.tables import TABLES

HERE = Path(__file__).parent


def cell(text: str) -> str:
    """A cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def tables_text() -> str:
    """Every table, column by column."""
    parts = []
    for table in TABLES:
        order = ", ".join(f"`{name}`" for name in table.sort_by)
        parts.append(
            f"### {table.name}\n\nOne row is {table.holds}. Sorted by {order} in a file.\n"
        )
        parts.append("| column | type | null | holds |\n|---|---|---|---|")
        for column in table.columns:
            null = "yes" if column.nullable else ""
            parts.append(f"| `{column.name}` | {column.sql_type} | {null} | {cell(column.doc)} |")
        parts.append("")
    return "\n".join(parts)


def arrays_text() -> str:
    """Every kind of array."""
    rows = ["| array | shape | holds |", "|---|---|---|"]
    rows += [f"| `{s.name}/LAYER` | {s.shape_text} | {cell(s.doc)} |" for s in ARRAYS]
    return "\n".join(rows)


def functions_text() -> str:
    """Every function of SQL that reads an array."""
    rows = ["| function | gives | of the array |", "|---|---|---|"]
    rows += [f"| `{s.call}` | {s.gives} | `{s.name}` |" for s in ARRAY_FUNCTIONS.values()]
    return "\n".join(rows)


def queries_text() -> str:
    """Every named query and every analysis in Python, with its columns."""
    parts = []
    asked = [(query, query.answers) for query in catalog().values()]
    asked += [(analysis, f"{analysis.answers} In Python.") for analysis in ANALYSES.values()]
    for query, question in sorted(asked, key=lambda pair: pair[0].name):
        parts.append(f"### {query.name}\n\n{question} Source: {query.source}.\n")
        parts.append("| parameter | type | default | is |\n|---|---|---|---|")
        for p in query.parameters:
            default = p.default_text if p.required else f"`{p.default_text}`"
            limits = f", {p.limits_text}" if p.limits_text and not p.choices else ""
            parts.append(f"| `{p.name}` | {p.type}{limits} | {default} | {cell(p.doc)} |")
        parts.append("\n| column | is |\n|---|---|")
        parts += [f"| `{column.name}` | {cell(column.doc)} |" for column in query.columns]
        parts.append("")
        parts += doubt_text(query)
    return "\n".join(parts)


def doubt_text(query: NamedQuery | Analysis) -> list[str]:
    """What can be asked of a query's columns beside their values, and why nothing can."""
    sure = "[How sure](uncertainty.md).\n"
    if query.name in OVER_TRIALS:
        columns = _names([told.name for told in OVER_TRIALS[query.name]])
        how = how_over_trials(query.name)
        return [f"`--ci` gives intervals of {columns}: {how}. {sure}"]
    if query.name in WITHOUT:
        return [f"`--ci` gives no intervals: {cell(WITHOUT[query.name][0])}. {sure}"]
    if not isinstance(query, NamedQuery) or not query.estimates:
        return []
    told = [f"`--ci` gives intervals of {_names(query.estimates)}"]
    if query.shuffled:
        told.append(f"`--null` what shuffled labels give of {_names(query.shuffled)}")
    if query.even:
        told.append(f"`--null` what experts that are chosen alike give of {_names(query.even)}")
    return ["; ".join(told) + f". {sure}"]


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def data_model() -> str:
    """The page docs/data-model.md."""
    template = (HERE / "data-model.in.md").read_text(encoding="utf-8")
    return (
        template.replace("@TABLES@", tables_text())
        .replace("@ARRAYS@", arrays_text())
        .replace("@FUNCTIONS@", functions_text())
        .replace("@QUERIES@", queries_text())
        .replace("@FORMAT@", ".".join(map(str, FORMAT_VERSION)))
        .replace("@SHARD@", str(SHARD_ROWS))
        .replace("@CHUNK@", str(CHUNK_ROWS))
    )


def command_text(command: click.Command, name: str, parent: click.Context | None) -> str:
    """The help of a command and of those below it."""
    settings = {**command.context_settings, "max_content_width": 96, "terminal_width": 96}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    title = context.command_path
    parts = [f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            parts.append(command_text(command.commands[child], child, context))
    return "\n".join(parts)


def command_line() -> str:
    """The page docs/cli.md."""
    return (
        "# The command line\n\nWhat `--help` says, for every command. Made by `make docs`.\n\n"
        "stdout is data; everything else goes to stderr. Exit codes: 0 done, 1 failed, 2 the "
        "command was wrong, 3 the store is missing, damaged or newer, 130 interrupted.\n\n"
        + command_text(cli, "moedb", None)
    )


PAGES = {"data-model.md": data_model, "cli.md": command_line}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page().rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
