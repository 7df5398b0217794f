"""MoE blocks of a padded batch see its tokens alone, and give what they gave with padding."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, MixtralConfig

from moedb.capture.structure.blocks import find_blocks
from moedb.capture.tracing.padding import without_padding
from moedb.capture.tracing.rehearsal import traced

LENGTHS = (5, 2, 7)
MASK = torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]
D_MODEL = 16


def tiny_model(**settings):
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=D_MODEL,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        **settings,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def block():
    return tiny_model().model.layers[0].mlp


def hidden_states():
    torch.manual_seed(1)
    return torch.randn(*MASK.shape, D_MODEL)


@torch.no_grad()
def test_a_block_gets_the_tokens_and_gives_them_back_in_their_places(block):
    states, seen = hidden_states(), []
    expected = block(states)
    watch = block.gate.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with without_padding([block], MASK):
        found = block(states)
        named = block(hidden_states=states)
    watch.remove()
    assert [rows.shape for rows in seen] == [(sum(LENGTHS), D_MODEL)] * 2
    torch.testing.assert_close(seen[0], states[MASK], rtol=0, atol=0)
    torch.testing.assert_close(found[MASK], expected[MASK])
    assert not found[~MASK].any()
    torch.testing.assert_close(named, found, rtol=0, atol=0)


@torch.no_grad()
def test_afterwards_the_block_is_as_it_was(block):
    states = hidden_states()
    expected = block(states)
    with pytest.raises(ZeroDivisionError), without_padding([block], MASK):
        1 / 0  # noqa: B018
    torch.testing.assert_close(block(states), expected, rtol=0, atol=0)
    assert not block._forward_pre_hooks and not block._forward_hooks


class Recorder(nn.Module):
    """Gives what it got, and scores of another shape."""

    def forward(self, *args):
        self.args = args
        return args[0], args[0].flatten(0, -2).sum(dim=-1)


def test_of_several_outputs_those_with_a_row_for_each_token_are_padded():
    recorder, states = Recorder(), hidden_states()
    with without_padding([recorder], MASK):
        output, scores = recorder(states)
    assert output.shape == states.shape and scores.shape == (sum(LENGTHS),)
    torch.testing.assert_close(output, states * MASK[..., None], rtol=0, atol=0)


@pytest.mark.parametrize(
    "args",
    [
        (hidden_states(), torch.zeros(MASK.shape)),  # what the second is, no one knows
        (hidden_states().flatten(0, 1),),
        (hidden_states()[:, 1:],),
    ],
)
def test_other_inputs_stay(args):
    recorder = Recorder()
    with without_padding([recorder], MASK):
        output, _ = recorder(*args)
    assert recorder.args == args and output is args[0]


def test_a_batch_without_padding_stays():
    recorder, states = Recorder(), hidden_states()
    with without_padding([recorder], torch.ones_like(MASK)):
        output, _ = recorder(states)
    assert output is states


@pytest.mark.parametrize("collects", [False, True])
def test_a_model_that_collects_its_routers_scores_keeps_its_padding(collects):
    model, seen = tiny_model(output_router_logits=collects), []
    ids = [[1, 2, 3, 4], [5, 6]]
    with traced(model, find_blocks(model)) as found:
        gate = model.model.layers[0].mlp.gate
        watch = gate.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
        batch = found.run(ids)
        watch.remove()
    assert seen == [D_MODEL * (8 if collects else 6)]
    with torch.no_grad():
        plain = torch.cat([model(torch.tensor([row])).logits[0] for row in ids])
    torch.testing.assert_close(batch.logits, plain)
