import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moedb.capture.jobs.qwen_ioi import (
    IOIPrompt,
    SentenceStream,
    corrupted_twin,
    generate_prompts,
    is_held_out_pair,
    load_ioi_templates,
    single_token_names,
    token_roles,
)
from moedb.errors import DatasetError, UsageError
from tests.conftest import ROOT

SHARED = ROOT.parent / "shared" / "data"
PUBLISHED = SHARED / "ioi" / "ioi.json"

GOOD = {
    "source": "a test",
    "templates_baba": ["At the [PLACE] [B] met [A], and [B] gave a [OBJECT] to [A]"],
    "names": ["Ann", "Bob", "Cleo"],
    "places": ["park"],
    "objects": ["hat"],
}


def word_tokenizer(words):
    """One token per listed word with its space; letters for the rest."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", *alphabet])}
    merges = []
    for word in words:
        built = "Ġ"
        for letter in word:
            pair = (built, letter)
            built += letter
            if built not in vocab:
                vocab[built] = len(vocab)
                merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")  # noqa: S106


@pytest.fixture(scope="module")
def templates():
    return load_ioi_templates()


@pytest.fixture(scope="module")
def tokenizer(templates):
    return word_tokenizer(templates.names)


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        content = {**GOOD, **changes}
        path = tmp_path / "templates.json"
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        return path

    return write


def test_package_templates(templates):
    assert len(templates.templates_baba) == 15
    assert len(templates.names) >= 200
    assert list(templates.names) == sorted(templates.names)
    assert len(templates.places) == len(templates.objects) == 24


def test_published_file_drops_in(templates, tokenizer):
    if not PUBLISHED.is_file():
        pytest.skip("no ../shared/data beside the repository: the published templates are not here")
    published = load_ioi_templates(PUBLISHED)
    assert set(published.names) <= set(templates.names)
    assert not set(published.templates_baba) & set(templates.templates_baba)
    found = generate_prompts(published, tokenizer, 30, twins=True)
    assert len(found.prompts) == 60
    assert not found.dropped_names


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 70))
def test_prompt_properties(templates, tokenizer, seed, n):
    found = generate_prompts(templates, tokenizer, n, seed=seed)
    assert len(found.prompts) == n
    for index, prompt in enumerate(found.prompts):
        assert prompt.example_id == index
        assert prompt.twin_of is None
        assert prompt.third_name is None
        assert prompt.io != prompt.s
        assert prompt.text.count(prompt.s) >= 2
        assert "[" not in prompt.text
        assert prompt.text == prompt.text.strip()
        for span, name in (
            (prompt.io_span, prompt.io),
            (prompt.s1_span, prompt.s),
            (prompt.s2_span, prompt.s),
        ):
            assert prompt.text[slice(*span)] == name
        assert (prompt.s1_span < prompt.io_span) == (prompt.order == "BABA")
        assert max(prompt.io_span, prompt.s1_span) < prompt.s2_span
        assert tokenizer.decode([prompt.io_token_id]) == f" {prompt.io}"
        assert tokenizer.decode([prompt.s_token_id]) == f" {prompt.s}"
        template = templates.templates_baba[prompt.template]
        assert (prompt.place is None) == ("[PLACE]" not in template)
        assert (prompt.object is None) == ("[OBJECT]" not in template)


def test_abba_swaps_the_first_mentions_only(templates, tokenizer):
    for prompt in generate_prompts(templates, tokenizer, 60, seed=3).prompts:
        first, second = (prompt.s, prompt.io) if prompt.order == "BABA" else (prompt.io, prompt.s)
        expected = templates.templates_baba[prompt.template]
        for slot, word in (("[PLACE]", prompt.place), ("[OBJECT]", prompt.object)):
            expected = expected.replace(slot, word or "")
        for slot, word in (
            ("[B]", first),
            ("[A]", second),
            ("[B]", prompt.s),
            ("[A]", prompt.io),
        ):
            expected = expected.replace(slot, word, 1)
        assert f"{prompt.text} {prompt.io}" == expected


def test_same_seed_same_prompts_and_prefix(templates, tokenizer):
    long = generate_prompts(templates, tokenizer, 50, seed=7)
    assert generate_prompts(templates, tokenizer, 50, seed=7) == long
    assert generate_prompts(templates, tokenizer, 20, seed=7).prompts == long.prompts[:20]
    assert generate_prompts(templates, tokenizer, 50, seed=8).prompts != long.prompts
    with_twins = generate_prompts(templates, tokenizer, 50, seed=7, twins=True)
    assert [p.text for p, _ in with_twins.pairs] == [p.text for p in long.prompts]


def test_balanced_over_templates_and_orders(templates, tokenizer):
    prompts = generate_prompts(templates, tokenizer, 90).prompts
    counts = Counter((p.template, p.order) for p in prompts)
    assert set(counts.values()) == {3}
    assert len(counts) == 30


def test_twins(templates, tokenizer):
    found = generate_prompts(templates, tokenizer, 40, twins=True)
    assert [p.twin_of for p in found.prompts] == [None if i % 2 == 0 else i - 1 for i in range(80)]
    assert [p.example_id for p in found.prompts] == list(range(80))
    assert len(found.pairs) == 40
    for prompt, twin in found.pairs:
        assert twin.twin_of == prompt.example_id
        assert twin.third_name in found.names
        assert twin.third_name not in (prompt.io, prompt.s)
        assert (twin.template, twin.order) == (prompt.template, prompt.order)
        assert (twin.io_token_id, twin.s_token_id) == (prompt.io_token_id, prompt.s_token_id)
        assert twin.text[slice(*twin.s2_span)] == twin.third_name
        start, stop = twin.s2_span
        restored = twin.text[:start] + prompt.s + twin.text[stop:]
        assert restored == prompt.text


def test_twin_refusals(templates, tokenizer):
    prompt, twin = generate_prompts(templates, tokenizer, 1, twins=True).pairs[0]
    with pytest.raises(UsageError, match="other than these"):
        corrupted_twin(prompt, prompt.s, example_id=9)
    with pytest.raises(UsageError, match="twin itself"):
        corrupted_twin(twin, "Zoe", example_id=9)


def test_token_roles_cover_names(templates, tokenizer):
    for prompt in generate_prompts(templates, tokenizer, 30, twins=True).prompts:
        encoded = tokenizer(prompt.text, return_offsets_mapping=True, add_special_tokens=False)
        roles = token_roles(prompt, encoded["offset_mapping"])
        assert roles[-1] == "end"
        assert roles.count("end") == 1
        # every name is one token in this tokenizer
        assert [roles.count(r) for r in ("io", "s1", "s2")] == [1, 1, 1]
        ids = encoded["input_ids"]
        assert ids[roles.index("io")] == prompt.io_token_id
        assert ids[roles.index("s1")] == prompt.s_token_id
        assert (ids[roles.index("s2")] == prompt.s_token_id) == (prompt.twin_of is None)


def test_token_roles_of_split_names_specials_and_padding():
    prompt = IOIPrompt(
        example_id=0,
        twin_of=None,
        text="So Ann met Bob, Ann hit",
        io="Bob",
        s="Ann",
        template=0,
        order="BABA",
        place=None,
        object=None,
        io_token_id=1,
        s_token_id=2,
        s1_span=(3, 6),
        io_span=(11, 14),
        s2_span=(16, 19),
    )
    offsets = [
        (0, 0),
        (0, 2),
        (2, 5),
        (5, 6),
        (6, 10),
        (11, 14),
        (14, 15),
        (15, 19),
        (19, 23),
        (0, 0),
    ]
    assert token_roles(prompt, offsets) == [
        "other", "other", "s1", "s1", "other", "io", "other", "s2", "end", "other",
    ]  # fmt: skip
    assert token_roles(prompt, []) == []


def test_names_of_several_tokens_are_left_out(templates, caplog):
    some = word_tokenizer(templates.names[:20])
    found = generate_prompts(templates, some, 10)
    assert found.names == templates.names[:20]
    assert found.dropped_names == templates.names[20:]
    assert "left out" in caplog.text
    used = {name for p in found.prompts for name in (p.io, p.s)}
    assert used <= set(templates.names[:20])


def test_unknown_and_shared_tokens_are_not_names():
    class Stub:
        unk_token_id = 0

        def __call__(self, texts, add_special_tokens):
            assert add_special_tokens is False
            known = {" Ann": 1, " ann": 1, " Bob": 2}
            return {"input_ids": [[known.get(text, 0)] for text in texts]}

    ids, dropped = single_token_names(["Ann", "ann", "Bob", "Zed"], Stub())
    assert ids == {"Ann": 1, "Bob": 2}
    assert dropped == ["ann", "Zed"]


@pytest.mark.parametrize(("usable", "twins"), [(1, False), (0, False), (2, True)])
def test_too_few_names(templates, usable, twins):
    few = word_tokenizer(templates.names[:usable])
    with pytest.raises(DatasetError, match=f"{usable} of 237 names"):
        generate_prompts(templates, few, 5, twins=twins)


@pytest.mark.parametrize("n", [0, -3])
def test_needs_a_positive_number(templates, tokenizer, n):
    with pytest.raises(UsageError, match="1 or more"):
        generate_prompts(templates, tokenizer, n)


def test_pair_filter_without_pairs(templates, tokenizer):
    with pytest.raises(DatasetError, match="no pair"):
        generate_prompts(templates, tokenizer, 5, pair_filter=lambda a, b: False)


@given(a=st.text(max_size=8), b=st.text(max_size=8))
def test_held_out_pairs_are_unordered(a, b):
    assert is_held_out_pair(a, b) == is_held_out_pair(b, a)


def test_held_out_share(templates):
    names = templates.names
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
    share = sum(is_held_out_pair(a, b) for a, b in pairs) / len(pairs)
    assert share == pytest.approx(0.1, abs=0.01)


def test_training_sentences_never_hold_a_held_out_pair(templates):
    stream = SentenceStream(templates, seed=4, pair_filter=lambda a, b: not is_held_out_pair(a, b))
    sentences = stream.take(3000)
    assert not any(is_held_out_pair(s.io, s.s) for s in sentences)
    for sentence in sentences:
        assert sentence.text[sentence.answer_start :] == f" {sentence.io}"
        assert sentence.text.count(f" {sentence.s}") >= 2


def test_sentences_are_one_list(templates):
    stream = SentenceStream(templates, seed=5)
    assert stream.take(40) == stream.take(25) + stream.take(15, start=25)
    assert stream.take(40) == SentenceStream(templates, seed=5).take(40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": None}, "key names is missing"),
        ({"templates_baba": None}, "key templates_baba is missing"),
        ({"source": 3}, "source must be text"),
        ({"names": "Ann"}, "names is 'Ann'; valid: a list"),
        ({"places": [1]}, "places is"),
        ({"slots": {"[C]": "x"}}, "slots is"),
        ({"slots": []}, "slots is"),
        ({"names": ["Ann"]}, "at least 2"),
        ({"names": ["Ann", "Ann"]}, "'Ann' twice"),
        ({"names": ["Ann", ""]}, "the entry ''"),
        ({"names": ["Ann", "Bob B"]}, "one word"),
        ({"objects": ["[A]", "hat"]}, "without brackets"),
        ({"places": []}, "places is empty"),
        ({"templates_baba": []}, "templates_baba is empty"),
        ({"templates_baba": ["At [B] [A] [B] to [A]."]}, "must end with"),
        ({"templates_baba": ["At [A] [B] [B] to [A]"]}, r"the BABA form is"),
        ({"templates_baba": ["At [B] to [A]"]}, "the BABA form is"),
        ({"templates_baba": ["[B] met [A], [B] hit [A]"]}, "cannot start with one"),
        ({"templates_baba": ["So [B] met ([A]), [B] hit [A]"]}, "space before each name"),
        ({"templates_baba": ["So [B] met [A] in [TOWN], [B] hit [A]"]}, r"unknown slot \[TOWN\]"),
        ({"templates_baba": ["So [B] met [[A], [B] hit [A]"]}, "a bracket"),
        ({"templates_baba": ["So [B]  met [A], [B] hit [A]"]}, "white space"),
    ],
)
def test_bad_files(write, changes, message):
    with pytest.raises(DatasetError, match=message) as caught:
        load_ioi_templates(write(**changes))
    assert "templates.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b"NaN"])
def test_files_that_are_no_templates(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.json"):
        load_ioi_templates(path)


def test_missing_file_and_directory(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            load_ioi_templates(path)


def test_good_file_without_slots(write, tokenizer):
    found = load_ioi_templates(write())
    assert found.names == ("Ann", "Bob", "Cleo")
    prompts = generate_prompts(found, word_tokenizer(found.names), 4, twins=True).prompts
    assert {p.place for p in prompts} == {"park"}
