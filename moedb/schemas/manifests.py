"""The JSON files that make a store: its version, a run's configuration, a unit's commit.

They are frozen dataclasses that validate on construction; reading them costs no import beyond the
standard library, since every ``moedb sql`` does it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from moedb.errors import StoreDamagedError
from moedb.schemas.tables import MOE_LAYERS, RUNS, Column, Table

FORMAT_NAME = "moedb"
FORMAT_VERSION = (1, 0)
"""Major and minor version of the store's format. A reader refuses a newer major version."""


def _expect(value: object, kind: type | tuple[type, ...], where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        names = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise StoreDamagedError(f"{where}: expected {names}, got {value!r}")


def _expect_text(value: object, where: str) -> None:
    _expect(value, str, where)
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise StoreDamagedError(f"{where}: expected Unicode text, got {value!r}") from error
    if "\0" in str(value):
        raise StoreDamagedError(f"{where}: expected no null character, got {value!r}")


def _expect_count(value: object, where: str) -> None:
    _expect(value, int, where)
    if int(value) < 0:  # type: ignore[call-overload]
        raise StoreDamagedError(f"{where}: expected 0 or more, got {value!r}")


def _expect_cell(value: object, column: Column, where: str) -> None:
    if column.type == "string":
        _expect_text(value, where)
        return
    _expect(value, int, where)
    bits = 31 if column.type == "int32" else 63
    if not -(2**bits) <= int(value) < 2**bits:  # type: ignore[call-overload]
        raise StoreDamagedError(f"{where}: expected {column.type}, got {value!r}")


def _expect_row(row: object, table: Table, derived: set[str], where: str) -> None:
    """Check a row of ``table`` but for the columns that are ``derived``."""
    _expect(row, dict, where)
    for column in table.columns:
        if column.name not in derived:
            value = row.get(column.name)  # type: ignore[attr-defined]
            if value is not None or not column.nullable:
                _expect_cell(value, column, f"{where}: {column.name}")


def _expect_relative(path: str, where: str) -> None:
    """Refuse paths that lead out of the run's folder."""
    _expect_text(path, where)
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise StoreDamagedError(f"{where}: expected a path inside the run, got {path!r}")


class Manifest:
    """What the manifests share: JSON in and out, with the file named in every error."""

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Parse and validate ``text``, the content of the file ``where``.

        Raises
        ------
        StoreDamagedError
            If it is no JSON object, lacks a field, or a field has the wrong type.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StoreDamagedError(f"{where} is not valid JSON: {error}") from error
        _expect(content, dict, where)
        try:
            return cls._from_dict(content)
        except StoreDamagedError as error:
            raise StoreDamagedError(f"{where}: {error.message}") from error
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise StoreDamagedError(f"{where} is not a {cls.__name__}: {error}") from error

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        # Fields that a later minor version added are passed over.
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in content.items() if name in known})

    def to_json(self) -> str:
        """The manifest as JSON text, the same bytes for the same content."""
        content = dataclasses.asdict(self)  # type: ignore[call-overload]
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class StoreManifest(Manifest):
    """``moedb.json``: what marks a directory as a store, and the version of its format."""

    format: str = FORMAT_NAME
    major: int = FORMAT_VERSION[0]
    minor: int = FORMAT_VERSION[1]

    def __post_init__(self) -> None:
        _expect(self.major, int, "major")
        _expect(self.minor, int, "minor")
        if self.format != FORMAT_NAME:
            raise StoreDamagedError(f"format: expected {FORMAT_NAME!r}, got {self.format!r}")


@dataclass(frozen=True)
class UnitRange:
    """The examples of one unit, and how many rows of the arrays they take."""

    first_example: int
    end_example: int
    n_tokens: int
    n_rows: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _expect_count(getattr(self, field.name), field.name)


@dataclass(frozen=True)
class RunManifest(Manifest):
    """``run.json``: the resolved configuration of a run, written before anything else of it.

    Attributes
    ----------
    run_id
        Job and hash of the configuration.
    row
        The run's row of the table ``runs``, but for status and finished_at.
    unit_rows
        Array rows that each unit owns; unit u begins at row ``u * unit_rows``.
    units
        The units, in order.
    layers
        The rows of the table ``moe_layers``.
    arrays
        For each array name the layers it is kept for.
    """

    run_id: str
    row: dict[str, Any]
    unit_rows: int
    units: tuple[UnitRange, ...]
    layers: tuple[dict[str, Any], ...]
    arrays: dict[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        _expect_text(self.run_id, "run_id")
        _expect_row(self.row, RUNS, {"run_id", "status", "finished_at"}, "row")
        _expect_count(self.unit_rows, "unit_rows")
        for row in self.layers:
            _expect_row(row, MOE_LAYERS, {"run_id"}, "layers")
        for name, layers in self.arrays.items():
            _expect(name, str, "arrays")
            for layer in layers:
                _expect(layer, int, f"arrays: {name}")

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        return cls(
            run_id=content["run_id"],
            row=content["row"],
            unit_rows=content["unit_rows"],
            units=tuple(UnitRange(**unit) for unit in content["units"]),
            layers=tuple(content["layers"]),
            arrays={name: tuple(layers) for name, layers in content["arrays"].items()},
        )

    @property
    def n_rows(self) -> int:
        """Rows of every array of the run."""
        return self.unit_rows * len(self.units)


@dataclass(frozen=True)
class FileEntry:
    """One committed file: its path within the run, its size and its checksum."""

    path: str
    n_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _expect_relative(self.path, "path")
        _expect_count(self.n_bytes, "n_bytes")
        _expect(self.sha256, str, "sha256")


@dataclass(frozen=True)
class TableEntry:
    """The Parquet file that a unit adds to a table."""

    file: FileEntry
    n_rows: int

    def __post_init__(self) -> None:
        _expect_count(self.n_rows, "n_rows")


@dataclass(frozen=True)
class SegmentManifest(Manifest):
    """``segments/UNIT.json``: the commit of a unit.

    Attributes
    ----------
    unit
        The unit's name: its number in six digits; ``first`` and ``final`` hold the rows of the run
        as a whole.
    committed_at
        ISO 8601, UTC.
    tables
        For each table that the unit adds to, the file.
    shards
        The array shards that the unit wrote.
    """

    unit: str
    committed_at: str
    tables: dict[str, TableEntry]
    shards: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        _expect(self.unit, str, "unit")
        _expect_text(self.committed_at, "committed_at")
        _expect(self.tables, dict, "tables")

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        return cls(
            unit=content["unit"],
            committed_at=content["committed_at"],
            tables={
                name: TableEntry(file=FileEntry(**entry["file"]), n_rows=entry["n_rows"])
                for name, entry in content["tables"].items()
            },
            shards=tuple(FileEntry(**entry) for entry in content["shards"]),
        )
