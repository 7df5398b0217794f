"""What is decided before anything runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moedb.capture.examples import Dataset, Example
from moedb.capture.pipeline.array_selection import budgeted_arrays, parse_arrays, parse_layers
from moedb.capture.pipeline.sizes import ModelShape, array_bytes, estimate
from moedb.capture.pipeline.survey.counting import survey
from moedb.capture.pipeline.survey.tokens import TokenSelection
from moedb.capture.pipeline.units import UNIT_BYTES, UNIT_TOKENS, divide
from moedb.capture.structure.blocks import MoEBlock
from moedb.errors import UsageError
from moedb.schemas.arrays import ARRAY_NAMES


def shape(shared: bool = True) -> ModelShape:
    blocks = tuple(
        MoEBlock(i, f"l.{i}.mlp", f"l.{i}.mlp.experts", f"l.{i}", 60, 4, 32) for i in (1, 2, 4)
    )
    absent = {
        "images",
        "all_expert_outputs",
        "logit_direction",
        *(() if shared else ("shared_outputs",)),
    }
    arrays = tuple(name for name in ARRAY_NAMES if name not in absent)
    return ModelShape(blocks, 6, 128, 4, arrays)


def dataset(lengths: list[int]) -> Dataset:
    examples = tuple(
        Example(
            split="all",
            text="x" * n,
            token_ids=tuple(range(n)),
            tokens=("x",) * n,
            labels={"parity": str(i % 2)},
            token_labels={"first": tuple("yes" if t == 0 else None for t in range(n))},
        )
        for i, n in enumerate(lengths)
    )
    return Dataset("text", "numbers", {}, examples)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.sampled_from([0, 1000, 2**18]))
def test_units_cover_the_examples_once_and_fit_their_rows(
    lengths: list[int], row_bytes: int
) -> None:
    data = dataset(lengths)
    units, unit_rows = divide(survey(data, TokenSelection("all")), row_bytes, 4)
    assert unit_rows % 1024 == 0
    assert [unit.first_example for unit in units] == [0, *(u.end_example for u in units[:-1])]
    assert units[-1].end_example == len(lengths)
    for unit in units:
        own = lengths[unit.first_example : unit.end_example]
        assert own and unit.n_tokens == sum(own) == unit.n_rows
        a_batch = -(-4 * sum(lengths) // len(lengths))
        assert len(own) == 1 or unit.n_tokens <= max(UNIT_TOKENS, a_batch)
        assert not row_bytes or unit.n_rows <= unit_rows
    assert (units, unit_rows) == divide(survey(data, TokenSelection("all")), row_bytes, 4)


def tagged(n_examples: int) -> Dataset:
    """Examples of 30 tokens: every third has the tag a, the first of even examples the tag b."""
    examples = []
    for i in range(n_examples):
        tags = ["a" if t % 3 == 1 else None for t in range(30)]
        if i % 2 == 0:
            tags[0] = "b"
        if i % 5 == 4:
            tags = [None] * 30
        examples.append(
            Example("all", "x" * 30, tuple(range(30)), ("x",) * 30, {}, {"tag": tuple(tags)})
        )
    return Dataset("text", "tagged", {}, tuple(examples))


def counted(data: Dataset, selection: TokenSelection) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for index, example in enumerate(data.examples):
        for keep, tag in zip(
            selection.mask(example, index), example.token_labels["tag"], strict=True
        ):
            if keep:
                found[tag] = found.get(tag, 0) + 1
    return found


def test_a_sample_has_as_many_tokens_of_each_value_and_as_many_others() -> None:
    data = tagged(40)
    every = TokenSelection.parse("label:tag", 50).draw(data.examples, 0)
    # 16 of the 20 even examples have tags, so there are 16 of b.
    assert counted(data, every) == {"a": 50, "b": 16, None: 66}
    one = TokenSelection.parse("label:tag=b", 10).draw(data.examples, 0)
    found = counted(data, one)
    assert found["b"] == 10 and sum(found.values()) == 20
    masks = [one.mask(example, index) for index, example in enumerate(data.examples)]
    with_b = {index for index, mask in enumerate(masks) if mask[0] and index % 2 == 0}
    assert {index for index, mask in enumerate(masks) if mask.any()} <= with_b
    assert survey(data, one).n_kept == 20
    assert counted(data, TokenSelection.parse("label:tag")) == {"a": 320, "b": 16}


def test_a_sample_is_that_of_its_seed() -> None:
    data = tagged(40)
    parsed = TokenSelection.parse("label:tag", 7)
    assert parsed.draw(data.examples, 3) == parsed.draw(data.examples, 3)
    assert parsed.draw(data.examples, 3) != parsed.draw(data.examples, 4)
    few = parsed.draw(data.examples, 3).drawn or {}
    many = TokenSelection.parse("label:tag", 9).draw(data.examples, 3).drawn or {}
    tags = data.examples[0].token_labels["tag"]
    for index, positions in few.items():  # a larger sample of tokens with a tag has a smaller one
        assert {p for p in positions if tags[p] == "a"} <= set(many[index])


def test_a_sample_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="--per-value 5 counts by a label, and --tokens is all"):
        TokenSelection.parse("all", 5)
    with pytest.raises(UsageError, match="--per-value 0: expected 1 or more"):
        TokenSelection.parse("label:tag", 0)


def test_a_unit_of_few_kept_rows_holds_more_tokens() -> None:
    data = dataset([100] * 200)
    all_units, _ = divide(survey(data, TokenSelection("all")), 2**18, 4)
    last_units, _ = divide(survey(data, TokenSelection("last")), 2**18, 4)
    assert len(all_units) == 20 and len(last_units) == 3


def test_a_unit_holds_several_batches_where_its_arrays_are_small() -> None:
    found = survey(dataset([100] * 200), TokenSelection("all"))
    small, rows_of_small = divide(found, 1000, 8)
    large, rows_of_large = divide(found, UNIT_BYTES // 1500, 8)
    assert (rows_of_small, rows_of_large) == (4 * 1024, 1024)
    assert [small[0].end_example, large[0].end_example] == [40, 10]
    few = survey(dataset([100] * 11), TokenSelection("all"))
    assert divide(few, 1000, 8)[1] == 2 * 1024


def test_a_large_batch_fits_into_a_unit() -> None:
    data = dataset([100] * 200)
    units, unit_rows = divide(survey(data, TokenSelection("all")), 1000, 150)
    assert unit_rows == 15 * 1024
    assert [unit.end_example - unit.first_example for unit in units] == [150, 50]


def test_one_pass_counts_what_a_plan_has_to_know() -> None:
    found = survey(dataset([3, 1, 5]), TokenSelection.parse("label:first=yes"))
    assert found.lengths.tolist() == [3, 1, 5] and found.kept.tolist() == [1, 1, 1]
    assert (found.n_examples, found.n_tokens, found.n_kept) == (3, 9, 3)
    assert (found.n_labels, found.n_token_labels, found.n_targets) == (3, 3, 0)
    assert (found.text_bytes, found.token_bytes) == (9, 9)
    planned = estimate(found, shape(), {"router_logits": (1, 2)}, n_conditions=2)
    assert planned.table_rows["routing"] == 9 * 3 * 4 and planned.table_rows["predictions"] == 0
    assert planned.array_bytes == {"router_logits": 3 * 2 * 60 * 4} and planned.n_rows == 3
    assert estimate(found, shape(), {}).n_rows == 0


def test_a_selection_of_nothing_names_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no such key; did you mean parity\?"):
        survey(dataset([2]), TokenSelection.parse("label:partiy=1"))
    with pytest.raises(UsageError, match="no such value; valid: 0, 1"):
        survey(dataset([2, 2]), TokenSelection.parse("label:parity=7"))


def test_token_selections() -> None:
    example = dataset([4, 4]).examples[1]
    assert TokenSelection.parse("all").mask(example, 0).tolist() == [True] * 4
    assert TokenSelection.parse("last").mask(example, 0).tolist() == [False, False, False, True]
    by_token = TokenSelection.parse("label:first=yes").mask(example, 0)
    assert by_token.tolist() == [True, False, False, False]
    assert TokenSelection.parse("label:parity=1").mask(example, 0).all()
    assert not TokenSelection.parse("label:parity=0").mask(example, 0).any()
    assert TokenSelection.parse("label:parity=0").mask(example, 0).dtype == np.bool_
    for text in ("first", "label:", "label:=x", ""):
        with pytest.raises(UsageError, match="valid are all, last, label:KEY and label"):
            TokenSelection.parse(text)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", (1, 2, 4)), ("2", (2,)), ("1-2", (1, 2)), ("4,1", (1, 4)), ("2, 1-2", (1, 2))],
)
def test_layers(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text, (1, 2, 4)) == layers


@pytest.mark.parametrize("text", ["3", "1-4", "x", "", "-1", "2-1", "1;2", "0"])
def test_bad_layers(text: str) -> None:
    with pytest.raises(UsageError, match="layers"):
        parse_layers(text, (1, 2, 4))


def test_arrays() -> None:
    def parse(*choices: str) -> dict[str, tuple[int, ...]]:
        return parse_arrays(choices, (1, 4), shape())

    assert parse("none") == {}
    assert parse("router_logits,router_input") == {"router_logits": (1, 4), "router_input": (1, 4)}
    assert parse("router_logits@all", "expert_outputs@2") == {
        "router_logits": (1, 2, 4),
        "expert_outputs": (2,),
    }
    # A layer's write is the difference to the next stream, and the last stream ends the sum.
    assert parse("residual_pre@1") == {"residual_pre": (1, 2, 6)}
    assert "expert_neurons" not in parse("all") and "expert_neurons" in parse("expert_neurons")
    assert "shared_outputs" not in parse_arrays(("all",), (1,), shape(shared=False))


def test_the_budget_keeps_what_is_cheap_first() -> None:
    everything, left_out = budgeted_arrays((1, 2, 4), shape(), 1000, 10**12)
    assert left_out == [] and "expert_outputs" in everything
    total = sum(array_bytes(everything, shape(), 1000).values())
    logits = 1000 * 3 * 60 * 4
    assert array_bytes(everything, shape(), 1000)["router_logits"] == logits
    assert array_bytes(everything, shape(), 1000)["expert_outputs"] == 1000 * 3 * 4 * 128 * 4
    kept, left_out = budgeted_arrays((1, 2, 4), shape(), 1000, total - 1)
    assert left_out == ["expert_outputs"] and "shared_outputs" in kept
    kept, left_out = budgeted_arrays((1, 2, 4), shape(), 1000, logits)
    assert list(kept) == ["router_logits"] and len(left_out) == 5
