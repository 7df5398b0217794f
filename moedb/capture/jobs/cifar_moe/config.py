"""What a CIFAR MoE and its training are made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Variant = Literal["base", "short"]
Gate = Literal["weighted", "unweighted"]
"""Whether an expert's output is multiplied by the router's probability of it, or taken as it is."""
Balance = Literal["mean", "count", "sum"]
"""How the load balancing loss adds up the images of a step; see `balance_loss`."""

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
    gate : {"weighted", "unweighted"}
        Whether the chosen expert's output is multiplied by its softmax probability. Without that
        the router learns by the load balancing loss alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant
    stages: tuple[ConvStage, ...] = Field(min_length=1)
    final_pool: int = Field(ge=1)
    n_experts: int = Field(ge=2)
    d_expert: int = Field(512, ge=1)
    batch_norm: bool = True
    gate: Gate = "weighted"  # what a model is that does not say: there was no other

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
    variant: Variant,
    n_experts: int,
    filters: tuple[int, ...] | None = None,
    gate: Gate = "weighted",
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
    gate
        Whether outputs are multiplied by the router's probability.

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
        gate=gate,
    )
    return shape.model_copy(update={"d_expert": shape.d_model})


Augmentation = Literal["crop", "flip", "none"]


class CifarRecipe(BaseModel):
    """What trials are trained alike in, beside their shape. Frozen, and part of config.json.

    Attributes
    ----------
    epochs : int
        Passes over the training images.
    augmentation : {"crop", "flip", "none"}
        Whether each image is shown as it is, by chance mirrored left to right, or that and moved
        by up to four pixels along each side.
    balance : {"mean", "count", "sum"}
        Which load balancing loss; see `moedb.capture.jobs.cifar_moe.model.balance_loss`.
    aux_coefficient : float
        Factor of the load balancing loss.
    """

    model_config = ConfigDict(frozen=True)

    epochs: int = Field(10, ge=1)
    augmentation: Augmentation = "crop"
    balance: Balance = "mean"  # what a run had that does not say: there was no other
    aux_coefficient: float = Field(1e-5, ge=0)

    def variant_name(self, shape: CifarMoEConfig) -> str:
        """The variant's name, with what is not as in the paper's experiments appended.

        Such as ``base``, or ``base-32,64,64,128-4-epochs-flip``: trials of the same name and
        number of experts can be averaged.
        """
        parts: list[str] = [shape.variant]
        filters = tuple(stage.filters for stage in shape.stages)
        if filters != tuple(n for n, _ in _STAGES[shape.variant]):
            parts.append(",".join(map(str, filters)))
        if self.epochs != 10:
            parts.append(f"{self.epochs}-epochs")
        if self.augmentation != "crop":
            parts.append(self.augmentation)
        return "-".join(parts)


class CifarTrainingConfig(CifarRecipe):
    """A training run. Frozen, and stored with the weights.

    Attributes
    ----------
    model : CifarMoEConfig
        What is trained.
    trial, seed : int
        The trial's number, and the seed of its first weights and of the order of its images.
    batch_size : int
        Images of a step.
    max_learning_rate, weight_decay : float
        AdamW under one cycle of learning rates: the largest, of the convolutions.
    max_head_learning_rate : float
        The largest of the router, the experts and the classifier, in the same cycle.
    n_validation : int
        Images at the end of the training split that are not trained on.
    autocast : bool
        Compute in bf16 where it is safe to.
    device : str
        The kind of device: ``cpu``, ``cuda`` or ``mps``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: CifarMoEConfig
    trial: int = Field(ge=0)
    seed: int = Field(ge=0)
    batch_size: int = Field(512, ge=2)
    max_learning_rate: float = Field(1e-2, gt=0)
    max_head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    n_validation: int = Field(1000, ge=0)
    autocast: bool = False
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the trial's folder; gate and balance are in it unless they are the first ones."""
        parts = ["cifar-moe", self.model.variant, str(self.model.n_experts)]
        for choice, first in ((self.model.gate, "weighted"), (self.balance, "mean")):
            if choice != first:
                parts.append(choice)
        if self.aux_coefficient != 1e-5:
            parts.append(str(self.aux_coefficient))
        return "-".join([*parts, "trial", str(self.trial)])
