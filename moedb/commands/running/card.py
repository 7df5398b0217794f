"""Cards: what was measured of the language models that moedb trained."""

from typing import Any

import click

from moedb.commands.options import output_options
from moedb.commands.terminal.emitting import emit


@click.command(short_help="Show what was measured of models that moedb trained.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@output_options
def card(models: tuple[str, ...], **output: Any) -> None:
    """Print a row of figures for each MODEL, the embedded one or a folder, off its card.

    Parameters, perplexity on held-out documents beside an n-gram model's, accuracy at indirect
    object identification, on templates of the training and on others, and what the training took.

    \b
    Example:
      moedb card qwen-moe-mini
      moedb card qwen-moe-mini ./qwen-dense-mini-active --columns model,perplexity -o cards.md
    """
    from moedb.capture.mini.card.reading import COLUMNS, read_card
    from moedb.capture.models.checkpoints import find_checkpoint
    from moedb.queries.results.rows.given import result_of_rows

    rows = [read_card(find_checkpoint(model).folder) for model in models]
    # no run is behind it that a line below could name
    emit(result_of_rows(COLUMNS, rows), **output, footer=False)
