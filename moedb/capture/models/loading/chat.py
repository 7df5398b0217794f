"""A chat model that answers greedily, for readers of experts' contexts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psutil
import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList

from moedb.capture.models.checkpoints import Checkpoint
from moedb.capture.models.device import chosen_device
from moedb.capture.models.loading.pretrained import (
    DTYPES,
    default_dtype,
    load_model,
    load_skeleton,
    load_tokenizer,
)
from moedb.capture.models.loading.quantized import load_gptq, stays_quantized
from moedb.capture.models.placement import Placement
from moedb.errors import ModelError, UsageError, first_line

_FREE_SHARE = 0.8
"""Share of the free memory that weights may take; the rest is for what is being answered."""


class ChatAnswer(NamedTuple):
    """What a model said.

    Attributes
    ----------
    text
        The answer, without special tokens.
    prompt_tokens, completion_tokens
        Its length, and that of what it answers.
    finish
        ``stop`` where the model ended it, ``length`` where it was cut off.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str


class ChatModel:
    """A model with a chat template, which answers with the likeliest token each time.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    device
        A torch device; None for the best that there is.

    Raises
    ------
    ModelError
        If it has no chat template, cannot be loaded, or does not fit into memory.
    UsageError
        If the machine has no such device.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | None = None) -> None:
        self._tokenizer = load_tokenizer(checkpoint)
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {checkpoint.name} has no chat template, so the model is none "
                "that questions can be put to",
                "name one that was trained to chat, often called ...-Instruct or ...-Chat",
            )
        self._checkpoint = checkpoint
        self._model = _loaded(checkpoint, chosen_device(device))
        self.device = str(self._model.device)
        own = self._model.generation_config
        ends = own.eos_token_id if own is not None else None
        self._ends = [ends] if isinstance(ends, int) else list(ends or [])
        if self._tokenizer.eos_token_id is not None:
            self._ends = sorted({*self._ends, self._tokenizer.eos_token_id})
        # what else a checkpoint may say of sampling and penalties would make it less than greedy
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
        )

    def answer(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        template: Mapping[str, Any] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> ChatAnswer | None:
        """Answer messages.

        Parameters
        ----------
        messages
            The conversation, each with ``role`` and ``content``.
        max_tokens
            Tokens of the answer at most; fewer where the model's context is full.
        template
            Further values for the chat template.
        is_stopped
            Asked before each token whether to give up.

        Returns
        -------
        ChatAnswer or None
            None where it gave up.

        Raises
        ------
        UsageError
            If the template refuses the messages, or they fill the model's context.
        ModelError
            If the memory does not suffice.
        """
        prompt = self._prompt(messages, dict(template or {}))
        length = prompt.shape[1]
        room = self._context() - length
        if room < 1:
            raise UsageError(
                f"the question has {length:,} tokens, and the context of {self._checkpoint.name} "
                f"{self._context():,}",
                "fewer or shorter contexts: --contexts, --batch, --window",
            )

        def stopping(tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            return torch.full(tokens.shape[:1], is_stopped(), device=tokens.device)

        try:
            with torch.inference_mode():
                found = self._model.generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=min(max_tokens, room),
                    stopping_criteria=StoppingCriteriaList([stopping]),
                )
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"there is too little memory on {self.device} for an answer of "
                f"{self._checkpoint.name}: {first_line(error)}",
                "a smaller model, fewer contexts (--contexts, --batch), or --device cpu",
            ) from error
        if is_stopped():
            return None
        said = found[0, length:].tolist()
        return ChatAnswer(
            self._tokenizer.decode(said, skip_special_tokens=True),
            length,
            len(said),
            "stop" if said and said[-1] in self._ends else "length",
        )

    def _context(self) -> int:
        """Tokens that the model can see."""
        config = self._model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 1 << 30)

    def _prompt(self, messages: Sequence[Mapping[str, str]], given: dict[str, Any]) -> torch.Tensor:
        asked = [dict(message) for message in messages]
        try:
            try:
                found = self._applied(asked, given)
            except Exception:  # a template may raise whatever it likes, as for a system's role
                if asked[0]["role"] != "system" or len(asked) < 2:
                    raise
                first, second, *rest = asked
                whole = f"{first['content']}\n\n{second['content']}"
                found = self._applied([{**second, "content": whole}, *rest], given)
        except Exception as error:
            raise UsageError(
                f"the chat template of {self._checkpoint.name} refuses the messages: "
                f"{first_line(error)}"
            ) from error
        return found.to(self.device)

    def _applied(self, messages: list[dict[str, str]], given: dict[str, Any]) -> torch.Tensor:
        found = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True, **given
        )
        ids: torch.Tensor = found["input_ids"]
        return ids


def _loaded(checkpoint: Checkpoint, device: str) -> PreTrainedModel:
    dtype = default_dtype(checkpoint, device)
    if stays_quantized(checkpoint, Placement(dtype, device)):
        return load_gptq(checkpoint, dtype, device)
    if device == "cpu":
        size = sum(each.numel() for each in load_skeleton(checkpoint).parameters())
        needed, free = size * DTYPES[dtype].itemsize, psutil.virtual_memory().available
        if needed > _FREE_SHARE * free:
            raise ModelError(
                f"{checkpoint.name} has {needed / 1e9:,.1f} GB of weights, and "
                f"{free / 1e9:,.1f} GB of memory are free; reading it layer by layer would take a "
                "pass over the files for every token of an answer",
                "a smaller model, or a server that runs it quantized: --endpoint URL --model NAME",
            )
    return load_model(checkpoint, dtype, device)
