"""The command line. What it does is elsewhere; imports that cost time are inside the commands."""

import functools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moedb import __version__
from moedb.errors import UsageError
from moedb.options import (
    capture_options,
    language_model_options,
    output_options,
    parameter_option,
    run_option,
    store_option,
    table_options,
)
from moedb.terminal import emit, run_guarded, say

if TYPE_CHECKING:
    from moedb.capture.planning import CapturePlan
    from moedb.capture.sharding import Shard
    from moedb.queries.database import Database
    from moedb.queries.result import Result


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "MOEDB",
    }
)
@click.version_option(__version__, "--version", prog_name="moedb")
@click.option("-v", "--verbose", is_flag=True, help="Log more; show tracebacks.")
@click.option("--store", type=click.Path(path_type=Path), help="The store's folder.")
def cli(verbose: bool, store: Path | None) -> None:
    """Run Mixture-of-Experts models once; ask what they did inside, in SQL, ever after."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        stream=sys.stderr,
        force=True,
    )


def _store() -> Path:
    from moedb.queries.database import default_store

    given = click.get_current_context().find_root().params.get("store")
    return Path(given) if given is not None else default_store()


def _open() -> "Database":
    from moedb.queries.database import open_database

    return open_database(_store())


def _ask(
    name: str | None, sql: str | None, run: str | None, parameters: tuple[tuple[str, str], ...]
) -> "Result":
    """Run a named query or SQL, whichever is given."""
    if (name is None) == (sql is None):
        raise UsageError("give either the name of a query or --sql", "moedb query")
    database = _open()
    given: dict[str, object] = dict(parameters)
    if name is None:
        if run is not None:
            given["run"] = database.snapshot.run(run).run_id
        return database.sql(sql or "", given)
    if run is not None:
        given["run"] = run
    return database.query(name, **given)


@cli.group()
def capture() -> None:
    """Run a model and store what its experts did."""


@capture.command("qwen-ioi")
@click.option("--n", default=100, show_default=True, help="Prompts, twins not counted.")
@click.option(
    "--templates", type=click.Path(path_type=Path), help="A JSON file of templates and words."
)
@click.option("--twins/--no-twins", default=True, show_default=True, help="Corrupted twins too.")
@language_model_options
@capture_options(batch_size=16)
@output_options
@store_option
def capture_qwen_ioi(
    n: int,
    seed: int,
    templates: Path | None,
    twins: bool,
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
    """
    from moedb.capture.jobs.qwen_ioi import ioi_dataset
    from moedb.capture.language import plan_language_capture
    from moedb.capture.planning import CaptureOptions

    output = {key: options.pop(key) for key in ("format_", "output", "limit")}
    planned = plan_language_capture(
        CaptureOptions(**_in_bytes(options)),
        functools.partial(ioi_dataset, n=n, seed=seed, templates=templates, twins=twins),
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
    "--draws", default=10, show_default=True, help="Random routers (and experts) to average over."
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
    from moedb.capture.cifar.capturing import plan_cifar_capture
    from moedb.capture.cifar.images import load_cifar10
    from moedb.capture.jobs.cifar_moe import cifar_dataset, find_trials
    from moedb.capture.planning import CaptureOptions

    output = {key: options.pop(key) for key in ("format_", "output", "limit")}
    folders = find_trials(models)
    dataset = cifar_dataset(load_cifar10(data, "test"), n=n, draws=draws, seed=seed)
    settings = _in_bytes(options)
    plans = [
        plan_cifar_capture(CaptureOptions(model=str(folder), **settings), dataset)
        for folder in folders
    ]
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
    type=int,
    help="Tokens of an example at most.  [default: the model's context, up to 1024]",
)
@click.option(
    "--stride",
    type=int,
    help="Tokens from one window of a long document to the next.  [default: --max-length]",
)
@click.option("--truncate", is_flag=True, help="Keep only the first window of a document.")
@click.option("--max-examples", type=int, help="Stop after as many examples.")
@click.option("--max-tokens", type=int, help="Stop before there are more tokens.")
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
      moedb capture text --dataset stanfordnlp/imdb --split test --label label --shuffle
    """
    from moedb.capture.jobs.text import TextOptions, text_dataset
    from moedb.capture.language import plan_language_capture
    from moedb.capture.planning import CaptureOptions
    from moedb.capture.text.documents import Columns
    from moedb.capture.text.reading import open_source

    output = {key: options.pop(key) for key in ("format_", "output", "limit")}
    names = ("unaligned", "max_length", "stride", "truncate", "max_examples", "max_tokens")
    chosen = {name: options.pop(name) for name in (*names, "shuffle", "seed")}
    columns = Columns(text_column, labels, words_column, token_labels)
    text_options = TextOptions(columns=columns, **chosen)
    source = open_source(dataset, split=split, subset=subset, lines=lines)
    source.check_columns(columns.options)
    planned = plan_language_capture(
        CaptureOptions(**_in_bytes(options)),
        functools.partial(text_dataset, source=source, options=text_options),
    )
    _run_captures([planned], dry_run, shard, output)


def _in_bytes(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a capture with gigabytes turned into bytes."""
    memory = options.pop("max_memory", None)
    return {
        **options,
        "budget": int(options["budget"] * 1e9),
        "max_bytes": None if memory is None else int(memory * 1e9),
    }


