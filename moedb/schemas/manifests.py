"""The JSON files that make a store: its version, a run's configuration, the commits.

They are frozen dataclasses that validate on construction; reading them costs no import beyond the
standard library, since every ``moedb sql`` does it.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Self

from moedb.errors import StoreDamagedError
from moedb.schemas.additions import Addition
from moedb.schemas.arrays import IMAGES
from moedb.schemas.seals import check_seal, seal
from moedb.schemas.tables import FORMAT_MAJOR, MOE_LAYERS, RUNS, Column, Table

FORMAT_NAME = "moedb"
FORMAT_VERSION = (FORMAT_MAJOR, 1)
"""Major and minor version of the store's format. A reader refuses a newer major version, a writer
a newer minor one too. Additions came with 2.1."""
SEALED_SINCE = 2
"""The major version from which on every manifest has a seal."""

ADDED = "added-"
"""How the names of segments begin that are additions, or parts of them."""

_SHA256_LENGTH = 64
_LARGEST_SIDE = 4096
"""Pixels of a side of an image."""


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
    if type(value) is int and value >= 0:
        return
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


def _expect_image_shape(value: tuple[object, ...], where: str) -> None:
    """Height, width and channels: grey, or red, green and blue."""
    if not (
        len(value) == 3
        and all(type(n) is int and 1 <= n <= _LARGEST_SIDE for n in value)
        and value[2] in (1, 3)
    ):
        raise StoreDamagedError(
            f"{where}: expected height, width and 1 or 3 channels, got {value!r}"
        )


def _expect_sha256(value: object, where: str) -> None:
    if not isinstance(value, str) or len(value) != _SHA256_LENGTH:
        raise StoreDamagedError(f"{where}: expected {_SHA256_LENGTH} digits, got {value!r}")


def _expect_relative(path: str, where: str) -> None:
    """Refuse paths that lead out of the run's folder."""
    _expect_text(path, where)
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise StoreDamagedError(f"{where}: expected a path inside the run, got {path!r}")


class Manifest:
    """What the manifests share: JSON in and out, with the file named in every error."""

    @classmethod
    def from_json(cls, text: str, where: str, major: int = FORMAT_MAJOR) -> Self:
        """Parse and validate ``text``, the content of the file ``where``.

        Parameters
        ----------
        text
            The text.
        where
            The file, for messages.
        major
            The format that it is of. From 2 on it must have an unbroken seal.

        Raises
        ------
        StoreDamagedError
            If it is no JSON object, its seal is broken, it lacks a field, or a field has the wrong
            type.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StoreDamagedError(f"{where} is not valid JSON: {error}") from error
        _expect(content, dict, where)
        if cls._is_sealed(content, major):
            check_seal(text, where)
        try:
            return cls._from_dict(content)
        except StoreDamagedError as error:
            raise StoreDamagedError(f"{where}: {error.message}") from error
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise StoreDamagedError(f"{where} is not a {cls.__name__}: {error}") from error

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        # Fields that a later minor version added are passed over.
        return cls(**_known(content, cls))

    @classmethod
    def _is_sealed(cls, content: Mapping[str, Any], major: int) -> bool:
        return major >= SEALED_SINCE

    def to_json(self) -> str:
        """The manifest as JSON text with its seal, the same bytes for the same content."""
        return seal(json.dumps(self._to_dict(), indent=1, sort_keys=True, ensure_ascii=False))

    def _to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]


def _known(content: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The fields of ``content`` that ``kind`` has. A later minor version may add others."""
    known = _field_names(kind)
    return {name: value for name, value in content.items() if name in known}


@cache
def _field_names(kind: type) -> frozenset[str]:
    return frozenset(entry.name for entry in dataclasses.fields(kind))


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
        if self.major < 1:
            raise StoreDamagedError(f"major: expected 1 or more, got {self.major!r}")

    @classmethod
    def _is_sealed(cls, content: Mapping[str, Any], major: int) -> bool:
        # of a newer one it is only said that it is newer
        return content.get("major") == FORMAT_MAJOR


