"""What a CIFAR MoE and its training are made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Variant = Literal["base", "short"]

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
IMAGE_SIZE = 32
"""Height and width of an image, in pixels."""


class ConvStage(BaseModel):
    """A 3x3 convolution of stride 1, ReLU, and max pooling; a pool of 1 is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: int = Field(ge=1)
    pool: int = Field(ge=1)


class CifarMoEConfig(BaseModel):
    """Shape of a CIFAR MoE. Frozen, and stored with the weights.

    Attributes
    ----------
    variant : str
        What the shape is called: ``base`` or ``short``.
    stages : tuple of ConvStage
        The convolutions before the MoE layer.
    final_pool : int
        Side of the last max pool, after which the image is one vector.
    n_experts : int
        Routed experts; each image goes to one.
    d_expert : int
        Width of an expert's hidden layer.
    batch_norm : bool
        Whether each convolution, before its ReLU, and the vector that the MoE layer reads are
        normalized over the batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant
    stages: tuple[ConvStage, ...] = Field(min_length=1)
    final_pool: int = Field(ge=1)
    n_experts: int = Field(ge=2)
    d_expert: int = Field(512, ge=1)
    batch_norm: bool = True

    @model_validator(mode="after")
    def _fits(self) -> CifarMoEConfig:
        size = IMAGE_SIZE
        for pool in (*(stage.pool for stage in self.stages), self.final_pool):
            if size % pool:
                raise ValueError(f"a pool of {pool} does not divide a side of {size} pixels")
            size //= pool
        return self

    @property
    def d_model(self) -> int:
        """Width of the vector that the router and the experts read."""
        size = IMAGE_SIZE // self.final_pool
        for stage in self.stages:
            size //= stage.pool
        return self.stages[-1].filters * size**2


_STAGES: dict[Variant, tuple[tuple[int, int], ...]] = {
    "base": ((128, 2), (256, 1), (256, 2), (512, 2)),
    "short": ((128, 2),),
}
_FINAL_POOL: dict[Variant, int] = {"base": 4, "short": 8}


def cifar_moe_config(
    variant: Variant, n_experts: int, filters: tuple[int, ...] | None = None
) -> CifarMoEConfig:
    """Shape of a variant of Poetzscher's models.

    Parameters
    ----------
    variant
        ``base`` has four convolutions before the MoE layer, ``short`` the first of them alone.
    n_experts
        Routed experts.
    filters
        Other numbers of filters, one for each convolution; experts get as wide as their input.

    Raises
    ------
    ValueError
        If ``filters`` does not give one number for each convolution.
    """
    stages = _STAGES[variant]
    if filters is not None:
        if len(filters) != len(stages):
            raise ValueError(
                f"{len(filters)} numbers of filters for the {len(stages)} convolutions of {variant}"
            )
        stages = tuple((n, pool) for n, (_, pool) in zip(filters, stages, strict=True))
    shape = CifarMoEConfig(
        variant=variant,
        stages=tuple(ConvStage(filters=n, pool=pool) for n, pool in stages),
        final_pool=_FINAL_POOL[variant],
        n_experts=n_experts,
    )
    return shape.model_copy(update={"d_expert": shape.d_model})


Augmentation = Literal["crop", "flip", "none"]


class CifarTrainingConfig(BaseModel):
    """A training run. Frozen, and stored with the weights.

    Attributes
    ----------
    model : CifarMoEConfig
        What is trained.
    trial, seed : int
        The trial's number, and the seed of its first weights and of the order of its images.
    epochs, batch_size : int
        Passes over the training images, and images of a step.
    max_learning_rate, weight_decay : float
        AdamW under one cycle of learning rates: the largest, of the convolutions.
    max_head_learning_rate : float
        The largest of the router, the experts and the classifier, in the same cycle.
    aux_coefficient : float
        Factor of the load balancing loss.
    n_validation : int
        Images at the end of the training split that are not trained on.
    augmentation : {"crop", "flip", "none"}
        Whether each image is shown as it is, by chance mirrored left to right, or that and moved
        by up to four pixels along each side.
    autocast : bool
        Compute in bf16 where it is safe to.
    device : str
        The kind of device: ``cpu``, ``cuda`` or ``mps``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: CifarMoEConfig
    trial: int = Field(ge=0)
    seed: int = Field(ge=0)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(512, ge=2)
    max_learning_rate: float = Field(1e-2, gt=0)
    max_head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    aux_coefficient: float = Field(1e-5, ge=0)
    n_validation: int = Field(1000, ge=0)
    augmentation: Augmentation = "crop"
    autocast: bool = False
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the trial's folder."""
        return f"cifar-moe-{self.model.variant}-{self.model.n_experts}-trial-{self.trial}"
