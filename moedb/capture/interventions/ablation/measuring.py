"""What the ablation of an expert changes, many ablations in one pass."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np
import torch
from numpy.typing import NDArray

from moedb.capture.interventions.ablation.untouched import (
    Untouched,
    allowed_gap,
    next_logprobs,
    rows_at_once,
    typical_gap,
)
from moedb.capture.interventions.engine import Engine, Pass
from moedb.capture.interventions.kinds import Intervention
from moedb.capture.interventions.layer_edits import Edit
from moedb.schemas.interventions import ABLATE, ZERO, Ablation, AblationEffect


class ExpertAblation:
    """Takes experts out of examples, and says what that changes.

    Parameters
    ----------
    engine
        The model.
    untouched
        What it does as it is.
    batch_size
        Rows of a forward pass at most; each is an example without one expert.
    note
        Takes what the user should know.
    """

    def __init__(
        self, engine: Engine, untouched: Untouched, batch_size: int, note: Callable[[str], None]
    ) -> None:
        self._engine, self._untouched, self._note = engine, untouched, note
        self._batch_size = batch_size
        self._starts_late: bool | None = None

    def __call__(self, ablations: Sequence[Ablation]) -> Iterator[tuple[int, list[AblationEffect]]]:
        """Run ablations, in any order.

        Yields
        ------
        tuple
            The number of an ablation, and its effect at each of its tokens. Where the expert is
            chosen nowhere before a token's last following one the change is exactly 0.

        Raises
        ------
        CheckError
            If the untouched model does not give what the run has of it.
        """
        todo = []
        for number, each in enumerate(ablations):
            if each.n_read:
                todo.append(number)
            else:
                yield number, self._effects(each, np.zeros(max(each.ends)))
        self._untouched.prepare(ablations[number].example_id for number in todo)

        def start(number: int) -> int:
            each = ablations[number]
            return each.layer if self._stream(each) is not None else 0

        def size(number: int) -> int:
            return ablations[number].n_read

        for _, group in groupby(sorted(todo, key=lambda n: (start(n), size(n), n)), start):
            left = list(group)
            n_places = max(len(self._places(ablations[number])) for number in left)
            rows = rows_at_once(self._engine, self._batch_size, n_places, size(left[-1]))
            for first in range(0, len(left), rows):
                batch = sorted(
                    left[first : first + rows],
                    key=lambda n: (ablations[n].layer, ablations[n].expert, n),
                )
                changes = self._changes([ablations[number] for number in batch])
                for number, change in zip(batch, changes, strict=True):
                    yield number, self._effects(ablations[number], change)

    def _stream(self, ablation: Ablation) -> torch.Tensor | None:
        """The stream that a pass starts from; None where it starts from the tokens."""
        stream = self._untouched.stream(ablation.layer, ablation.example_id)
        if stream is None or self._starts_late is False or not self._engine.takes_shortcuts:
            return None
        if self._starts_late is None:
            self._starts_late = self._starts_as_from_tokens(ablation.layer, ablation.example_id)
            if not self._starts_late:
                return None
        return stream[: ablation.n_read]

    def _starts_as_from_tokens(self, layer: int, example_id: int) -> bool:
        """See whether a pass from a kept stream ends as one from the tokens does."""
        expected = self._untouched.logprobs(example_id)
        stream = self._untouched.stream(layer, example_id)
        places = np.flatnonzero(np.isfinite(expected)).tolist()
        ids = self._untouched.ids(example_id)
        batch = Pass(
            (ids[: len(expected)],),
            start=layer,
            stream=None if stream is None else (stream,),
            positions=(places,),
        )
        try:
            found = next_logprobs(self._engine.run(batch).logits, [ids[p + 1] for p in places])
            dtype = self._engine.dtype
            gap = typical_gap(np.abs(found - expected[places]), dtype)
            fits = gap <= allowed_gap(dtype, float(np.abs(expected[places]).max()))
            reason = f"the log-probabilities differ by {gap:.3g}"
        except Exception as error:  # a model that takes its layers for granted fails in its own way
            fits, reason = False, str(error).strip().splitlines()[-1][:200]
        if not fits:
            self._note(
                f"passes start from the tokens: from the stream entering layer {layer} the model "
                f"ends elsewhere ({reason})"
            )
        return fits

    @staticmethod
    def _places(ablation: Ablation) -> list[int]:
        """The positions whose logits may have changed and are asked for."""
        spans = map(range, ablation.positions, ablation.ends)
        first = ablation.first or 0
        return sorted({place for span in spans for place in span if place >= first})

    def _changes(self, batch: Sequence[Ablation]) -> list[NDArray[np.float64]]:
        """For each (position,): the change of the next token's log-probability, 0 unless read."""
        longest = max(each.n_read for each in batch)
        edits, first = [], 0
        for (layer, expert), same in groupby(batch, attrgetter("layer", "expert")):
            sizes = torch.tensor([each.n_read for each in same])
            tokens = torch.arange(longest)[None, :] < sizes[:, None]
            change = Intervention(ABLATE, (layer,), {layer: (expert,)}, (), {"form": ZERO})
            edits.append(Edit(change, slice(first, first + len(sizes)), None, tokens))
            first += len(sizes)
        streams = [self._stream(each) for each in batch]
        kept = tuple(stream for stream in streams if stream is not None)
        places = [self._places(each) for each in batch]
        outcome = self._engine.run(
            Pass(
                tuple(self._untouched.ids(each.example_id, each.n_read) for each in batch),
                tuple(edits),
                batch[0].layer if kept else 0,
                kept or None,
                positions=tuple(places),
            )
        )
        following = [
            self._untouched.ids(each.example_id)[place + 1]
            for each, own in zip(batch, places, strict=True)
            for place in own
        ]
        values = next_logprobs(outcome.logits, following)
        found, start = [], 0
        for each, own in zip(batch, places, strict=True):
            change_of = np.zeros(each.n_read)
            before = self._untouched.logprobs(each.example_id)[own]
            change_of[own] = values[start : start + len(own)] - before
            found.append(change_of)
            start += len(own)
        return found

    def _effects(self, ablation: Ablation, changes: NDArray[np.float64]) -> list[AblationEffect]:
        found = []
        for place, end, chose in zip(
            ablation.positions, ablation.ends, ablation.chose, strict=True
        ):
            if end <= place:
                found.append(AblationEffect(None, None))
                continue
            attributions = self._untouched.attributions(ablation.example_id, place)
            own = attributions.of(ablation.layer, ablation.expert) if attributions else None
            own = own if chose else None
            found.append(
                AblationEffect(
                    float(changes[place]),
                    float(changes[place:end].mean()),
                    own[0] if own else None,
                    own[1] if own else None,
                    len(attributions.values) if own and attributions else None,
                )
            )
        return found
