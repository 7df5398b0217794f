"""Zarr over object storage: values are read there, metadata where they were checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from moedb.store.layout import METADATA


class RemoteArrays(WrapperStore[FsspecStore]):
    """The group of a run's arrays on object storage.

    Metadata name the codecs that are run over what is read. They come from the folder, so that what
    was checked is what counts, whatever the server answers the second time.

    Parameters
    ----------
    url
        The group's address.
    options
        What its file system is made with.
    folder
        The folder with its metadata.
    size_of
        Returns how many bytes a key has; None where it was not listed.
    """

    def __init__(
        self,
        url: str,
        options: dict[str, Any],
        folder: Path,
        size_of: Callable[[str], int | None],
    ) -> None:
        super().__init__(FsspecStore.from_url(url, storage_options=options, read_only=True))
        self._metadata = LocalStore(folder, read_only=True)
        self._size_of = size_of

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key."""
        if key.rpartition("/")[2].startswith("."):  # of older formats
            return None
        if key.rpartition("/")[2] == METADATA:
            return await self._metadata.get(key, prototype, byte_range)
        if isinstance(byte_range, SuffixByteRequest):  # which Azure has not
            size = self._size_of(key)
            if size is not None:
                byte_range = RangeByteRequest(max(0, size - byte_range.suffix), size)
        return await super().get(key, prototype, byte_range)