def _run_captures(
    plans: "list[CapturePlan]", dry_run: bool, shard: "Shard", output: dict[str, Any]
) -> None:
    if not dry_run:
        for planned in plans:
            _run_capture(planned, shard)
        return
    from moedb.queries.rows import result_of_rows

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
    from moedb.capture.pipeline import free_bytes

    estimate = planned.estimate
    say(
        f"model {planned.checkpoint.name}, {planned.dtype} on {planned.device}: "
        f"{estimate.n_examples:,} examples, {estimate.n_tokens:,} tokens in {len(planned.units)} "
        f"units; up to {estimate.n_bytes / 1e6:,.1f} MB before compression, "
        f"{free_bytes(_store()) / 1e9:,.1f} GB free"
    )


def _run_capture(planned: "CapturePlan", shard: "Shard") -> None:
    from moedb.capture.pipeline import capture
    from moedb.capture.progress import RichProgress

    _announce(planned)
    if shard.count > 1:
        say(f"{shard}, from {shard.source}")
    with RichProgress() as progress:
        outcome = capture(planned, _store(), progress, shard)
    if outcome.was_complete:
        say(f"run {outcome.run_id} is complete already: nothing to do")
    else:
        resumed = f", {outcome.units_before} were there" if outcome.units_before else ""
        written = f"{outcome.units_now} units written{resumed}"
        if outcome.units_missing:
            left = f"{outcome.units_missing} are left to other shards"
            say(f"{shard} of run {outcome.run_id} is done: {written}, {left}")
        else:
            say(f"run {outcome.run_id} is complete: {written}")
    click.echo(outcome.run_id)


@cli.group()
def train() -> None:
    """Train the checkpoints that captures use."""


