"""What runs hold that a question can name: splits, labels, layers, conditions.

All of it is in the manifests and in tables that are small beside the decisions, so that a question
can be checked before it is asked.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moedb.queries.reading.reader import SnapshotReader
from moedb.queries.reading.selection import selects_everything

if TYPE_CHECKING:
    from moedb.store.reading.snapshot import RunSnapshot

LABEL_TABLES = ("run_labels", "example_labels", "token_labels")
"""The tables of labels, the smallest first."""

_EXAMPLES = """(
    select selections.run_id, selections.example_id
    from selections
    where selections.selection = coalesce(cast($split as varchar), 'default')
)"""
SELECTED = f"(examples.run_id, examples.example_id) in {_EXAMPLES}"
"""Whether an example is of the parameter ``split`` of a question."""

_OF_SPLIT = f"(tokens.run_id, tokens.example_id) in {_EXAMPLES}"
_TOKENS = f"""(
    select tokens.run_id, tokens.token_idx
    from tokens
    where {_OF_SPLIT}
)"""  # noqa: S608
# most labels are on a token of the split among the first, of which few files tell
_FEW_LABELLED = """(tokens.run_id, tokens.token_idx) in (
    select token_labels.run_id, token_labels.token_idx
    from token_labels
    where token_labels.run_id in ({runs}) {wanted}
    limit 1000
)"""
# not joins: of three tables DuckDB would join two by their run alone, every row with every row
_IN_SPLIT = {
    "run_labels": f"run_labels.run_id in (select run_id from {_EXAMPLES})",  # noqa: S608
    "example_labels": f"(example_labels.run_id, example_labels.example_id) in {_EXAMPLES}",
    "token_labels": f"(token_labels.run_id, token_labels.token_idx) in {_TOKENS}",
}
_RUNS_NAMED = 4
_VALUES_SHOWN = 20


@dataclass(frozen=True)
class RunContents:
    """What one or more runs hold.

    Attributes
    ----------
    reader
        What reads them.
    runs
        The runs.
    are
        What they are: runs, or trials.
    """

    reader: SnapshotReader
    runs: "tuple[RunSnapshot, ...]"
    are: str = "runs"

    @property
    def named(self) -> str:
        """The runs, for a sentence: by their names, or how many they are."""
        if len(self.runs) == 1:
            return f"run {self.runs[0].title}"
        if len(self.runs) > _RUNS_NAMED or self.are != "runs":
            return f"the {len(self.runs)} {self.are}"
        return f"runs {', '.join(run.title for run in self.runs)}"

    @property
    def experts(self) -> dict[int, int]:
        """For each MoE layer the number of its experts; the largest over the runs."""
        found: dict[int, int] = {}
        for run in self.runs:
            for row in run.manifest.layers:
                layer = int(row["layer"])
                found[layer] = max(found.get(layer, 0), int(row["n_experts"]))
        return dict(sorted(found.items()))

    def n_rows(self, table: str) -> int:
        """Committed rows of a table; the names that were given to runs are labels of them."""
        n_names = sum(len(run.named.labels) for run in self.runs) if table == "run_labels" else 0
        return n_names + sum(run.n_rows(table) for run in self.runs)

    def splits(self) -> list[str]:
        """The splits of the examples."""
        sizes = self.reader.split_sizes
        return sorted({split for run in self.runs for split in sizes.get(run.run_id, ())})

    def longest(self, split: object) -> int:
        """Tokens of the longest example of a split; 0 without examples."""
        most = "coalesce(max(examples.n_tokens), 0)"
        ((found,),) = self._rows(most, "examples", f"and {SELECTED}", split=split)
        return int(found)

    def kinds(self) -> list[str]:
        """The kinds of conditions but the untouched model's."""
        return self._texts("distinct kind", "conditions", "and kind <> 'none'")

    def conditions(self) -> list[int]:
        """The conditions of a single run."""
        rows = self._rows("condition_id", "conditions", "order by condition_id")
        return [int(condition) for (condition,) in rows]

    def label_keys(self, tables: Collection[str] = LABEL_TABLES) -> list[str]:
        """The keys of labels."""
        return sorted({key for table in tables for key in self._texts("distinct key", table)})

    def has_label(
        self,
        key: object,
        value: object = None,
        split: object = "all",
        tables: Collection[str] = LABEL_TABLES,
    ) -> bool:
        """Whether an example of a split, or a token of one, carries a label."""
        asked: dict[str, object] = {"key": key}
        if value is not None:
            asked["value"] = value
        if split != "all" and self._is_all(split):
            split = "all"
        if split != "all":
            asked["split"] = split
        for table in LABEL_TABLES:
            if table not in tables or not self.n_rows(table):
                continue
            wanted = f"and {table}.key = $key"
            wanted += "" if value is None else f" and {table}.value = $value"
            if split != "all" and table == "token_labels":
                few = _FEW_LABELLED.format(runs=self._marks, wanted=wanted)
                if self._rows("1", "tokens", f"and {few} and {_OF_SPLIT} limit 1", **asked):
                    return True
            wanted += "" if split == "all" else f" and {_IN_SPLIT[table]}"
            if self._rows("1", table, f"{wanted} limit 1", **asked):
                return True
        return False

    def splits_of_label(self, key: object, value: object = None) -> list[str]:
        """The splits of the examples that carry a label, or have a token that does."""
        return [name for name in self.splits() if self.has_label(key, value, name)]

    def values_near(self, key: object, given: str) -> tuple[list[str], int]:
        """The values of a label that are most like one, and how many values it has."""
        values = {
            value
            for table in LABEL_TABLES
            for (value,) in self._rows("distinct value", table, "and key = $key", key=key)
        }
        alike = _by_likeness(self.reader, sorted(values), given) if given else sorted(values)
        return alike[:_VALUES_SHOWN], len(values)

    def _is_all(self, split: object) -> bool:
        """Whether a split leaves no example out."""
        sizes = self.reader.split_sizes
        return all(selects_everything(sizes.get(run.run_id, ()), split) for run in self.runs)

    def _texts(self, columns: str, table: str, condition: str = "") -> list[str]:
        return sorted(str(value) for (value,) in self._rows(columns, table, condition))

    @property
    def _marks(self) -> str:
        """The parameters that :meth:`_rows` gives the runs' names by."""
        return ", ".join(f"$run_{number}" for number in range(len(self.runs)))

    def _rows(
        self, columns: str, table: str, condition: str = "", **asked: object
    ) -> list[tuple[Any, ...]]:
        """Rows of a table that are of the runs."""
        runs = {f"run_{number}": run.run_id for number, run in enumerate(self.runs)}
        own = f"{table} where {table}.run_id in ({self._marks})"
        statement = f"select {columns} from {own} {condition}"  # noqa: S608
        return self.reader.sql(statement, {**asked, **runs}).fetchall()


