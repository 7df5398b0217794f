"""Tokens that experts promote: their mean output over contexts, through the model's own end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from moedb.errors import ArrayNotFoundError
from moedb.queries.analyses.experts.contexts.choosing import Choice, choose
from moedb.queries.analyses.experts.promoted.largest import largest_and_smallest
from moedb.queries.analyses.experts.promoted.unembedding import Unembedding, check_kept
from moedb.queries.analyses.uncertainty.clusters import clusters_of
from moedb.queries.analyses.waiting.progress import each_part
from moedb.queries.reading.arrays.rows import pieces, read_piece
from moedb.queries.reading.selection import SELECTED_EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from numpy.typing import NDArray

    from moedb.queries.analyses.uncertainty.clusters import Clusters
    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader
    from moedb.store.reading.snapshot import RunSnapshot

OUTPUTS = "expert_outputs"
Direction = Literal["promotes", "suppresses"]

KEPT_DECISIONS = f"""
select
    routing.expert,
    routing.token_idx,
    routing.rank,
    tokens.array_row,
    tokens.example_id,
    cast(routing.weight as double) as weight,
    cast(routing.output_norm as double) as output_norm
from routing
join tokens on routing.token_idx = tokens.token_idx
where routing.run_id = cast($run as varchar)
    and tokens.run_id = cast($run as varchar)
    and tokens.array_row is not null
    and routing.layer = cast($layer as integer)
    and (cast($expert as integer) is null or routing.expert = cast($expert as integer))
    and tokens.example_id in {SELECTED_EXAMPLES}
order by routing.expert, routing.token_idx
""".strip()  # noqa: S608
"""The decisions of a layer whose outputs are kept."""


class PromotedToken(NamedTuple):
    """A token whose logit an expert's output raises, or lowers.

    Attributes
    ----------
    direction
        ``promotes`` or ``suppresses``.
    token_id, token
        The token.
    logit
        What the mean output adds to its logit, less the mean over the vocabulary, before the final
        norm divides by the size of the stream.
    share
        The share of the contexts in whose own output it is among as many tokens of the direction;
        None where that was not asked for.
    """

    direction: Direction
    token_id: int
    token: str
    logit: float
    share: float | None


class Promoted(NamedTuple):
    """What an expert promotes.

    Attributes
    ----------
    layer, expert
        The expert.
    n_contexts
        The contexts that its output was averaged over.
    tokens
        Those that it promotes, the largest first; then those that it suppresses.
    """

    layer: int
    expert: int
    n_contexts: int
    tokens: tuple[PromotedToken, ...]


class _Chosen(NamedTuple):
    """The contexts of the experts of a layer, those of an expert together, by array row."""

    experts: "NDArray[np.int64]"
    array_rows: "NDArray[np.int64]"
    ranks: "NDArray[np.int64]"
    weights: "NDArray[np.float64]"


def promoting_layers(run: "RunSnapshot", layer: int | None = None) -> list[int]:
    """The layers at which a run keeps what is needed; of one layer that one.

    Raises
    ------
    ArrayNotFoundError
        If there is none.
    """
    check_kept(run)
    kept = sorted(run.manifest.arrays.get(OUTPUTS, ()))
    found = [each for each in kept if layer in (None, each)]
    if not found:
        of = "" if layer is None else f" of layer {layer}"
        have = f"kept are layers {', '.join(map(str, kept))}" if kept else "it keeps none at all"
        at = "" if layer is None else f"@{layer}"
        raise ArrayNotFoundError(
            f"run {run.title} keeps no {OUTPUTS}{of}: {have}",
            f"capture again with --arrays unembedding --arrays {OUTPUTS}{at}",
        )
    return found


def promoted_by_experts(
    reader: "SnapshotReader",
    run_id: str,
    layers: Sequence[int],
    choice: Choice | None,
    n: int = 10,
    expert: int | None = None,
    split: "Value" = None,
    cluster: "Value" = None,
    weighted: bool = False,
    with_shares: bool = True,
    asked_by: str = "promoted tokens",
) -> Iterator[Promoted]:
    """Read what the experts of layers promote, one layer in memory at a time.

    Parameters
    ----------
    reader
        Reads the store.
    run_id
        The whole name of the run.
    layers
        MoE layers of the run whose expert outputs are kept, as :func:`promoting_layers` gives them.
    choice
        Which contexts, of the tokens whose outputs are kept; all of them when None.
    n
        Tokens of each direction.
    expert
        One expert of each layer; all when None.
    split
        The examples' split; None for all but corrupted ones.
    cluster
        The key of the label that tells clusters of examples.
    weighted
        Whether an output counts times its weight.
    with_shares
        Whether the shares of contexts are counted, which takes a product with the unembedding for
        every context, where the means take one for every expert.
    asked_by
        The question or command that asks.

    Yields
    ------
    Promoted
        Of every expert with contexts, by layer and expert.

    Raises
    ------
    ArrayNotFoundError
        If the run lacks unembedding or outputs.
    ParameterError
        If there is no such label.
    """
    import numpy as np

    unembedding = Unembedding(reader, reader.snapshot.run(run_id))
    clusters = clusters_of(reader, run_id, asked_by, cluster)
    average = unembedding_mean(unembedding)
    for layer in each_part(list(layers), "layers"):
        asked: dict[str, Value] = {"run": run_id, "layer": layer, "expert": expert, "split": split}
        chosen = _chosen(reader, asked, clusters, choice)
        numbers, counts = np.unique(chosen.experts, return_counts=True)
        array = reader.array(run_id, OUTPUTS, layer)
        sums = np.zeros((len(numbers), array.shape[-1]))
        owner = np.repeat(np.arange(len(numbers)), counts)
        for block, outputs in _outputs(array, chosen, weighted):
            np.add.at(sums, owner[block], outputs)
        read = unembedding.read_by(sums / counts[:, None])
        both = largest_and_smallest(read, unembedding, n)
        shares = None
        if with_shares:
            places = [found.places for found in both]
            shares = _shares(array, chosen, owner, unembedding, places, n, weighted)
        offsets = read @ average
        for row, number in enumerate(numbers.tolist()):
            tokens = []
            for side, (direction, sign) in enumerate(_DIRECTIONS.items()):
                found = both[side]
                for place, at in enumerate(found.places[row].tolist()):
                    tokens.append(
                        PromotedToken(
                            direction=direction,
                            token_id=int(unembedding.token_ids[at]),
                            token=unembedding.tokens[at],
                            logit=float(sign * found.logits[row, place] - offsets[row]),
                            share=None
                            if shares is None
                            else float(shares[side][row, place] / counts[row]),
                        )
                    )
            yield Promoted(layer, number, int(counts[row]), tuple(tokens))


_DIRECTIONS: Mapping[Direction, int] = {"promotes": 1, "suppresses": -1}

BLOCK_CONTEXTS = 1024
"""Contexts whose logits are in memory at a time."""


def unembedding_mean(unembedding: Unembedding) -> "NDArray[np.float64]":
    """The mean row of the vocabulary's tokens, (d_model,)."""
    import numpy as np

    total: Any = 0
    for _, rows in unembedding.pieces():
        total = total + rows.sum(axis=0, dtype=np.float64)
    mean: NDArray[np.float64] = total / len(unembedding.token_ids)
    return mean


