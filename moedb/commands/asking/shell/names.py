"""What can be named in a shell: relations, macros, functions, runs, and labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from moedb.errors import MoedbError

if TYPE_CHECKING:
    from moedb.queries.database import Database

MOST_VALUES = 200
"""Values of a label that are offered."""


def _nothing(*_: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class MacroNames:
    """What a call of a macro can name.

    Attributes
    ----------
    parameters
        Its parameters, in their order, each with the values it may have; none where any will do.
    columns
        The columns of its rows.
    """

    parameters: Mapping[str, Sequence[str]]
    columns: Sequence[str]


@dataclass(frozen=True)
class Names:
    """What can be named.

    Attributes
    ----------
    relations
        Tables and views, each with its columns.
    macros
        Table macros.
    functions
        The functions that read arrays.
    runs
        The runs, by what they are stored as and by the names given to them.
    figures, questions
        Figures that can be drawn, and the named queries and analyses.
    keys, splits
        Give the keys of labels, and the splits.
    values
        Gives the values of the labels of a key.
    """

    relations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    macros: Mapping[str, MacroNames] = field(default_factory=dict)
    functions: Sequence[str] = ()
    runs: Sequence[str] = ()
    figures: Sequence[str] = ()
    questions: Sequence[str] = ()
    keys: Callable[[], Sequence[str]] = _nothing
    splits: Callable[[], Sequence[str]] = _nothing
    values: Callable[[str], Sequence[str]] = _nothing


def names_of(database: "Database") -> Names:
    """What can be named over a store; labels are looked up once they are asked for."""
    from moedb.queries.analyses.registry import ANALYSES
    from moedb.queries.figures.registry import PLOTS
    from moedb.queries.questions.catalog import catalog
    from moedb.queries.questions.view_file import described_views
    from moedb.schemas.arrays import ARRAY_FUNCTIONS
    from moedb.schemas.tables import TABLES

    @cache
    def texts(statement: str, key: str | None = None) -> Sequence[str]:
        try:
            given = {} if key is None else {"key": key}
            found = database.sql(statement, given).limit(MOST_VALUES).fetchall()
        except MoedbError:
            return ()  # what is typed will say it
        return [str(text) for (text,) in found]

    relations = {table.name: table.column_names for table in TABLES}
    views = described_views().values()
    relations |= {view.name: tuple(column.name for column in view.columns) for view in views}
    macros = {
        query.macro_name: MacroNames(
            {name: _choices(query.parameters, name) for name in query.positional},
            query.column_names,
        )
        for query in catalog().values()
    }
    runs = database.snapshot.runs.values()
    return Names(
        relations,
        macros,
        tuple(ARRAY_FUNCTIONS),
        tuple(name for run in runs for name in (run.run_id, run.named.name) if name is not None),
        tuple(PLOTS),
        (*catalog(), *ANALYSES),
        keys=lambda: texts("select distinct key from labels order by key"),
        splits=lambda: [
            *dict.fromkeys((*texts("select distinct split from examples order by split"), "all"))
        ],
        values=lambda key: texts(
            "select distinct value from labels where key = $key order by value", key
        ),
    )


def _choices(parameters: "Sequence[object]", name: str) -> Sequence[str]:
    from moedb.queries.questions.parameters import Parameter

    found = (p for p in parameters if isinstance(p, Parameter) and p.name == name)
    return next(found).choices