@train.command("qwen-moe-mini")
@click.option(
    "--corpus", type=click.Path(path_type=Path), required=True, help="Parquet with a text column."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps.  [default: as embedded]")
@click.option("--seed", type=click.IntRange(0), help="Seed.  [default: as embedded]")
@click.option("--restart", is_flag=True, help="Throw away what the folder has of this run.")
def train_qwen_moe_mini(
    corpus: Path, output: Path, steps: int | None, seed: int | None, restart: bool
) -> None:
    """Train the embedded model and its tokenizer anew. The same command again resumes.

    \b
    Example:
      moedb train qwen-moe-mini --corpus texts.parquet -o my-mini --steps 1000
      moedb capture qwen-ioi --model my-mini
    """
    from moedb.capture.mini.config import MiniTrainingConfig
    from moedb.capture.mini.training import train_mini

    logging.getLogger("moedb").setLevel(logging.INFO)
    chosen = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
    config = MiniTrainingConfig(**chosen)
    click.echo(train_mini(config, corpus, output, resume=not restart))


@train.command("cifar-moe")
@click.option(
    "--experts",
    type=click.IntRange(2),
    multiple=True,
    default=[2],
    show_default=True,
    help="Experts of the MoE layer; may be repeated.",
)
@click.option(
    "--variant",
    type=click.Choice(["base", "short"]),
    default="base",
    show_default=True,
    help="Four convolutions before the MoE layer, or one.",
)
@click.option(
    "--trials", type=click.IntRange(1), default=1, show_default=True, help="Trials of each."
)
@click.option("--data", type=click.Path(path_type=Path), help="CIFAR-10.  [default: the hub's]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="cifar-moe",
    show_default=True,
    help="Folder; each trial gets one in it.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of trial 0."
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Epochs.")
@click.option(
    "--filters", help="Filters of each convolution, such as 8,16,16,32.  [default: the variant's]"
)
@click.option("--device", help="cpu, cuda, mps.  [default: what there is]")
@click.option(
    "--autocast/--no-autocast",
    default=None,
    help="Compute in bf16.  [default: where the processor has instructions for it]",
)
def train_cifar_moe(
    experts: tuple[int, ...],
    variant: str,
    trials: int,
    data: Path | None,
    output: Path,
    seed: int,
    epochs: int,
    filters: str | None,
    device: str | None,
    autocast: bool | None,
) -> None:
    """Train CIFAR-10 classifiers with one MoE layer; print their folders.

    Resumes after the last whole epoch. Several processes may share the folder: each takes trials
    that no other is at.

    \b
    Example:
      moedb train cifar-moe --experts 2 --experts 3 --trials 10 --data cifar-10-batches-py
      moedb capture cifar-moe --data cifar-10-batches-py
    """
    from moedb.capture.cifar.progress import TrainingBar
    from moedb.capture.cifar.training import BusyError
    from moedb.capture.cifar.trials import configure, train_trials

    base = configure(variant, filters, seed=seed, epochs=epochs, device=device, autocast=autocast)
    with TrainingBar() as progress:
        for folder, outcome in train_trials(base, experts, trials, data, output, progress):
            if isinstance(outcome, BusyError):
                say(f"{outcome}; left to it")
                continue
            say(f"{folder.name}: test accuracy {outcome['test_accuracy']:.2%}")
            click.echo(folder)


@cli.command()
@output_options
@store_option
def runs(**output: Any) -> None:
    """List the runs of the store.

    \b
    Example:
      moedb runs
    """
    from moedb.queries.overview import run_list

    emit(run_list(_open()), **output)


@cli.command()
@click.argument("run")
@output_options
@store_option
def show(run: str, **output: Any) -> None:
    """Show what RUN is and holds: settings, layers, tables, arrays, labels.

    \b
    Example:
      moedb show qwen-ioi-3f
    """
    from moedb.queries.overview import run_details

    emit(run_details(_open(), run), **output)


@cli.command()
@click.argument("table", required=False)
@output_options
def schema(table: str | None, **output: Any) -> None:
    """List the tables and arrays, or the columns of TABLE.

    \b
    Example:
      moedb schema
      moedb schema routing
    """
    from moedb.queries.rows import table_columns, table_list

    emit(table_columns(table) if table else table_list(), **output)


@cli.command()
@click.argument("name", required=False)
@run_option
@parameter_option
@click.option("--show-sql", is_flag=True, help="Print the query's SQL instead of running it.")
@output_options
@store_option
def query(
    name: str | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    show_sql: bool,
    **output: Any,
) -> None:
    """Run the named query NAME; without NAME, list them.

    \b
    Example:
      moedb query routing-by-class -p key role -p layer 3
      moedb query co-activation --show-sql
    """
    if name is None:
        from moedb.queries.rows import query_list

        emit(query_list(), **output)
        return
    if show_sql:
        from moedb.queries.analyses import sql_of

        click.echo(sql_of(name))
        return
    result = _ask(name, None, run, parameters)
    emit(result, **output)
    say(result.provenance.footer())


@cli.command()
@click.argument("statement", required=False)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Read the SQL from a file.")
@parameter_option
@output_options
@store_option
def sql(
    statement: str | None,
    file: Path | None,
    parameters: tuple[tuple[str, str], ...],
    **output: Any,
) -> None:
    """Run one SQL statement that reads, given as STATEMENT, in a file, or (-) on stdin.

    Tables and views are those of `moedb schema`; the named queries are table macros.

    \b
    Example:
      moedb sql "select layer, count(distinct expert) as used from routing group by all"
      moedb sql "from routing_by_class(key := 'role') where lift > 5"
    """
    if (statement is None) == (file is None):
        raise UsageError("give the SQL as an argument, as - for stdin, or with -f FILE")
    if file is not None:
        try:
            statement = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {file}: {error}") from error
    elif statement == "-":
        statement = sys.stdin.read()
    result = _open().sql(statement or "", dict(parameters))
    emit(result, **output)
    say(result.provenance.footer())


@cli.command()
@click.argument("name", required=False)
@click.option("--sql", "statement", help="Export the rows of this SQL instead of a named query.")
@run_option
@parameter_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write."
)
@click.option("--limit", type=click.IntRange(0), help="Rows at most.")
@table_options
@store_option
def export(
    name: str | None,
    statement: str | None,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path,
    limit: int | None,
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
    result = _ask(name, statement, run, parameters)
    for path in write_table(result, output, table):
        say(f"wrote {path}")
    say(result.provenance.footer())


@cli.command()
@click.argument("name")
@run_option
@parameter_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Figure.")
@click.option("--value", help="Which column the colours show.")
@click.option("--top", type=click.IntRange(1), help="Only the most used experts (co-activation).")
@store_option
def plot(
    name: str,
    run: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: Path,
    value: str | None,
    top: int | None,
) -> None:
    """Draw the figure of the named query NAME into a .pdf, .png or .svg file.

    \b
    Example:
      moedb plot expert-frequency -o frequency.pdf
      moedb plot co-activation -o pairs.png -p layer 3 --value lift
    """
    from moedb.queries.plots import PLOTS, draw

    if name not in PLOTS:
        from moedb.errors import did_you_mean

        raise UsageError(f"there is no figure of {name!r}; {did_you_mean(name, PLOTS)}")
    result = _ask(name, None, run, parameters)
    given = {key: each for key, each in (("value", value), ("top", top)) if each is not None}
    for path in draw(name, result, output, **given):
        say(f"wrote {path}")
    say(result.provenance.footer())


@cli.command()
@click.argument("run", required=False)
@store_option
def verify(run: str | None) -> None:
    """Read RUN, or every run, again: checksums, and what must hold of the values.

    \b
    Example:
      moedb verify
    """
    from moedb.store.snapshot import take_snapshot
    from moedb.store.verification import verify_run

    snapshot = take_snapshot(_store())
    for found in [snapshot.run(run)] if run else list(snapshot.runs.values()):
        state = "" if found.is_complete else " (incomplete)"
        click.echo(f"{found.run_id}{state}: {verify_run(found)}")


@cli.command()
@click.argument("run")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@store_option
def rm(run: str, yes: bool) -> None:
    """Delete RUN, whose name must be whole, from the store.

    \b
    Example:
      moedb rm qwen-ioi-3f2a9c1b7d
    """
    from moedb.store.writing import remove_run

    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"deleting {run} wants a yes", f"moedb rm {run} --yes")
        click.confirm(f"Delete {run} from {_store()}?", abort=True, err=True)
    remove_run(_store(), run)
    say(f"deleted {run}")


def run_cli(arguments: list[str]) -> int:
    """Run the command line with ``arguments``; return the exit code."""
    return run_guarded(cli, arguments)


def main() -> None:
    """Run the command line with the arguments that the program was given."""
    sys.exit(run_cli(sys.argv[1:]))
