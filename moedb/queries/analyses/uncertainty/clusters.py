"""Which examples are not independent of each other: windows of a document, prompts and twins."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moedb.errors import ParameterError, did_you_mean
from moedb.queries.questions.parameters import Parameter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moedb.queries.questions.parameters import Value
    from moedb.queries.reading.reader import SnapshotReader

DOCUMENT, TWIN = "document", "twin"
"""The label that tells the windows of a document, and what stands for a prompt and its twin."""

CLUSTER = Parameter(
    "cluster",
    "varchar",
    None,
    False,
    "the key of a label of examples: those with the same value are not independent of each other, "
    "such as documents of one work. When null: windows of one document, or else a prompt and its "
    "corrupted twin",
)

_KEYS = """
select distinct example_labels.key
from example_labels
where example_labels.run_id = cast($run as varchar)
order by example_labels.key
""".strip()
_VALUES = """
select
    example_labels.example_id,
    example_labels.value
from example_labels
where example_labels.run_id = cast($run as varchar)
    and example_labels.key = cast($key as varchar)
order by example_labels.example_id, example_labels.value
""".strip()


class Clusters:
    """The clusters of a run's examples.

    Attributes
    ----------
    key
        The label that tells them; None where every example is one of its own.
    """

    def __init__(self, key: str | None, of_example: Mapping[int, str]) -> None:
        self.key = key
        self._of_example = of_example

    def of(self, example_ids: "NDArray[np.integer[Any]]") -> "NDArray[np.int64]":
        """Number the clusters of examples.

        Parameters
        ----------
        example_ids
            (example,).

        Returns
        -------
        NDArray
            (example,): the same number for examples of one cluster, from 0 on. An example without
            a value is a cluster of its own.
        """
        import numpy as np

        numbers: dict[str | int, int] = {}
        return np.array(
            [numbers.setdefault(name, len(numbers)) for name in self.names_of(example_ids)],
            dtype=np.int64,
        )

    def names_of(self, example_ids: "NDArray[np.integer[Any]]") -> list[str | int]:
        """Return what tells the cluster of each example: a value, or the example itself."""
        return [self._of_example.get(example, example) for example in example_ids.tolist()]


def clusters_of(
    reader: "SnapshotReader", run: str, name: str, key: "Value", option: str = "-p cluster KEY"
) -> Clusters:
    """Return the clusters of a run's examples.

    Parameters
    ----------
    reader
        Reads the store.
    run
        The whole name of the run.
    name
        The analysis that asks.
    key
        The label that tells them; None for that of documents, or else that of twins.
    option
        How another one is named on the command line.

    Raises
    ------
    ParameterError
        If no example has a label of this key, or one has two values of it.
    """
    known = [found for (found,) in reader.sql(_KEYS, {"run": run}).fetchall()]
    if key is None:
        if DOCUMENT in known:
            return Clusters(DOCUMENT, _values(reader, run, name, DOCUMENT))
        if "twin_of" in known:
            return Clusters(TWIN, _twins(reader, run))
        return Clusters(None, {})
    chosen = str(key)
    if chosen not in known:
        raise ParameterError(
            f"{name}: cluster is {chosen!r}, but no example of {run} has a label of this key; "
            f"{did_you_mean(chosen, known)}",
            f"moedb query {name} --run {run} {option}",
        )
    return Clusters(chosen, _values(reader, run, name, chosen))


def _values(reader: "SnapshotReader", run: str, name: str, key: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for example, value in reader.sql(_VALUES, {"run": run, "key": key}).fetchall():
        if found.setdefault(example, value) != value:
            raise ParameterError(
                f"{name}: cluster is {key!r}, of which example {example} has the values "
                f"{found[example]!r} and {value!r}; expected one value for each example"
            )
    return found


def _twins(reader: "SnapshotReader", run: str) -> dict[int, str]:
    """A pair of twins by the number of the one that is not corrupted."""
    found: dict[int, str] = {}
    rows = reader.sql(_VALUES, {"run": run, "key": "twin_of"}).fetchall()
    for example, twin in rows:
        found[example] = twin
        if twin.isdecimal():
            found[int(twin)] = twin
    return found
