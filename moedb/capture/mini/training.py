"""The training loop of qwen-moe-mini: seeded, and resumable from any checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moedb.capture.ioi import IOITemplates, load_ioi_templates
from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.corpus import (
    Batch,
    CorpusBatches,
    IntArray,
    IOIBatches,
    cut_pieces,
    read_corpus,
    split_corpus,
    tokenize_documents,
)
from moedb.capture.mini.evaluation import measure_held_out, measure_ioi
from moedb.capture.mini.tokenizer import save_tokenizer, train_tokenizer
from moedb.errors import ModelError, UsageError

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
SUMMARY = "training.json"
_FORMAT = 1


def train_mini(
    config: MiniTrainingConfig,
    corpus_path: str | Path,
    output_dir: str | Path,
    *,
    resume: bool = True,
    evaluation_templates: str | Path | None = None,
) -> Path:
    """Train the model and its tokenizer.

    A run that was stopped continues from its last checkpoint as if it had not been; on a finished
    one this returns at once.

    Parameters
    ----------
    config : MiniTrainingConfig
        What to train.
    corpus_path : str or Path
        A Parquet file with a ``text`` column.
    output_dir : str or Path
        Where the model, its tokenizer and, until the end, the checkpoints go.
    resume : bool
        False throws away what the folder has of a run and starts again.
    evaluation_templates : str or Path, optional
        A second file of IOI templates to test on, never to train on.

    Returns
    -------
    Path
        ``output_dir``, now a folder that `AutoModelForCausalLM.from_pretrained` and
        `AutoTokenizer.from_pretrained` load.

    Raises
    ------
    UsageError
        When the corpus cannot be read, or the folder holds another run.
    ModelError
        When the loss is no longer a number.
    """
    output = Path(output_dir)
    documents = read_corpus(corpus_path)
    corpus_sha256 = _sha256(Path(corpus_path))
    others = load_ioi_templates(evaluation_templates) if evaluation_templates else None
    identity = {"config": config.model_dump(), "corpus_sha256": corpus_sha256}
    output.mkdir(parents=True, exist_ok=True)
    if not resume:
        _forget(output)
    if _is_finished(output, identity):
        logger.info("%s holds the finished run of this configuration", output)
        return output

    templates = load_ioi_templates()
    train, held_out = split_corpus(documents, config.held_out_fraction)
    checkpoint = _last_checkpoint(output / CHECKPOINTS)
    if checkpoint is None:
        names = sorted({*templates.names, *(others.names if others else ())})
        tokenizer: Any = train_tokenizer([d.text for d in train], names, config.vocab_size)
        save_tokenizer(tokenizer, output)
    tokenizer = AutoTokenizer.from_pretrained(str(output), local_files_only=True)
    pieces = cut_pieces(tokenize_documents(train, tokenizer), config.max_length)
    held_out_pieces = cut_pieces(tokenize_documents(held_out, tokenizer), config.max_length)
    logger.info(
        "%d documents to train on (%d pieces, %d tokens), %d held out (%d pieces)",
        len(train),
        len(pieces),
        sum(map(len, pieces)),
        len(held_out),
        len(held_out_pieces),
    )
    run = _Run(
        config=config,
        identity=identity,
        output=output,
        tokenizer=tokenizer,
        model=build_model(config, tokenizer),
        corpus=CorpusBatches(
            pieces,
            tokens_per_batch=config.corpus_tokens_per_step,
            pad_id=tokenizer.pad_token_id,
            seed=config.seed,
        ),
        sentences=IOIBatches(
            templates,
            tokenizer,
            rows_per_batch=config.ioi_rows_per_step,
            answer_weight=config.ioi_answer_weight,
            held_out_pair_fraction=config.held_out_pair_fraction,
            seed=config.seed,
        ),
        held_out=held_out_pieces[:: max(1, len(held_out_pieces) // 64)][:64],
        tests={"ioi": templates, **({"ioi_other": others} if others else {})},
    )
    if checkpoint is not None:
        run.restore(checkpoint)
    run.train()
    run.finish()
    return output


def build_model(config: MiniTrainingConfig, tokenizer: Any) -> Qwen2MoeForCausalLM:
    """Return the untrained model of a configuration, seeded."""
    torch.manual_seed(config.seed)
    shape = Qwen2MoeConfig(
        **config.model_shape(),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        use_cache=False,
    )
    model = Qwen2MoeForCausalLM(shape).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("experts.down_proj"):
                parameter.normal_(0.0, config.expert_down_init_std)
    model.set_experts_implementation("grouped_mm")
    return model.train()


def switch_loss(router_logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """Load balancing loss of Fedus et al. 2022 (Switch Transformer) for one layer.

    ``E * sum_e f_e P_e`` with f_e the share of the routing decisions that chose expert e and P_e
    its mean probability. 1 when both are even, at most E / top_k.

    Parameters
    ----------
    router_logits : Float[Tensor, "token expert"]
        Scores before the softmax, padding left out.
    top_k : int
        Experts chosen for a token.

    Returns
    -------
    Float[Tensor, ""]
    """
    n_tokens, n_experts = router_logits.shape
    probabilities = router_logits.float().softmax(dim=-1)
    chosen = probabilities.detach().topk(top_k, dim=-1).indices
    share = torch.bincount(chosen.flatten(), minlength=n_experts).float() / (n_tokens * top_k)
    return n_experts * (share * probabilities.mean(dim=0)).sum()


def learning_rate(config: MiniTrainingConfig, step: int) -> float:
    """Return the learning rate of a step: linear warmup, then a cosine down to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + 0.5 * span * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass
