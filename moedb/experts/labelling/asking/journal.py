"""Every answer that was paid for, on the disk before it is used.

``answers/NAME.jsonl`` in the run's folder: a line for each request that was answered, under the
hash of its body. It outlives the labels (``moedb label-experts RUN --remove NAME`` takes it along
only with ``--forget``), and is deleted with the run.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any, get_type_hints

from filelock import FileLock, Timeout

from moedb.errors import StoreError
from moedb.experts.labelling.asking.answering import Reply
from moedb.store.containment import check_file, check_folder
from moedb.store.files import make_directories, sync_directory
from moedb.store.layout import RunLayout

FOLDER = "answers"


class Journal:
    """The answers of one name of labels, while :func:`opened`.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._replies = read_answers(path)
        is_new = not path.exists()
        # what a kill cut short would swallow the line after it
        torn = not is_new and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lock = Lock()
        if torn:
            os.write(self._handle, b"\n")
        if is_new:
            sync_directory(path.parent)

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, sha256: str) -> Reply | None:
        """The answer to a request; None where there is none."""
        return self._replies.get(sha256)

    def keep(self, sha256: str, reply: Reply) -> None:
        """Write an answer to the disk."""
        line = json.dumps({"sha256": sha256, **asdict(reply)}, ensure_ascii=False) + "\n"
        content = line.encode()
        with self._lock:
            while content:
                content = content[os.write(self._handle, content) :]
            os.fsync(self._handle)
            self._replies[sha256] = reply

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


@contextmanager
def opened(layout: RunLayout, name: str) -> Iterator[Journal]:
    """Open the journal of labels for one process.

    Raises
    ------
    StoreError
        If another process has it, or it leads out of the run.
    """
    folder = layout.folder / FOLDER
    path, lock_path = folder / f"{name}.jsonl", folder / f"{name}.lock"
    if not check_folder(folder):
        make_directories(folder)
    check_file(path)
    check_file(lock_path)
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"another process labels run {layout.run_id} under the name {name!r}",
            "wait for it, or choose another name: --name NAME",
        ) from error
    try:
        journal = Journal(path)
        try:
            yield journal
        finally:
            journal.close()
    finally:
        lock.release()


def forget(layout: RunLayout, name: str) -> int:
    """Delete the answers of a name; return how many there were."""
    with opened(layout, name) as journal:
        n_answers = len(journal)
        (layout.folder / FOLDER / f"{name}.jsonl").unlink(missing_ok=True)
    return n_answers


def answers_path(layout: RunLayout, name: str) -> Path:
    """The file of the answers of a name."""
    return layout.folder / FOLDER / f"{name}.jsonl"


def read_answers(path: Path) -> dict[str, Reply]:
    """The answers of a file by the hashes of their requests, without lines that are none."""
    if not check_folder(path.parent) or not check_file(path):
        return {}
    found = {}
    for line in path.read_bytes().splitlines():
        try:
            content = json.loads(line)
            sha256, reply = content.pop("sha256"), _reply(content)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(sha256, str):
            found[sha256] = reply
    return found


def _reply(content: dict[str, Any]) -> Reply:
    hints = get_type_hints(Reply)
    for each in fields(Reply):
        value, hint = content[each.name], hints[each.name]
        if not isinstance(value, int | float if hint is float else hint):
            raise TypeError(each.name)
    return Reply(**content)
