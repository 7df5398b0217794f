"""moedb: a database of what Mixture-of-Experts models do inside.

>>> import moedb
>>> db = moedb.open("moedb-store")  # doctest: +SKIP
>>> db.sql("select count(*) from routing").df()  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moedb.version import __version__

if TYPE_CHECKING:
    from moedb.queries.database import Database as Database
    from moedb.queries.database import open_database as open

__all__ = ["Database", "__version__", "open"]

_LAZY = {
    "open": ("moedb.queries.database", "open_database"),
    "Database": ("moedb.queries.database", "Database"),
}


def __getattr__(name: str) -> Any:
    """Import the public API on first use, so that ``import moedb`` costs nothing."""
    if name not in _LAZY:
        raise AttributeError(f"module 'moedb' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