@dataclass(frozen=True)
class UnitRange:
    """The examples of one unit, and how many rows of the arrays they take."""

    first_example: int
    end_example: int
    n_tokens: int
    n_rows: int

    def __post_init__(self) -> None:
        for name in ("first_example", "end_example", "n_tokens", "n_rows"):
            _expect_count(getattr(self, name), name)


@dataclass(frozen=True)
class ModelEnd:
    """What a run says of the end of its model, beside the arrays of unembedding and final norm.

    Attributes
    ----------
    n_vocabulary
        Rows of the unembedding.
    centers
        Whether the final norm subtracts the mean.
    factor
        What the model multiplies its logits by.
    """

    n_vocabulary: int
    centers: bool
    factor: float

    def __post_init__(self) -> None:
        _expect_count(self.n_vocabulary, "model_end: n_vocabulary")
        for name, kind in (("centers", bool), ("factor", float)):
            if type(getattr(self, name)) is not kind:
                value = getattr(self, name)
                raise StoreDamagedError(
                    f"model_end: {name}: expected {kind.__name__}, got {value!r}"
                )


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
    model_end
        What is kept of the model's end; None where the unembedding is not.
    image_shape
        Height, width and channels of the images that the arrays keep; None where they keep none.
    """

    run_id: str
    row: dict[str, Any]
    unit_rows: int
    units: tuple[UnitRange, ...]
    layers: tuple[dict[str, Any], ...]
    arrays: dict[str, tuple[int, ...]]
    model_end: ModelEnd | None = None
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _expect_text(self.run_id, "run_id")
        _expect_row(self.row, RUNS, {"run_id", "status", "finished_at"}, "row")
        _expect_count(self.unit_rows, "unit_rows")
        for row in self.layers:
            _expect_row(row, MOE_LAYERS, {"run_id"}, "layers")
            # Of the arrays alone, and no column: a store that was written before lacks it.
            _expect_count(row.get("d_shared", 0), "layers: d_shared")
        for name, layers in self.arrays.items():
            _expect(name, str, "arrays")
            for layer in layers:
                _expect(layer, int, f"arrays: {name}")
        if self.image_shape is not None:
            _expect_image_shape(self.image_shape, "image_shape")
        elif IMAGES in self.arrays:
            raise StoreDamagedError("image_shape: missing, and the run keeps images")

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        return cls(
            run_id=content["run_id"],
            row=content["row"],
            unit_rows=content["unit_rows"],
            units=tuple(UnitRange(**_known(unit, UnitRange)) for unit in content["units"]),
            layers=tuple(content["layers"]),
            arrays={name: tuple(layers) for name, layers in content["arrays"].items()},
            model_end=(
                ModelEnd(**_known(content["model_end"], ModelEnd))
                if "model_end" in content
                else None
            ),
            image_shape=tuple(content["image_shape"]) if "image_shape" in content else None,
        )

    def _to_dict(self) -> dict[str, Any]:
        found = super()._to_dict()
        for name in ("model_end", "image_shape"):
            if found[name] is None:
                del found[name]
        return found

    @property
    def n_rows(self) -> int:
        """Rows of every array whose rows are tokens."""
        return self.unit_rows * len(self.units)


class FileEntry(NamedTuple):
    """One committed file: its path within the run, its size and its checksum.

    A store may have a hundred thousand: the manifest that holds them checks them together.
    """

    path: str
    n_bytes: int
    sha256: str

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make one of an entry in a manifest; fields that it does not know are passed over."""
        return cls(content["path"], content["n_bytes"], content["sha256"])


_NO_BITS: dict[str, int] = {}


