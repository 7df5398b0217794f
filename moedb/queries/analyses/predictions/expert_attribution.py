"""What each part of the model writes into the difference of the two answers' logits.

With the final norm's scale frozen, the difference of two logits is a direction of the last
residual stream, the array ``logit_direction``. The stream is the sum of what the embedding, the
attention and the experts of each layer wrote, so each has a part of the difference of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.errors import ArrayNotFoundError, ParameterError
from moedb.queries.analyses.analysis import LOGIT_DIFFERENCES, RUN, SPLIT, Analysis, AnalysisColumn
from moedb.queries.analyses.uncertainty.bootstrap import (
    INTERVAL,
    SAMPLES,
    SEED,
    Bootstrap,
    bootstrap,
    bootstrap_settings,
    number_or_none,
    warn_of_few,
)
from moedb.queries.analyses.uncertainty.clusters import CLUSTER, clusters_of
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.arrays.rows import pieces, read_piece
from moedb.queries.reading.selection import SELECTED_EXAMPLES
from moedb.queries.results.result import Computed

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader
    from moedb.store.reading.snapshot import RunSnapshot

_NAME = "expert-attribution"
_DIRECTION, _PRE, _MID, _EXPERTS, _SHARED = (
    "logit_direction",
    "residual_pre",
    "residual_mid",
    "expert_outputs",
    "shared_outputs",
)

_LAST = f"""
with last_tokens as (
    select
        tokens.run_id,
        tokens.token_idx,
        tokens.array_row,
        examples.example_id,
        cast(predictions.logit_diff as double) as logit_diff
    from tokens
    join examples using (run_id, example_id)
    join predictions using (run_id, example_id)
    where tokens.run_id = cast($run as varchar)
        and tokens.position = examples.n_tokens - 1
        and predictions.condition_id = 0
        and predictions.logit_diff is not null
        and examples.example_id in {SELECTED_EXAMPLES}
)
""".strip()  # noqa: S608
_PROMPTS = f"""
{_LAST}

select
    last_tokens.array_row,
    last_tokens.example_id,
    last_tokens.logit_diff
from last_tokens
order by last_tokens.array_row
""".strip()  # noqa: S608
_CHOSEN = f"""
{_LAST}

select
    routing.layer,
    routing.expert,
    cast(routing.weight as double) as weight
from routing
join last_tokens using (run_id, token_idx)
order by routing.layer, last_tokens.array_row, routing.rank
""".strip()  # noqa: S608
_GATES = f"""
{_LAST}

select
    router_stats.layer,
    cast(router_stats.shared_gate as double) as shared_gate
from router_stats
join last_tokens using (run_id, token_idx)
order by router_stats.layer, last_tokens.array_row
""".strip()  # noqa: S608


@dataclass(frozen=True)
class _Layer:
    """An MoE layer: its arrays, and the decisions of the prompts' last tokens."""

    n_experts: int
    outputs: "zarr.Array[Any]"
    shared: "zarr.Array[Any] | None"
    middle: "zarr.Array[Any]"
    experts: "NDArray[np.int64]"
    weights: "NDArray[np.float64]"
    gates: "NDArray[np.float64] | None"


@dataclass(frozen=True)
class Component:
    """What one part of the model wrote.

    Attributes
    ----------
    name
        embedding, attention, expert, experts, shared-expert, dense-layer or remainder.
    layer, expert
        Where; None where it is at none.
    n_uses
        Prompts that it wrote for.
    written
        (prompt,): what it wrote for each.
    """

    name: str
    layer: int | None
    expert: int | None
    n_uses: int
    written: "NDArray[np.float64]"

    @property
    def total(self) -> float:
        """What it wrote, summed over the prompts."""
        return float(self.written.sum())


@dataclass(frozen=True)
class _Written:
    """What every part of the model wrote for the prompts of a split.

    Attributes
    ----------
    parts
        The parts, those of each expert apart.
    example_ids
        (prompt,): the prompts.
    logit_diff
        (prompt,): their logit differences.
    """

    parts: tuple[Component, ...]
    example_ids: "NDArray[np.int64]"
    logit_diff: "NDArray[np.float64]"


class ExpertAttributionRow(NamedTuple):
    """A row of the analysis ``expert-attribution``."""

    component: str
    layer: int | None
    expert: int | None
    n_prompts: int
    n_decisions: int
    attribution: float
    attribution_low: float | None
    attribution_high: float | None
    attribution_per_use: float | None
    share: float | None
    share_low: float | None
    share_high: float | None


