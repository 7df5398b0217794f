import pytest
from transformers import AutoTokenizer

from moedb.capture.jobs.qwen_ioi import load_ioi_templates, single_token_names
from moedb.capture.mini.tokenizer import save_tokenizer, train_tokenizer
from moedb.errors import UsageError


def test_every_name_is_one_token(tiny_tokenizer):
    names = load_ioi_templates().names
    ids, dropped = single_token_names(names, tiny_tokenizer)
    assert not dropped
    assert len(set(ids.values())) == len(names)


def test_saved_tokenizer_loads_and_round_trips(tiny_tokenizer, tmp_path):
    save_tokenizer(tiny_tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    text = "Then Amy's naïve pear\n\tcost 12 €, said Michael"
    encoded = loaded(text, return_offsets_mapping=True)
    assert loaded.decode(encoded["input_ids"]) == text
    assert encoded["input_ids"] == loaded(text, add_special_tokens=False)["input_ids"]
    assert text[slice(*encoded["offset_mapping"][-1])].strip() == "Michael"
    assert loaded.padding_side == "right"
    assert loaded.eos_token_id != loaded.pad_token_id
    padded = loaded(["a", "a b c d"], padding=True)["attention_mask"]
    assert padded[0][0] == 1
    assert padded[0][-1] == 0


def test_vocabulary_too_small_for_the_names():
    with pytest.raises(UsageError, match="more than one token"):
        train_tokenizer(["some text"], load_ioi_templates().names, 300)
