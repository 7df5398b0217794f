"""Capturing: run a model and store what its experts did."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moedb.commands.api.plans import options_of, plan_cifar, plan_text
from moedb.commands.options import (
    COUNT,
    OUTPUT,
    capture_options,
    check_mirror,
    language_model_options,
    mirror_of,
    output_options,
    store_folder,
    store_option,
)
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say, say_of_mirror

if TYPE_CHECKING:
    from moedb.capture.pipeline.plan import CapturePlan
    from moedb.capture.pipeline.units import Shard
    from moedb.capture.tracing.logit_lens import Positions


@click.group()
def capture() -> None:
    """Run a model and store what its experts did."""


@capture.command(
    "qwen-ioi", short_help="Prompts of indirect object identification through a model."
)
@click.option(
    "--n",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="Prompts, twins not counted.",
)
@click.option(
    "--templates", type=click.Path(path_type=Path), help="A JSON file of templates and words."
)
@click.option("--twins/--no-twins", default=True, show_default=True, help="Corrupted twins too.")
@click.option(
    "--lens",
    type=click.Choice(["last", "all-positions", "none"]),
    default="last",
    show_default=True,
    help="Tokens whose residual stream is read through the logit lens.",
)
@language_model_options
@capture_options(batch_size=16)
@output_options
@store_option
def capture_qwen_ioi(
    n: int,
    seed: int,
    templates: Path | None,
    twins: bool,
    lens: "Positions",
    dense: bool,
    dry_run: bool,
    shard: "Shard",
    **options: Any,
) -> None:
    """Indirect object identification prompts through a language model.

    Prints the run's name. The same command again resumes, or says that there is nothing to do.

    \b
    Example:
      moedb capture qwen-ioi
      moedb capture qwen-ioi --n 300 --arrays router_logits --arrays expert_outputs@2,4
      moedb capture qwen-ioi --model my-dense-model --dense --arrays expert_neurons
    """
    from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi

    _check_store(dry_run)
    output = {key: options.pop(key) for key in OUTPUT}
    planned = plan_qwen_ioi(
        options_of(options),
        n=n,
        seed=seed,
        templates=templates,
        twins=twins,
        lens=lens,
        dense=dense,
    )
    _run_captures([planned], dry_run, shard, output)


@capture.command("cifar-moe")
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    default=["cifar-moe"],
    show_default=True,
    help="A trained model's folder, or a folder of them; may be repeated.",
)
@click.option("--data", type=click.Path(path_type=Path), help="CIFAR-10.  [default: the hub's]")
@click.option("--n", type=click.IntRange(1), help="Only the first N test images.")
@click.option(
    "--draws",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="Random routers (and experts) to average over.",
)
@capture_options(batch_size=250)
@output_options
@store_option
def capture_cifar_moe(
    models: tuple[Path, ...],
    data: Path | None,
    n: int | None,
    draws: int,
    seed: int,
    dry_run: bool,
    shard: "Shard",
    **options: Any,
) -> None:
    """CIFAR-10's test images through CIFAR MoEs, each model a run.

    Beside the model as it is, predictions are stored for random routing, for experts that were
    never trained, and for each expert given every image. Prints the runs' names. The same command
    again resumes, or says that there is nothing to do.

    \b
    Example:
      moedb capture cifar-moe --data cifar-10-batches-py
      moedb capture cifar-moe --model cifar-moe/cifar-moe-base-2-trial-0 --draws 20
    """
    _check_store(dry_run)
    output = {key: options.pop(key) for key in OUTPUT}
    plans = plan_cifar(models, options, data=data, n=n, draws=draws, seed=seed)
    _run_captures(plans, dry_run, shard, output)


@capture.command("text")
@click.option(
    "--dataset",
    required=True,
    metavar="FILE|FOLDER|ID",
    help="Parquet, JSON lines, CSV, TSV, plain text or CoNLL-U; a folder of one kind; a hub id.",
)
@click.option("--split", help="Split of a hub dataset.  [default: train]")
@click.option("--subset", help="Subset of a hub dataset that has several.")
@click.option("--lines", is_flag=True, help="Each line of a .txt file is a document, not the file.")
@click.option("--text-column", default="text", show_default=True, help="Column of the texts.")
@click.option(
    "--label", "labels", multiple=True, metavar="COLUMN", help="A label of examples; repeatable."
)
@click.option(
    "--words-column", default="words", show_default=True, help="Column of lists of words."
)
@click.option(
    "--token-label",
    "token_labels",
    multiple=True,
    metavar="COLUMN",
    help="A label of tokens, a list with a value for each word, such as upos; repeatable.",
)
@click.option(
    "--unaligned",
    type=click.Choice(["fail", "skip", "join"]),
    default="fail",
    show_default=True,
    help="Where words are not in the text: stop, leave the row's tokens without labels, or join "
    "the labels of contractions (French du: ADP+DET).",
)
@click.option(
    "--max-length",
    type=COUNT,
    help="Tokens of an example at most.  [default: the model's context, up to 1024]",
)
@click.option(
    "--stride",
    type=COUNT,
    help="Tokens from one window of a long document to the next.  [default: --max-length]",
)
@click.option("--truncate", is_flag=True, help="Keep only the first window of a document.")
@click.option("--max-examples", type=COUNT, help="Stop after as many examples.")
@click.option("--max-tokens", type=COUNT, help="Stop before there are more tokens.")
@click.option("--shuffle", is_flag=True, help="Shuffle by --seed, through 10,000 documents.")
@language_model_options
@capture_options(batch_size=16)
@output_options
@store_option
def capture_text(
    dataset: str,
    split: str | None,
    subset: str | None,
    lines: bool,
    text_column: str,
    labels: tuple[str, ...],
    words_column: str,
    token_labels: tuple[str, ...],
    dense: bool,
    dry_run: bool,
    shard: "Shard",
    **options: Any,
) -> None:
    """Texts of your own, or the hub's, through a language model.

    Data are read as a stream, so they may be larger than memory; the tokens wait in TMPDIR. A long
    document is cut into windows, each an example with the labels document (its row) and window.
    Prints the run's name. The same command again resumes, or says that there is nothing to do.

    \b
    Example:
      moedb capture text --dataset reviews.jsonl --label stars --max-tokens 100000
      moedb capture text --dataset fr_gsd-ud-test.conllu --token-label upos --label sent_id
      moedb capture text --dataset fr_gsd-ud-test.conllu --token-label upos \\
          --tokens label:upos --per-value 500 --arrays expert_neurons
      moedb capture text --dataset stanfordnlp/imdb --split test --label label --shuffle
    """
    from moedb.capture.jobs.text.documents import TextColumns

    _check_store(dry_run)
    output = {key: options.pop(key) for key in OUTPUT}
    names = ("unaligned", "max_length", "stride", "truncate", "max_examples", "max_tokens")
    chosen = {name: options.pop(name) for name in (*names, "shuffle", "seed")}
    planned = plan_text(
        dataset,
        TextColumns(text_column, labels, words_column, token_labels),
        options,
        split=split,
        subset=subset,
        lines=lines,
        dense=dense,
        **chosen,
    )
    _run_captures([planned], dry_run, shard, output)


def _check_store(dry_run: bool) -> None:
    """Check that there is a use in planning: torch and a model's hash take seconds."""
    from moedb.store.writing.writability import check_worth_capturing

    if not dry_run:
        check_worth_capturing(store_folder())
        check_mirror()