def expert_attribution(reader: "SnapshotReader", parameters: "Mapping[str, Value]") -> Computed:
    """Compute the analysis ``expert-attribution``.

    Parameters
    ----------
    reader
        Reads the store.
    parameters
        run, split, level, top, cluster, samples and seed.

    Raises
    ------
    ArrayNotFoundError
        If the run lacks an array that is needed; the message names them.
    ParameterError
        If ``top`` is less than 1, the seed or the number of samples is negative, or no example has
        the label that is to tell the clusters.
    """
    rows = attribution_rows(reader, parameters)
    return Computed(rows, _CHOSEN, (reader.snapshot.run(str(parameters["run"])).run_id,))


def attribution_rows(
    reader: "SnapshotReader", parameters: "Mapping[str, Value]"
) -> list[ExpertAttributionRow]:
    """Return the rows of :func:`expert_attribution`, for the same parameters."""
    top = parameters["top"]
    if top is not None and int(top) < 1:
        raise ParameterError(f"{_NAME}: top is {top}, not 1 or more")
    run = reader.snapshot.run(str(parameters["run"]))
    split = parameters["split"]
    written = reader.memo.of_runs([run], (_NAME, split), lambda: _written(reader, run, split))
    n_prompts, total = len(written.logit_diff), float(written.logit_diff.sum())
    parts = _of_layers(written.parts) if parameters["level"] == "layers" else list(written.parts)
    if top is not None:
        parts = sorted(parts, key=lambda part: -abs(part.total))[: int(top)]
    of_attribution, of_share = _intervals(reader, run, parameters, written, parts)
    return [
        ExpertAttributionRow(
            component=part.name,
            layer=part.layer,
            expert=part.expert,
            n_prompts=n_prompts,
            n_decisions=part.n_uses,
            attribution=part.total / n_prompts,
            attribution_low=number_or_none(of_attribution[0, at]),
            attribution_high=number_or_none(of_attribution[1, at]),
            attribution_per_use=part.total / part.n_uses if part.n_uses else None,
            share=part.total / total if total else None,
            share_low=number_or_none(of_share[0, at]),
            share_high=number_or_none(of_share[1, at]),
        )
        for at, part in enumerate(parts)
    ]