class TableEntry(NamedTuple):
    """A Parquet file of a table.

    Attributes
    ----------
    path, n_bytes, sha256
        The file.
    n_rows
        How many rows it holds.
    significant_bits
        For each column of floats whose values all have few significant bits, how many: such as 8
        where every value is a bfloat16. The others have all that the column's type holds.
    """

    path: str
    n_bytes: int
    sha256: str
    n_rows: int
    significant_bits: Mapping[str, int] = _NO_BITS

    @property
    def file(self) -> FileEntry:
        """The file."""
        return FileEntry(self.path, self.n_bytes, self.sha256)

    def to_dict(self) -> dict[str, Any]:
        """The entry as it stands in a segment's manifest."""
        entry = self._asdict()
        entry["significant_bits"] = dict(self.significant_bits)
        return entry if self.significant_bits else {**self.file._asdict(), "n_rows": self.n_rows}


def _expect_entries(files: Sequence[FileEntry], tables: Sequence[TableEntry] = ()) -> None:
    """Check the entries of a manifest: at once, and one by one where they are not as nearly all."""
    if _are_plain(files, tables):
        return
    for file in (*files, *[entry.file for entry in tables]):
        _expect_relative(file.path, "path")
        _expect_count(file.n_bytes, "n_bytes")
        _expect_sha256(file.sha256, "sha256")
    for entry in tables:
        _expect_count(entry.n_rows, "n_rows")
        _expect(entry.significant_bits, dict, "significant_bits")


def _are_plain(files: Sequence[FileEntry], tables: Sequence[TableEntry]) -> bool:
    paths = [entry.path for entry in tables]
    counts = [entry.n_bytes for entry in tables]
    digests = [entry.sha256 for entry in tables]
    bits = [entry.significant_bits for entry in tables]
    counts += [entry.n_rows for entry in tables]
    for file in files:
        paths.append(file.path)
        counts.append(file.n_bytes)
        digests.append(file.sha256)
    texts, numbers = {*map(type, paths), *map(type, digests)}, {*map(type, counts)}
    if not (texts <= {str} and numbers <= {int} and {*map(type, bits)} <= {dict}):
        return False
    # a path may hold the separator: then it is looked at by itself
    joined = f"|{'|'.join(paths)}|" if paths else "|"
    return (
        joined.isascii()
        and joined.isprintable()
        and ".." not in joined
        and "\\" not in joined
        and "|/" not in joined
        and "||" not in joined
        and {*map(len, digests)} <= {_SHA256_LENGTH}
        and min(counts, default=0) >= 0
    )


