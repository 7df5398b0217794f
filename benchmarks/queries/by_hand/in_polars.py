"""The queries as one would write them in polars, over the same Parquet files.

Every function takes the files of a run and returns the columns of the query of its name. What many
rows come down to is worked out as in the numpy version.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from benchmarks.queries.by_hand import arithmetic
from benchmarks.queries.by_hand.arithmetic import Array, Columns
from benchmarks.queries.by_hand.in_numpy import example_information, token_information, with_texts
from benchmarks.queries.by_hand.run_files import RunFiles


def _scan(run: RunFiles, table: str) -> pl.LazyFrame:
    return pl.scan_parquet(run.of(table))


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")


def _examples(run: RunFiles) -> pl.DataFrame:
    return _collect(_scan(run, "examples").select("example_id", "split", "n_tokens"))


def _is_kept() -> pl.Expr:
    return pl.col("split") != "corrupted"


class _Selected:
    """All but corrupted examples; tables are joined to them only where that leaves some out."""

    def __init__(self, run: RunFiles) -> None:
        self.run = run
        self.all_examples = _examples(run)
        self.examples = self.all_examples.filter(_is_kept())
        self.n_tokens = int(self.examples["n_tokens"].sum())
        self.is_all = len(self.examples) == len(self.all_examples)

    def tokens(self, *columns: str) -> pl.LazyFrame:
        """Rows of ``tokens``."""
        rows = _scan(self.run, "tokens").select("token_idx", "example_id", *columns)
        if self.is_all:
            return rows
        return rows.join(self.examples.lazy().select("example_id"), on="example_id", how="semi")

    def rows(self, table: str, *columns: str) -> pl.LazyFrame:
        """Rows of a table that has ``token_idx``."""
        rows = _scan(self.run, table)
        if not self.is_all:
            rows = rows.join(self.tokens().select("token_idx"), on="token_idx", how="semi")
        return rows.select(columns)

    def labelled(self, key: str, on: str) -> pl.LazyFrame:
        """Tokens and their value of a label."""
        if on == "tokens":
            return (
                _scan(self.run, "token_labels")
                .filter(pl.col("key") == key)
                .select("token_idx", "value")
                .join(self.tokens().select("token_idx"), on="token_idx", how="semi")
            )
        of_examples = _scan(self.run, "example_labels").filter(pl.col("key") == key)
        return (
            self.tokens()
            .join(of_examples.select("example_id", "value"), on="example_id")
            .select("token_idx", "value")
        )


def _dense(frame: pl.DataFrame, shape: Sequence[int], at: Sequence[str], value: str) -> Array:
    """Put a column into an array at the places that other columns name."""
    cells = np.zeros(shape, np.float64 if frame[value].dtype.is_float() else np.int64)
    cells[tuple(frame[name].to_numpy() for name in at)] = frame[value].to_numpy()
    return cells


def _counts(selected: _Selected) -> Array:
    shape = selected.run.shape
    counts = selected.rows("routing", "layer", "expert").group_by("layer", "expert").len()
    return _dense(_collect(counts), (shape.layers, shape.experts), ("layer", "expert"), "len")


def expert_frequency(run: RunFiles) -> Columns:
    selected = _Selected(run)
    return arithmetic.expert_frequency(_counts(selected), selected.n_tokens, run.shape.top_k)


def concentration(run: RunFiles) -> Columns:
    return arithmetic.concentration(_counts(_Selected(run)), run.shape.top_k)


def load_balance(run: RunFiles) -> Columns:
    selected, shape = _Selected(run), run.shape
    mass = _scan(run, "router_mass")
    if not selected.is_all:
        mass = mass.join(selected.examples.lazy(), on="example_id", how="semi")
    summed = mass.group_by("layer", "expert").agg(pl.col("probability").cast(pl.Float64).sum())
    probability = _dense(
        _collect(summed), (shape.layers, shape.experts), ("layer", "expert"), "probability"
    )
    return arithmetic.load_balance(_counts(selected), selected.n_tokens, probability)


class _Classes:
    """Decisions of each value of a label: counts and weights, (layer, value, expert)."""

    def __init__(self, selected: _Selected, key: str, on: str, weighted: bool = False) -> None:
        shape = selected.run.shape
        labelled = _collect(selected.labelled(key, on))
        sizes = labelled.group_by("value").len().sort("value")
        self.values = sizes["value"].to_list()
        self.sizes = sizes["len"].to_numpy().astype(np.int64)
        coded = labelled.select(
            "token_idx",
            pl.col("value").replace_strict(self.values, range(len(self.values))).alias("code"),
        )
        sums = [pl.len()]
        if weighted:
            sums.append(pl.col("weight").cast(pl.Float64).sum())
        columns = ["token_idx", "layer", "expert", *(["weight"] if weighted else [])]
        found = _collect(
            _scan(selected.run, "routing")
            .select(columns)
            .join(coded.lazy(), on="token_idx")
            .group_by("layer", "code", "expert")
            .agg(sums)
        )
        size, at = (shape.layers, len(self.values), shape.experts), ("layer", "code", "expert")
        self.counts = _dense(found, size, at, "len")
        self.weights = _dense(found, size, at, "weight") if weighted else np.zeros(0)


def routing_by_class(run: RunFiles, key: str, on: str) -> Columns:
    selected = _Selected(run)
    classes = _Classes(selected, key, on, weighted=True)
    return arithmetic.routing_by_class(
        classes.values,
        classes.sizes,
        classes.counts,
        classes.weights,
        _counts(selected),
        selected.n_tokens,
    )


def expert_specialization(run: RunFiles, key: str, on: str) -> Columns:
    classes = _Classes(_Selected(run), key, on)
    return arithmetic.expert_specialization(classes.values, classes.counts)


def overlap(run: RunFiles, key: str, on: str, value_a: str, value_b: str) -> Columns:
    classes = _Classes(_Selected(run), key, on)
    a, b = classes.values.index(value_a), classes.values.index(value_b)
    n_a, n_b = int(classes.sizes[a]), int(classes.sizes[b])
    counts = classes.counts
    return arithmetic.overlap(counts[:, a], counts[:, b], n_a, n_b, run.shape.top_k)


def vocabulary_specialization(run: RunFiles, min_count: int = 8) -> Columns:
    selected = _Selected(run)
    tokens = _with_counts(selected)
    is_counted = pl.col("n_token") >= min_count
    n_tokens = len(tokens.filter(is_counted))
    found = []
    for layer, decisions in enumerate(_of_layers(selected, tokens)):
        of_ids = decisions.filter(is_counted).group_by("token_id", "expert")
        counts = of_ids.agg(pl.len().cast(pl.Int64).alias("n"), pl.col("n_token").first())
        largest = counts.group_by("token_id").agg(pl.col("n").max(), pl.col("n_token").first())
        most = counts.group_by("expert").agg(pl.col("n").sum())["n"].max()
        found.append(
            largest.select(
                layer=pl.lit(layer),
                n_token_ids=pl.len(),
                n_tokens=pl.col("n_token").sum(),
                specialization=(pl.col("n") / pl.col("n_token")).mean(),
                weighted=pl.col("n").sum() / pl.col("n_token").sum(),
                baseline=pl.lit(most) / n_tokens,
            )
        )
    return _columns(pl.concat(found))


def _with_counts(selected: _Selected) -> pl.DataFrame:
    """The tokens, each with how often its id occurs."""
    n_token = pl.len().over("token_id").cast(pl.Int64).alias("n_token")
    tokens = selected.tokens("token_id").select("token_idx", "token_id", n_token)
    return _collect(tokens)


def _of_layers(selected: _Selected, tokens: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield of each layer the tokens once for every rank, with the expert."""
    for ranks in _by_layer(selected.rows("routing", "layer", "expert"), selected.run.shape.top_k):
        yield pl.concat([tokens.with_columns(rank.alias("expert")) for rank in ranks])


