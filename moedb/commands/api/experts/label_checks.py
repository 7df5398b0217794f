"""Checks of labels by ablation from Python, as the command ``check-labels`` makes them."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moedb.capture.interventions.ablation.opening import AblationPlan
    from moedb.experts.checking.planning import CheckPlan, Estimate
    from moedb.experts.checking.running import Checked, Measure
    from moedb.experts.checking.settings import CheckSettings, VerdictKind
    from moedb.queries.results.result import Result
    from moedb.schemas.interventions import Ablation

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
"""Rows of a forward pass."""


@dataclass(frozen=True)
class ModelPlace:
    """Where the model of a run is, and what it runs on.

    Attributes
    ----------
    model
        A name, a hub id or a folder; None to look where the run says.
    batch_size
        Rows of a forward pass: examples without an expert.
    device, max_memory, device_map
        As of a capture.
    """

    model: str | None = None
    batch_size: int = BATCH_SIZE
    device: str | None = None
    max_memory: float | None = None
    device_map: str | None = None


def check_labels(
    run: str,
    labels: str,
    store: str | Path | None = None,
    *,
    name: str | None = None,
    kind: "VerdictKind" = "fuzzing",
    follow: int = 5,
    controls: int = 2,
    quantiles: int = 5,
    seed: int = 0,
    layers: Sequence[int] | None = None,
    experts: Sequence[int] | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    model: str | None = None,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    max_memory: float | None = None,
    device_map: str | None = None,
) -> "Result":
    """Take each labelled expert out of the model, and see where that hurts what follows.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    labels
        The labels, by what they are called together.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    name
        What the effects are called together; None for the labels' name with ``-effects``.
    kind
        The verdicts whose tokens are taken: ``fuzzing`` or ``detection``.
    follow
        Tokens after each token that are looked at.
    controls
        Experts of the layer about as often chosen that are ablated besides.
    quantiles, seed
        Groups by score that the controls' own tokens are drawn from; the seed.
    layers, experts, limit
        Those that are checked; None for all that have a label.
    dry_run
        Whether nothing is run, and what it would take is returned.
    model, batch_size, device, max_memory, device_map
        Where the model is, and what it runs on.

    Returns
    -------
    Result
        The rows of the query ``label-effects`` for these effects. For a dry run one row: what it
        would take.

    Raises
    ------
    MoedbError
        As the command ``moedb check-labels`` says.

    Examples
    --------
    >>> import moedb
    >>> moedb.check_labels("text-3f", "labels")  # doctest: +SKIP
    >>> moedb.open().query("label-effect-counts").df()  # doctest: +SKIP
    """
    from moedb.experts.checking.planning import plan_check
    from moedb.experts.checking.settings import CheckSettings
    from moedb.queries.database import chosen_store

    settings = CheckSettings(
        run,
        labels,
        name,
        kind,
        follow,
        controls,
        quantiles,
        seed,
        None if layers is None else tuple(layers),
        None if experts is None else tuple(experts),
        limit,
    )
    place = chosen_store(store)
    where = ModelPlace(model, batch_size, device, max_memory, device_map)
    planned = plan_check(place, settings)
    if dry_run:
        plan_model(place, planned.run_id, where)
        return rows_of_estimate(planned.run_id, planned.estimate)
    shown_check(place, planned, settings, where)
    return effects_of(place, planned.run_id, settings)


def plan_model(store: Path, run_id: str, where: ModelPlace) -> "AblationPlan":
    """Find the run's model, and hold it against the run."""
    from moedb.capture.interventions.ablation.opening import plan_ablation
    from moedb.capture.interventions.planning import Resources
    from moedb.commands.api.plans import in_bytes

    resources = Resources(
        where.model, where.batch_size, where.device, in_bytes(where.max_memory), where.device_map
    )
    return plan_ablation(store, run_id, resources)


def shown_check(
    store: Path, planned: "CheckPlan", settings: "CheckSettings", where: ModelPlace
) -> "Checked":
    """Measure, and show how far that is."""
    from moedb.commands.api.progress import analysis_progress
    from moedb.experts.checking.running import run_check

    @contextmanager
    def opened(ablations: "Sequence[Ablation]") -> "Iterator[Measure]":
        model = plan_model(store, planned.run_id, where)
        with model.opened(ablations, logger.warning) as measure:
            yield measure

    return run_check(store, planned, settings, opened, analysis_progress)


def rows_of_estimate(run_id: str, estimate: "Estimate") -> "Result":
    """What a check will take, as one row."""
    from moedb.queries.results.rows.given import result_of_rows

    types = {"run_id": "VARCHAR", **dict.fromkeys(estimate._fields, "BIGINT")}
    return result_of_rows(types, [(run_id, *estimate)])


def effects_of(store: Path, run_id: str, settings: "CheckSettings") -> "Result":
    """The effects of a name, expert by expert."""
    from moedb.queries.database import open_database

    return open_database(store).query("label-effects", run=run_id, effects=settings.called)