@dataclass(frozen=True)
class SegmentManifest(Manifest):
    """``segments/UNIT.json``: the commit of a unit, or of many that were put together.

    Attributes
    ----------
    unit
        The unit's name: its number in six digits; ``first`` and ``final`` hold the rows of the run
        as a whole; ``compacted-...`` stands for all that were committed before it; ``added-...``
        is an addition, or a part of one.
    committed_at
        ISO 8601, UTC.
    tables
        For each table that it adds to, the files.
    shards
        The array shards.
    run_id, path
        Whose it is, and its place in the run's folder. Empty in format 1, as what follows.
    run_sha256
        Hash of the ``run.json`` that it was written under.
    arrays_sha256
        Hash over the hashes of the arrays' metadata; empty without arrays.
    metadata
        The arrays' metadata, file by file; in ``first`` alone.
    addition
        The addition that its rows are of; None where they are the run's own.
    """

    unit: str
    committed_at: str
    tables: dict[str, tuple[TableEntry, ...]]
    shards: tuple[FileEntry, ...]
    run_id: str = ""
    path: str = ""
    run_sha256: str = ""
    arrays_sha256: str = ""
    metadata: tuple[FileEntry, ...] = ()
    addition: Addition | None = None

    def __post_init__(self) -> None:
        _expect(self.unit, str, "unit")
        _expect_text(self.committed_at, "committed_at")
        _expect(self.tables, dict, "tables")
        for name in ("run_id", "path", "run_sha256", "arrays_sha256"):
            _expect(getattr(self, name), str, name)
        _expect_entries((*self.shards, *self.metadata), [*chain(*self.tables.values())])
        if (self.addition is not None) != self.unit.startswith(ADDED):
            raise StoreDamagedError(f"addition: of the unit {self.unit!r}: {self.addition!r}")

    @classmethod
    def from_json(cls, text: str, where: str, major: int = FORMAT_MAJOR) -> Self:
        """Parse and validate a manifest of either format, as :meth:`Manifest.from_json` says."""
        segment = super().from_json(text, where, major)
        if major >= SEALED_SINCE:
            for name in ("run_id", "path", "run_sha256"):
                if not getattr(segment, name):
                    raise StoreDamagedError(f"{where} is not a {cls.__name__}: it lacks {name!r}")
        return segment

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        return cls(
            unit=content["unit"],
            committed_at=content["committed_at"],
            tables={name: _entries(value) for name, value in content["tables"].items()},
            shards=tuple(map(FileEntry.from_dict, content["shards"])),
            run_id=content.get("run_id", ""),
            path=content.get("path", ""),
            run_sha256=content.get("run_sha256", ""),
            arrays_sha256=content.get("arrays_sha256", ""),
            metadata=tuple(map(FileEntry.from_dict, content.get("metadata", ()))),
            addition=Addition.from_dict(content["addition"]) if "addition" in content else None,
        )

    def _to_dict(self) -> dict[str, Any]:
        tables = {
            name: [entry.to_dict() for entry in entries] for name, entries in self.tables.items()
        }
        shards = [entry._asdict() for entry in self.shards]
        metadata = [entry._asdict() for entry in self.metadata]
        found = {**vars(self), "tables": tables, "shards": shards, "metadata": metadata}
        if self.addition is None:
            del found["addition"]
            return found
        return {**found, "addition": self.addition.to_dict()}


def _entries(value: Any) -> tuple[TableEntry, ...]:
    """The files of a table: several in format 2, one with its size a level deeper in format 1."""
    if isinstance(value, dict):
        return (TableEntry(*FileEntry.from_dict(value["file"]), value["n_rows"]),)
    return tuple(
        [
            TableEntry(
                entry["path"],
                entry["n_bytes"],
                entry["sha256"],
                entry["n_rows"],
                entry.get("significant_bits") or _NO_BITS,
            )
            for entry in value
        ]
    )


@dataclass(frozen=True)
class HeadManifest(Manifest):
    """``heads/NUMBER.json``: what a complete run consists of. Of several the newest one counts.

    Attributes
    ----------
    run_id, path
        Whose it is, and its place in the run's folder.
    number
        Its number, from 0.
    written_at, finished_at
        When it was written, and when the run's last unit was: ISO 8601, UTC.
    run_sha256
        Hash of ``run.json``.
    metadata
        The arrays' metadata.
    segments
        The manifests that make the run, and no others.
    kept_until
        What only older heads name may be deleted after this, ISO 8601, UTC; null for the first.
    """

    run_id: str
    path: str
    number: int
    written_at: str
    finished_at: str
    run_sha256: str
    metadata: tuple[FileEntry, ...]
    segments: tuple[FileEntry, ...]
    kept_until: str | None = None

    def __post_init__(self) -> None:
        for name in ("run_id", "path", "written_at", "finished_at"):
            _expect_text(getattr(self, name), name)
        _expect_count(self.number, "number")
        _expect_sha256(self.run_sha256, "run_sha256")
        if self.kept_until is not None:
            _expect_text(self.kept_until, "kept_until")
        _expect_entries((*self.metadata, *self.segments))

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> Self:
        files = {
            name: tuple(map(FileEntry.from_dict, content[name]))
            for name in ("metadata", "segments")
        }
        return cls(**{**_known(content, cls), **files})

    def _to_dict(self) -> dict[str, Any]:
        metadata = [entry._asdict() for entry in self.metadata]
        segments = [entry._asdict() for entry in self.segments]
        return {**vars(self), "metadata": metadata, "segments": segments}
