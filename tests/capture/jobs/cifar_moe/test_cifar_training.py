"""Training CIFAR MoEs: the model by hand, and runs that are killed, resumed, damaged or shared."""

import json
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from moedb.capture.jobs.cifar_moe.checkpoint import load_cifar_moe
from moedb.capture.jobs.cifar_moe.config import (
    CifarMoEConfig,
    CifarTrainingConfig,
    ConvStage,
    cifar_moe_config,
)
from moedb.capture.jobs.cifar_moe.model import CifarMoE, Routing, balance_loss
from moedb.capture.jobs.cifar_moe.training import trial as training
from moedb.capture.jobs.cifar_moe.training.trial import BusyError, train_cifar_moe
from moedb.capture.jobs.cifar_moe.training.trials import plan_trials
from moedb.capture.models import device as machine
from moedb.errors import ModelError, UsageError
from tests.conftest import ROOT
from tests.support.models.cifar_images import make_image_sets

pytestmark = pytest.mark.model

N_TRAIN, N_HELD_OUT, N_TEST = 620, 40, 100
N_LEARNT = N_TRAIN - N_HELD_OUT
"""Images of an epoch; with steps of 32 the last has 4."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads wait for each other on a busy machine, and small tensors need none."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def training_config(variant="base", n_experts=3, epochs=3, gate="weighted", **changes):
    filters = {"base": (8, 16, 16, 32), "short": (16,)}[variant]
    shape = cifar_moe_config(variant, n_experts, filters, gate)
    settings = {"batch_size": 32, "n_validation": N_HELD_OUT, "trial": 0, "seed": 0, **changes}
    settings.setdefault("max_head_learning_rate", 1e-2)  # for so few steps
    return CifarTrainingConfig(model=shape, epochs=epochs, **settings)


@pytest.fixture(scope="module")
def images():
    return make_image_sets(N_TRAIN, N_TEST)


@pytest.fixture(scope="module", params=["base", "short"])
def trained(request, images, tmp_path_factory):
    config = training_config(request.param)
    folder = tmp_path_factory.mktemp("trained") / config.name
    return config, folder, train_cifar_moe(config, *images, folder)


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    train_cifar_moe(training_config(), *images, folder)
    return folder


class StoppedError(Exception):
    """Stands for the end of the process."""


class Listener:
    """Remembers what it hears; raises at the end of an epoch, if told so."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.begun = []
        self.n_images = 0

    def begin(self, name, n_images, done):
        self.begun.append((name, n_images, done))

    def advance(self, n_images, loss):
        self.n_images += n_images
        if self.n_images == self.stop_after:
            raise StoppedError

    def epoch(self, name, line):
        pass


# ------------------------------------------------------------------------------- augmentation


