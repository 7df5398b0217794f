"""What a probe sees: the neurons of the candidates of a layer."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.errors import UsageError
from moedb.experts.probing.concepts import Tokens
from moedb.experts.probing.seeing import Seen, chosen, everything
from moedb.experts.probing.settings import ProbeSettings
from moedb.queries.database import Database
from moedb.queries.reading.arrays.rows import pieces, read_piece

BYTES_AT_ONCE = 1 << 30
"""Values that are held; the experts of a larger layer are read some at a time."""


class Candidate(NamedTuple):
    """Neurons that may tell a concept.

    Attributes
    ----------
    number
        The expert, the group of neurons, or the expert whose tokens a group sees.
    expert
        The expert; None for what is none.
    places
        (n,): which of the tokens they are of, ascending.
    values
        (n, neuron).
    neurons
        (neuron,): their numbers in the array.
    """

    number: int
    expert: int | None
    places: NDArray[np.int64]
    values: NDArray[np.floating[Any]]
    neurons: NDArray[np.int64]


class LayerNeurons:
    """The candidates of one layer.

    Parameters
    ----------
    database
        Reads the run.
    layer
        The layer.
    settings
        What is asked.
    tokens
        The tokens.
    is_used
        (token,): whether a probe is asked about it.
    other
        Reads the run whose experts' tokens groups see; None where they see all.

    Raises
    ------
    UsageError
        If the neurons cannot be divided as the settings ask.
    """

    def __init__(
        self,
        database: Database,
        layer: int,
        settings: ProbeSettings,
        tokens: Tokens,
        is_used: NDArray[np.bool_],
        other: Database | None = None,
    ) -> None:
        self._settings, self.layer = settings, layer
        self._array = database.array(None, settings.array, layer)
        self._rows = tokens.rows
        is_chosen = settings.array == "expert_neurons"
        seen = chosen(database, layer, tokens) if is_chosen else everything(tokens)
        n_experts = len(np.unique(seen.experts))
        if settings.groups and n_experts > 1:
            raise UsageError(
                f"layer {layer} has {n_experts} experts, each a candidate; groups are for "
                "a layer of one: a dense model's, or the shared expert"
            )
        self._groups = groups = self._grouped() if settings.groups else None
        self._sees_others = groups is not None and other is not None
        self._width: int = self._array.shape[-1]
        """Neurons that are held of a token."""
        if groups is not None and other is not None:
            self._width = groups.shape[1]
            seen = chosen(other, layer, tokens)
            seen = seen._replace(ranks=np.zeros_like(seen.ranks))
        self._seen: Seen = seen.of(is_used)
        self.experts: list[int] = np.unique(self._seen.experts).tolist()

    def _grouped(self) -> NDArray[np.int64]:
        """(group, neuron): the numbers of their neurons, ascending."""
        n_neurons, n_groups = self._array.shape[-1], self._settings.groups
        width = self._settings.width or n_neurons // n_groups
        if n_groups * width > n_neurons or not width:
            raise UsageError(
                f"layer {self.layer} has {n_neurons} neurons, less than {n_groups} groups of "
                f"{width or 1}"
            )
        random = np.random.default_rng([self._settings.seed, self.layer])
        order = random.permutation(n_neurons)[: n_groups * width]
        return np.sort(order.reshape(n_groups, width))

    @property
    def n_candidates(self) -> int:
        """How many there are."""
        return (
            len(self.experts) if self._sees_others else self._settings.groups or len(self.experts)
        )

    def __iter__(self) -> Iterator[Candidate]:
        """Read them, as many at a time as are to be held."""
        for some in self._batches():
            yield from self._read(some)

    def _batches(self) -> Iterator[Sequence[int]]:
        bytes_of_token = self._width * self._array.dtype.itemsize
        n_tokens = np.bincount(self._seen.experts) * bytes_of_token
        some: list[int] = []
        for expert in self.experts:
            if some and n_tokens[[*some, expert]].sum() > BYTES_AT_ONCE:
                yield some
                some = []
            some.append(expert)
        if some:
            yield some

    def _read(self, experts: Sequence[int]) -> Iterator[Candidate]:
        kept = np.isin(self._seen.experts, experts)
        places, ranks, of = (each[kept] for each in self._seen)
        values = np.empty((len(places), self._width), self._array.dtype)
        needed, number = np.unique(self._rows[places], return_inverse=True)
        for piece in pieces(needed):
            stored = read_piece(self._array, needed[piece])
            # decisions are in the order of their rows
            here = slice(*np.searchsorted(number, [piece.start, piece.stop]))
            at = number[here] - piece.start
            found = stored[at] if stored.ndim == 2 else stored[at, ranks[here]]
            if self._sees_others:
                found = np.take_along_axis(found, self._neurons_for(of[here]), axis=1)
            values[here] = found
        for expert in experts:
            is_its = of == expert
            yield from self._divided(expert, places[is_its], values[is_its])

    def _neurons_for(self, expert: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """The neurons that are read in place of an expert's: of few groups each for several."""
        assert self._groups is not None  # noqa: S101
        neurons: NDArray[np.int64] = self._groups[np.mod(expert, len(self._groups))]
        return neurons

    def _divided(
        self, expert: int, places: NDArray[np.int64], values: NDArray[np.floating[Any]]
    ) -> Iterator[Candidate]:
        """The expert as it is, or groups of its neurons."""
        if self._sees_others:
            yield Candidate(expert, None, places, values, self._neurons_for(expert))
            return
        if self._groups is None:
            is_expert = self._settings.array == "expert_neurons"
            every = np.arange(values.shape[1])
            yield Candidate(expert, expert if is_expert else None, places, values, every)
            return
        for group, neurons in enumerate(self._groups):
            yield Candidate(group, None, places, values[:, neurons], neurons)
