"""File systems of object storage, by fsspec."""

import os
import re
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from moedb.errors import StoreError, UsageError, did_you_mean, first_line

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

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {"connect_timeout": 10, "read_timeout": 60},
        "default_block_size": 1 << 22,
    }
}
"""What file systems are made with: seconds that an answer may take, and how much is read at a time.
How often they ask again is for their own settings to say (AWS_MAX_ATTEMPTS)."""

_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION_STRING|SAS")
_SHORTEST_SECRET = 6


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
    scheme, rest = _parts(url)
    if scheme not in _EXTRAS:
        raise UsageError(
            f"stores are read from folders and from {', '.join(f'{s}://' for s in _EXTRAS)}, not "
            f"from {scheme}://; {did_you_mean(scheme, _EXTRAS)}",
            "--store s3://BUCKET/PREFIX, or a folder",
        )
    place = rest.partition("/")[0]
    # what may be a key is not said again
    if ":" in rest or set("?#%&") & set(rest) or ("@" in place and scheme not in _WITH_CONTAINER):
        raise UsageError(
            f"the address of a store holds no keys and no questions: {scheme}://...",
            "keys come from the environment, or from the configuration of the cloud's own tools",
        )
    path = rest.strip("/")
    if (
        not url.partition(":")[2].startswith("//")
        or not place
        or not _PLAIN.fullmatch(path)
        or {".", ".."} & set(path.split("/"))
    ):
        raise UsageError(
            f"{url!r} is no address of a store: expected {scheme}://BUCKET/PREFIX, of "
            "letters, digits and . _ - = ~ + @"
        )
    return f"{scheme}://{path}"


_WITH_CONTAINER = ("abfs", "abfss")
"""Schemes whose addresses begin with CONTAINER@ACCOUNT."""


def _parts(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition(":")
    return scheme.lower(), rest.removeprefix("//")


def options_of(url: str) -> dict[str, Any]:
    """What the file system that an address is of is made with."""
    return dict(_OPTIONS.get(_parts(url)[0], {}))


def file_system(url: str, keeps_listings: bool = False) -> "AbstractFileSystem":
    """Return the file system that an address is of; keys are found by its own rules.

    Parameters
    ----------
    url
        The address.
    keeps_listings
        Whether what was listed once is not listed again: then how long a file is is known without
        asking for it, and what others write since is not seen.

    Raises
    ------
    UsageError
        If the package that reaches it is not installed, or cannot be set up.
    """
    environment = tuple(sorted(each for each in os.environ.items() if _SET_BY.match(each[0])))
    scheme = _parts(url)[0]
    try:
        return _made(scheme, keeps_listings, environment)
    except ImportError as error:
        raise UsageError(
            f"to reach {scheme}:// takes packages that are not installed: {error}",
            f"pip install 'moedb[{_EXTRAS[scheme]}]'",
        ) from error
    except Exception as error:  # such as an account that is not named anywhere
        raise UsageError(
            f"{scheme}:// cannot be reached: {without_secrets(first_line(error))}", _KEYS
        ) from error


_SET_BY = re.compile(r"AWS_|GOOGLE_|GCLOUD_|GCSFS_|STORAGE_EMULATOR_HOST$|AZURE_|HF_|FSSPEC_|HOME$")


@lru_cache(maxsize=8)
def _made(
    scheme: str, keeps_listings: bool, environment: tuple[tuple[str, str], ...]
) -> "AbstractFileSystem":
    """A file system, one for all that is reached with the same keys: its connections are kept."""
    import fsspec

    listing = {"skip_instance_cache": True, "use_listings_cache": keeps_listings}
    found: AbstractFileSystem = fsspec.filesystem(scheme, **listing, **_OPTIONS.get(scheme, {}))
    if scheme == "hf":
        # DuckDB asks when a file was changed, which the hub's does not say; ours never are
        setattr(found, "modified", lambda path: datetime.fromtimestamp(0, UTC))  # noqa: B010
    if _EXTRAS[scheme] == "gcs":
        # its own reads ahead in tasks that it leaves behind where a file is not closed
        setattr(found, "_open", partial(found._open, cache_type="readahead"))  # noqa: B010
    return found


_KEYS = (
    "keys, region and endpoint come from the environment (AWS_..., GOOGLE_..., AZURE_..., HF_TOKEN)"
)


def addresses(files: "AbstractFileSystem", url: str) -> tuple[str, ...]:
    """An address as it is given, and as DuckDB says it once it has looked there.

    It then takes the first scheme of the file system's: ``abfs`` where ``az`` is given.
    """
    return tuple(dict.fromkeys((url, files.unstrip_protocol(files._strip_protocol(url)))))


def cannot_reach(url: str, error: Exception | str) -> StoreError:
    """The error that says that something on object storage could not be read or written."""
    what = error[:300] if isinstance(error, str) else first_line(error)
    return StoreError(f"{url} cannot be reached: {without_secrets(what)}", _KEYS)


def raised_by_file_system(text: str) -> str | None:
    """What a file system raised while DuckDB read through it, by DuckDB's message; else None."""
    if _PYTHON not in text:
        return None
    raised = _RAISED.findall(text)
    return raised[-1] if raised else text


_PYTHON = "Traceback (most recent call last)"
_RAISED = re.compile(r"^([A-Za-z_.]*(?:Error|Exception|Timeout)\b.*)$", re.MULTILINE)


def without_secrets(text: str) -> str:
    """A text without what may be keys: those of the environment, and those in addresses.

    Examples
    --------
    >>> without_secrets("no answer from https://me:mine@example.org/bucket")
    'no answer from https://...@example.org/bucket'
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET.search(name.upper()):
            text = text.replace(value, "...")
    return re.sub(r"://[^/\s@]*:[^/\s@]*@", "://...@", text)
