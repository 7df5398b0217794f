"""The training loop of qwen-moe-mini and its twins: seeded, resumable from any checkpoint."""

from __future__ import annotations

import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from moedb.capture.jobs.qwen_ioi import IOITemplates, load_ioi_templates
from moedb.capture.mini.config import MiniTrainingConfig
from moedb.capture.mini.corpus import (
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
from moedb.capture.mini.training.checkpointing import (
    CHECKPOINTS,
    FORMAT,
    forget,
    is_finished,
    read_checkpoint,
    run_identity,
    write_checkpoint,
    write_finished,
)
from moedb.capture.mini.training.optimization import (
    MiniModel,
    batch_losses,
    build_model,
    build_optimizer,
    learning_rate,
    load_balancing_loss,
)
from moedb.capture.mini.training.progress import Meter, show_progress
from moedb.capture.models.device import use_large_pages
from moedb.capture.models.loading.pretrained import read_tokenizer
from moedb.capture.models.training_checkpoints import last_checkpoint
from moedb.errors import ModelError

logger = logging.getLogger(__name__)


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
    use_large_pages()
    output = Path(output_dir)
    documents = read_corpus(corpus_path)
    identity = run_identity(config, corpus_path)
    others = load_ioi_templates(evaluation_templates) if evaluation_templates else None
    output.mkdir(parents=True, exist_ok=True)
    if not resume:
        forget(output)
    if is_finished(output, identity):
        logger.info("%s holds the finished run of this configuration", output)
        return output

    templates = load_ioi_templates()
    train, held_out = split_corpus(documents, config.held_out_fraction)
    checkpoint = last_checkpoint(output / CHECKPOINTS)
    if checkpoint is None:
        names = sorted({*templates.names, *(others.names if others else ())})
        tokenizer: Any = train_tokenizer([d.text for d in train], names, config.vocab_size)
        save_tokenizer(tokenizer, output)
    tokenizer = read_tokenizer(output)
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


class _Run:
    """The state of a training run, and what it does at a step."""

    def __init__(
        self,
        *,
        config: MiniTrainingConfig,
        identity: dict[str, Any],
        output: Path,
        tokenizer: Any,
        model: MiniModel,
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
        self.optimizer = build_optimizer(config, self.parameters)

    def train(self) -> None:
        config = self.config
        meter = Meter()
        with show_progress(config.steps, self.step) as show:
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
                    meter = Meter()
                if self.step % config.evaluate_every == 0 or last:
                    self._evaluate()
                if self.step % config.checkpoint_every == 0 and not last:
                    write_checkpoint(self.output, self.parameters, self.optimizer, self._state())

    def _advance(self) -> tuple[int, float, float, float]:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        text = self.corpus.batch(self.step)
        sentences = self.sentences.batch(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast):
            lm_loss, _, text_routing = batch_losses(self.model, text)
            ioi_loss, answer_loss, ioi_routing = batch_losses(self.model, sentences)
        aux_losses = [
            load_balancing_loss(torch.cat(pair), config.top_k)
            for pair in zip(text_routing, ioi_routing, strict=True)
        ]
        aux_loss = torch.stack(aux_losses).mean() if aux_losses else torch.zeros(())
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
            if held_out.expert_counts is not None:
                found["unused_experts"] = float((held_out.expert_counts[0] == 0).sum())
        self.model.train()
        self.history.append(found)
        logger.info(
            "step %d evaluation: %s",
            self.step,
            " ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "step"),
        )

    def _state(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
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
        state = read_checkpoint(
            checkpoint, self.output, self.identity, self.parameters, self.optimizer
        )
        self.step = state["step"]
        self.corpus_tokens = state["corpus_tokens"]
        self.ioi_tokens = state["ioi_tokens"]
        self.seconds = state["seconds"]
        self.history = state["history"]
        logger.info("continuing at step %d", self.step)

    def finish(self) -> None:
        """Write the model in bf16 and the summary, and drop the checkpoints."""
        write_finished(self.model, self.tokenizer, self.output, self._state())