def _columns(frame: pl.DataFrame) -> Columns:
    return {name: frame[name].to_numpy() for name in frame.columns}


def top_tokens(run: RunFiles, min_count: int = 2, n: int = 5) -> Columns:
    selected = _Selected(run)
    found = []
    for layer, decisions in enumerate(_of_layers(selected, _with_counts(selected))):
        counted = decisions.group_by("expert", "token_id").agg(
            pl.len().cast(pl.Int64).alias("n_decisions"),
            pl.col("n_token").first(),
            pl.col("token_idx").min().alias("first"),
        )
        frequency = counted.group_by("expert").agg(
            (pl.col("n_decisions").sum() / selected.n_tokens).alias("frequency")
        )
        order = {"expert": False, "n_decisions": True, "rate": True, "token_id": False}
        found.append(
            counted.filter(pl.col("n_token") >= min_count)
            .with_columns((pl.col("n_decisions") / pl.col("n_token")).alias("rate"))
            .sort(*order, descending=[*order.values()])
            .group_by("expert", maintain_order=True)
            .head(n)
            .join(frequency, on="expert", maintain_order="left")
            .with_columns(
                layer=pl.lit(layer),
                place=pl.int_range(1, pl.len() + 1).over("expert"),
                lift=pl.col("rate") / pl.col("frequency"),
            )
            .drop("frequency")
        )
    return with_texts(run, _columns(pl.concat(found)), selected.all_examples["n_tokens"].to_numpy())


