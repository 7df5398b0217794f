"""The job ``cifar-moe``: CIFAR-10's test images through a trained CIFAR MoE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moedb.capture.examples import Dataset, Example
from moedb.capture.jobs.cifar_moe.checkpoint import SUMMARY
from moedb.capture.jobs.cifar_moe.config import CLASSES
from moedb.capture.jobs.cifar_moe.images import ImageSet
from moedb.errors import ModelNotFoundError, UsageError
from moedb.store.files import sha256_of_json

JOB = "cifar-moe"
SPLIT = "test"


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """Images as examples of one token each.

    Attributes
    ----------
    image_set
        The images; an example's id is its place here.
    """

    image_set: ImageSet

    @cached_property
    def sha256(self) -> str:
        """Hash over the images and their classes."""
        return sha256_of_json([self.image_set.sha256, list(CLASSES)])


def cifar_dataset(images: ImageSet, *, n: int | None, draws: int, seed: int) -> ImageDataset:
    """Label the first ``n`` test images.

    Parameters
    ----------
    images
        The test split.
    n
        Number of images; None for all.
    draws
        Random routers, and re-initializations of the experts, to average over.
    seed
        Seed of both.

    Raises
    ------
    UsageError
        If there are fewer images, or a number is below 1.
    """
    if n is not None and not 1 <= n <= len(images):
        raise UsageError(f"--n {n}: the test split has {len(images):,} images")
    if draws < 1:
        raise UsageError(f"--draws {draws}: expected 1 or more")
    n_images = len(images) if n is None else n
    chosen = ImageSet(images.images[:n_images], images.labels[:n_images])
    examples = tuple(
        Example(
            split=SPLIT,
            text=None,
            token_ids=(None,),
            tokens=(None,),
            labels={"class": CLASSES[label]},
            target_id=int(label),
        )
        for label in chosen.labels
    )
    config: Mapping[str, int] = {"n": n_images, "draws": draws, "seed": seed}
    return ImageDataset(JOB, "CIFAR-10, test images", config, examples, chosen)


def find_trials(paths: Sequence[Path]) -> list[Path]:
    """Folders of trained models: those named, and those in a named folder.

    Raises
    ------
    ModelNotFoundError
        If a path holds none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if (path / SUMMARY).is_file():
            found[path] = None
            continue
        below = sorted(summary.parent for summary in path.glob(f"*/{SUMMARY}"))
        if not below:
            what = "holds no trained CIFAR MoE" if path.exists() else "does not exist"
            raise ModelNotFoundError(
                f"{path} {what}",
                "moedb train cifar-moe trains them; --model FOLDER names one, or a folder of them",
            )
        found |= dict.fromkeys(below)
    return list(found)
