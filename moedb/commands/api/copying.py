"""Bringing runs elsewhere from Python, as the commands ``copy`` and ``publish`` do."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moedb.errors import StoreError, UsageError, first_line

if TYPE_CHECKING:
    from moedb.queries.report.dataset import Published
    from moedb.store.copying.runs import Copied


def copy(
    source: str | Path,
    target: str | Path,
    *,
    runs: str | Sequence[str] = (),
    take_over: bool = False,
    dry_run: bool = False,
) -> "list[Copied]":
    """Copy runs from one store to another, each file against its hash.

    Readers of the target see a complete run when all of it is there. The same call again goes on
    where one was stopped, and brings what was added to a run since.

    Parameters
    ----------
    source, target
        Folders, or addresses such as ``s3://bucket/store``; the target is made if need be.
    runs
        One run or several; none for all that are sound.
    take_over
        Replace files of the target that no manifest names, which a stopped copy left.
    dry_run
        Only say what would be copied.

    Returns
    -------
    list
        For each run what became of it: ``run_id``; ``state``, which is ``copied``, ``same`` or
        ``ahead``; ``n_files`` and ``n_bytes``; ``is_complete``; and ``others``, the units that
        somebody else has written there.

    Raises
    ------
    StoreError
        If a store cannot be read or written, a file is not what was committed, or the target has
        another run of a name.
    UsageError
        If a run, or an address, is none.
    """
    from moedb.commands.api.progress import FilesProgress
    from moedb.store.copying.runs import copy_runs, source_of, target_of
    from moedb.store.reading.snapshot import warn_of_damage

    chosen = [runs] if isinstance(runs, str) else list(runs)
    found = source_of(source)
    warn_of_damage(found)
    with FilesProgress("copying") as progress:
        return list(
            copy_runs(
                found,
                target_of(target),
                chosen,
                take_over=take_over,
                dry_run=dry_run,
                progress=progress,
            )
        )


_HUB = re.compile(r"hf://(?:datasets/)?([\w.-]+/[\w.-]+)/?", re.ASCII)


def publish(
    runs: str | Sequence[str],
    to: str | Path,
    store: str | Path | None = None,
    *,
    with_texts: bool = False,
    arrays: bool = False,
    license: str | None = None,
    public: bool = False,
) -> "Published":
    """Write complete runs as a data set that anybody can read, with its card.

    Parameters
    ----------
    runs
        One run or several.
    to
        A new folder, or a data set of the hub of Hugging Face, such as ``hf://me/routing``, which
        is made if need be.
    store
        The store's folder, or its address; None for ``MOEDB_STORE``, or ``./moedb-store``.
    with_texts
        Write the columns that hold texts, which are null otherwise.
    arrays
        Write the arrays.
    license
        What the card says of the licence.
    public
        Make the data set of the hub for everybody to see, where it is new.

    Returns
    -------
    Published
        The runs, the folder, and how much it is.

    Raises
    ------
    UsageError
        If a run is incomplete, the folder is not empty, or there is no token for the hub.
    StoreError
        If a file is not what was committed, or the folder or the hub cannot be written to.
    """
    from moedb.queries.database import open_database
    from moedb.queries.report.dataset import write_dataset

    chosen = [runs] if isinstance(runs, str) else list(runs)
    name = None
    if str(to).startswith("hf:"):
        found = _HUB.fullmatch(str(to))
        if found is None:
            raise UsageError(f"{str(to)!r} is no data set of the hub", "hf://NAME/DATASET")
        name = found[1]
        _expect_token()
    with open_database(store) as database, tempfile.TemporaryDirectory() as temporary:
        done = write_dataset(
            database,
            chosen,
            Path(temporary) / "dataset" if name else Path(to),
            with_texts=with_texts,
            with_arrays=arrays,
            license=license,
            place=f"hf://datasets/{name}" if name else None,
        )
        if name is not None:
            _upload(done.folder, name, public)
    return done


def _expect_token() -> None:
    """Check that something can be sent to the hub, before anything is written."""
    try:
        from huggingface_hub import get_token
    except ImportError as error:
        raise UsageError(
            f"to publish on the hub takes a package that is not installed: {error}",
            "pip install 'moedb[hub]'",
        ) from error
    if get_token() is None:
        raise UsageError(
            "there is no token for the hub of Hugging Face",
            "hf auth login   or set HF_TOKEN; or publish to a folder: --to FOLDER",
        )


def _upload(folder: Path, name: str, public: bool) -> None:
    from huggingface_hub import HfApi

    from moedb.store.reading.places.file_systems import without_secrets

    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder)
    except Exception as error:  # of the network, or of what the token may do
        raise StoreError(
            f"hf://datasets/{name} cannot be written: {without_secrets(first_line(error))}",
            "publish to a folder (--to FOLDER), and upload that: hf upload",
        ) from error
