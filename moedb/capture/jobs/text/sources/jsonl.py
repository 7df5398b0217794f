"""Files of JSON lines: an object on each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moedb.capture.jobs.text.sources.rows import shown
from moedb.errors import DatasetError


def jsonl_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read rows: where each stands, and its values. Blank lines are passed over.

    Raises
    ------
    DatasetError
        If a line is not a JSON object.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{path.name}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                values = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise _broken(place, line, number, error) from error
            if not isinstance(values, dict):
                raise DatasetError(f"{place} is {shown(values)}; expected a JSON object")
            yield place, values


def _broken(place: str, line: bytes, number: int, error: Exception) -> DatasetError:
    if number == 1 and line.strip()[:1] == b"[":
        return DatasetError(
            f"{place} begins a JSON array; expected JSON lines, an object on each",
            "jq -c '.[]' FILE.json > FILE.jsonl",
        )
    return DatasetError(
        f"{place} is not JSON ({error}): {shown(line.decode(errors='replace').strip())}",
        "each line is an object, such as "
        + json.dumps({"text": "The shop was closed.", "topic": "town"}),
    )