class _Meter:
    """Sums since the last log line."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    lm: float = 0.0
    aux: float = 0.0
    ioi: float = 0.0

    def line(self) -> dict[str, float]:
        n = max(1, self.steps)
        return {
            "lm_loss": self.lm / n,
            "aux_loss": self.aux / n,
            "ioi_loss": self.ioi / n,
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
        }


class _Run:
    """The state of a training run, and what it does at a step."""

    def __init__(
        self,
        *,
        config: MiniTrainingConfig,
        identity: dict[str, Any],
        output: Path,
        tokenizer: Any,
        model: Qwen2MoeForCausalLM,
        corpus: CorpusBatches,
        sentences: IOIBatches,
        held_out: list[IntArray],
        tests: dict[str, IOITemplates],
    ) -> None:
        self.config = config
        self.identity = identity
        self.output = output
        self.tokenizer = tokenizer
        self.model = model
        self.corpus = corpus
        self.sentences = sentences
        self.held_out = held_out
        self.tests = tests
        self.step = 0
        self.corpus_tokens = 0
        self.ioi_tokens = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.parameters = dict(model.named_parameters())
        matrices = [p for p in self.parameters.values() if p.ndim >= 2]
        vectors = [p for p in self.parameters.values() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True,
        )

    def train(self) -> None:
        config = self.config
        meter = _Meter()
        with _progress(config.steps, self.step) as show:
            while self.step < config.steps:
                started = time.monotonic()
                tokens, lm, aux, ioi = self._advance()
                elapsed = time.monotonic() - started
                self.step += 1
                self.seconds += elapsed
                meter.steps += 1
                meter.seconds += elapsed
                meter.tokens += tokens
                meter.lm += lm
                meter.aux += aux
                meter.ioi += ioi
                show(self.step, meter.line())
                last = self.step == config.steps
                if self.step % config.log_every == 0 or last:
                    self._log(meter.line())
                    meter = _Meter()
                if self.step % config.evaluate_every == 0 or last:
                    self._evaluate()
                if self.step % config.checkpoint_every == 0 and not last:
                    self.save_checkpoint()

    def _advance(self) -> tuple[int, float, float, float]:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        text = self.corpus.batch(self.step)
        sentences = self.sentences.batch(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast):
            lm_loss, _, text_routing = self._forward(text)
            ioi_loss, answer_loss, ioi_routing = self._forward(sentences)
        aux_loss = torch.stack(
            [
                switch_loss(torch.cat(pair), config.top_k)
                for pair in zip(text_routing, ioi_routing, strict=True)
            ]
        ).mean()
        loss = lm_loss + config.ioi_coefficient * ioi_loss + config.aux_coefficient * aux_loss
        if not torch.isfinite(loss):
            raise ModelError(
                f"the loss is {loss.item()} at step {self.step}",
                hint="Start again with a lower learning_rate.",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        n_text, n_ioi = int(text.mask.sum()), int(sentences.mask.sum())
        self.corpus_tokens += n_text
        self.ioi_tokens += n_ioi
        return n_text + n_ioi, lm_loss.item(), aux_loss.item(), answer_loss.item()

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Return the weighted loss, the loss on the answers and the scores of each layer."""
        ids = torch.from_numpy(batch.input_ids)
        mask = torch.from_numpy(batch.mask)
        weights = torch.from_numpy(batch.weights)[:, 1:]
        outputs = self.model.model(input_ids=ids, output_router_logits=True)
        kept = mask[:, 1:]
        logits = self.model.lm_head(outputs.last_hidden_state[:, :-1][kept]).float()
        losses = functional.cross_entropy(logits, ids[:, 1:][kept], reduction="none")
        loss = (losses * weights[kept]).sum() / weights[kept].sum()
        answers = torch.from_numpy(batch.answers)[:, 1:][kept]
        answer_loss = losses.detach()[answers].mean()
        flat = mask.flatten()
        return loss, answer_loss, [scores[flat] for scores in outputs.router_logits]

    def _log(self, line: dict[str, float]) -> None:
        self.history.append({"step": self.step, **line})
        left = (self.config.steps - self.step) * self.seconds / max(1, self.step)
        logger.info(
            "step %d/%d lm %.3f aux %.3f ioi %.3f %.0f tokens/s %.0f min left",
            self.step,
            self.config.steps,
            line["lm_loss"],
            line["aux_loss"],
            line["ioi_loss"],
            line["tokens_per_second"],
            left / 60,
        )

    def _evaluate(self) -> None:
        self.model.eval()
        found: dict[str, float] = {"step": self.step}
        for name, templates in self.tests.items():
            result = measure_ioi(
                self.model,
                self.tokenizer,
                templates,
                n=20 * len(templates.templates_baba),
                held_out_pair_fraction=self.config.held_out_pair_fraction,
            )
            found[f"{name}_accuracy"] = result.accuracy
        if self.held_out:
            held_out = measure_held_out(self.model, self.held_out, [0] * len(self.held_out), 1)
            found["held_out_loss"] = float(held_out.nll[0] / held_out.n_predicted[0])
            found["unused_experts"] = float((held_out.expert_counts[0] == 0).sum())
        self.model.train()
        self.history.append(found)
        logger.info(
            "step %d evaluation: %s",
            self.step,
            " ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "step"),
        )

    def save_checkpoint(self) -> None:
        """Write weights, optimizer and counters, and then drop the older checkpoints."""
        folder = self.output / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        target = folder / f"step-{self.step:08d}"
        partial = folder / f".partial-{self.step:08d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        moments = {}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                moments[f"{name}:{key}"] = value.contiguous()
        weights = {name: p.detach().contiguous() for name, p in self.parameters.items()}
        save_file(weights, str(partial / "weights.safetensors"))
        save_file(moments, str(partial / "optimizer.safetensors"))
        _write_json(partial / "state.json", self._state())
        for file in partial.iterdir():
            _fsync(file)
        _fsync(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _fsync(folder)
        for old in folder.iterdir():
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            **self.identity,
            "step": self.step,
            "corpus_tokens": self.corpus_tokens,
            "ioi_tokens": self.ioi_tokens,
            "seconds": self.seconds,
            "history": self.history,
            "environment": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "cpus": os.cpu_count(),
                "machine": platform.machine(),
            },
        }

    def restore(self, checkpoint: Path) -> None:
        """Take up the state of a checkpoint of the same configuration and corpus."""
        try:
            state = json.loads((checkpoint / "state.json").read_text("utf-8"))
            weights = load_file(str(checkpoint / "weights.safetensors"))
            moments = load_file(str(checkpoint / "optimizer.safetensors"))
        except (OSError, ValueError, SafetensorError) as error:
            raise UsageError(
                f"{checkpoint}: damaged checkpoint ({error})",
                hint="Train into another folder, or without resuming.",
            ) from error
        _check_identity(self.output, state, self.identity)
        keys = ("step", "exp_avg", "exp_avg_sq")
        expected = {f"{name}:{key}" for name in self.parameters for key in keys}
        if set(weights) != set(self.parameters) or set(moments) != expected:
            raise UsageError(
                f"{checkpoint}: holds other parameters than the model, from another version of "
                "transformers perhaps",
                hint="Train into another folder, or without resuming.",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {key: moments[f"{name}:{key}"] for key in keys}
        self.step = state["step"]
        self.corpus_tokens = state["corpus_tokens"]
        self.ioi_tokens = state["ioi_tokens"]
        self.seconds = state["seconds"]
        self.history = state["history"]
        logger.info("continuing at step %d", self.step)

    def finish(self) -> None:
        """Write the model in bf16 and the summary, and drop the checkpoints."""
        partial = self.output / ".partial-model"
        shutil.rmtree(partial, ignore_errors=True)
        self.model.config.use_cache = True
        self.model.eval().to(torch.bfloat16)
        self.model.config.dtype = torch.bfloat16
        self.model.generation_config = GenerationConfig(
            eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id
        )
        self.model.save_pretrained(str(partial))
        mode = (partial / "config.json").stat().st_mode & 0o777
        for file in sorted(partial.iterdir()):
            file.chmod(mode)  # safetensors makes its files private
            _fsync(file)
            file.replace(self.output / file.name)
        partial.rmdir()
        _write_json(self.output / f".{SUMMARY}", self._state())
        _fsync(self.output / f".{SUMMARY}")
        (self.output / f".{SUMMARY}").replace(self.output / SUMMARY)
        _fsync(self.output)
        shutil.rmtree(self.output / CHECKPOINTS, ignore_errors=True)


@contextmanager
def _progress(total: int, completed: int) -> Iterator[Any]:
    """Yield a function that shows a step on stderr, where stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, line: None
        return
    columns = (
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=total, completed=completed, figures="")

        def show(step: int, line: dict[str, float]) -> None:
            figures = (
                f"lm {line['lm_loss']:.3f} aux {line['aux_loss']:.3f} "
                f"ioi {line['ioi_loss']:.3f} {line['tokens_per_second']:.0f} tokens/s"
            )
            progress.update(task, completed=step, figures=figures)

        yield show


def _last_checkpoint(folder: Path) -> Path | None:
    found = sorted(folder.glob("step-*")) if folder.is_dir() else []
    return found[-1] if found else None


def _is_finished(output: Path, identity: dict[str, Any]) -> bool:
    try:
        state = json.loads((output / SUMMARY).read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise UsageError(f"{output / SUMMARY}: cannot be read ({error})") from error
    _check_identity(output, state, identity)
    return True


def _check_identity(output: Path, state: Any, identity: dict[str, Any]) -> None:
    hint = "Train into another folder, or without resuming."
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise UsageError(f"{output}: its training state has another format", hint=hint)
    if state.get("corpus_sha256") != identity["corpus_sha256"]:
        raise UsageError(f"{output}: holds a run over another corpus", hint=hint)
    found = state.get("config", {})
    for key, value in identity["config"].items():
        if found.get(key) != value:
            raise UsageError(
                f"{output}: holds a run with {key} {found.get(key)}, not {value}", hint=hint
            )


def _forget(output: Path) -> None:
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    (output / SUMMARY).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
