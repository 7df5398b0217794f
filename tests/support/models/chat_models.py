"""A chat model of random weights, as a folder: it answers, and what it answers means nothing."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from moedb.capture.models.checkpoints import EMBEDDED_MODEL, find_checkpoint

TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{{ mood | default('') }} {% endif %}"
)
"""With a value of one's own, ``mood``."""

WITHOUT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
) + TEMPLATE


def save_chat_model(folder: Path, template: str | None = TEMPLATE, context: int = 4096) -> Path:
    """Write a small Qwen2 with the packaged tokenizer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(find_checkpoint(EMBEDDED_MODEL).folder)
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    model = Qwen2ForCausalLM(config)
    # what a published checkpoint may say of sampling
    model.generation_config.update(do_sample=True, temperature=1.7, top_p=0.9, top_k=50)
    model.save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def plain_answer(folder: Path, prompt: str, max_tokens: int) -> tuple[str, int, int]:
    """What transformers' own ``generate`` says greedily; the lengths of prompt and answer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    given = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    found = model.generate(
        **given,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_tokens,
        pad_token_id=0,
    )
    length = given["input_ids"].shape[1]
    said = found[0, length:]
    return tokenizer.decode(said, skip_special_tokens=True), length, len(said)
