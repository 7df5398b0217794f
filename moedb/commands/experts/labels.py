"""Labels of experts, written by a language model."""

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from moedb.commands.options import (
    COUNT,
    SEED,
    FiniteRange,
    output_options,
    read_numbers,
    store_folder,
    store_option,
)
from moedb.commands.terminal.completion import complete_runs
from moedb.commands.terminal.emitting import emit
from moedb.commands.terminal.messages import say
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.experts.labelling.planning import Estimate
    from moedb.experts.labelling.running import Labelling
    from moedb.experts.labelling.settings import LabelSettings


def _read_body(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--body is no JSON: {error}", "--body '{\"top_p\": 0.9}'") from error
    if not isinstance(found, dict):
        raise UsageError("--body is no JSON object", "--body '{\"top_p\": 0.9}'")
    return found


@click.command("label-experts", short_help="Have a language model label experts, and score that.")
@click.argument("run", shell_complete=complete_runs)
@click.option(
    "--endpoint",
    metavar="URL",
    allow_from_autoenv=False,
    help="Where requests go: a server with /v1/chat/completions.",
)
@click.option("--model", metavar="NAME", help="The reader, as the server calls it.")
@click.option(
    "--local",
    metavar="MODEL",
    help="Instead of both: a chat model that runs here, a folder or a hub id.",
)
@click.option("--device", help="Where --local runs: cpu, cuda, mps.  [default: what there is]")
@click.option("--name", default="labels", show_default=True, help="What the labels are called.")
@click.option(
    "--layers", callback=read_numbers, metavar="LAYERS", help="Layers: 0,4-7.  [default: all]"
)
@click.option(
    "--experts", callback=read_numbers, metavar="EXPERTS", help="Experts of each.  [default: all]"
)
@click.option(
    "--n",
    "limit_",
    type=click.IntRange(0),
    metavar="N",
    help="Experts at most, of those without a label by now.",
)
@click.option(
    "--contexts",
    type=COUNT,
    default=20,
    show_default=True,
    help="Contexts that a label is made from: those with the largest scores.",
)
@click.option("--window", type=COUNT, default=32, show_default=True, help="Tokens of a context.")
@click.option(
    "--promoted",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="Tokens shown that its output promotes, where the run keeps unembedding and outputs.",
)
@click.option(
    "--scored",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Contexts of each kind that it is scored on; 0 for no scores.",
)
@click.option(
    "--quantiles",
    type=COUNT,
    default=5,
    show_default=True,
    help="Groups by score that the expert's own are drawn from.",
)
@click.option(
    "--batch", type=COUNT, default=10, show_default=True, help="Contexts judged in one request."
)
@click.option(
    "--baseline/--no-baseline",
    default=True,
    help="Score another expert's label on the same contexts, too.  [default: yes]",
)
@click.option(
    "--samples",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Draws of the bootstrap behind the intervals.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of what is drawn.")
@click.option(
    "--answer-tokens",
    type=COUNT,
    default=500,
    show_default=True,
    help="Tokens of an answer at most; a reasoning model takes thousands.",
)
@click.option(
    "--schema",
    is_flag=True,
    help="Hold each answer to a JSON schema, not only one after nonsense: for small models.",
)
@click.option(
    "--body",
    callback=_read_body,
    metavar="JSON",
    help="Further fields of each request, such as '{\"temperature\": null}'; null takes one out.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Experts worked on at once, each with one request at a time; with --local one.",
)
@click.option(
    "--attempts",
    type=COUNT,
    default=8,
    show_default=True,
    help="How often a request is sent that gets no answer.",
)
@click.option(
    "--timeout",
    type=FiniteRange(0.1, 86_400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take.",
)
@click.option("--max-requests", type=COUNT, help="Requests at most, every attempt counted.")
@click.option(
    "--max-tokens", type=COUNT, help="Tokens after which nothing is sent, prompts and answers."
)
@click.option("--dry-run", is_flag=True, help="Say what it would take; send nothing.")
@click.option("--remove", is_flag=True, help="Take the labels called --name out of RUN.")
@click.option("--forget", is_flag=True, help="With --remove: delete the answers kept for them too.")
@output_options
@store_option
def label_experts(
    run: str,
    endpoint: str | None,
    model: str | None,
    local: str | None,
    device: str | None,
    name: str,
    limit_: int | None,
    dry_run: bool,
    remove: bool,
    forget: bool,
    **given: Any,
) -> None:
    """Have a language model label the experts of RUN, and score what it says.

    The texts around the tokens that an expert writes most for are sent to the endpoint, and to
    nobody else, or read by a model on this machine (--local); one short label comes back. Then the
    reader is shown other contexts of the expert, and some that are not, and its verdicts are
    counted: detection and fuzzing. Every expert is stored as soon as it is done, and every answer
    before it is used: the same command goes on where it stopped, and pays for nothing twice. A key
    is read from MOEDB_API_KEY, else OPENAI_API_KEY.

    \b
    Example:
      moedb label-experts text-3f --endpoint http://127.0.0.1:11434 --model qwen3:8b --dry-run
      moedb label-experts text-3f --endpoint http://127.0.0.1:8000/v1 --model m --layers 3 --n 8
      moedb label-experts text-3f --local HuggingFaceTB/SmolLM2-1.7B-Instruct --n 8
      moedb query labelled-experts --run text-3f
      moedb label-experts text-3f --remove
    """
    from moedb.commands.api.experts.expert_labels import (
        chosen_reader,
        rows_of,
        rows_of_estimate,
        shown_labelling,
    )
    from moedb.commands.options import OUTPUT
    from moedb.experts.labelling.planning import estimate_labels
    from moedb.experts.labelling.settings import LabelSettings

    output = {option: given.pop(option) for option in OUTPUT}
    if remove:
        _remove(run, name, forget)
        return
    if forget:
        raise UsageError("--forget goes with --remove", f"moedb label-experts {run} --remove")
    reader = chosen_reader(run, endpoint, model, local, device)
    settings = LabelSettings(run, reader.endpoint, reader.model, name, limit=limit_, **given)
    run_id, estimate = estimate_labels(store_folder(), settings)
    if dry_run:
        emit(rows_of_estimate(run_id, estimate), **output)
        say("nothing was sent or asked, as --dry-run says")
        return
    if estimate.n_experts:
        _tell_before(estimate, settings)
    found = shown_labelling(store_folder(), settings, reader)
    emit(rows_of(found, settings), **output)
    _tell(found, settings)


def _tell_before(estimate: "Estimate", settings: "LabelSettings") -> None:
    """Say what is sent where, before it is."""
    from moedb.experts.labelling.asking.endpoint import completions_url, find_key

    before = f"; {estimate.n_labelled:,} are labelled" if estimate.n_labelled else ""
    say(
        f"{estimate.n_experts:,} experts{before}; about {estimate.n_requests:,} requests and "
        f"{estimate.n_tokens:,} tokens"
    )
    if estimate.n_answers:
        say(f"{estimate.n_answers:,} answers are kept from before, and not asked for again")
    if settings.endpoint is None:
        say(f"texts of the run are read by {settings.model} on this machine; nothing is sent")
        return
    url, found = completions_url(settings.endpoint), find_key()
    key = found[0] if found else None
    say(f"texts of the run are sent to {url}" + (f", with the key in {key}" if key else ""))
    if key and url.startswith("http:") and urlsplit(url).hostname not in ("localhost", "127.0.0.1"):
        say("the key is sent unencrypted: the endpoint is no https")


def _tell(found: "Labelling", settings: "LabelSettings") -> None:
    """Say what became of the experts."""
    n_labelled = sum(each.label is not None for each in found.experts)
    marked = len(found.experts) - n_labelled
    say(
        f"{n_labelled:,} experts of run {found.run_id} labelled"
        + (f", {marked:,} marked with the reason why not" if marked else "")
        + f"; {found.n_requests:,} requests sent, {found.n_tokens:,} tokens"
    )
    if found.n_left:
        say(
            f"{found.n_left:,} experts are left, as what may be sent is spent: the same command "
            "goes on with them"
        )
    if n_labelled:
        say(f"moedb query labelled-experts --run {found.run_id}")


def _remove(run: str, name: str, forget: bool) -> None:
    from moedb.experts.labelling.removal import remove_labels

    removed = remove_labels(store_folder(), run, name, forget)
    say(f"removed {removed.n_labels:,} labels of experts: {name}")
    if removed.n_answers:
        what = "deleted with them" if forget else "kept: the same labels cost nothing again"
        say(f"{removed.n_answers:,} answers are {what}")