def router_confidence(run: RunFiles, key: str | None = None, on: str = "tokens") -> Columns:
    selected = _Selected(run)
    names = ("entropy", "margin", "topk_mass", "logsumexp")
    if key is None:
        rows = selected.rows("router_stats", "layer", *names).with_columns(value=pl.lit("all"))
    else:
        labelled = selected.labelled(key, on)
        rows = _scan(run, "router_stats").select("token_idx", "layer", *names)
        rows = rows.join(labelled, on="token_idx")
    means = [pl.col(name).cast(pl.Float64).mean().alias(f"mean_{name}") for name in names]
    found = (
        rows.group_by("layer", "value")
        .agg(
            pl.len().cast(pl.Int64).alias("n_tokens"),
            *means,
            pl.col("entropy").cast(pl.Float64).std().alias("sd_entropy"),
        )
        .sort("layer", "value")
    )
    return _columns(_collect(found))


def _by_layer(rows: pl.LazyFrame, k: int) -> list[list[pl.Series]]:
    """Of each layer and rank the experts of the tokens, in the order of the tokens."""
    # as small as numbers of layers and experts go: these are all the decisions
    found = _collect(rows.select(pl.col("layer", "expert").cast(pl.UInt16)))
    layers = found.partition_by("layer", maintain_order=True, include_key=False)
    return [[layer["expert"].gather_every(k, rank) for rank in range(k)] for layer in layers]


def _pair_counts(a: Sequence[pl.Series], b: Sequence[pl.Series], n_experts: int) -> Array:
    """(expert, other): how often the experts of ``a`` and ``b`` stand beside each other."""
    pairs = pl.DataFrame({"a": pl.concat(a), "b": pl.concat(b)})
    counts = pairs.group_by("a", "b").len()
    return _dense(counts, (n_experts, n_experts), ("a", "b"), "len")


def _counts_of(layers: Sequence[Sequence[pl.Series]], n_experts: int) -> Array:
    counts = [np.bincount(pl.concat(layer).to_numpy(), minlength=n_experts) for layer in layers]
    return np.array(counts)


def _pairs_in_layers(layers: Sequence[Sequence[pl.Series]], reach: int, n_experts: int) -> Array:
    """(layer, a, b): tokens with both at ranks that are ``reach`` apart at most, where a < b."""
    found = []
    for ranks in layers:
        places = [(i, j) for j in range(len(ranks)) for i in range(j) if j - i <= reach]
        firsts, seconds = [ranks[i] for i, _ in places], [ranks[j] for _, j in places]
        pairs = _pair_counts(firsts, seconds, n_experts)
        found.append(np.triu(pairs + pairs.T, 1))
    return np.array(found)