def _chosen(
    reader: "SnapshotReader",
    asked: "Mapping[str, Value]",
    clusters: "Clusters",
    choice: Choice | None,
) -> _Chosen:
    import numpy as np

    rows = reader.sql(KEPT_DECISIONS, asked).arrow()
    experts, token_idx, ranks, array_rows, examples = (
        rows[name].to_numpy().astype(np.int64)
        for name in ("expert", "token_idx", "rank", "array_row", "example_id")
    )
    weights = rows["weight"].to_numpy()
    picked = np.arange(len(experts))
    if choice is not None and len(experts):
        scores = weights * rows["output_norm"].to_numpy()
        own, of_example = np.unique(examples, return_inverse=True)
        cluster = clusters.of(own)[of_example]
        numbers, starts = np.unique(experts, return_index=True)
        found = []
        for number, start, end in zip(
            numbers.tolist(), starts.tolist(), [*starts[1:].tolist(), len(experts)], strict=True
        ):
            part = slice(start, end)
            place = (int(asked["layer"] or 0), number)
            each, _ = choose(scores[part], token_idx[part], cluster[part], choice, place)
            found.append(np.sort(each) + start)
        picked = np.concatenate(found)
    return _Chosen(experts[picked], array_rows[picked], ranks[picked], weights[picked])


def _outputs(
    array: "zarr.Array[Any]", chosen: _Chosen, weighted: bool
) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]":
    """The outputs of contexts, (context, d_model), some at a time, and which contexts they are."""
    import numpy as np

    by_row = np.argsort(chosen.array_rows, kind="stable")
    for first in range(0, len(by_row), BLOCK_CONTEXTS):
        block = by_row[first : first + BLOCK_CONTEXTS]
        rows, at = np.unique(chosen.array_rows[block], return_inverse=True)
        values = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
        for piece in pieces(rows):
            values[piece] = read_piece(array, rows[piece])
        outputs = values[at, chosen.ranks[block]].astype(np.float64)
        yield block, outputs * chosen.weights[block, None] if weighted else outputs


def _shares(
    array: "zarr.Array[Any]",
    chosen: _Chosen,
    owner: "NDArray[np.int64]",
    unembedding: Unembedding,
    places: "Sequence[NDArray[np.int64]]",
    n: int,
    weighted: bool,
) -> "list[NDArray[np.int64]]":
    """In how many contexts the tokens at ``places``, (expert, token), are among the first."""
    import numpy as np

    counted = [np.zeros(each.shape, dtype=np.int64) for each in places]
    for block, outputs in _outputs(array, chosen, weighted):
        read = unembedding.read_by(outputs).astype(np.float32)
        own = owner[block]
        for side, found in enumerate(largest_and_smallest(read, unembedding, n)):
            is_among = (places[side][own][:, :, None] == found.places[:, None, :]).any(axis=2)
            np.add.at(counted[side], own, is_among)
    return counted
