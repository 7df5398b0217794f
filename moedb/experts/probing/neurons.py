"""What a probe sees: the neurons of the candidates of a layer."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moedb.errors import UsageError
from moedb.experts.probing.concepts import Tokens
from moedb.experts.probing.settings import ProbeSettings
from moedb.queries.database import Database
from moedb.queries.reading.array_rows import pieces, read_piece

BYTES_AT_ONCE = 1 << 30
"""Values that are held; the experts of a larger layer are read some at a time."""

_CHOSEN = """
select tokens.array_row, routing.rank, routing.expert
from routing
join tokens using (run_id, token_idx)
where routing.layer = $layer and tokens.array_row is not null
order by tokens.array_row, routing.rank
"""


class Candidate(NamedTuple):
    """Neurons that may tell a concept.

    Attributes
    ----------
    number
        The expert, or the group of neurons.
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
    ) -> None:
        self._settings, self.layer = settings, layer
        self._array = database.array(None, settings.array, layer)
        self._rows = tokens.rows
        self._ranks, self._experts, self._places = self._chosen(database, is_used)
        self.experts: list[int] = np.unique(self._experts).tolist()
        if settings.groups and len(self.experts) > 1:
            raise UsageError(
                f"layer {layer} has {len(self.experts)} experts, each a candidate; groups are for "
                "a layer of one: a dense model's, or the shared expert"
            )
        width = self._array.shape[-1]
        self._width = settings.width or width // max(settings.groups, 1)
        if settings.groups * self._width > width or not self._width:
            raise UsageError(
                f"layer {layer} has {width} neurons, less than {settings.groups} groups of "
                f"{self._width or 1}"
            )

    @property
    def n_candidates(self) -> int:
        """How many there are."""
        return self._settings.groups or len(self.experts)

    def __iter__(self) -> Iterator[Candidate]:
        """Read them, as many at a time as are to be held."""
        for some in self._batches():
            yield from self._read(some)

    def _chosen(
        self, database: Database, is_used: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], ...]:
        """(decision,): rank, expert and token of what the array has rows for."""
        if self._settings.array == "shared_neurons":
            places = np.flatnonzero(is_used)
            return np.zeros(len(places), np.int64), np.zeros(len(places), np.int64), places
        chosen = database.sql(_CHOSEN, {"layer": self.layer}).arrow()
        places = np.searchsorted(self._rows, chosen["array_row"].to_numpy())
        kept = is_used[places]
        ranks, experts = chosen["rank"].to_numpy()[kept], chosen["expert"].to_numpy()[kept]
        return ranks.astype(np.int64), experts.astype(np.int64), places[kept]

    def _batches(self) -> Iterator[Sequence[int]]:
        bytes_of_token = self._array.shape[-1] * self._array.dtype.itemsize
        n_tokens = np.bincount(self._experts) * bytes_of_token
        some: list[int] = []
        for expert in self.experts:
            if some and n_tokens[[*some, expert]].sum() > BYTES_AT_ONCE:
                yield some
                some = []
            some.append(expert)
        if some:
            yield some

    def _read(self, experts: Sequence[int]) -> Iterator[Candidate]:
        kept = np.isin(self._experts, experts)
        of, ranks, places = self._experts[kept], self._ranks[kept], self._places[kept]
        values = np.empty((len(places), self._array.shape[-1]), self._array.dtype)
        needed, number = np.unique(self._rows[places], return_inverse=True)
        for piece in pieces(needed):
            stored = read_piece(self._array, needed[piece])
            # decisions are in the order of their rows
            here = slice(*np.searchsorted(number, [piece.start, piece.stop]))
            at = number[here] - piece.start
            values[here] = stored[at] if stored.ndim == 2 else stored[at, ranks[here]]
        for expert in experts:
            chosen = of == expert
            yield from self._divided(expert, places[chosen], values[chosen])

    def _divided(
        self, expert: int, places: NDArray[np.int64], values: NDArray[np.floating[Any]]
    ) -> Iterator[Candidate]:
        """The expert as it is, or groups of its neurons."""
        if not self._settings.groups:
            is_expert = self._settings.array == "expert_neurons"
            every = np.arange(values.shape[1])
            yield Candidate(expert, expert if is_expert else None, places, values, every)
            return
        random = np.random.default_rng([self._settings.seed, self.layer])
        order = random.permutation(values.shape[1])
        for group in range(self._settings.groups):
            neurons = np.sort(order[group * self._width : (group + 1) * self._width])
            yield Candidate(group, None, places, values[:, neurons], neurons)