def _run_captures(
    plans: "list[CapturePlan]", dry_run: bool, shard: "Shard", output: dict[str, Any]
) -> None:
    if not dry_run:
        for planned in plans:
            _run_capture(planned, shard)
        return
    from moedb.queries.results.rows.given import result_of_rows

    rows = []
    for planned in plans:
        _announce(planned)
        for note in planned.notes:
            say(note)
        rows += [(planned.checkpoint.name, *row) for row in planned.estimate.rows()]
    columns = {
        "model": "VARCHAR",
        "kind": "VARCHAR",
        "name": "VARCHAR",
        "rows": "BIGINT",
        "bytes": "BIGINT",
    }
    emit(result_of_rows(columns, rows), **output)


def _announce(planned: "CapturePlan") -> None:
    from moedb.capture.pipeline.missing_units import free_bytes

    estimate = planned.estimate
    say(
        f"model {planned.checkpoint.name}, {planned.dtype} on {planned.device}: "
        f"{estimate.n_examples:,} examples, {estimate.n_tokens:,} tokens in {len(planned.units)} "
        f"units; up to {estimate.n_bytes / 1e6:,.1f} MB before compression, "
        f"{free_bytes(store_folder()) / 1e9:,.1f} GB free"
    )


def _run_capture(planned: "CapturePlan", shard: "Shard") -> None:
    from moedb.capture.pipeline.running import capture
    from moedb.commands.api.progress import RichProgress
    from moedb.schemas.run_names import title_of

    _announce(planned)
    if shard.count > 1:
        say(f"{shard}, from {shard.source}")
    mirror = mirror_of(planned.run_id)
    with RichProgress() as progress, mirror or nullcontext():
        claim = None if mirror is None else mirror.claim
        outcome = capture(planned, store_folder(), progress, shard, claim)
    run = title_of(outcome.run_id, planned.named.name)
    if outcome.was_complete:
        say(f"run {run} is complete already: nothing to do")
    else:
        resumed = f", {outcome.units_before} were there" if outcome.units_before else ""
        written = f"{outcome.units_now} units written{resumed}"
        if outcome.units_missing:
            left = f"{outcome.units_missing} are left to other shards"
            say(f"{shard} of run {run} is done: {written}, {left}")
        else:
            say(f"run {run} is complete: {written}")
    say_of_mirror(mirror)
    click.echo(outcome.run_id)
