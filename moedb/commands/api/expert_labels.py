"""Labels of experts from Python, as the command ``label-experts`` gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moedb.experts.labelling.planning import Estimate
    from moedb.experts.labelling.running import Labelling
    from moedb.experts.labelling.settings import LabelSettings
    from moedb.queries.results.result import Result


def label_experts(
    run: str,
    store: str | Path | None = None,
    *,
    endpoint: str,
    model: str,
    name: str = "labels",
    layers: Sequence[int] | None = None,
    experts: Sequence[int] | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    body: Mapping[str, Any] | None = None,
    **settings: Any,
) -> "Result":
    """Have a language model label the experts of a stored run, and score the labels.

    Contexts of the run's texts are sent to the endpoint. The key is read from ``MOEDB_API_KEY``,
    else ``OPENAI_API_KEY``, and is stored nowhere.

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
    name
        What the labels are called together.
    layers, experts
        Those that are labelled; None for all.
    limit
        Experts at most, of those without a label by now.
    dry_run
        Whether nothing is sent, and what it would take is returned.
    body
        Further fields of a request's body; None as a value takes one out.
    **settings
        ``contexts``, ``window``, ``promoted``, ``scored``, ``quantiles``, ``batch``, ``baseline``,
        ``samples``, ``seed``, ``answer_tokens``, ``concurrency``, ``attempts``, ``timeout``,
        ``max_requests``, ``max_tokens``: as the command's options.

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
    >>> moedb.open().query("labelled-experts").df()  # doctest: +SKIP
    """
    from moedb.experts.labelling.planning import estimate_labels
    from moedb.experts.labelling.settings import LabelSettings
    from moedb.queries.database import chosen_store

    place = chosen_store(store)
    chosen = LabelSettings(
        run,
        endpoint,
        model,
        name,
        layers=None if layers is None else tuple(layers),
        experts=None if experts is None else tuple(experts),
        limit=limit,
        body=body or {},
        **settings,
    )
    if dry_run:
        return rows_of_estimate(*estimate_labels(place, chosen))
    return rows_of(shown_labelling(place, chosen), chosen)


def shown_labelling(store: Path, settings: "LabelSettings") -> "Labelling":
    """Label experts, and show how far that is."""
    from contextlib import ExitStack

    from moedb.commands.api.progress import analysis_progress
    from moedb.experts.labelling.running import Progress, label_experts

    with ExitStack() as stack:
        steps: list[Any] = []

        def begin(estimate: "Estimate") -> None:
            steps.append(stack.enter_context(analysis_progress("experts", estimate.n_experts)))

        return label_experts(store, settings, Progress(begin, lambda: steps[0]()))


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
            for row in score_rows(expert, replace(settings, samples=0))
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