def every_view(images):
    """Each image moved by up to 4 pixels or not, mirrored or not, by the hash of its pixels."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    return {
        hash(padded[index, down : down + 32, right : right + 32][:, ::step].tobytes()): (
            (index, step == -1, down - 4, right - 4)
        )
        for index in range(len(images))
        for step in (1, -1)
        for down in range(9)
        for right in range(9)
    }


@pytest.mark.parametrize("augmentation", ["crop", "flip", "none"])
def test_each_epoch_shows_every_image_once_in_a_view_of_its_own(
    augmentation, images, tmp_path, monkeypatch
):
    shown = []
    forward = CifarMoE.forward

    def watched(self, pixels):
        if self.training:
            shown.append(pixels.numpy().copy())
        return forward(self, pixels)

    monkeypatch.setattr(CifarMoE, "forward", watched)
    train_cifar_moe(training_config(epochs=2, augmentation=augmentation), *images, tmp_path)
    views = every_view(images[0].images[:N_LEARNT])
    assert len(views) == N_LEARNT * 2 * 9 * 9, "the views should differ"
    seen = [views[hash(image.tobytes())] for image in np.concatenate(shown)]
    epochs = [sorted(seen[:N_LEARNT]), sorted(seen[N_LEARNT:])]
    for epoch in epochs:
        indices, mirrored, *shifts = map(np.array, zip(*epoch, strict=True))
        assert indices.tolist() == list(range(N_LEARNT))
        assert mirrored.mean() == 0 if augmentation == "none" else 0.4 < mirrored.mean() < 0.6
        for shift in shifts:
            counts = np.bincount(shift + 4, minlength=9)
            if augmentation == "crop":
                assert len(counts) == 9
                assert counts.min() > 30  # of 64 expected
            else:
                assert counts[4] == N_LEARNT
    assert (epochs[0] == epochs[1]) == (augmentation == "none")
    if augmentation == "crop":
        assert abs(np.corrcoef(np.array(epochs[0])[:, 1:].T) - np.eye(3)).max() < 0.2


# ---------------------------------------------------------------------------------- the shape


def test_both_variants_read_512_numbers():
    base, short = cifar_moe_config("base", 2), cifar_moe_config("short", 2)
    assert [(s.filters, s.pool) for s in base.stages] == [(128, 2), (256, 1), (256, 2), (512, 2)]
    assert [(s.filters, s.pool) for s in short.stages] == [(128, 2)]
    assert (base.final_pool, short.final_pool) == (4, 8)
    for shape in (base, short):
        assert (shape.d_model, shape.d_expert) == (512, 512)


@pytest.mark.parametrize(
    ("variant", "filters", "sides", "final_side"),
    [("base", (8, 16, 16, 32), [16, 16, 8, 4], 1), ("short", (16,), [16], 2)],
)
def test_sizes_after_each_pool(variant, filters, sides, final_side):
    model = CifarMoE(cifar_moe_config(variant, 2, filters)).eval()
    seen = []
    for module in (*model.stages, model.final_pool):
        module.register_forward_hook(lambda *given: seen.append(tuple(given[2].shape)))
    logits, routing = model(torch.zeros(5, 32, 32, 3, dtype=torch.uint8))
    expected = [(5, n, side, side) for n, side in zip(filters, sides, strict=True)]
    assert seen == [*expected, (5, filters[-1], final_side, final_side)]
    assert model.config.d_model == filters[-1] * final_side**2 == model.config.d_expert
    assert logits.shape == (5, 10)
    assert routing.logits.shape == (5, 2)


def test_bad_shapes():
    with pytest.raises(ValueError, match="1 numbers of filters for the 4 convolutions of base"):
        cifar_moe_config("base", 2, (8,))
    with pytest.raises(ValidationError, match="pool of 3 does not divide a side of 16"):
        CifarMoEConfig(
            variant="short",
            stages=(ConvStage(filters=4, pool=2), ConvStage(filters=4, pool=3)),
            final_pool=1,
            n_experts=2,
        )
    with pytest.raises(ValidationError, match="n_experts"):
        cifar_moe_config("base", 1)


def test_trials_come_trial_by_trial_each_with_its_seed():
    planned = plan_trials(training_config(seed=7), [2, 5], range(3))
    assert [(c.trial, c.model.n_experts, c.seed) for c in planned] == [
        (0, 2, 7),
        (0, 5, 7),
        (1, 2, 8),
        (1, 5, 8),
        (2, 2, 9),
        (2, 5, 9),
    ]
    assert planned[-1].name == "cifar-moe-base-5-trial-2"
    assert len({c.name for c in planned}) == len(planned)


def test_what_is_trained_otherwise_has_another_folder_and_another_variant():
    def name(gate="weighted", **changes):
        return training_config("short", 5, gate=gate, **changes).name

    assert name() == "cifar-moe-short-5-trial-0"
    assert name("unweighted") == "cifar-moe-short-5-unweighted-trial-0"
    assert name(balance="sum") == "cifar-moe-short-5-sum-trial-0"
    assert name("unweighted", balance="count", aux_coefficient=1e-2, trial=3) == (
        "cifar-moe-short-5-unweighted-count-0.01-trial-3"
    )

    def variant(variant, filters=None, **changes):
        config = CifarTrainingConfig(
            model=cifar_moe_config(variant, 2, filters), trial=0, seed=0, **changes
        )
        return config.variant_name(config.model)

    assert [variant("base"), variant("short", aux_coefficient=1)] == ["base", "short"]
    assert variant("short", (64,)) == "short-64"
    assert variant("base", (128, 256, 256, 512)) == "base"
    assert variant("base", (32, 64, 64, 128), epochs=4, augmentation="flip") == (
        "base-32,64,64,128-4-epochs-flip"
    )


# ---------------------------------------------------------------------------------- the model


def forward_by_hand(model, images, weighted):
    """The published architecture, written out over the state of a model in eval mode."""
    state, shape = model.state_dict(), model.config
    hidden = (images.float() / 255 - state["image_mean"]) / state["image_std"]
    hidden = hidden.movedim(-1, 1)
    for number, stage in enumerate(shape.stages):
        norm = {
            key: state[f"stages.{number}.1.{key}"]
            for key in ("running_mean", "running_var", "weight", "bias")
        }
        hidden = F.conv2d(hidden, state[f"stages.{number}.0.weight"], padding=1)
        hidden = F.relu(F.batch_norm(hidden, **norm, training=False, eps=1e-5))
        hidden = F.max_pool2d(hidden, stage.pool) if stage.pool > 1 else hidden
    hidden = F.max_pool2d(hidden, shape.final_pool).flatten(1)
    hidden = (hidden - state["norm.running_mean"]) / (state["norm.running_var"] + 1e-5).sqrt()
    scores = hidden @ state["moe.router.weight"].T + state["moe.router.bias"]
    probabilities = F.softmax(scores, dim=1)
    outputs = []
    for vector, row in zip(hidden, probabilities, strict=True):
        expert = int(row.argmax())
        weight = [state[f"moe.experts.{expert}.{layer}.weight"] for layer in (0, 2)]
        bias = [state[f"moe.experts.{expert}.{layer}.bias"] for layer in (0, 2)]
        output = weight[1] @ F.relu(weight[0] @ vector + bias[0]) + bias[1]
        outputs.append(output * row[expert] if weighted else output)
    logits = torch.stack(outputs) @ state["classifier.weight"].T + state["classifier.bias"]
    return logits, scores, probabilities


@pytest.mark.parametrize("gate", ["weighted", "unweighted"])
@pytest.mark.parametrize("variant", ["base", "short"])
def test_forward_pass_by_hand(variant, gate, images):
    torch.manual_seed(5)
    model = CifarMoE(training_config(variant, n_experts=4, gate=gate).model)
    for name, tensor in model.state_dict().items():
        if name.endswith(("1.bias", "image_mean")):
            tensor.normal_(0, 0.5)
        elif name.endswith(("1.weight", "image_std")):
            tensor.uniform_(0.5, 2)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics become those of the one batch it sees
    with torch.no_grad():
        model(torch.from_numpy(images[0].images[:40]))
        pixels = torch.from_numpy(images[1].images[:40])
        logits, routing = model.eval()(pixels)
        expected, scores, probabilities = forward_by_hand(model, pixels, gate == "weighted")
    torch.testing.assert_close(routing.logits, scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(routing.expert_ids, probabilities.argmax(dim=1))
    largest = probabilities.amax(dim=1)
    torch.testing.assert_close(
        routing.weights, largest if gate == "weighted" else torch.ones_like(largest)
    )
    assert len(routing.expert_ids.unique()) > 1


def routing_of(probabilities):
    weights, expert_ids = probabilities.max(dim=1)
    return Routing(probabilities.log(), expert_ids, weights)


@pytest.mark.parametrize(
    ("balance", "uneven", "even", "collapsed"),
    [
        # Three of four images go to expert 0: f = (3/4, 1/4). P = (2.2/4, 1.8/4) = (0.55, 0.45).
        # 2 (0.75 * 0.55 + 0.25 * 0.45) = 1.05
        ("mean", 1.05, 1.0, 4.0),
        # n = (3, 1): 2 (3 * 0.55 + 1 * 0.45) = 4.2; even 3 * 3 * (1/3); collapsed 4 * 6 * 1
        ("count", 4.2, 3.0, 24.0),
        # S = (2.2, 1.8): 2 (3 * 2.2 + 1 * 1.8) = 16.8; even 3 * 3 * 1 * 1; collapsed 4 * 6 * 6
        ("sum", 16.8, 9.0, 144.0),
    ],
)
def test_balance_losses_by_hand(balance, uneven, even, collapsed):
    first = torch.tensor([0.8, 0.6, 0.6, 0.2])
    found = balance_loss(routing_of(torch.stack([first, 1 - first], dim=1)), balance)
    assert found.item() == pytest.approx(uneven)
    found = balance_loss(routing_of(torch.eye(3) * 0.7 + 0.1), balance)
    assert found.item() == pytest.approx(even)
    to_one = torch.tensor([[1.0, 1e-9, 1e-9, 1e-9]]).expand(6, 4)
    assert balance_loss(routing_of(to_one), balance).item() == pytest.approx(collapsed)


@pytest.mark.parametrize("gate", ["weighted", "unweighted"])
@pytest.mark.parametrize(("balance", "factor"), [("mean", 1), ("count", 32), ("sum", 32 * 32)])
def test_a_step_descends_the_two_losses(gate, balance, factor, images, tmp_path, monkeypatch):
    config = training_config("short", gate=gate, balance=balance, aux_coefficient=0.25)
    run = training._Run(config, {}, *images, tmp_path)
    run.model.train()
    pixels, labels = run.train.images[:32], run.train.labels[:32]
    twin = CifarMoE(config.model)
    twin.load_state_dict(run.model.state_dict())
    logits, routing = twin.train()(pixels)
    probabilities = routing.logits.softmax(dim=1)
    counts = F.one_hot(routing.expert_ids, 3).sum(dim=0)
    switch = 3 * (counts / 32 * probabilities.mean(dim=0)).sum()
    (F.cross_entropy(logits, labels) + 0.25 * factor * switch).backward()
    found = {}

    def read():
        found.update({name: p.grad.clone() for name, p in run.model.named_parameters()})

    monkeypatch.setattr(run.optimizer, "step", read)
    monkeypatch.setattr(run.schedule, "step", lambda: None)
    run._step(pixels, labels)
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_unweighted_the_answer_teaches_the_router_nothing(images, tmp_path):
    def router_gradient(gate, aux_coefficient):
        config = training_config("short", gate=gate, aux_coefficient=aux_coefficient)
        run = training._Run(config, {}, *images, tmp_path)
        run.optimizer.step = run.schedule.step = lambda: None
        run.optimizer.zero_grad = lambda set_to_none: None
        run.model.train()
        run._step(run.train.images[:32], run.train.labels[:32])
        return run.model.moe.router.weight.grad

    assert router_gradient("weighted", 0.0).abs().max() > 1e-4
    gradient = router_gradient("unweighted", 0.0)
    assert gradient is None or not gradient.any()
    assert router_gradient("unweighted", 1.0).abs().max() > 1e-6


# ---------------------------------------------------------------------------------- training


def test_a_tiny_model_learns(trained, images):
    config, folder, summary = trained
    assert summary["test_accuracy"] > 0.9
    assert summary["history"][-1]["validation_accuracy"] > 0.85
    assert [line["epoch"] for line in summary["history"]] == [1, 2, 3]
    losses = [line["train_loss"] for line in summary["history"]]
    assert losses == sorted(losses, reverse=True)
    assert summary["config"] == json.loads(config.model_dump_json())
    assert summary["n_test"] == N_TEST
    assert sum(summary["test_expert_shares"]) == pytest.approx(1)
    assert summary == json.loads((folder / "training.json").read_text())
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {"config.json", "model.safetensors", "training.json"}


def test_the_trained_folder_loads(trained, images):
    config, folder, summary = trained
    model, stored = load_cifar_moe(folder)
    assert model.config == config.model
    assert not model.training
    assert (stored["model_type"], stored["trial"], stored["seed"]) == ("cifar-moe", 0, 0)
    with torch.no_grad():
        logits, routing = model(torch.from_numpy(images[1].images))
    accuracy = (logits.argmax(dim=1).numpy() == images[1].labels).mean()
    assert accuracy == pytest.approx(summary["test_accuracy"])
    shares = np.bincount(routing.expert_ids.numpy(), minlength=3) / N_TEST
    assert shares == pytest.approx(summary["test_expert_shares"])


def test_the_network_gets_training_images_of_mean_0_and_deviation_1(images, tmp_path):
    run = training._Run(training_config(), {}, *images, tmp_path)
    learnt = images[0].images[:N_LEARNT].astype(np.float64) / 255
    np.testing.assert_allclose(run.model.image_mean.numpy(), learnt.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(run.model.image_std.numpy(), learnt.std((0, 1, 2)), rtol=1e-6)
    seen = []
    run.model.stages[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        run.model(run.train.images)
    pixels = seen[0].double()
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-5)


def test_a_channel_without_any_contrast_is_no_nan(images, tmp_path):
    train, test = make_image_sets(64, 10)
    train.images[..., 1] = 77
    run = training._Run(training_config(n_validation=0), {}, train, test, tmp_path)
    assert torch.isfinite(run.model.image_std).all()
    assert run.model.image_std[1] > 0


def test_learning_rates_are_those_of_one_cycle(images, tmp_path):
    config = training_config(epochs=2, max_head_learning_rate=1e-3)
    run = training._Run(config, {}, *images, tmp_path)
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    convolutions, head = (
        {names[id(parameter)].split(".")[0] for parameter in group["params"]}
        for group in run.optimizer.param_groups
    )
    assert (convolutions, head) == ({"stages"}, {"moe", "classifier"})
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(names)

    def settings():
        return [(group["lr"], group["betas"]) for group in run.optimizer.param_groups]

    found = [settings()]

    class Recorder(Listener):
        def advance(self, n_images, loss):
            found.append(settings())

    for _ in range(config.epochs):
        run._train_epoch(Recorder())
    n_steps = -(-N_LEARNT // config.batch_size) * config.epochs
    assert len(found) == n_steps + 1
    for group, largest in enumerate((1e-2, 1e-3)):
        other = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=largest)
        schedule = torch.optim.lr_scheduler.OneCycleLR(other, max_lr=largest, total_steps=n_steps)
        for step in found[:n_steps]:
            lr, betas = step[group]
            assert lr == other.param_groups[0]["lr"]
            assert betas == other.param_groups[0]["betas"]
            other.step()
            schedule.step()
        rates = [step[group][0] for step in found[:n_steps]]
        assert rates[0] == pytest.approx(largest / 25)
        assert max(rates) == pytest.approx(largest, rel=0.02)
        assert rates[-1] == pytest.approx(largest / 25 / 1e4)


def test_progress_hears_every_image(images, tmp_path):
    config = training_config("short", epochs=2)
    listener = Listener()
    train_cifar_moe(config, *images, tmp_path, listener)
    assert listener.begun == [(config.name, 2 * N_LEARNT, 0)]
    assert listener.n_images == 2 * N_LEARNT


def test_an_image_alone_in_the_last_step_is_left_out(tmp_path):
    config = training_config("short", epochs=1, n_validation=0)
    summary = train_cifar_moe(config, *make_image_sets(65, 10), tmp_path)
    assert "validation_accuracy" not in summary["history"][0]
    assert np.isfinite(summary["history"][0]["train_loss"])


def test_too_few_images(images, tmp_path):
    with pytest.raises(UsageError, match="620 training images, of which 619 are held out"):
        train_cifar_moe(training_config(n_validation=619), *images, tmp_path / "model")


def test_bf16(tmp_path):
    config = training_config("short", epochs=1, n_validation=0, autocast=True)
    summary = train_cifar_moe(config, *make_image_sets(96, 10), tmp_path)
    assert summary["history"][0]["train_loss"] < 2.4
    weights = load_file(tmp_path / "model.safetensors")
    assert all(t.dtype == torch.float32 for t in weights.values() if t.is_floating_point())


def test_a_loss_that_is_no_number_stops_the_run(images, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "balance_loss", lambda routing, _: routing.logits.sum() * np.nan)
    with pytest.raises(ModelError, match="the loss is nan in epoch 1"):
        train_cifar_moe(training_config(), *images, tmp_path)


def test_keeping_freed_memory_does_no_harm(monkeypatch):
    for _ in range(2):
        machine.keep_freed_memory()
    assert torch.ones(4096, 4096).sum().item() == 4096**2
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(machine.ctypes, "CDLL", None)
    machine.keep_freed_memory()


# ---------------------------------------------------------------------------------- resuming

TRAIN_AND_DIE = """
import os, sys
from pathlib import Path
import torch
from moedb.capture.jobs.cifar_moe.config import CifarTrainingConfig
from moedb.capture.jobs.cifar_moe.training.trial import train_cifar_moe
from tests.support.models.cifar_images import make_image_sets

