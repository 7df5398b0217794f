"""moedb: a database of what Mixture-of-Experts models do inside.

>>> import moedb
>>> run = moedb.capture_ioi("moedb-store", n=20)  # doctest: +SKIP
>>> db = moedb.open("moedb-store")  # doctest: +SKIP
>>> db.query("expert-frequency", run=run).df()  # doctest: +SKIP
>>> db.sql("select count(*) from routing").df()  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moedb.schemas.version import __version__

if TYPE_CHECKING:
    from moedb.commands.api.capturing import capture_cifar as capture_cifar
    from moedb.commands.api.capturing import capture_ioi as capture_ioi
    from moedb.commands.api.capturing import capture_text as capture_text
    from moedb.commands.api.capturing import intervene as intervene
    from moedb.commands.api.copying import copy as copy
    from moedb.commands.api.copying import publish as publish
    from moedb.commands.api.experts.expert_labels import label_experts as label_experts
    from moedb.commands.api.experts.importing import import_labels as import_labels
    from moedb.commands.api.experts.label_checks import check_labels as check_labels
    from moedb.commands.api.experts.labelling import label_tokens as label_tokens
    from moedb.commands.api.experts.labelling import remove_addition as remove_addition
    from moedb.commands.api.experts.probing import probe as probe
    from moedb.commands.api.publishing import export as export
    from moedb.commands.api.publishing import export_duckdb as export_duckdb
    from moedb.commands.api.publishing import plot as plot
    from moedb.commands.api.publishing import report as report
    from moedb.errors import MoedbError as MoedbError
    from moedb.queries.analyses.uncertainty.resampling.settings import Null as Null
    from moedb.queries.analyses.uncertainty.resampling.settings import Resampling as Resampling
    from moedb.queries.database import Database as Database
    from moedb.queries.database import open_database as open
    from moedb.queries.results.result import Result as Result
    from moedb.store.engine.spark.settings import SparkSettings as SparkSettings

_LAZY = {
    "Database": ("moedb.queries.database", "Database"),
    "MoedbError": ("moedb.errors", "MoedbError"),
    "Result": ("moedb.queries.results.result", "Result"),
    "Null": ("moedb.queries.analyses.uncertainty.resampling.settings", "Null"),
    "Resampling": ("moedb.queries.analyses.uncertainty.resampling.settings", "Resampling"),
    "SparkSettings": ("moedb.store.engine.spark.settings", "SparkSettings"),
    "capture_cifar": ("moedb.commands.api.capturing", "capture_cifar"),
    "capture_ioi": ("moedb.commands.api.capturing", "capture_ioi"),
    "capture_text": ("moedb.commands.api.capturing", "capture_text"),
    "check_labels": ("moedb.commands.api.experts.label_checks", "check_labels"),
    "copy": ("moedb.commands.api.copying", "copy"),
    "export": ("moedb.commands.api.publishing", "export"),
    "export_duckdb": ("moedb.commands.api.publishing", "export_duckdb"),
    "import_labels": ("moedb.commands.api.experts.importing", "import_labels"),
    "intervene": ("moedb.commands.api.capturing", "intervene"),
    "label_experts": ("moedb.commands.api.experts.expert_labels", "label_experts"),
    "label_tokens": ("moedb.commands.api.experts.labelling", "label_tokens"),
    "plot": ("moedb.commands.api.publishing", "plot"),
    "open": ("moedb.queries.database", "open_database"),
    "probe": ("moedb.commands.api.experts.probing", "probe"),
    "publish": ("moedb.commands.api.copying", "publish"),
    "remove_addition": ("moedb.commands.api.experts.labelling", "remove_addition"),
    "report": ("moedb.commands.api.publishing", "report"),
}

__all__ = [
    "Database",
    "MoedbError",
    "Null",
    "Resampling",
    "Result",
    "SparkSettings",
    "__version__",
    "capture_cifar",
    "capture_ioi",
    "capture_text",
    "check_labels",
    "copy",
    "export",
    "export_duckdb",
    "import_labels",
    "intervene",
    "label_experts",
    "label_tokens",
    "open",
    "plot",
    "probe",
    "publish",
    "remove_addition",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import the public API on first use, so that ``import moedb`` costs nothing."""
    if name not in _LAZY:
        raise AttributeError(f"module 'moedb' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__doc__"]