def _intervals(
    reader: "SnapshotReader",
    run: "RunSnapshot",
    parameters: "Mapping[str, Value]",
    written: _Written,
    parts: "Sequence[Component]",
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """(2, part) each: the intervals of what parts write, and of their shares."""
    import numpy as np

    samples, seed = bootstrap_settings(_NAME, parameters)
    if not samples or not parts:
        return np.full((2, len(parts)), np.nan), np.full((2, len(parts)), np.nan)
    clusters = clusters_of(reader, run.run_id, _NAME, parameters["cluster"])
    values = np.column_stack([*(part.written for part in parts), written.logit_diff])
    means = bootstrap(values, samples, seed, clusters.of(written.example_ids))
    warn_of_few(_NAME, means.n_clusters[:-1].tolist(), clusters.key)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = Bootstrap(
            means.estimates[:-1] / means.estimates[-1],
            means.drawn[:, :-1] / means.drawn[:, -1:],
            means.left_out[:, :-1] / means.left_out[:, -1:],
        )
    ends = means.intervals()[:, :-1], shares.intervals()
    # of what was never chosen no draw says how much it would write
    never = np.array([not part.n_uses for part in parts])
    for end in ends:
        end[:, never] = np.nan
    return ends


def _written(reader: "SnapshotReader", run: "RunSnapshot", split: "Value") -> _Written:
    import numpy as np

    n_layers = _last_layer(run)
    prompts = _prompts(reader, run, split)
    parts = () if prompts.empty else tuple(_parts(reader, run, n_layers, split, prompts))
    examples = prompts["example_id"].to_numpy(np.int64)
    return _Written(parts, examples, prompts["logit_diff"].to_numpy(np.float64))


def _last_layer(run: "RunSnapshot") -> int:
    """The index of the stream after the last layer; checks that every array is there."""
    kept = {name: set(layers) for name, layers in run.manifest.arrays.items()}
    moe = {int(row["layer"]): row for row in run.manifest.layers}
    directions = kept.get(_DIRECTION, set())
    last = max(directions) if directions else 1 + max(moe, default=-1)
    wanted = {
        _DIRECTION: {last},
        _PRE: set(range(last + 1)),
        _MID: set(moe),
        _EXPERTS: set(moe),
        _SHARED: {layer for layer, row in moe.items() if row["has_shared_expert"]},
    }
    missing = {
        name: sorted(layers - kept.get(name, set()))
        for name, layers in wanted.items()
        if layers - kept.get(name, set())
    }
    if missing:
        listed = " ".join(
            name if name == _DIRECTION else f"{name}@{','.join(map(str, layers))}"
            for name, layers in missing.items()
        )
        names = " ".join(f"--arrays {name}" for name, layers in wanted.items() if layers)
        raise ArrayNotFoundError(
            f"run {run.run_id} lacks arrays that {_NAME} reads: {listed}",
            f"capture again with --tokens last {names}",
        )
    return last


def _prompts(reader: "SnapshotReader", run: "RunSnapshot", split: "Value") -> Any:
    """The rows of the prompts' last tokens in the arrays, and their logit differences."""
    prompts = reader.sql(_PROMPTS, {"run": run.run_id, "split": split}).df()
    absent = int(prompts["array_row"].isna().sum())
    if absent:
        raise ArrayNotFoundError(
            f"run {run.run_id} keeps no arrays for the last token of {absent} of {len(prompts)} "
            "prompts",
            "capture again with --tokens last, or --tokens all",
        )
    return prompts


def _parts(
    reader: "SnapshotReader", run: "RunSnapshot", n_layers: int, split: "Value", prompts: Any
) -> Iterator[Component]:
    import numpy as np

    rows = prompts["array_row"].to_numpy(np.int64)
    n_prompts = len(rows)
    at = np.arange(n_prompts)
    streams = [reader.array(run.run_id, _PRE, layer) for layer in range(n_layers + 1)]
    direction = reader.array(run.run_id, _DIRECTION, n_layers)
    moe = _moe_layers(reader, run, split, n_prompts)
    embedding, written = np.zeros((2, n_prompts))
    attention, dense, shared, remainder = np.zeros((4, n_layers, n_prompts))
    of_experts = {layer: np.zeros((each.n_experts, n_prompts)) for layer, each in moe.items()}
    for piece in pieces(rows):
        own = rows[piece]
        towards = read_piece(direction, own).astype(np.float64)

        def along(stored: "zarr.Array[Any]") -> "NDArray[np.float64]":
            # (prompt,) or (prompt, rank): the dot product with the direction
            values = read_piece(stored, own).astype(np.float64)  # noqa: B023
            found: NDArray[np.float64] = np.einsum("n...d,nd->n...", values, towards)  # noqa: B023
            return found

        before = along(streams[0])
        embedding[piece] = before
        for number in range(n_layers):
            after = along(streams[number + 1])
            if number not in moe:
                dense[number, piece] = after - before
                before = after
                continue
            layer = moe[number]
            middle = along(layer.middle)
            by_rank = along(layer.outputs) * layer.weights[piece]
            # a prompt's last token chooses an expert once
            of_experts[number][layer.experts[piece], at[piece, None]] = by_rank
            rest = after - middle - by_rank.sum(axis=1)
            if layer.shared is not None and layer.gates is not None:
                shared[number, piece] = along(layer.shared) * layer.gates[piece]
                rest -= shared[number, piece]
            attention[number, piece] = middle - before
            remainder[number, piece] = rest
            before = after
        written[piece] = before

    yield Component("embedding", None, None, n_prompts, embedding)
    for number in range(n_layers):
        if number not in moe:
            yield Component("dense-layer", number, None, n_prompts, dense[number])
            continue
        yield Component("attention", number, None, n_prompts, attention[number])
        layer = moe[number]
        uses = np.bincount(layer.experts.ravel(), minlength=layer.n_experts)
        for expert, (n_uses, part) in enumerate(zip(uses, of_experts[number], strict=True)):
            yield Component("expert", number, expert, int(n_uses), part)
        if layer.shared is not None:
            yield Component("shared-expert", number, None, n_prompts, shared[number])
        yield Component("remainder", number, None, n_prompts, remainder[number])
    rest = prompts["logit_diff"].to_numpy(np.float64) - written
    yield Component("remainder", None, None, n_prompts, rest)


def _moe_layers(
    reader: "SnapshotReader", run: "RunSnapshot", split: "Value", n_prompts: int
) -> dict[int, _Layer]:
    import numpy as np

    asked = {"run": run.run_id, "split": split}
    chosen = reader.sql(_CHOSEN, asked).df()
    gates = reader.sql(_GATES, asked).df()
    layers: dict[int, _Layer] = {}
    for row in run.manifest.layers:
        number = int(row["layer"])
        own = chosen[chosen["layer"] == number]
        own_gates = gates.loc[gates["layer"] == number, "shared_gate"].to_numpy(np.float64)
        shape = (n_prompts, int(row["top_k"]))
        layers[number] = _Layer(
            n_experts=int(row["n_experts"]),
            outputs=reader.array(run.run_id, _EXPERTS, number),
            shared=(
                reader.array(run.run_id, _SHARED, number) if row["has_shared_expert"] else None
            ),
            middle=reader.array(run.run_id, _MID, number),
            experts=own["expert"].to_numpy(np.int64).reshape(shape),
            weights=own["weight"].to_numpy(np.float64).reshape(shape),
            gates=own_gates if row["has_shared_expert"] else None,
        )
    return layers


def _of_layers(parts: Iterable[Component]) -> list[Component]:
    """The same parts, with the routed experts of a layer together."""
    import numpy as np

    together: dict[tuple[str, int | None], list[Component]] = {}
    for part in parts:
        name = "experts" if part.name == "expert" else part.name
        together.setdefault((name, part.layer), []).append(part)
    return [
        Component(
            *(name, layer, None, sum(part.n_uses for part in group)),
            np.sum([part.written for part in group], axis=0),
        )
        for (name, layer), group in together.items()
    ]


EXPERT_ATTRIBUTION = Analysis(
    name=_NAME,
    title="Direct attribution to experts",
    answers="How much of the logit difference does each expert write into the last token's "
    "residual stream?",
    subject="predictions",
    parameters=(
        RUN,
        SPLIT,
        Parameter(
            "level",
            "varchar",
            "experts",
            False,
            "one row for each expert, or one for the routed experts of a layer together",
            ("experts", "layers"),
        ),
        Parameter(
            "top",
            "integer",
            None,
            False,
            "only this many rows, the largest by size; all when null",
            least=1,
        ),
        CLUSTER,
        SAMPLES,
        SEED,
    ),
    columns=(
        AnalysisColumn(
            "component",
            "what wrote: embedding, attention, expert (at level layers: experts), "
            "shared-expert, dense-layer (attention and all else of a layer without an MoE "
            "block), or remainder: at a layer what the MoE block's write has beyond its "
            "experts, without one the logit difference beyond the stream (rounding, biases)",
            "VARCHAR",
        ),
        AnalysisColumn("layer", "the layer; null for the embedding", "INTEGER"),
        AnalysisColumn("expert", "the routed expert; null for all else", "INTEGER"),
        AnalysisColumn("n_prompts", "prompts with a logit difference", "BIGINT"),
        AnalysisColumn(
            "n_decisions",
            "prompts whose last token the part wrote for; at level layers the decisions of "
            "the layer",
            "BIGINT",
        ),
        AnalysisColumn(
            "attribution",
            "mean over all prompts of weight * E(x) . u, u the direction of the logit "
            "difference with the final norm's scale frozen; all rows add up to the mean logit "
            "difference",
            "DOUBLE",
        ),
        AnalysisColumn("attribution_low", f"the lower end {INTERVAL}", "DOUBLE"),
        AnalysisColumn("attribution_high", "the upper end", "DOUBLE"),
        AnalysisColumn(
            "attribution_per_use",
            "the same over the decisions alone; null without any",
            "DOUBLE",
        ),
        AnalysisColumn("share", "attribution / mean logit difference", "DOUBLE"),
        AnalysisColumn("share_low", "the lower end of its 95 % interval, found alike", "DOUBLE"),
        AnalysisColumn("share_high", "the upper end", "DOUBLE"),
    ),
    source="direct logit attribution, Elhage et al. 2021; Wang et al. 2022",
    function=expert_attribution,
    row=ExpertAttributionRow,
    needs=("routing", *LOGIT_DIFFERENCES),
    needs_arrays=("expert_outputs",),
)