def co_activation(run: RunFiles) -> Columns:
    selected, shape = _Selected(run), run.shape
    layers = _by_layer(selected.rows("routing", "layer", "expert"), shape.top_k)
    pairs = _pairs_in_layers(layers, shape.top_k, shape.experts)
    counts = _counts_of(layers, shape.experts)
    return arithmetic.co_activation(pairs, counts, selected.n_tokens, shape.top_k)


def co_activation_adjacent(run: RunFiles) -> Columns:
    selected, shape = _Selected(run), run.shape
    layers = _by_layer(selected.rows("routing", "layer", "expert"), shape.top_k)
    pairs = _pairs_in_layers(layers, 1, shape.experts)
    counts = _counts_of(layers, shape.experts)
    return arithmetic.co_activation_adjacent(pairs, counts, selected.n_tokens, shape.top_k)


def cross_layer(run: RunFiles) -> Columns:
    selected, shape = _Selected(run), run.shape
    layers = _by_layer(selected.rows("routing", "layer", "expert"), shape.top_k)
    pairs = []
    for layer, following in pairwise(layers):
        firsts = [a for a in layer for _ in following]
        pairs.append(_pair_counts(firsts, following * len(layer), shape.experts))
    counts = _counts_of(layers, shape.experts)
    return arithmetic.cross_layer(np.array(pairs), counts, selected.n_tokens)


def routing_by_example(run: RunFiles, key: str) -> Columns:
    """Of the last token of each example."""
    selected = _Selected(run)
    last = (
        selected.tokens("position")
        .join(selected.examples.lazy(), on="example_id")
        .filter(pl.col("position") == pl.col("n_tokens") - 1)
        .select("token_idx", "example_id", "split", n_tokens=pl.lit(1))
    )
    rows = (
        _scan(run, "routing")
        .select("token_idx", "layer", "expert", "weight")
        .join(last, on="token_idx")
        .with_columns(n_decisions=pl.lit(1))
    )
    return _by_example(run, key, rows)


def routing_by_example_at(run: RunFiles, key: str, layer: int) -> Columns:
    """Of all tokens of each example, at one layer."""
    selected = _Selected(run)
    rows = (
        _scan(run, "routing")
        .filter(pl.col("layer") == layer)
        .select("token_idx", "layer", "expert", "weight")
        .join(selected.tokens(), on="token_idx")
        .group_by("example_id", "layer", "expert")
        .agg(pl.len().cast(pl.Int64).alias("n_decisions"), pl.col("weight").cast(pl.Float64).sum())
        .join(selected.examples.lazy(), on="example_id")
    )
    return _by_example(run, key, rows)


def _by_example(run: RunFiles, key: str, rows: pl.LazyFrame) -> Columns:
    labels = _scan(run, "example_labels").filter(pl.col("key") == key)
    n = pl.col("n_tokens")
    found = (
        rows.join(labels.select("example_id", "key", "value"), on="example_id")
        .select(
            "split",
            "key",
            "value",
            "example_id",
            "layer",
            "expert",
            "n_decisions",
            "n_tokens",
            n_experts=pl.lit(run.shape.experts),
            share=pl.col("n_decisions") / n,
            weight=pl.col("weight").cast(pl.Float64) / n,
        )
        .sort("split", "value", "example_id", "layer", "expert")
    )
    return _columns(_collect(found))


def active_experts(run: RunFiles) -> Columns:
    """Of the last token of each example."""
    selected = _Selected(run)
    last = (
        selected.tokens("position")
        .join(selected.examples.lazy(), on="example_id")
        .filter(pl.col("position") == pl.col("n_tokens") - 1)
        .select("token_idx", "example_id")
    )
    ones = np.ones(len(selected.examples), np.int64)
    return _active(run, last, ones)


