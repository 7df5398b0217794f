"""Capturing a CIFAR MoE: its routing of each image, and its answer under each condition."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from moedb.capture.conditions import UNTOUCHED, Condition
from moedb.capture.jobs.cifar_moe.checkpoint import load_cifar_moe, read_recipe
from moedb.capture.jobs.cifar_moe.config import CLASSES, CifarMoEConfig, CifarRecipe
from moedb.capture.jobs.cifar_moe.dataset import ImageDataset
from moedb.capture.jobs.cifar_moe.images import SHAPE
from moedb.capture.jobs.cifar_moe.model import CifarMoE, Expert, Routing
from moedb.capture.jobs.similarity.cosines import joined, similarity_columns
from moedb.capture.jobs.similarity.weights import Stacked, listed_weights
from moedb.capture.models.checkpoints import local_checkpoint
from moedb.capture.models.device import chosen_device, use_large_pages
from moedb.capture.pipeline.plan import Batch, CaptureOptions, CapturePlan, complete_plan
from moedb.capture.pipeline.sizes import ModelShape
from moedb.capture.structure.blocks import MoEBlock
from moedb.capture.structure.router_rule import RouterRule
from moedb.capture.structure.wiring import BlockWiring
from moedb.capture.tracing.activations import LayerActivations
from moedb.capture.tracing.batch_records import BatchReader, BatchRecords
from moedb.errors import UsageError
from moedb.schemas.arrays import IMAGES
from moedb.schemas.interventions import FORCE, RANDOM, RANDOM_REWEIGHTED, REINITIALIZE
from moedb.store.writing.tables.parquet import Columns

ARRAYS = ("router_logits", "router_input", "expert_outputs", "all_expert_outputs", IMAGES)


def plan_cifar_capture(options: CaptureOptions, dataset: ImageDataset) -> CapturePlan:
    """Resolve every choice of the capture of one trained model.

    Parameters
    ----------
    options
        What the user chose; ``model`` is the model's folder.
    dataset
        The images.

    Raises
    ------
    ModelError, UsageError
        If the folder holds no CIFAR MoE, or an option does not fit it.
    """
    if options.dtype not in (None, "float32"):
        raise UsageError(f"--dtype {options.dtype}: a CIFAR MoE is captured in float32")
    use_large_pages()
    device = chosen_device(options.device)
    folder = Path(options.model)
    model, config = load_cifar_moe(folder)
    shape = ModelShape(
        blocks=(moe_block(model.config),),
        n_layers=len(model.config.stages) + 1,
        d_model=model.config.d_model,
        itemsize=4,
        arrays=ARRAYS,
        image_shape=SHAPE,
    )
    settings = dataset.config
    return complete_plan(
        options,
        local_checkpoint(folder),
        dataset,
        shape,
        dtype="float32",
        device=device,
        open_model=partial(_open, folder, dataset, device),
        conditions=cifar_conditions(model.config, settings["draws"], settings["seed"]),
        run_labels=run_labels(model.config, read_recipe(folder, config), config),
    )


def run_labels(
    shape: CifarMoEConfig, recipe: CifarRecipe, config: Mapping[str, Any]
) -> dict[str, str]:
    """What tells a trial's run from others'; ``config`` has the trial's number and seed."""
    return {
        "variant": recipe.variant_name(shape),
        "experts": str(shape.n_experts),
        "gate": shape.gate,
        "balance": recipe.balance,
        "aux_coefficient": str(recipe.aux_coefficient),
        "trial": str(config["trial"]),
        "seed": str(config["seed"]),
    }


def moe_block(config: CifarMoEConfig) -> MoEBlock:
    """Where the MoE layer is; its layer is the number of convolutions before it."""
    return MoEBlock(
        layer=len(config.stages),
        path="moe",
        experts_path="moe.experts",
        decoder_path="",
        n_experts=config.n_experts,
        top_k=1,
        d_expert=config.d_expert,
    )


