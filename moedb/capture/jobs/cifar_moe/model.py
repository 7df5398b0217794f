"""The CIFAR MoE: convolutions, one MoE layer of top-1 routing, a linear classifier."""

from dataclasses import dataclass

import torch
from torch import nn

from moedb.capture.jobs.cifar_moe.config import CLASSES, Balance, CifarMoEConfig, ConvStage, Gate


@dataclass(frozen=True)
class Routing:
    """The router's decisions.

    Attributes
    ----------
    logits
        Float[Tensor, "image expert"], before the softmax.
    expert_ids
        Int[Tensor, "image"]: the expert of each image.
    weights
        Float[Tensor, "image"]: the factor on that expert's output: its softmax probability, or 1
        behind a router whose probabilities are no weights.
    """

    logits: torch.Tensor
    expert_ids: torch.Tensor
    weights: torch.Tensor


class Router(nn.Linear):
    """A linear map to one score for each expert; the best takes the image."""

    def __init__(self, d_model: int, n_experts: int, gate: Gate) -> None:
        super().__init__(d_model, n_experts)
        self.gate = gate

    def route(self, features: torch.Tensor) -> Routing:
        """Choose an expert for each row of ``features``, (image, d_model)."""
        logits = self(features)
        weights, expert_ids = logits.float().softmax(dim=-1).max(dim=-1)
        if self.gate == "unweighted":
            weights = torch.ones_like(weights)
        return Routing(logits, expert_ids, weights)


class Expert(nn.Sequential):
    """A multilayer perceptron with one hidden layer, as wide out as in."""

    def __init__(self, d_model: int, d_expert: int) -> None:
        super().__init__(nn.Linear(d_model, d_expert), nn.ReLU(), nn.Linear(d_expert, d_model))


class MoELayer(nn.Module):
    """Experts of the same size, of which the router picks one for each image."""

    def __init__(self, d_model: int, d_expert: int, n_experts: int, gate: Gate) -> None:
        super().__init__()
        self.router = Router(d_model, n_experts, gate)
        self.experts = nn.ModuleList(Expert(d_model, d_expert) for _ in range(n_experts))

    def expert_outputs(self, features: torch.Tensor, expert_ids: torch.Tensor) -> torch.Tensor:
        """Output of each image's expert, (image, d_model), before its weight."""
        outputs = features.new_zeros(features.shape)
        for expert, module in enumerate(self.experts):
            images = (expert_ids == expert).nonzero().flatten()
            if len(images):
                output = module(features[images])
                outputs = outputs.to(output.dtype).index_copy(0, images, output)
        return outputs

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, Routing]:
        """Weighted output of each image's expert, (image, d_model), and the routing."""
        routing = self.router.route(features)
        outputs = self.expert_outputs(features, routing.expert_ids)
        return outputs * routing.weights.unsqueeze(-1), routing


class CifarMoE(nn.Module):
    """A classifier of CIFAR-10 images after Poetzscher.

    The MoE layer has no residual path around it: what the classifier reads is the expert's output
    times its weight.
    """

    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(self, config: CifarMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("image_mean", torch.zeros(3))
        self.register_buffer("image_std", torch.ones(3))
        inputs = (3, *(stage.filters for stage in config.stages))
        self.stages = nn.ModuleList(
            _stage(n, stage, config.batch_norm)
            for n, stage in zip(inputs, config.stages, strict=False)
        )
        self.final_pool = nn.MaxPool2d(config.final_pool)
        self.norm = (
            nn.BatchNorm1d(config.d_model, affine=False) if config.batch_norm else nn.Identity()
        )
        self.moe = MoELayer(config.d_model, config.d_expert, config.n_experts, config.gate)
        self.classifier = nn.Linear(config.d_model, len(CLASSES))
        # Faster on CPUs and GPUs alike; the images come with their channels last too.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the MoE layer reads of each image.

        Parameters
        ----------
        images
            UInt8[Tensor, "image height width channel"].

        Returns
        -------
        Float[Tensor, "image d_model"]
        """
        pixels = (images.float() / 255 - self.image_mean) / self.image_std
        hidden = pixels.permute(0, 3, 1, 2)  # channels stay last in memory
        for stage in self.stages:
            hidden = stage(hidden)
        vectors: torch.Tensor = self.norm(self.final_pool(hidden).flatten(1))
        return vectors

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, Routing]:
        """Class logits, (image, class), and the routing of each image."""
        outputs, routing = self.moe(self.features(images))
        return self.classifier(outputs), routing


def _stage(n_inputs: int, stage: ConvStage, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(n_inputs, stage.filters, 3, padding=1, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(stage.filters))
    layers.append(nn.ReLU())
    if stage.pool > 1:
        layers.append(nn.MaxPool2d(stage.pool))
    return nn.Sequential(*layers)


def balance_loss(routing: Routing, balance: Balance) -> torch.Tensor:
    """Load balancing loss over the images of a step.

    With B images and E experts, n_e the images that expert e gets and p_e(i) the probability that
    the router gives it for image i:

    ``mean``
        ``E * sum_e (n_e / B) (1 / B) sum_i p_e(i)``, equation 4 of Fedus et al. 2022; 1 when both
        are even.
    ``count``
        ``E * sum_e n_e (1 / B) sum_i p_e(i)``, the product of the number of images and the mean
        probability that Poetzscher writes of; B when even.
    ``sum``
        ``E * sum_e n_e sum_i p_e(i)``, both added up; B squared when even.

    Gradients reach the router, and what it reads, through the probabilities alone.
    """
    n_images, n_experts = routing.logits.shape
    counts = torch.bincount(routing.expert_ids, minlength=n_experts).float()
    probabilities = routing.logits.float().softmax(dim=-1).mean(dim=0)
    mean = n_experts * (counts / n_images * probabilities).sum()
    return mean * float(n_images) ** {"mean": 0, "count": 1, "sum": 2}[balance]