class Death:
    left = int(sys.argv[3])
    def begin(self, name, n_images, done):
        pass
    def advance(self, n_images, loss):
        self.left -= n_images
        if self.left <= 0 and sys.argv[4] == "wait":
            print("waiting", flush=True)
            sys.stdin.read()
        elif self.left <= 0:
            os.kill(os.getpid(), 9)
    def epoch(self, name, line):
        pass

torch.set_num_threads(1)
config = CifarTrainingConfig.model_validate_json(sys.argv[1])
images = make_image_sets(620, 100)
train_cifar_moe(config, *images, Path(sys.argv[2]), Death())
"""


def process(config, folder, n_images, end):
    arguments = [config.model_dump_json(), str(folder), str(n_images), end]
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN_AND_DIE, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def train_until_killed(config, folder, n_images):
    with process(config, folder, n_images, "die") as child:
        assert child.wait() == -signal.SIGKILL
    assert not (folder / "training.json").exists()


def assert_same_run(found, expected):
    weights, others = (load_file(folder / "model.safetensors") for folder in (found, expected))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    summary, other = (
        json.loads((folder / "training.json").read_text()) for folder in (found, expected)
    )
    for content in (summary, other):
        del content["seconds"]
        for line in content["history"]:
            del line["seconds"]
    assert summary == other


def checkpoints_in(folder):
    return [path.name for path in (folder / "checkpoints").iterdir()]


def test_killed_twice_it_ends_as_if_undisturbed(undisturbed, images, tmp_path):
    config, folder = training_config(), tmp_path / "model"
    train_until_killed(config, folder, N_LEARNT + 300)  # in the second epoch
    assert checkpoints_in(folder) == ["step-00000001"]
    train_until_killed(config, folder, N_LEARNT + 100)  # in the third
    assert checkpoints_in(folder) == ["step-00000002"]
    listener = Listener()
    train_cifar_moe(config, *images, folder, listener)
    assert listener.begun == [(config.name, 3 * N_LEARNT, 2 * N_LEARNT)]
    assert not (folder / "checkpoints").exists()
    assert_same_run(folder, undisturbed)


def test_one_process_at_a_time_and_killed_in_the_first_epoch(undisturbed, images, tmp_path):
    config, folder = training_config(), tmp_path / "model"
    with process(config, folder, 200, "wait") as child:
        assert child.stdout.readline() == "waiting\n"
        with pytest.raises(BusyError, match="another process is training this trial"):
            train_cifar_moe(config, *images, folder)
        child.kill()
    train_cifar_moe(config, *images, folder)
    assert_same_run(folder, undisturbed)


def stop(config, images, folder, n_images):
    with pytest.raises(StoppedError):
        train_cifar_moe(config, *images, folder, Listener(stop_after=n_images))


def test_experts_that_no_image_went_to_resume_too(images, tmp_path):
    config = training_config("short", n_experts=40, epochs=2)
    images = (make_image_sets(30 + N_HELD_OUT, 10)[0], images[1])
    train_cifar_moe(config, *images, tmp_path / "undisturbed")
    stop(config, images, tmp_path / "model", 60)
    checkpoint = tmp_path / "model" / "checkpoints" / "step-00000001"
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert 0 < sum(f"moe.experts.{e}.0.weight:step" in moments for e in range(40)) < 40
    train_cifar_moe(config, *images, tmp_path / "model")
    assert_same_run(tmp_path / "model", tmp_path / "undisturbed")


def test_a_half_written_checkpoint_is_not_seen(undisturbed, images, tmp_path):
    config, folder = training_config(), tmp_path / "model"
    stop(config, images, folder, 2 * N_LEARNT)
    shutil.copytree(
        folder / "checkpoints" / "step-00000001", folder / "checkpoints" / ".partial-00000002"
    )
    train_cifar_moe(config, *images, folder)
    assert_same_run(folder, undisturbed)


def test_a_finished_folder_is_left_alone(undisturbed, images):
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    listener = Listener()
    summary = train_cifar_moe(training_config(), *images, undisturbed, listener)
    assert summary == json.loads((undisturbed / "training.json").read_text())
    assert listener.begun == []
    del before[".lock"]
    after = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    assert before == {name: after[name] for name in before}


def test_another_run_is_refused(undisturbed, images, tmp_path):
    stop(training_config(), images, tmp_path / "stopped", N_LEARNT + N_LEARNT)
    other_images = make_image_sets(N_TRAIN, N_TEST, seed=1)
    for folder in (undisturbed, tmp_path / "stopped"):
        with pytest.raises(UsageError, match="holds a run with seed 0, not 9"):
            train_cifar_moe(training_config(seed=9), *images, folder)
        with pytest.raises(UsageError, match="holds a run with n_experts 3, not 4"):
            train_cifar_moe(training_config(n_experts=4), *images, folder)
        for others in ((other_images[0], images[1]), (images[0], other_images[1])):
            with pytest.raises(UsageError, match="holds a run over other images"):
                train_cifar_moe(training_config(), *others, folder)


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_does_not_say_is_weighted_and_mean(finished, undisturbed, images, tmp_path):
    folder = tmp_path / "model"
    if finished:
        shutil.copytree(undisturbed, folder)
        state_path = folder / "training.json"
    else:
        stop(training_config(), images, folder, 2 * N_LEARNT)
        state_path = folder / "checkpoints" / "step-00000001" / "state.json"
    state = json.loads(state_path.read_text())
    del state["config"]["balance"], state["config"]["model"]["gate"]
    state_path.write_text(json.dumps(state))
    with pytest.raises(UsageError, match="holds a run with balance mean, not sum"):
        train_cifar_moe(training_config(balance="sum"), *images, folder)
    with pytest.raises(UsageError, match="holds a run with gate weighted, not unweighted"):
        train_cifar_moe(training_config(gate="unweighted"), *images, folder)
    assert train_cifar_moe(training_config(), *images, folder)["epoch"] == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def reshape_first_tensor(path):
    tensors = load_file(path)
    name = min(tensors)
    save_file({**tensors, name: torch.zeros(1)}, path)


def drop_last_tensor(path):
    tensors = load_file(path)
    tensors.pop(max(tensors))
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("weights.safetensors", truncate, "damaged checkpoint"),
        ("optimizer.safetensors", truncate, "damaged checkpoint"),
        ("optimizer.safetensors", Path.unlink, "damaged checkpoint"),
        ("optimizer.safetensors", reshape_first_tensor, "holds other tensors than the model"),
        ("optimizer.safetensors", drop_last_tensor, "holds other tensors than the model"),
        ("weights.safetensors", reshape_first_tensor, "holds other tensors than the model"),
        ("state.json", truncate, "damaged checkpoint"),
        ("state.json", Path.unlink, "damaged checkpoint"),
        ("state.json", lambda path: path.write_text("[]"), "cannot be understood"),
    ],
)
def test_a_damaged_checkpoint(stopped, images, tmp_path, file, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(stopped, folder)
    damage(folder / "checkpoints" / "step-00000001" / file)
    with pytest.raises(UsageError, match=message) as caught:
        train_cifar_moe(training_config("short"), *images, folder)
    assert str(folder) in caught.value.message


@pytest.fixture(scope="module")
def stopped(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "model"
    stop(training_config("short"), images, folder, 2 * N_LEARNT)
    return folder


def test_a_damaged_summary(stopped, images, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(stopped, folder)
    (folder / "training.json").write_text("{")
    with pytest.raises(UsageError, match=r"training.json: cannot be read"):
        train_cifar_moe(training_config("short"), *images, folder)


def change_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "holds no CIFAR MoE: it has no config.json"),
        (lambda f: (f / "config.json").unlink(), "holds no CIFAR MoE: it has no config.json"),
        (lambda f: truncate(f / "config.json"), "config.json: cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "model of type 'list', expected"),
        (change_config(model_type="bert"), "model of type 'bert', expected cifar-moe"),
        (change_config(n_experts="many"), "config.json: n_experts: Input should be a valid int"),
        (change_config(final_pool=3), "config.json: shape: .* does not divide a side"),
        (change_config(n_experts=2), "cannot be loaded: .*Unexpected key.*moe.experts.2"),
        (lambda f: (f / "model.safetensors").unlink(), "weights in .* cannot be loaded"),
        (lambda f: truncate(f / "model.safetensors"), "weights in .* cannot be loaded"),
        (lambda f: reshape_first_tensor(f / "model.safetensors"), "cannot be loaded: .*size"),
    ],
)
def test_a_damaged_model(undisturbed, tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(undisturbed, folder)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_cifar_moe(folder)
    assert str(folder) in caught.value.message