def cifar_conditions(config: CifarMoEConfig, draws: int, seed: int) -> tuple[Condition, ...]:
    """The conditions of a capture; condition 0 is the model as it is.

    ``random-routing``: each image goes to an expert drawn uniformly, whose output gets the weight
    that the router gave its own choice, so that nothing but the choice changes.
    ``random-routing-reweighted``: the same draws, with the router's probability of the drawn
    expert as weight; left out where outputs are not weighted. ``reinitialize-experts``: the
    learned router before experts that were never trained. ``force-experts``: every image goes to
    one expert, weighted as in ``random-routing``.
    """
    layer = moe_block(config).layer
    numbered = [{"seed": seed, "draw": draw} for draw in range(draws)]
    reweighted = numbered if config.gate == "weighted" else []
    return (
        UNTOUCHED,
        *(Condition(RANDOM, layer, None, params) for params in numbered),
        *(Condition(RANDOM_REWEIGHTED, layer, None, params) for params in reweighted),
        *(Condition(REINITIALIZE, layer, None, params) for params in numbered),
        *(Condition(FORCE, layer, expert) for expert in range(config.n_experts)),
    )


def random_experts(params: Mapping[str, Any], n_experts: int, n_images: int) -> torch.Tensor:
    """The expert drawn for each image of the dataset, Int[Tensor, "image"].

    That is ``numpy.random.default_rng([seed, draw]).integers(n_experts, size=n_images)``.
    """
    generator = np.random.default_rng([params["seed"], params["draw"]])
    return torch.from_numpy(generator.integers(n_experts, size=n_images))


