"""Labels of experts from Python, as the command ``label-experts`` gives them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from moedb.experts.labelling.asking.answering import Answering
    from moedb.experts.labelling.planning import Estimate
    from moedb.experts.labelling.running import Labelling
    from moedb.experts.labelling.settings import LabelSettings
    from moedb.queries.results.result import Result


def label_experts(
    run: str,
    store: str | Path | None = None,
    *,
    endpoint: str | None = None,
    model: str | None = None,
    local: str | Path | None = None,
    device: str | None = None,
    name: str = "labels",
    layers: Sequence[int] | None = None,
    experts: Sequence[int] | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    body: Mapping[str, Any] | None = None,
    **settings: Any,
) -> "Result":
    """Have a language model label the experts of a stored run, and score the labels.

    Contexts of the run's texts are sent to the endpoint, or read by a model on this machine. An
    endpoint's key is read from ``MOEDB_API_KEY``, else ``OPENAI_API_KEY``, and is stored nowhere.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    endpoint
        The address of a server with ``/v1/chat/completions``.
    model
        The reader's name there.
    local
        Instead of both: the folder or the hub id of a chat model that runs on this machine.
    device
        Where that one runs; None for the best that there is.
    name
        What the labels are called together.
    layers, experts
        Those that are labelled; None for all.
    limit
        Experts at most, of those without a label by now.
    dry_run
        Whether nothing is sent, and what it would take is returned.
    body
        Further fields of a request's body; None as a value takes one out. A local model takes
        ``chat_template_kwargs`` alone.
    **settings
        ``contexts``, ``window``, ``promoted``, ``scored``, ``quantiles``, ``batch``, ``baseline``,
        ``samples``, ``seed``, ``answer_tokens``, ``schema``, ``concurrency``, ``attempts``,
        ``timeout``, ``max_requests``, ``max_tokens``: as the command's options.

    Returns
    -------
    Result
        The experts that were labelled now, each with its label and what that is worth; the tables
        ``expert_labels``, ``expert_label_scores`` and ``label_requests`` hold all. For a dry run
        one row: what it would take.

    Raises
    ------
    MoedbError
        As the command ``moedb label-experts`` says.

    Examples
    --------
    >>> import moedb
    >>> moedb.label_experts(
    ...     "text-3f", endpoint="http://127.0.0.1:11434", model="qwen3:8b", layers=[3]
    ... )  # doctest: +SKIP
    >>> moedb.label_experts("text-3f", local="FOLDER")  # doctest: +SKIP
    >>> moedb.open().query("labelled-experts").df()  # doctest: +SKIP
    """
    from moedb.experts.labelling.planning import estimate_labels
    from moedb.experts.labelling.settings import LabelSettings
    from moedb.queries.database import chosen_store

    place = chosen_store(store)
    reader = chosen_reader(run, endpoint, model, None if local is None else str(local), device)
    chosen = LabelSettings(
        run,
        reader.endpoint,
        reader.model,
        name,
        layers=None if layers is None else tuple(layers),
        experts=None if experts is None else tuple(experts),
        limit=limit,
        body=body or {},
        **settings,
    )
    if dry_run:
        return rows_of_estimate(*estimate_labels(place, chosen))
    return rows_of(shown_labelling(place, chosen, reader), chosen)


class ChosenReader(NamedTuple):
    """The reader that was chosen.

    Attributes
    ----------
    endpoint
        The address of its server; None where it runs on this machine.
    model
        Its name.
    opened
        Gives it, loaded where it is to be loaded.
    """

    endpoint: str | None
    model: str
    opened: "Callable[[LabelSettings], Answering]"


def chosen_reader(
    run: str, endpoint: str | None, model: str | None, local: str | None, device: str | None
) -> ChosenReader:
    """Choose between a server and a model on this machine; nothing is loaded or sent.

    Raises
    ------
    UsageError
        If it is neither or both.
    ModelError
        If there is no such model.
    """
    from moedb.errors import ModelNotFoundError, UsageError

    if local is not None:
        for option, value in (("endpoint", endpoint), ("model", model)):
            if value is not None:
                raise UsageError(
                    f"--local and --{option}: the reader runs here, or on a server",
                    f"moedb label-experts {run} --local {local}",
                )
        from moedb.capture.models.checkpoints import find_checkpoint

        try:
            checkpoint = find_checkpoint(local)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                error.message,
                "--local FOLDER, with config.json, a tokenizer and *.safetensors; or a hub id, "
                "after hf auth login where the hub asks for that",
            ) from error
        name = f"{checkpoint.name}@{checkpoint.sha256[:12]}"

        def loaded(settings: "LabelSettings") -> "Answering":
            from moedb.capture.models.loading.chat import ChatModel
            from moedb.experts.labelling.asking.local import LocalReader

            return LocalReader(name, ChatModel(checkpoint, device))

        return ChosenReader(None, name, loaded)
    if endpoint is None or model is None:
        raise UsageError(
            "which reader shall label the experts, and where is it?",
            f"moedb label-experts {run} --endpoint http://127.0.0.1:8000/v1 --model NAME; or "
            "--local FOLDER, a chat model that runs on this machine",
        )
    if device is not None:
        raise UsageError("--device is of a model on this machine", "--local FOLDER --device cpu")
    from moedb.experts.labelling.running import server_of

    return ChosenReader(endpoint, model, server_of)


def shown_labelling(store: Path, settings: "LabelSettings", reader: ChosenReader) -> "Labelling":
    """Label experts, and show how far that is."""
    from contextlib import ExitStack

    from moedb.commands.api.progress import analysis_progress
    from moedb.experts.labelling.running import Progress, label_experts

    with ExitStack() as stack:
        steps: list[Any] = []

        def begin(estimate: "Estimate") -> None:
            steps.append(stack.enter_context(analysis_progress("experts", estimate.n_experts)))

        told = Progress(begin, lambda: steps[0]())
        return label_experts(store, settings, told, lambda: reader.opened(settings))


def rows_of_estimate(run_id: str, estimate: "Estimate") -> "Result":
    """What labelling will take, as one row."""
    from moedb.queries.results.rows.given import result_of_rows

    types = {"run_id": "VARCHAR", **dict.fromkeys(estimate._fields, "BIGINT")}
    return result_of_rows(types, [(run_id, *estimate)])


def rows_of(found: "Labelling", settings: "LabelSettings") -> "Result":
    """The experts that were labelled, each with its scores against all negatives."""
    from moedb.experts.labelling.rows import score_rows
    from moedb.queries.results.rows.given import result_of_rows

    rows: list[tuple[object, ...]] = []
    for expert in found.experts:
        scores = {
            row["kind"]: row
            for row in score_rows(expert, 0, settings.seed)
            if row["against"] == "all"
        }
        numbers = [
            scores.get(kind, {}).get(column)
            for kind in ("detection", "fuzzing")
            for column in ("balanced_accuracy", "other_balanced_accuracy")
        ]
        rows.append(
            (expert.layer, expert.expert, expert.status, expert.label, *numbers, expert.reason)
        )
    types = {"layer": "INTEGER", "expert": "INTEGER", "status": "VARCHAR", "label": "VARCHAR"}
    types |= dict.fromkeys(("detection", "detection_other", "fuzzing", "fuzzing_other"), "DOUBLE")
    listed = result_of_rows({**types, "reason": "VARCHAR"}, rows)
    why = f"every expert that was asked for has a label named {settings.name!r}"
    if found.n_left:
        why = "no expert was labelled within what may be sent"
    return replace(listed, explain=lambda: why)
