"""The tables of a store, column by column.

This package is the one description of the tables: the Parquet writer, the SQL views, ``moedb
schema`` and ``docs/data-model.md`` are all made from it. Types are signed integers, ``float``,
``double`` and ``string`` only, so that any engine reads the files. ``captured`` has those that a
capture writes, ``added`` those of commands that add to complete runs.
"""

from moedb.errors import UsageError, did_you_mean
from moedb.schemas.tables.added import (
    EXPERT_LABEL_SCORES,
    EXPERT_LABELS,
    LABEL_EFFECTS,
    LABEL_REQUESTS,
    LABEL_VERDICTS,
    PROBE_SCORES,
)
from moedb.schemas.tables.captured import (
    CONDITIONS,
    EXAMPLE_LABELS,
    EXAMPLES,
    EXPERT_COSINES,
    LOGIT_LENS,
    MOE_LAYERS,
    PREDICTIONS,
    ROUTER_MASS,
    ROUTER_STATS,
    ROUTING,
    RUN_LABELS,
    RUNS,
    TOKEN_LABELS,
    TOKENS,
    VOCABULARY,
)
from moedb.schemas.tables.columns import (
    CONDITION_ID,
    EXAMPLE_ID,
    EXPERT,
    FORMAT_MAJOR,
    KEY,
    LAYER,
    RUN_ID,
    SQL_TYPES,
    TOKEN_IDX,
    VALUE,
    Column,
    ColumnType,
    Precision,
    Table,
)

__all__ = [
    "CONDITIONS",
    "CONDITION_ID",
    "EXAMPLES",
    "EXAMPLE_ID",
    "EXAMPLE_LABELS",
    "EXPERT",
    "EXPERT_COSINES",
    "EXPERT_LABELS",
    "EXPERT_LABEL_SCORES",
    "FORMAT_MAJOR",
    "KEY",
    "LABEL_EFFECTS",
    "LABEL_REQUESTS",
    "LABEL_VERDICTS",
    "LAYER",
    "LOGIT_LENS",
    "MOE_LAYERS",
    "PREDICTIONS",
    "PROBE_SCORES",
    "ROUTER_MASS",
    "ROUTER_STATS",
    "ROUTING",
    "RUNS",
    "RUN_ID",
    "RUN_LABELS",
    "SQL_TYPES",
    "TABLES",
    "TABLE_NAMES",
    "TOKENS",
    "TOKEN_IDX",
    "TOKEN_LABELS",
    "VALUE",
    "VOCABULARY",
    "Column",
    "ColumnType",
    "Precision",
    "Table",
    "table",
]

TABLES: tuple[Table, ...] = (
    RUNS,
    MOE_LAYERS,
    EXPERT_COSINES,
    EXAMPLES,
    TOKENS,
    VOCABULARY,
    ROUTING,
    ROUTER_STATS,
    ROUTER_MASS,
    RUN_LABELS,
    EXAMPLE_LABELS,
    TOKEN_LABELS,
    CONDITIONS,
    PREDICTIONS,
    LOGIT_LENS,
    PROBE_SCORES,
    EXPERT_LABELS,
    EXPERT_LABEL_SCORES,
    LABEL_VERDICTS,
    LABEL_REQUESTS,
    LABEL_EFFECTS,
)

TABLE_NAMES: tuple[str, ...] = tuple(entry.name for entry in TABLES)


def table(name: str) -> Table:
    """Return the table called ``name``.

    Raises
    ------
    UsageError
        If there is no such table.
    """
    for candidate in TABLES:
        if candidate.name == name:
            return candidate
    raise UsageError(f"no table named {name!r}; {did_you_mean(name, TABLE_NAMES)}", "moedb schema")
