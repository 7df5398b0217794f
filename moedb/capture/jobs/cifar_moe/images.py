"""CIFAR-10 images: from the hub, a folder of Parquet files, or the original batches."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moedb.capture.jobs.cifar_moe.config import CLASSES, IMAGE_SIZE
from moedb.capture.jobs.cifar_moe.pickles import read_batch
from moedb.capture.models.hub import hub_failure, tidy_output
from moedb.errors import DatasetError

HUB_ID = "uoft-cs/cifar10"
SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)
THREE_WAYS = (
    f"--data FOLDER with the Parquet files of the hub's {HUB_ID} (train-*.parquet, "
    "test-*.parquet), with the original python batches (data_batch_1 ... test_batch), or with the "
    f"binary ones (*.bin); without --data the hub's {HUB_ID} is fetched"
)


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes.

    Attributes
    ----------
    images
        UInt8[Array, "image height width channel"].
    labels
        Int64[Array, "image"]: indices into ``CLASSES``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Hash over the images and their classes."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def load_cifar10(data: Path | None, split: str) -> ImageSet:
    """Load one split of CIFAR-10.

    Parameters
    ----------
    data
        A folder as in the hub's dataset or the original archives, or one that holds such a folder;
        None fetches the hub's.
    split
        ``train`` or ``test``.

    Raises
    ------
    DatasetError
        If there is nothing to read, or what is there is damaged; the message names the three ways.
    """
    folder = _download() if data is None else Path(data).expanduser()
    if not folder.is_dir():
        what = "does not exist" if not folder.exists() else "is a file, not a folder"
        raise DatasetError(f"CIFAR-10: {folder} {what}", THREE_WAYS)
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for names, read in _LAYOUTS[split]:
            files = sorted(path for name in names for path in candidate.glob(name))
            if files:
                return _joined(read, files)
    raise DatasetError(f"CIFAR-10: {folder} holds no {split} images", THREE_WAYS)


def _download() -> Path:
    from huggingface_hub import snapshot_download

    tidy_output()
    try:
        return Path(snapshot_download(HUB_ID, repo_type="dataset", allow_patterns=["*.parquet"]))
    except Exception as error:  # every way in which a network can fail
        failure = hub_failure(error, HUB_ID, "dataset")
        raise failure.dataset_error(
            f"CIFAR-10: {HUB_ID} is not in the hub's cache and the hub did not give it "
            f"({failure.reason})",
            THREE_WAYS,
        ) from error


def _joined(read: Callable[[Path], ImageSet], files: Sequence[Path]) -> ImageSet:
    parts = []
    for path in files:
        try:
            parts.append(_checked(read(path), path))
        except DatasetError:
            raise
        except Exception as error:  # the file is a stranger's: whatever a decoder makes of it
            raise DatasetError(f"{path}: cannot be read ({error})", THREE_WAYS) from error
    return ImageSet(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def _checked(found: ImageSet, path: Path) -> ImageSet:
    if not len(found):
        raise DatasetError(f"{path}: no images", THREE_WAYS)
    low, high = int(found.labels.min()), int(found.labels.max())
    if low < 0 or high >= len(CLASSES):
        raise DatasetError(
            f"{path}: classes from {low} to {high}, expected 0 to {len(CLASSES) - 1}", THREE_WAYS
        )
    return found


def _read_parquet(path: Path) -> ImageSet:
    import pyarrow.parquet as pq
    from PIL import Image

    names = pq.read_schema(path).names
    image = next((name for name in ("img", "image") if name in names), None)
    label = next((name for name in ("label", "labels") if name in names), None)
    if image is None or label is None:
        raise DatasetError(
            f"{path}: expected the columns img and label, got {', '.join(names)}", THREE_WAYS
        )
    columns = pq.read_table(path, columns=[image, label])

    def decoded() -> Iterator[NDArray[np.uint8]]:
        for row, cell in enumerate(columns[image].to_pylist()):
            with Image.open(io.BytesIO(cell["bytes"])) as picture:
                if picture.size != (IMAGE_SIZE, IMAGE_SIZE):
                    raise DatasetError(
                        f"{path}: image {row} is {picture.width} x {picture.height} pixels, "
                        f"expected {IMAGE_SIZE} x {IMAGE_SIZE}",
                        THREE_WAYS,
                    )
                yield np.asarray(picture.convert("RGB"))

    images = list(decoded())
    return ImageSet(
        np.stack(images) if images else np.empty((0, *SHAPE), np.uint8),
        columns[label].to_numpy().astype(np.int64),
    )


def _read_binary(path: Path) -> ImageSet:
    pixels = int(np.prod(SHAPE))
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if len(content) % (1 + pixels):
        raise DatasetError(
            f"{path}: {len(content)} bytes, expected a multiple of {1 + pixels} "
            "(a class and an image each)",
            THREE_WAYS,
        )
    rows = content.reshape(-1, 1 + pixels)
    return ImageSet(_channels_last(rows[:, 1:]), rows[:, 0].astype(np.int64))


def _read_python(path: Path) -> ImageSet:
    by_name = read_batch(path)
    if not {"data", "labels"} <= by_name.keys():
        raise DatasetError(
            f"{path}: expected data and labels, got {', '.join(map(str, by_name))}", THREE_WAYS
        )
    pixels = np.asarray(by_name["data"], dtype=np.uint8)
    labels = np.asarray(by_name["labels"], dtype=np.int64)
    if pixels.shape != (len(labels), int(np.prod(SHAPE))):
        raise DatasetError(
            f"{path}: pixels of shape {pixels.shape} for {len(labels)} classes", THREE_WAYS
        )
    return ImageSet(_channels_last(pixels), labels)


def _channels_last(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    planes = rows.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


_Layout = tuple[tuple[str, ...], Callable[[Path], ImageSet]]

_LAYOUTS: dict[str, tuple[_Layout, ...]] = {
    "train": (
        (("train-*.parquet", "train.parquet"), _read_parquet),
        (("data_batch_*.bin",), _read_binary),
        (("data_batch_[0-9]",), _read_python),
    ),
    "test": (
        (("test-*.parquet", "test.parquet"), _read_parquet),
        (("test_batch.bin",), _read_binary),
        (("test_batch",), _read_python),
    ),
}
