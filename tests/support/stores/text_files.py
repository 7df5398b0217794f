"""Small files of text data, for the tests."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moedb.capture.examples import Dataset
from moedb.capture.jobs.text.documents import TextColumns
from moedb.capture.jobs.text.job import TextOptions, text_dataset
from moedb.capture.jobs.text.sources.opening import open_source

Write = Callable[[str, str], Path]


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def dataset_of(
    tokenizer: Any,
    path: Path,
    *,
    labels: Sequence[str] = (),
    token_labels: Sequence[str] = (),
    text: str = "text",
    words: str = "words",
    lines: bool = False,
    **options: Any,
) -> Dataset:
    columns = TextColumns(text, tuple(labels), words, tuple(token_labels))
    source = open_source(str(path), lines=lines)
    return text_dataset(tokenizer, source=source, options=TextOptions(columns=columns, **options))
