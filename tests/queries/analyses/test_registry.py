"""The analyses in Python as they are described, and the rows that their functions give."""

import subprocess
import sys
from typing import get_type_hints

import pytest

from moedb.queries.analyses.registry import ANALYSES, find_question

PYTHON_TYPES = {"VARCHAR": str, "INTEGER": int, "BIGINT": int, "DOUBLE": float}


def test_the_registry_is_consistent() -> None:
    assert list(ANALYSES) == sorted(ANALYSES)
    for name, analysis in ANALYSES.items():
        assert analysis.name == name
        assert find_question(name) is find_question(name.replace("-", "_")) is analysis
        assert len(set(analysis.column_names)) == len(analysis.columns)


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_a_row_has_the_declared_columns_and_types(name: str) -> None:
    analysis = ANALYSES[name]
    fields = get_type_hints(analysis.row)
    assert tuple(fields) == analysis.column_names
    for column in analysis.columns:
        declared = PYTHON_TYPES[column.sql_type]
        assert fields[column.name] in (declared, declared | None), column.name


def test_importing_the_registry_imports_nothing_heavy() -> None:
    code = "import sys, moedb.queries.analyses.registry; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "duckdb", "zarr"}
    assert not heavy & set(loaded.stdout.split())
