"""A store of small CIFAR MoEs: trained, captured, shared by the tests."""

from dataclasses import dataclass
from pathlib import Path

from moedb.capture.jobs.cifar_moe.config import CifarTrainingConfig, cifar_moe_config
from moedb.capture.jobs.cifar_moe.dataset import cifar_dataset
from moedb.capture.jobs.cifar_moe.images import ImageSet
from moedb.capture.jobs.cifar_moe.job import plan_cifar_capture
from moedb.capture.jobs.cifar_moe.training.trial import train_cifar_moe
from moedb.capture.jobs.cifar_moe.training.trials import plan_trials
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from tests.support.models.cifar_images import make_image_sets

N_TEST, DRAWS, SEED = 400, 3, 7
BASE, SHORT = "base-8,8,8,16-3-epochs", "short-4-3-epochs"


@dataclass(frozen=True)
class CifarStore:
    """Where the store and the trained models are, and the images that were captured.

    The variants of its trials are named ``BASE`` and ``SHORT``.
    """

    folder: Path
    models: Path
    test: ImageSet

    @classmethod
    def at(cls, folder: Path) -> "CifarStore":
        """What `make_cifar_store` made in a folder."""
        return cls(folder / "store", folder / "models", image_sets()[1])


def image_sets() -> tuple[ImageSet, ImageSet]:
    return make_image_sets(700, N_TEST, seed=1)


def make_cifar_store(folder: Path) -> None:
    """Two trials of the base model with 2 and with 3 experts, one of the short with 2.

    And a trial of the base model with 3 experts whose outputs are not weighted.
    """
    train, test = image_sets()
    base = CifarTrainingConfig(
        model=cifar_moe_config("base", 2, (8, 8, 8, 16)),
        trial=0,
        seed=0,
        epochs=3,
        batch_size=50,
        n_validation=50,
        max_head_learning_rate=1e-2,  # for so few steps
    )
    short = base.model_copy(update={"model": cifar_moe_config("short", 2, (4,))})
    unweighted = base.model_copy(
        update={
            "model": cifar_moe_config("base", 2, (8, 8, 8, 16), "unweighted"),
            "balance": "count",
            "aux_coefficient": 1e-2,
        }
    )
    dataset = cifar_dataset(test, n=None, draws=DRAWS, seed=SEED)
    planned = [
        *plan_trials(base, (2, 3), range(2)),
        *plan_trials(short, (2,), range(1)),
        *plan_trials(unweighted, (3,), range(1)),
    ]
    for config in planned:
        model = folder / "models" / config.name
        train_cifar_moe(config, train, test, model)
        capture(plan_cifar_capture(CaptureOptions(str(model)), dataset), folder / "store")