def untrained_experts(params: Mapping[str, Any], config: CifarMoEConfig) -> nn.ModuleList:
    """Experts as before training, seeded apart from any trial."""
    sequence = np.random.SeedSequence([params["seed"], params["draw"]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        return nn.ModuleList(
            Expert(config.d_model, config.d_expert) for _ in range(config.n_experts)
        ).eval()


@contextmanager
def _open(
    folder: Path, dataset: ImageDataset, device: str, arrays: Mapping[str, tuple[int, ...]]
) -> Iterator["CapturedCifarMoE"]:
    model, _ = load_cifar_moe(folder)
    settings = dataset.config
    conditions = cifar_conditions(model.config, settings["draws"], settings["seed"])
    yield CapturedCifarMoE(model, dataset, conditions, device)


class CapturedCifarMoE:
    """A CIFAR MoE, as the pipeline runs it."""

    kept = None

    def __init__(
        self,
        model: CifarMoE,
        dataset: ImageDataset,
        conditions: Sequence[Condition],
        device: str,
    ) -> None:
        self._model = model.to(device)
        self._dataset = dataset
        self._conditions = conditions
        self._device = device
        config, n_images = model.config, len(dataset.image_set)
        self._drawn = {
            index: random_experts(condition.params, config.n_experts, n_images)
            for index, condition in enumerate(conditions)
            if condition.kind in (RANDOM, RANDOM_REWEIGHTED)
        }
        self._untrained = {
            index: untrained_experts(condition.params, config).to(device)
            for index, condition in enumerate(conditions)
            if condition.kind == REINITIALIZE
        }

    @property
    def blocks(self) -> tuple[BlockWiring, ...]:
        """Its one MoE layer."""
        # One weight divided by its sum is 1, the factor on an output that none multiplies.
        rule = RouterRule("softmax", norm_topk_prob=self._model.config.gate == "unweighted")
        return (BlockWiring(moe_block(self._model.config), "moe.router", rule, False, False),)

    def expert_similarity(self, *, neurons: bool) -> dict[str, Columns]:
        """Compare the weights of every two experts."""
        moe, block = self._model.moe, moe_block(self._model.config)
        weights = listed_weights(list(moe.experts))
        router = Stacked(moe.router.weight.detach().unsqueeze(1))
        found = similarity_columns(block.layer, block.n_experts, weights, router, neurons=neurons)
        return joined([found])

    @torch.no_grad()
    def record(self, batch: Batch) -> BatchRecords:
        """Run a batch, check it, and reduce it to what is stored.

        Raises
        ------
        CheckError
            If the batch contradicts the model's own arithmetic.
        """
        model, ids = self._model, np.array(batch.example_ids)
        pixels = torch.from_numpy(self._dataset.image_set.images[ids]).to(self._device)
        features = model.features(pixels)
        block_output, routing = model.moe(features)
        chosen = model.moe.expert_outputs(features, routing.expert_ids)
        every = torch.stack([expert(features) for expert in model.moe.experts], dim=1)
        # Over all images an expert rounds otherwise than over its own: keep what the model did.
        every[torch.arange(len(ids), device=self._device), routing.expert_ids] = chosen
        layer = LayerActivations(
            router_logits=routing.logits,
            probabilities=routing.logits.softmax(dim=-1),
            experts=routing.expert_ids.unsqueeze(-1),
            weights=routing.weights.unsqueeze(-1),
            expert_outputs=chosen.unsqueeze(1),
            shared_outputs=None,
            shared_gate=None,
            block_output=block_output,
            router_input=features,
            all_expert_outputs=every,
        )
        [block] = self.blocks
        lengths = [len(example) for example in batch.examples]
        reader = BatchReader(self.blocks, lengths, batch.kept, batch.arrays)
        reader.images(pixels)
        reader.layer(block.block.layer, layer)
        logits = [
            model.classifier(block_output)
            if condition.kind == UNTOUCHED.kind
            else model.classifier(self._changed(index, features, every, routing, ids))
            for index, condition in enumerate(self._conditions)
        ]
        targets = torch.from_numpy(self._dataset.image_set.labels[ids]).to(self._device)
        return BatchRecords(
            examples=batch.indices,
            layers=reader.layers,
            next_logprobs=np.full(len(ids), np.nan, dtype=np.float32),
            predictions=_predictions(torch.stack(logits), targets),
            arrays=reader.arrays,
        )

    def _changed(
        self,
        index: int,
        features: torch.Tensor,
        every: torch.Tensor,
        routing: Routing,
        ids: np.ndarray[Any, np.dtype[np.int64]],
    ) -> torch.Tensor:
        """The MoE layer's output, (image, d_model), under a condition."""
        condition, weights = self._conditions[index], routing.weights
        if condition.kind == REINITIALIZE:
            fresh = [expert(features) for expert in self._untrained[index]]
            outputs = _of_expert(torch.stack(fresh, dim=1), routing.expert_ids)
        elif condition.kind == FORCE:
            outputs = every[:, condition.expert]
        else:
            drawn = self._drawn[index][ids].to(self._device)
            outputs = _of_expert(every, drawn)
            if condition.kind == RANDOM_REWEIGHTED:
                probabilities = routing.logits.softmax(dim=-1)
                weights = probabilities.gather(1, drawn.unsqueeze(1)).squeeze(1)
        return outputs * weights.unsqueeze(-1)


def _of_expert(every: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """Of the outputs of all experts, (image, expert, d_model), each image's own."""
    return every[torch.arange(len(experts), device=experts.device), experts]


def _predictions(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[tuple[dict[str, Any], ...], ...]:
    """Rows of the table ``predictions`` for each image, from (condition, image, class) logits."""
    predicted = logits.argmax(dim=-1)
    index = targets.expand(len(logits), -1).unsqueeze(-1)
    logprobs = logits.log_softmax(dim=-1).gather(-1, index).squeeze(-1)
    columns = zip(targets.tolist(), predicted.T.tolist(), logprobs.T.tolist(), strict=True)
    return tuple(
        tuple(
            {
                "condition_id": condition,
                "target": CLASSES[target],
                "predicted": CLASSES[answer],
                "correct": int(answer == target),
                "target_logprob": logprob,
                "logit_diff": None,
            }
            for condition, (answer, logprob) in enumerate(zip(answers, scores, strict=True))
        )
        for target, answers, scores in columns
    )