def active_experts_in_examples(run: RunFiles) -> Columns:
    """Of all tokens of each example."""
    selected = _Selected(run)
    tokens = selected.tokens().select("token_idx", "example_id")
    return _active(run, tokens, selected.examples["n_tokens"].to_numpy())


def _active(run: RunFiles, tokens: pl.LazyFrame, n_of_example: Array) -> Columns:
    shape = run.shape
    found = _collect(
        _scan(run, "routing")
        .select("token_idx", "layer", "expert")
        .join(tokens, on="token_idx")
        .group_by("layer", "expert", "example_id")
        .len()
        .group_by("layer", "expert")
        .agg(pl.col("len").sum().alias("n"), pl.len().alias("active"))
    )
    size, at = (shape.layers, shape.experts), ("layer", "expert")
    counts, active = _dense(found, size, at, "n"), _dense(found, size, at, "active")
    return arithmetic.active_experts(counts, active, n_of_example, shape.top_k)


def saturation(run: RunFiles, run_b: RunFiles) -> Columns:
    selected, shape = _Selected(run), run.shape
    same = ["example_id", "position", "token_id"]
    other = _scan(run_b, "tokens").select(*same, pl.col("token_idx").alias("other"))
    matched = _collect(
        selected.tokens("position", "token_id")
        .join(other, on=same, nulls_equal=True)
        .select("token_idx", "other")
    )
    # both runs have their tokens in the same order
    experts = _by_layer(_of_tokens(run, matched["token_idx"]), shape.top_k)
    others = _by_layer(_of_tokens(run_b, matched["other"]), shape.top_k)
    layers = list(zip(experts, others, strict=True))
    shared = [sum((x == y).sum() for x in a for y in b) for a, b in layers]
    first = [(a[0] == b[0]).sum() for a, b in layers]
    return arithmetic.saturation(
        np.array(shared),
        np.array(first),
        len(matched),
        selected.n_tokens - len(matched),
        shape.experts,
        shape.top_k,
    )


def _of_tokens(run: RunFiles, tokens: pl.Series) -> pl.LazyFrame:
    """The decisions of some tokens, in the order of the files."""
    rows = _scan(run, "routing")
    if len(tokens) == _collect(_scan(run, "tokens").select(pl.len())).item():
        return rows
    wanted = pl.LazyFrame({"token_idx": tokens})
    return rows.join(wanted, on="token_idx", how="semi", maintain_order="left")


def label_information(run: RunFiles, key: str, on: str, permutations: int) -> Columns:
    selected, shape = _Selected(run), run.shape
    labelled = _collect(selected.labelled(key, on))
    values = labelled["value"].unique().sort().to_list()
    code = pl.col("value").replace_strict(values, range(len(values)), return_dtype=pl.Int64)
    tokens = (
        labelled.lazy()
        .join(_scan(run, "tokens").select("token_idx", "example_id"), on="token_idx")
        .select("token_idx", "example_id", code.alias("code"))
        .sort("token_idx")
    )
    if on == "tokens":
        rows = _collect(tokens)
        layers = _by_layer(_of_tokens(run, rows["token_idx"]), shape.top_k)
        ranks = [np.stack([rank.to_numpy() for rank in layer], axis=1) for layer in layers]
        experts = np.array(ranks)
        codes, examples = rows["code"].to_numpy(), rows["example_id"].to_numpy()
        return token_information(codes, experts, examples, shape.experts, permutations)
    found = _collect(
        _scan(run, "routing")
        .select("token_idx", "layer", "expert")
        .join(tokens, on="token_idx")
        .group_by("layer", "example_id", "expert")
        .len()
    )
    of_examples = _collect(tokens.group_by("example_id").agg(pl.col("code").first())).sort(
        "example_id"
    )
    n = len(selected.all_examples)
    counts = _dense(
        found, (shape.layers, n, shape.experts), ("layer", "example_id", "expert"), "len"
    )
    kept = of_examples["example_id"].to_numpy()
    return example_information(
        of_examples["code"].to_numpy(), counts[:, kept], len(values), permutations
    )