def _by_likeness(reader: SnapshotReader, values: Sequence[str], given: str) -> list[str]:
    """The values, those first that are spelled like the one given."""
    rows = reader.sql(
        "select value from (select unnest($values) as value) "
        "order by jaro_winkler_similarity(lower(value), lower($given)) desc, value",
        {"values": list(values), "given": given},
    )
    return [value for (value,) in rows.fetchall()]


Trial = Mapping[str, Any]
"""A row of the view ``trials``, by column."""


def trials_of(reader: SnapshotReader) -> list[Trial]:
    """The trials of a store."""
    found = reader.sql("select * from trials order by all")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def as_ranges(numbers: Sequence[int]) -> str:
    """Return ascending whole numbers as text, those that follow each other together.

    Examples
    --------
    >>> as_ranges([0, 1, 2, 3, 5, 7, 8])
    '0 to 3, 5, 7, 8'
    """
    return ", ".join(
        str(first) if first == last else f"{first}{' to ' if last > first + 1 else ', '}{last}"
        for first, last in _stretches(numbers)
    )


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for at, number in enumerate(numbers):
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            yield numbers[start], number
            start = at + 1


def contents(reader: SnapshotReader, run: str) -> RunContents:
    """What one run holds."""
    return RunContents(reader, (reader.snapshot.run(run),))


def intervention_runs(reader: SnapshotReader, run: str) -> RunContents:
    """What the runs hold that have interventions: the run itself, or the complete ones on it.

    Without any, the run itself.
    """
    own = contents(reader, run)
    if own.kinds():
        return own
    on_it = tuple(
        each
        for each in reader.snapshot.runs.values()
        if each.is_complete and each.row["parent_run_id"] == own.runs[0].run_id
    )
    return RunContents(reader, on_it) if on_it else own
