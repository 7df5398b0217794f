"""The arrays of a run: names, shapes and what they hold.

T is the number of rows of the run's arrays (``tokens.array_row`` points into them), E the experts
of a layer, k its top_k, d the width of the residual stream, h that of an expert's hidden layer, s
that of the shared expert's, V the tokens of the model's vocabulary, p the numbers of an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from moedb.errors import ArrayNotFoundError, did_you_mean

Axis = Literal["E", "k", "d", "h", "s", "p"]
First = Literal["T", "V", "d"]

SHARD_ROWS = 1024
"""Rows of one shard, the smallest piece of an array that one unit owns."""

CHUNK_ROWS = 64
"""Rows of one chunk, the smallest piece of an array that is read."""

DIMENSION_NAMES: dict[str, str] = {
    "E": "expert",
    "k": "rank",
    "d": "d_model",
    "h": "d_expert",
    "s": "d_shared",
    "p": "pixel",
    "T": "row",
    "V": "token_id",
}


@dataclass(frozen=True)
class ArraySpec:
    """One kind of array; a run holds one of it for each captured layer.

    Attributes
    ----------
    name
        Its group in ``arrays.zarr``; the array of layer 3 is ``NAME/3``.
    axes
        Its axes after the first.
    doc
        What it holds.
    first
        Its first axis: ``T`` where its rows are tokens of the run's texts, each unit's its own. The
        other ones are arrays of the run as a whole.
    function
        The function of SQL that reads a row of it; None where there is none.
    has_one_layer
        Whether it is of one place of the model alone, its input or the stream after the last
        layer, so that its layer goes without saying.
    """

    name: str
    axes: tuple[Axis, ...]
    doc: str
    first: First = "T"
    function: str | None = None
    has_one_layer: bool = False

    @property
    def is_of_run(self) -> bool:
        """Whether it is written once for the run, and not token by token."""
        return self.first != "T"

    @property
    def slot(self) -> str | None:
        """What one vector of a row is chosen by, where a row has several: a rank, or an expert."""
        return DIMENSION_NAMES[self.axes[0]] if len(self.axes) > 1 else None

    @property
    def arguments(self) -> Mapping[str, str]:
        """The arguments of the function, each with its SQL type."""
        row = "array_row" if self.first == "T" else DIMENSION_NAMES[self.first]
        layer = {} if self.has_one_layer else {"layer": "INTEGER"}
        slot = {} if self.slot is None else {self.slot: "INTEGER"}
        return {"run_id": "VARCHAR", **layer, row: "BIGINT", **slot}

    @property
    def call(self) -> str:
        """How the function is called, such as ``shared_output(run_id, layer, array_row)``."""
        return f"{self.function}({', '.join(self.arguments)})"

    @property
    def gives(self) -> str:
        """What the function gives, such as ``FLOAT[d]``: one vector of a row."""
        return f"FLOAT[{self.axes[-1]}]"

    @property
    def shape_text(self) -> str:
        """The shape in letters, such as ``(T, k, d)``."""
        return "(" + ", ".join((self.first, *self.axes)) + ("," if not self.axes else "") + ")"


ARRAYS: tuple[ArraySpec, ...] = (
    ArraySpec(
        "images",
        ("p",),
        "the image as the model was given it, whole numbers from 0 to 255: row by row, each "
        "pixel's channels together; its attribute shape has height, width and channels, and its "
        "index is 0; cifar-moe alone keeps it",
        function="image",
        has_one_layer=True,
    ),
    ArraySpec(
        "router_logits",
        ("E",),
        "the router's scores before softmax or sigmoid",
        function="router_logits",
    ),
    ArraySpec(
        "router_input",
        ("d",),
        "what the router and the experts read (after the norm, in a transformer)",
        function="router_input",
    ),
    ArraySpec(
        "expert_outputs",
        ("k", "d"),
        "output of the expert of rank r in slot r, before its weight",
        function="expert_output",
    ),
    ArraySpec(
        "all_expert_outputs",
        ("E", "d"),
        "output of every routed expert, chosen or not, before any weight; cifar-moe alone keeps it",
        function="output_of_expert",
    ),
    ArraySpec(
        "shared_outputs",
        ("d",),
        "the shared expert's output, before its gate",
        function="shared_output",
    ),
    ArraySpec(
        "residual_pre",
        ("d",),
        "the residual stream entering the layer; index n_layers is the stream after the last layer",
        function="residual_pre",
    ),
    ArraySpec(
        "logit_direction",
        ("d",),
        "direction of the last stream along which the target's logit gains on the foil's, the "
        "final norm's scale frozen; its index is n_layers",
        function="logit_direction",
        has_one_layer=True,
    ),
    ArraySpec(
        "residual_mid",
        ("d",),
        "after attention, before the MoE block's norm",
        function="residual_mid",
    ),
    ArraySpec(
        "expert_neurons",
        ("k", "h"),
        "hidden units of the expert of rank r, before the down projection; only where asked for",
        function="expert_neurons",
    ),
    ArraySpec(
        "shared_neurons",
        ("s",),
        "hidden units of the shared expert, before its down projection; only where asked for",
        function="shared_neurons",
    ),
    ArraySpec(
        "unembedding",
        ("d",),
        "the model's unembedding, a row for each token of its vocabulary; its index is n_layers; "
        "only where asked for",
        "V",
        function="unembedding",
        has_one_layer=True,
    ),
    ArraySpec(
        "final_norm",
        (),
        "the gain of the norm before the unembedding, which is kept with it; its attribute centers "
        "says whether the norm subtracts the mean",
        "d",
        has_one_layer=True,
    ),
)

ARRAY_FUNCTIONS: Mapping[str, ArraySpec] = MappingProxyType(
    {spec.function: spec for spec in ARRAYS if spec.function is not None}
)
"""The arrays that a function of SQL reads, by its name."""

ARRAY_NAMES: tuple[str, ...] = tuple(spec.name for spec in ARRAYS)
DEFAULT_ARRAYS: tuple[str, ...] = tuple(
    spec.name
    for spec in ARRAYS
    if spec.name not in ("expert_neurons", "shared_neurons") and not spec.is_of_run
)


def array_spec(name: str) -> ArraySpec:
    """Return the description of the array called ``name``.

    Raises
    ------
    ArrayNotFoundError
        If there is no such kind of array.
    """
    for spec in ARRAYS:
        if spec.name == name:
            return spec
    raise ArrayNotFoundError(f"no array named {name!r}; {did_you_mean(name, ARRAY_NAMES)}")


UNEMBEDDING, FINAL_NORM = "unembedding", "final_norm"
"""The arrays that are kept together of the end of a model."""

IMAGES, INPUT_LAYER = "images", 0
"""The array of what a model of images reads, and its index: what enters the first layer."""


def arrays_of_tokens(arrays: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of arrays with their layers those whose rows are tokens.

    Examples
    --------
    >>> arrays_of_tokens({"router_input": (0, 1), "unembedding": (2,), "final_norm": (2,)})
    {'router_input': (0, 1)}
    """
    return {name: kept for name, kept in arrays.items() if not array_spec(name).is_of_run}
