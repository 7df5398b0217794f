"""Publishing: tables and figures for a paper."""

from pathlib import Path
from typing import Any

import click

from moedb.commands.query import ask, say_sources
from moedb.errors import UsageError
from moedb.options import (
    COUNT,
    allow_empty_option,
    limit_option,
    parameter_option,
    run_option,
    store_option,
    table_options,
)
from moedb.terminal import say


@click.command()
@click.argument("name", required=False)
@click.option("--sql", "statement", help="Export the rows of this SQL instead of a named query.")
@run_option
@parameter_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write."
)
@limit_option
@allow_empty_option
@table_options
@store_option
def export(
    name: str | None,
    statement: str | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path,
    limit: int | None,
    allow_empty: bool,
    **options: Any,
) -> None:
    """Write a table for a paper, by the ending of -o: .tex .csv .md .html .json .jsonl .parquet.

    Beside it goes a sidecar, FILE.provenance.json: SQL, parameters, runs, models, hashes.

    \b
    Example:
      moedb export expert-frequency -o frequency.tex --pivot layer expert frequency
      moedb export ioi-logit-diff -o ioi.tex --caption "IOI by template" --label tab:ioi
    """
    from moedb.queries.export import export as write_table
    from moedb.queries.sheets import TableOptions

    columns = options.pop("columns")
    table = TableOptions(
        limit=limit,
        footer=not options.pop("no_footer"),
        columns=tuple(c.strip() for c in columns.split(",")) if columns is not None else None,
        **options,
    )
    result = ask(name, statement, run, parameters)
    for path in write_table(result, output, table, allow_empty=allow_empty):
        say(f"wrote {path}")
    say_sources(result)


@click.command()
@click.argument("name")
@run_option
@parameter_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Figure.")
@click.option("--value", help="Which column the colours show.")
@click.option("--top", type=COUNT, help="Only the most used experts (co-activation).")
@allow_empty_option
@store_option
def plot(
    name: str,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path,
    value: str | None,
    top: int | None,
    allow_empty: bool,
) -> None:
    """Draw the figure of the named query NAME into a .pdf, .png or .svg file.

    \b
    Example:
      moedb plot expert-frequency -o frequency.pdf
      moedb plot co-activation -o pairs.png -p layer 3 --value lift
    """
    from moedb.queries.drawing import draw
    from moedb.queries.plots import PLOTS

    if name not in PLOTS:
        from moedb.errors import did_you_mean

        raise UsageError(f"there is no figure of {name!r}; {did_you_mean(name, PLOTS)}")
    result = ask(name, None, run, parameters)
    given = {key: each for key, each in (("value", value), ("top", top)) if each is not None}
    for path in draw(name, result, output, allow_empty=allow_empty, **given):
        say(f"wrote {path}")
    say_sources(result)
