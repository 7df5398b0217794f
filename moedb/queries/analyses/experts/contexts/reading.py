"""Contexts of experts: the tokens around those that an expert writes most for."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.queries.analyses.experts.contexts.choosing import Choice, choose
from moedb.queries.analyses.uncertainty.clusters import clusters_of
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

DECISIONS = f"""
select
    routing.expert,
    routing.token_idx,
    tokens.example_id,
    cast(routing.weight as double) as weight,
    cast(routing.output_norm as double) as output_norm
from routing
join tokens on routing.token_idx = tokens.token_idx
where routing.run_id = cast($run as varchar)
    and tokens.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and (cast($expert as integer) is null or routing.expert = cast($expert as integer))
    and tokens.example_id in {SELECTED_EXAMPLES}
order by routing.expert, routing.token_idx
""".strip()  # noqa: S608
_WINDOWS = """
with chosen as (
    select
        tokens.token_idx,
        tokens.example_id,
        tokens.position
    from tokens
    where tokens.run_id = cast($run as varchar)
        and tokens.token_idx in (select unnest(cast($chosen as bigint[])))
),

places as (
    select
        chosen.token_idx as chosen_idx,
        chosen.example_id,
        chosen.position + distances.distance as position
    from chosen
    cross join range(-cast($before as bigint), cast($after as bigint) + 1) as distances (distance)
)

select
    places.chosen_idx,
    tokens.token_idx,
    tokens.position,
    tokens.token
