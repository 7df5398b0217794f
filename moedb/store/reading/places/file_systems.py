"""File systems of object storage, by fsspec."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from moedb.errors import StoreError, UsageError, did_you_mean

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_EXTRAS = {
    "s3": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "hf": "hub",
}
"""The schemes that are read, and the extra that each takes."""

_PLAIN = re.compile(r"[\w.=~+@ -]+(/[\w.=~+@ -]+)*", re.ASCII)


def checked_url(url: str) -> str:
    """Return the address of a store on object storage, without a slash at its end.

    Raises
    ------
    UsageError
        If it is of a kind that is not read, or holds a key, a query or what is no plain path.

    Examples
    --------
    >>> checked_url("s3://bucket/moe/store/")
    's3://bucket/moe/store'
    """
    parts = urlsplit(url)
    if parts.scheme not in _EXTRAS:
        raise UsageError(
            f"stores are read from folders and from {', '.join(f'{s}://' for s in _EXTRAS)}, not "
            f"from {parts.scheme}://; {did_you_mean(parts.scheme, _EXTRAS)}",
            "--store s3://BUCKET/PREFIX, or a folder",
        )
    if parts.password or (parts.username and parts.scheme != "abfss") or parts.query:
        raise UsageError(
            f"the address of a store holds no keys and no questions: {parts.scheme}://...",
            "keys come from the environment, or from the configuration of the cloud's own tools",
        )
    path = f"{parts.netloc}{parts.path}".strip("/")
    if not parts.netloc or not _PLAIN.fullmatch(path) or ".." in path.split("/"):
        raise UsageError(
            f"{url!r} is no address of a store: expected {parts.scheme}://BUCKET/PREFIX, of "
            "letters, digits and . _ - = ~ + @"
        )
    return f"{parts.scheme}://{path}"


def file_system(url: str) -> "AbstractFileSystem":
    """Return the file system that an address is of; keys are found by its own rules.

    Raises
    ------
    UsageError
        If the package that reaches it is not installed.
    """
    import fsspec

    scheme = urlsplit(url).scheme
    try:
        # a store is listed anew whenever it is opened
        found: AbstractFileSystem = fsspec.filesystem(
            scheme, skip_instance_cache=True, use_listings_cache=False
        )
    except ImportError as error:
        raise UsageError(
            f"to reach {scheme}:// takes packages that are not installed: {error}",
            f"pip install 'moedb[{_EXTRAS[scheme]}]'",
        ) from error
    return found


def cannot_reach(url: str, error: Exception) -> StoreError:
    """The error that says that something on object storage could not be read or written."""
    lines = str(error).strip().splitlines()
    what = lines[0] if lines else type(error).__name__
    return StoreError(
        f"{url} cannot be reached: {what}",
        "keys, region and endpoint come from the environment (AWS_..., GOOGLE_..., AZURE_..., "
        "HF_TOKEN)",
    )


def zarr_store(url: str) -> Any:
    """Return a store of zarr's that reads an address."""
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(url, read_only=True)
