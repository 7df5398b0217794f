"""Training: the checkpoints that captures use."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moedb.commands.options import COUNT, SEED, FiniteRange
from moedb.commands.terminal.messages import say

if TYPE_CHECKING:
    from moedb.capture.jobs.cifar_moe.config import Augmentation, Balance, Gate


@click.group()
def train() -> None:
    """Train the checkpoints that captures use."""


@train.command("qwen-moe-mini")
@click.option(
    "--corpus", type=click.Path(path_type=Path), required=True, help="Parquet with a text column."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--steps", type=COUNT, help="Optimizer steps.  [default: as embedded]")
@click.option("--seed", type=SEED, help="Seed.  [default: as embedded]")
@click.option("--restart", is_flag=True, help="Throw away what the folder has of this run.")
def train_qwen_moe_mini(
    corpus: Path, output: Path, steps: int | None, seed: int | None, restart: bool
) -> None:
    """Train the embedded model and its tokenizer anew. The same command again resumes.

    \b
    Example:
      moedb train qwen-moe-mini --corpus texts.parquet -o my-mini --steps 1000
      moedb capture qwen-ioi --model my-mini
    """
    from moedb.capture.mini.config import MiniTrainingConfig
    from moedb.capture.mini.training.loop import train_mini

    logging.getLogger("moedb").setLevel(logging.INFO)
    chosen = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
    config = MiniTrainingConfig(**chosen)
    click.echo(train_mini(config, corpus, output, resume=not restart))


@train.command("qwen-dense-mini", short_help="Train a dense twin of the embedded model.")
@click.option(
    "--width",
    type=click.Choice(["active", "total"]),
    required=True,
    help="Neurons of a feed-forward layer: as many as a token meets in a layer of qwen-moe-mini "
    "(256), or as many as such a layer has (2048).",
)
@click.option(
    "--corpus", type=click.Path(path_type=Path), required=True, help="Parquet with a text column."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--steps", type=COUNT, help="Optimizer steps.  [default: as of qwen-moe-mini]")
@click.option("--seed", type=SEED, help="Seed.  [default: as of qwen-moe-mini]")
@click.option("--restart", is_flag=True, help="Throw away what the folder has of this run.")
def train_qwen_dense_mini(
    width: str, corpus: Path, output: Path, steps: int | None, seed: int | None, restart: bool
) -> None:
    """Train a dense twin of qwen-moe-mini: the same tokenizer, tokens, schedule and seed.

    The same command again resumes.

    \b
    Example:
      moedb train qwen-dense-mini --width active --corpus texts.parquet -o qwen-dense-mini-active
      moedb capture qwen-ioi --model ./qwen-dense-mini-active --dense
    """
    from moedb.capture.mini.config import MiniTrainingConfig, twin_width
    from moedb.capture.mini.training.loop import train_mini

    logging.getLogger("moedb").setLevel(logging.INFO)
    chosen = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
    config = MiniTrainingConfig(**chosen, d_dense=twin_width(MiniTrainingConfig(), width))
    click.echo(train_mini(config, corpus, output, resume=not restart))


@train.command("cifar-moe", short_help="Train CIFAR-10 classifiers with one MoE layer.")
@click.option(
    "--experts",
    type=click.IntRange(2),
    multiple=True,
    default=[2],
    show_default=True,
    help="Experts of the MoE layer; may be repeated.",
)
@click.option(
    "--variant",
    type=click.Choice(["base", "short"]),
    default="base",
    show_default=True,
    help="Four convolutions before the MoE layer, or one.",
)
@click.option(
    "--trials", type=click.IntRange(1), default=1, show_default=True, help="Trials of each."
)
@click.option("--data", type=click.Path(path_type=Path), help="CIFAR-10.  [default: the hub's]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="cifar-moe",
    show_default=True,
    help="Folder; each trial gets one in it.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of trial 0.")
@click.option("--epochs", type=COUNT, default=10, show_default=True, help="Epochs.")
@click.option(
    "--filters", help="Filters of each convolution, such as 8,16,16,32.  [default: the variant's]"
)
@click.option(
    "--augmentation",
    type=click.Choice(["crop", "flip", "none"]),
    default="crop",
    show_default=True,
    help="Mirror half of the images, others each epoch; crop also shifts each by up to 4 pixels.",
)
@click.option(
    "--gate",
    type=click.Choice(["weighted", "unweighted"]),
    default="weighted",
    show_default=True,
    help="Multiply an expert's output by the router's probability of it, or take it as it is: then "
    "the router learns to balance alone.",
)
@click.option(
    "--balance",
    type=click.Choice(["mean", "count", "sum"]),
    default="sum",
    show_default=True,
    help="The loss that has experts used evenly: shares times mean probabilities, numbers of "
    "images times mean probabilities, or numbers times summed probabilities, which came nearest "
    "the paper's tables.",
)
@click.option(
    "--aux-coefficient",
    type=FiniteRange(0, 1e6),
    default=1e-5,
    show_default=True,
    help="Factor of that loss.",
)
@click.option("--device", help="cpu, cuda, mps.  [default: what there is]")
@click.option(
    "--autocast/--no-autocast",
    default=None,
    help="Compute in bf16.  [default: where the processor has instructions for it]",
)
def train_cifar_moe(
    experts: tuple[int, ...],
    variant: str,
    trials: int,
    data: Path | None,
    output: Path,
    seed: int,
    epochs: int,
    filters: str | None,
    augmentation: "Augmentation",
    gate: "Gate",
    balance: "Balance",
    aux_coefficient: float,
    device: str | None,
    autocast: bool | None,
) -> None:
    """Train CIFAR-10 classifiers with one MoE layer; print their folders.

    Resumes after the last whole epoch. Several processes may share the folder: each takes trials
    that no other is at.

    \b
    Example:
      moedb train cifar-moe --experts 2 --experts 3 --trials 10 --data cifar-10-batches-py
      moedb capture cifar-moe --data cifar-10-batches-py
    """
    from moedb.capture.jobs.cifar_moe.training.trial import BusyError
    from moedb.capture.jobs.cifar_moe.training.trials import configure, train_trials
    from moedb.commands.api.progress import TrainingBar

    base = configure(
        variant,
        filters,
        seed=seed,
        epochs=epochs,
        augmentation=augmentation,
        gate=gate,
        balance=balance,
        aux_coefficient=aux_coefficient,
        device=device,
        autocast=autocast,
    )
    with TrainingBar() as progress:
        for folder, outcome in train_trials(base, experts, trials, data, output, progress):
            if isinstance(outcome, BusyError):
                say(f"{outcome}; left to it")
                continue
            say(f"{folder.name}: test accuracy {outcome['test_accuracy']:.2%}")
            click.echo(folder)