from places
join tokens on places.example_id = tokens.example_id and places.position = tokens.position
where tokens.run_id = cast($run as varchar)
order by places.chosen_idx, tokens.position
""".strip()


class Context(NamedTuple):
    """A token that an expert was chosen for, and the tokens around it.

    Attributes
    ----------
    token_idx, example_id, position
        The token, and where it stands.
    score
        weight * output_norm of the decision.
    weight, output_norm
        Its factors.
    quantile
        The group that it was drawn from, 1 for the largest scores; None unless by quantiles.
    at
        Which token of the window it is, from 0.
    tokens
        The texts of the window's tokens; empty for an image.
    scores
        weight * output_norm of the expert for each of them; None for those that did not choose it.
    """

    token_idx: int
    example_id: int
    position: int
    score: float
    weight: float
    output_norm: float
    quantile: int | None
    at: int
    tokens: tuple[str, ...]
    scores: tuple[float | None, ...]


class Contexts(NamedTuple):
    """The contexts of an expert.

    Attributes
    ----------
    layer, expert
        The expert.
    n_decisions
        The decisions that they were chosen from.
    contexts
        The contexts, those chosen first in front.
    """

    layer: int
    expert: int
    n_decisions: int
    contexts: tuple[Context, ...]


class Decisions(NamedTuple):
    """The decisions of a layer, those of an expert together, by ``token_idx``.

    Attributes
    ----------
    token_idx, example_id, weights, norms
        (decision,).
    parts
        For each expert that was chosen its decisions.
    """

    token_idx: "NDArray[np.int64]"
    example_id: "NDArray[np.int64]"
    weights: "NDArray[np.float64]"
    norms: "NDArray[np.float64]"
    parts: dict[int, slice]

    @property
    def scores(self) -> "NDArray[np.float64]":
        """(decision,): weight * output_norm."""
        return self.weights * self.norms


def window_sides(window: int) -> tuple[int, int]:
    """Return how many tokens of a window stand before its token and after it.

    A quarter of them stands after: a model that reads from left to right has chosen by then.

    Examples
    --------
    >>> window_sides(32), window_sides(1)
    ((24, 7), (0, 0))
    """
    after = (window - 1) // 4
    return window - 1 - after, after


def expert_contexts(
    reader: "SnapshotReader",
    run_id: str,
    layers: Sequence[int],
    choice: Choice,
    window: int = 32,
    expert: int | None = None,
    split: "Value" = None,
    cluster: "Value" = None,
    asked_by: str = "contexts",
) -> Iterator[Contexts]:
    """Read the contexts of the experts of layers, one layer in memory at a time.

    Parameters
    ----------
    reader
        Reads the store.
    run_id
        The whole name of the run.
    layers
        MoE layers of the run.
    choice
        Which contexts.
    window
        Tokens of a context; fewer where the example begins or ends.
    expert
        One expert of each layer; all when None.
    split
        The examples' split; None for all but corrupted ones.
    cluster
        The key of the label that tells clusters of examples.
    asked_by
        The question or command that asks.

    Yields
    ------
    Contexts
        Of every expert with decisions, by layer and expert.

    Raises
    ------
    ParameterError
        If there is no such label.
    """
    import numpy as np

    clusters = clusters_of(reader, run_id, asked_by, cluster)
    for layer in layers:
        found = read_decisions(reader, run_id, layer, expert, split)
        scores, token_idx = found.scores, found.token_idx
        examples, of_example = np.unique(found.example_id, return_inverse=True)
        own_clusters = clusters.of(examples)[of_example]
        parts = found.parts
        picked = [
            choose(scores[part], token_idx[part], own_clusters[part], choice, (layer, number))
            for number, part in parts.items()
        ]
        chosen = [
            token_idx[part][each] for part, (each, _) in zip(parts.values(), picked, strict=True)
        ]
        windows = _windows(reader, run_id, window, chosen)
        for (number, part), (each, groups) in zip(parts.items(), picked, strict=True):
            contexts = []
            for row, group in zip(each + part.start, groups, strict=True):
                around, positions, texts = windows[int(token_idx[row])]
                at_own = np.searchsorted(token_idx[part], around)
                at_own = np.minimum(at_own, part.stop - part.start - 1)
                is_own = token_idx[part][at_own] == around
                at = int(np.flatnonzero(around == token_idx[row])[0])
                contexts.append(
                    Context(
                        token_idx=int(token_idx[row]),
                        example_id=int(found.example_id[row]),
                        position=int(positions[at]),
                        score=float(scores[row]),
                        weight=float(found.weights[row]),
                        output_norm=float(found.norms[row]),
                        quantile=int(group) or None,
                        at=at,
                        tokens=texts,
                        scores=tuple(
                            float(score) if own else None
                            for own, score in zip(is_own, scores[part][at_own], strict=True)
                        ),
                    )
                )
            yield Contexts(layer, number, part.stop - part.start, tuple(contexts))


def read_decisions(
    reader: "SnapshotReader",
    run_id: str,
    layer: int,
    expert: int | None,
    split: "Value",
) -> Decisions:
    """Read the decisions of a layer for one expert, or for each."""
    import numpy as np

    asked = {"run": run_id, "layer": layer, "expert": expert, "split": split}
    rows = reader.sql(DECISIONS, asked).arrow()
    experts, token_idx, examples = (
        rows[name].to_numpy().astype(np.int64) for name in ("expert", "token_idx", "example_id")
    )
    numbers, starts = np.unique(experts, return_index=True)
    ends = [*starts[1:].tolist(), len(experts)]
    parts = dict(zip(numbers.tolist(), map(slice, starts.tolist(), ends), strict=True))
    return Decisions(
        token_idx, examples, rows["weight"].to_numpy(), rows["output_norm"].to_numpy(), parts
    )


def _windows(
    reader: "SnapshotReader", run_id: str, window: int, chosen: Sequence[Any]
) -> dict[int, tuple[Any, Any, tuple[str, ...]]]:
    """The window of each chosen token: token_idx and positions of its tokens, and their texts."""
    import numpy as np

    if not chosen:
        return {}
    before, after = window_sides(window)
    asked = {
        "run": run_id,
        "chosen": np.unique(np.concatenate(chosen)).tolist(),
        "before": before,
        "after": after,
    }
    rows = reader.sql(_WINDOWS, asked).df()
    own = rows["chosen_idx"].to_numpy(np.int64)
    numbers, starts = np.unique(own, return_index=True)
    ends = [*starts[1:], len(own)]
    token_idx = rows["token_idx"].to_numpy(np.int64)
    positions = rows["position"].to_numpy(np.int64)
    texts = rows["token"].tolist()
    return {
        int(number): (
            token_idx[start:end],
            positions[start:end],
            tuple(text if isinstance(text, str) else "" for text in texts[start:end]),
        )
        for number, start, end in zip(numbers, starts, ends, strict=True)
    }
