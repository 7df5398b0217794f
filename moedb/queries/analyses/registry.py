"""The analyses that SQL cannot say: computed in Python, asked for as the named queries are.

Each has a module of its own with its function and, behind it, its description. Importing them all
costs little: what the functions need, they import.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from moedb.errors import UsageError
from moedb.queries.analyses.analysis import Analysis, AnalysisColumn
from moedb.queries.analyses.experts.contexts.top_contexts import TOP_CONTEXTS
from moedb.queries.analyses.experts.jsd_specialization import JSD_SPECIALIZATION
from moedb.queries.analyses.experts.kmeans_baseline import KMEANS_BASELINE
from moedb.queries.analyses.experts.label_effects.by_expert import LABEL_EFFECTS
from moedb.queries.analyses.experts.label_effects.counts import LABEL_EFFECT_COUNTS
from moedb.queries.analyses.experts.output_overlap import OUTPUT_OVERLAP
from moedb.queries.analyses.experts.promoted.promoted_tokens import PROMOTED_TOKENS
from moedb.queries.analyses.experts.state_and_function import STATE_AND_FUNCTION
from moedb.queries.analyses.label_information import LABEL_INFORMATION
from moedb.queries.analyses.predictions.expert_attribution import EXPERT_ATTRIBUTION
from moedb.queries.analyses.predictions.expert_effect import EXPERT_EFFECT
from moedb.queries.analyses.predictions.interventions import INTERVENTION_EFFECT
from moedb.queries.analyses.predictions.lens_effect import LENS_EFFECT
from moedb.queries.analyses.predictions.logit_lens import LOGIT_LENS
from moedb.queries.analyses.routing_over_trials import ROUTING_BY_CLASS_OVER_TRIALS
from moedb.queries.questions.binding import bind
from moedb.queries.questions.catalog import catalog, no_such_query
from moedb.queries.questions.query_file import NamedQuery

if TYPE_CHECKING:
    import duckdb

_EVERY = (
    EXPERT_ATTRIBUTION,
    EXPERT_EFFECT,
    INTERVENTION_EFFECT,
    JSD_SPECIALIZATION,
    KMEANS_BASELINE,
    LABEL_EFFECTS,
    LABEL_EFFECT_COUNTS,
    LABEL_INFORMATION,
    LENS_EFFECT,
    LOGIT_LENS,
    OUTPUT_OVERLAP,
    PROMOTED_TOKENS,
    ROUTING_BY_CLASS_OVER_TRIALS,
    TOP_CONTEXTS,
    STATE_AND_FUNCTION,
)

ANALYSES: Mapping[str, Analysis] = MappingProxyType(
    {entry.name: entry for entry in sorted(_EVERY, key=lambda entry: entry.name)}
)
"""The analyses by name."""


def find_question(name: str) -> NamedQuery | Analysis:
    """Return the named query or the analysis called ``name``; underscores do for hyphens.

    Raises
    ------
    QueryNotFoundError
        If there is neither.
    """
    known: dict[str, NamedQuery | Analysis] = {**catalog(), **ANALYSES}
    found = known.get(name.replace("_", "-"))
    if found is None:
        raise no_such_query(name, known)
    return found


def sql_of(name: str, given: Mapping[str, object]) -> str:
    """Return the SQL of the named query called ``name``, with values in place of its parameters.

    Parameters
    ----------
    name
        Its name.
    given
        Values of its parameters; without one it is the default. A parameter that has none stays a
        parameter.

    Raises
    ------
    QueryNotFoundError
        If there is no such query.
    ParameterError
        If there is no such parameter, or a value is not valid.
    UsageError
        If it is an analysis, which SQL cannot say.
    """
    found = find_question(name)
    if isinstance(found, Analysis):
        raise UsageError(
            f"{found.name} has no SQL: it is computed in Python, by {found.function_name}",
            "the SQL that fetches what it reads is in the sidecar of: "
            f"moedb export {found.name} -o FILE",
        )
    unknown = {each.name for each in found.parameters if each.required} - set(given)
    return found.written_out(bind(found, given, unknown))


def relation_of(
    columns: Sequence[AnalysisColumn], rows: Sequence[tuple[object, ...]]
) -> "tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation]":
    """Put rows into a DuckDB relation of its own, in their order; return its connection too."""
    import pyarrow as pa

    from moedb.queries.results.rows.given import relation_of_table

    arrow_types = {
        "VARCHAR": pa.string(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
    }
    cells = {
        column.name: pa.array([row[at] for row in rows], arrow_types[column.sql_type])
        for at, column in enumerate(columns)
    }
    return relation_of_table(pa.table(cells))
