"""The tokenizer of qwen-moe-mini: byte-level BPE in which every listed name is one token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import processors as post_processors
from transformers import PreTrainedTokenizerFast

from moedb.capture.jobs.qwen_ioi import single_token_names
from moedb.errors import UsageError

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
NAME_REPEATS = 2000
"""How often each name is shown to the BPE trainer, so that its merges come early."""


def train_tokenizer(
    texts: Sequence[str], names: Sequence[str], vocab_size: int
) -> PreTrainedTokenizerFast:
    """Train the tokenizer.

    Parameters
    ----------
    texts : sequence of str
        The training split of a corpus.
    names : sequence of str
        Names that must come out as one token, with the space before them.
    vocab_size : int
        Number of tokens, the two special ones included.

    Returns
    -------
    PreTrainedTokenizerFast
        Without a token at the beginning; pads on the right.

    Raises
    ------
    UsageError
        When the vocabulary is too small for the names.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = post_processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def shown() -> Iterator[str]:
        yield from texts
        for name in names:
            yield f" {name}" * NAME_REPEATS

    tokenizer.train_from_iterator(shown(), trainer=trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    _, split = single_token_names(names, fast)
    if split:
        raise UsageError(
            f"a vocabulary of {vocab_size} tokens does not hold all {len(names)} names: "
            f"{split[0]!r} is more than one token; give a larger vocab_size or fewer names"
        )
    return fast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the files that `AutoTokenizer.from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
