"""The model of a run, made ready for ablations of single experts in the run's examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.interventions.ablation.measuring import ExpertAblation
from moedb.capture.interventions.ablation.untouched import RunTokens, Untouched
from moedb.capture.interventions.engine import Engine
from moedb.capture.interventions.parent_run import find_model
from moedb.capture.interventions.planning import Resources
from moedb.capture.jobs.language import open_language_model
from moedb.capture.jobs.model_outline import ModelOutline
from moedb.capture.models.device import chosen_device, use_large_pages
from moedb.capture.models.placement import Placement
from moedb.capture.tracing.logit_lens import LogitLens
from moedb.errors import ModelError, UsageError
from moedb.schemas.interventions import Ablation
from moedb.store.engine.connection import connect
from moedb.store.reading.snapshot import RunSnapshot, take_snapshot

_TOKENS = """
select tokens.example_id, tokens.token_id, tokens.next_logprob
from tokens
where tokens.run_id = $run
order by tokens.example_id, tokens.position
"""


@dataclass(frozen=True)
class AblationPlan:
    """Where the model of a run is, and what it will run on; nothing is loaded.

    Attributes
    ----------
    run
        The run.
    model
        Its model, as it is planned with.
    placement, batch_size
        What it runs in and on, and the rows of a forward pass.
    """

    run: RunSnapshot
    model: ModelOutline
    placement: Placement
    batch_size: int

    @contextmanager
    def opened(
        self, ablations: Sequence[Ablation], note: Callable[[str], None]
    ) -> Iterator[ExpertAblation]:
        """Load the model.

        Parameters
        ----------
        ablations
            All that will be asked for.
        note
            Takes what the user should know.

        Raises
        ------
        ModelError
            If it cannot be loaded or read.
        """
        with open_language_model(self.model, self.placement, {}) as opened:
            traced = opened.traced
            lens = None
            try:
                lens = LogitLens(traced.model, traced.wiring, traced.rehearsed)
            except ModelError as error:
                note(f"without direct attribution: {error.message}")
            engine = Engine(traced)
            untouched = Untouched(
                engine, traced, lens, _tokens(self.run), ablations, self.batch_size, note
            )
            yield ExpertAblation(engine, untouched, self.batch_size, note)


def plan_ablation(store: Path, run: str, resources: Resources) -> AblationPlan:
    """Find the model of a run, and check that it is the run's own.

    Parameters
    ----------
    store
        The store's folder.
    run
        The run, or an unambiguous beginning of its name.
    resources
        Where the model is, and what it runs on.

    Raises
    ------
    UsageError
        If the run is not of a language model with experts.
    ModelNotFoundError, ModelError
        If the model isn't there, or is not the run's.
    """
    snapshot = take_snapshot(store)
    found = snapshot.run(run)
    row = found.manifest.row
    if any(layer["scoring"] == "none" for layer in found.manifest.layers):
        raise UsageError(
            f"run {found.title} is of a dense model (--dense), whose layers have one expert each, "
            "for every token",
            "take a run of an MoE model: moedb runs lists them",
        )
    with connect(snapshot.only(found.run_id)) as connection:
        lacks = connection.execute("select 1 from tokens where token_id is null limit 1").fetchall()
    if lacks or not found.n_rows("tokens"):
        raise UsageError(
            f"run {found.title} of the job {row['job']} has no tokens of a language model, whose "
            "next token could change",
            "take a run over texts or prompts: moedb runs lists them",
        )
    use_large_pages()
    device = chosen_device(resources.device)
    model = ModelOutline.of(find_model(found, resources.model))
    placement = Placement(str(row["dtype"]), device, resources.max_bytes, resources.device_map)
    return AblationPlan(found, model, placement, resources.batch_size)


def _tokens(run: RunSnapshot) -> Mapping[int, RunTokens]:
    """The token ids of every example, and what the run stored of their next tokens."""
    snapshot = take_snapshot(run.layout.store).only(run.run_id)
    with connect(snapshot) as connection:
        found = connection.execute(_TOKENS, {"run": run.run_id}).fetchnumpy()
    stored: NDArray[np.float64] = np.ma.filled(
        np.ma.asarray(found["next_logprob"]).astype(np.float64), np.nan
    )
    examples, starts = np.unique(np.asarray(found["example_id"]), return_index=True)
    ends = [*starts[1:].tolist(), len(stored)]
    ids = torch.from_numpy(np.asarray(found["token_id"]).astype(np.int64))
    return {
        example_id: RunTokens(ids[start:end].tolist(), stored[start:end])
        for example_id, start, end in zip(examples.tolist(), starts.tolist(), ends, strict=True)
    }
