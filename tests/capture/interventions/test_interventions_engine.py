"""Passes with edits: where nothing is changed nothing changes, wherever they start."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from moedb.capture.interventions import edit_arithmetic as edits
from moedb.capture.interventions.engine import Engine, Pass, PassOutcome
from moedb.capture.interventions.kinds import Intervention
from moedb.capture.interventions.layer_edits import Edit
from moedb.capture.models.layer_ranges import PassThrough, skipping
from moedb.capture.structure.blocks import find_blocks
from moedb.capture.structure.router_rule import RouterRule
from moedb.capture.structure.wiring import Read
from moedb.capture.tracing.rehearsal import traced
from moedb.schemas.interventions import FORMS, KINDS, SITES
from tests.capture.structure.test_architectures import with_lists
from tests.support.models.tiny_models import FAMILIES, tiny_model

pytestmark = pytest.mark.model

CLEAN = ((3, 14, 15, 92, 65, 35), (8, 97, 93, 23))
TWINS = ((3, 14, 15, 11, 65, 35), (8, 97, 61, 23))
ROWS, TWIN_ROWS = slice(2, 4), torch.tensor([0, 1])
N_LAYERS, N_EXPERTS, TOP_K = 4, 10, 3


@pytest.fixture(scope="module")
def model() -> Any:
    config = Qwen2MoeConfig(
        vocab_size=101,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
        num_experts=N_EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=True,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return Qwen2MoeForCausalLM(config).eval()


@pytest.fixture(scope="module")
def engine(model: Any) -> Iterator[Engine]:
    with traced(model, find_blocks(model)) as ready:
        yield Engine(ready)


def every_intervention(layers: tuple[int, ...]) -> list[Intervention]:
    found = []
    for kind in KINDS:
        variants: list[dict[str, Any]] = [{}]
        if kind == "patch":
            variants = [{"site": site} for site in SITES]
        elif kind == "ablate-experts":
            variants = [{"form": form} for form in FORMS]
        experts = dict.fromkeys(layers, (1, 4, 7))
        found += [Intervention(kind, layers, experts, (), params) for params in variants]
    return found


def named(intervention: Intervention) -> str:
    return "-".join([intervention.kind, *map(str, intervention.params.values())])


def an_edit(intervention: Intervention, tokens: torch.Tensor | None = None, **changes: Any) -> Edit:
    if tokens is None:
        tokens = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    twins = TWIN_ROWS if intervention.needs_twins else None
    drawn = {
        layer: torch.stack(
            [edits.drawn_experts(0, 0, layer, i, 6, N_EXPERTS, TOP_K) for i in (0, 1)]
        )
        for layer in intervention.layers
    }
    return replace(Edit(intervention, ROWS, twins, tokens, drawn), **changes)


def same(one: PassOutcome, other: PassOutcome) -> bool:
    return torch.equal(one.logits, other.logits)


@pytest.mark.parametrize("intervention", every_intervention((1, 2)), ids=named)
def test_on_no_token_every_kind_changes_nothing_to_the_bit(
    intervention: Intervention, engine: Engine
) -> None:
    nowhere = torch.zeros(2, 6, dtype=torch.bool)
    untouched = engine.run(Pass((*TWINS, *CLEAN)))
    edited = engine.run(Pass((*TWINS, *CLEAN), (an_edit(intervention, nowhere),)))
    assert same(edited, untouched)
    assert not same(engine.run(Pass((*TWINS, *CLEAN), (an_edit(intervention),))), untouched)


@pytest.mark.parametrize(
    "intervention", [i for i in every_intervention((1, 2)) if i.needs_twins], ids=named
)
def test_from_itself_a_swap_or_a_patch_changes_nothing_to_the_bit(
    intervention: Intervention, engine: Engine
) -> None:
    rows = (*CLEAN, *CLEAN)
    assert same(engine.run(Pass(rows, (an_edit(intervention),))), engine.run(Pass(rows)))


@pytest.mark.parametrize("layer", range(N_LAYERS + 1))
def test_the_whole_residual_stream_of_the_twin_gives_its_logits(layer: int, engine: Engine) -> None:
    patch = Intervention("patch", (layer,), {}, (), {"site": "residual"})
    outcome = engine.run(Pass((*TWINS, *CLEAN), (an_edit(patch),)))
    torch.testing.assert_close(outcome.logits[ROWS], outcome.logits[TWIN_ROWS])
    for later in range(layer, N_LAYERS + 1):
        residual = outcome.residuals[later]
        torch.testing.assert_close(residual[ROWS], residual[TWIN_ROWS])
    for earlier in range(1, layer):
        residual = outcome.residuals[earlier]
        assert not torch.allclose(residual[ROWS], residual[TWIN_ROWS], atol=1e-3)


def test_everything_written_by_the_twin_at_every_layer_gives_its_logits(engine: Engine) -> None:
    """All that a layer adds to the stream, on top of the twin's embeddings."""
    every = tuple(range(N_LAYERS))
    patches = [
        Intervention("patch", layers, {}, (), {"site": site})
        for site, layers in (
            ("residual", (0,)),
            ("attention-output", every),
            ("block-output", every),
        )
    ]
    outcome = engine.run(Pass((*TWINS, *CLEAN), tuple(an_edit(patch) for patch in patches)))
    torch.testing.assert_close(outcome.logits[ROWS], outcome.logits[TWIN_ROWS])


@pytest.mark.parametrize("form", FORMS)
def test_ablating_an_expert_that_no_token_uses_changes_nothing(
    form: str, engine: Engine, model: Any
) -> None:
    used: dict[int, set[int]] = {}
    handles = [
        layer.mlp.gate.register_forward_hook(
            lambda _, __, out, i=index: used.setdefault(i, set()).update(out[2].flatten().tolist())
        )
        for index, layer in enumerate(model.model.layers)
    ]
    untouched = engine.run(Pass((*TWINS, *CLEAN)))
    for handle in handles:
        handle.remove()
    n_unused = 0
    for layer, experts in used.items():
        for expert in sorted(set(range(N_EXPERTS)) - experts):
            gone = Intervention("ablate-experts", (layer,), {layer: (expert,)}, (), {"form": form})
            outcome = engine.run(Pass((*TWINS, *CLEAN), (an_edit(gone),)))
            assert same(outcome, untouched)
            n_unused += 1
    assert n_unused, "the prompts should leave an expert out somewhere"


@pytest.mark.parametrize("start", range(1, N_LAYERS + 1))
def test_from_a_residual_stream_it_ends_as_from_the_tokens(start: int, engine: Engine) -> None:
    rows = (*TWINS, *CLEAN)
    stream = []
    for row in rows:  # the stream at every position is that at the end of every beginning
        beginnings = tuple(row[: 1 + position] for position in range(len(row)))
        stream.append(engine.run(Pass(beginnings)).residuals[start])
    made = tuple(an_edit(i) for i in every_intervention((start,)) if start < N_LAYERS)
    for edit in (None, *made):
        edited = () if edit is None else (edit,)
        with engine.whole():
            whole = engine.run(Pass(rows, edited))
        short = engine.run(Pass(rows, edited, start, tuple(stream)))
        torch.testing.assert_close(short.logits, whole.logits, rtol=1e-4, atol=1e-5)
        assert sorted(short.residuals) == list(range(start, N_LAYERS + 1))
    # The stream decides, not the tokens that come with it.
    elsewhere = engine.run(Pass((*CLEAN, *CLEAN), (), start, tuple(stream)))
    torch.testing.assert_close(
        elsewhere.logits, engine.run(Pass(rows)).logits, rtol=1e-4, atol=1e-5
    )


def test_many_conditions_in_one_pass_are_those_one_by_one(engine: Engine) -> None:
    interventions = every_intervention((2,))
    rows = [*TWINS, *CLEAN * len(interventions)]
    together = [
        an_edit(intervention, rows=slice(2 + 2 * index, 4 + 2 * index))
        for index, intervention in enumerate(interventions)
    ]
    logits = engine.run(Pass(tuple(rows), tuple(together))).logits
    for edit in together:
        alone = engine.run(Pass((*TWINS, *CLEAN), (replace(edit, rows=ROWS),))).logits
        torch.testing.assert_close(logits[edit.rows], alone[ROWS], rtol=1e-4, atol=1e-5)


def test_skipped_layers_answer_for_their_own_and_come_back(model: Any) -> None:
    layers = list(model.model.layers)
    layers[0].marked = "here"
    with pytest.raises(RuntimeError, match="on purpose"), skipping(model, "model.layers", 2):
        assert [isinstance(layer, PassThrough) for layer in model.model.layers] == [
            True,
            True,
            False,
            False,
        ]
        assert model.model.layers[0].marked == "here"
        assert not list(model.model.layers[0].parameters())
        raise RuntimeError("on purpose")
    assert list(model.model.layers) == layers


class TestRouting:
    rule = RouterRule("softmax", norm_topk_prob=False)
    logits = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]])
    chosen = torch.tensor([[[0, 1]]])

    def test_the_next_best_takes_over_with_its_own_share_of_the_softmax(self) -> None:
        given = self.rule.weights(self.logits, self.chosen)
        experts, weights = edits.without_experts(self.rule, self.logits, self.chosen, given, [1])
        assert experts.tolist() == [[[0, 2]]]
        shares = self.logits[0, 0].exp() / self.logits[0, 0].exp().sum()
        torch.testing.assert_close(weights[0, 0], shares[[0, 2]])

    def test_where_the_chosen_are_normalized_so_are_those_that_take_over(self) -> None:
        rule = RouterRule("softmax", norm_topk_prob=True)
        given = rule.weights(self.logits, self.chosen)
        _, weights = edits.without_experts(rule, self.logits, self.chosen, given, [1], 2.0)
        shares = self.logits[0, 0, [0, 2]].exp()
        torch.testing.assert_close(weights[0, 0], shares / shares.sum() / 2)

    def test_a_token_of_other_experts_keeps_its_weights_to_the_bit(self) -> None:
        given = torch.tensor([[[0.25, 0.75]]])  # not what the rule gives
        experts, weights = edits.without_experts(self.rule, self.logits, self.chosen, given, [3])
        assert torch.equal(experts, self.chosen) and torch.equal(weights, given)

    def test_equal_weights_keep_their_sum(self) -> None:
        weights = torch.tensor([[[0.5, 0.25, 0.125]]])
        equal = edits.with_equal_weights(weights)
        torch.testing.assert_close(equal.sum(-1), weights.sum(-1))
        assert equal.unique().numel() == 1

    @pytest.mark.parametrize("tied", [(0, 1), (0, 2), (1, 0)])
    def test_where_experts_tie_the_models_own_choice_stays(self, tied: tuple[int, int]) -> None:
        """Of 0, 1 and 2 the model took any two; 1 that was not taken is no better than they."""
        logits = torch.tensor([[[2.0, 2.0, 2.0, 5.0, 1.0, -1.0]]])
        chosen = torch.tensor([[[3, *tied]]])
        given = self.rule.weights(logits, chosen)
        experts, weights = edits.without_experts(self.rule, logits, chosen, given, [3])
        left = ({0, 1, 2} - set(tied)).pop()
        assert experts.tolist() == [[[left, *tied]]]
        shares = logits[0, 0].exp() / logits[0, 0].exp().sum()
        torch.testing.assert_close(weights[0, 0], shares[[left, *tied]])

    def test_several_that_leave_are_followed_by_the_next_best_in_order(self) -> None:
        logits = torch.tensor([[[6.0, 5.0, 4.0, 3.0, 3.0, 2.0, 7.0]]])
        chosen = torch.tensor([[[6, 0, 1]]])
        given = self.rule.weights(logits, chosen)
        experts, _ = edits.without_experts(self.rule, logits, chosen, given, [6, 1, 2])
        assert experts.tolist() == [[[3, 0, 4]]]  # 2 is gone too; of 3 and 4 the lower index first

    def test_draws_are_uniform_never_twice_and_by_example(self) -> None:
        drawn = edits.drawn_experts(1, 0, 5, 3, 6000, 8, 3)
        assert all(len(set(row)) == 3 for row in drawn.tolist())
        counts = torch.bincount(drawn.flatten(), minlength=8) / 6000
        assert (counts - 3 / 8).abs().max() < 0.03
        assert torch.equal(edits.drawn_experts(1, 0, 5, 3, 10, 8, 3), drawn[:10])
        for numbers in ((2, 0, 5, 3), (1, 1, 5, 3), (1, 0, 6, 3), (1, 0, 5, 4)):
            assert not torch.equal(edits.drawn_experts(*numbers, 6000, 8, 3), drawn)


SOFTMAX, SIGMOID = RouterRule("softmax", False), RouterRule("sigmoid", True)
HALF = (torch.bfloat16, torch.float16)


def next_above(value: float, dtype: torch.dtype = torch.float32) -> float:
    one = torch.tensor(value, dtype=dtype)
    return float(torch.nextafter(one, torch.tensor(torch.inf, dtype=dtype)))


class TestIsTopK:
    """Whether a choice is the top-k of the logits, told from rounding by constructed cases."""

    @staticmethod
    def fits(
        rule: RouterRule,
        logits: list[float],
        chosen: list[int],
        dtype: torch.dtype = torch.float32,
    ) -> bool:
        found = edits.is_top_k(rule, torch.tensor([logits], dtype=dtype), torch.tensor([chosen]))
        assert found.shape == (1,)
        return bool(found)

    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    @pytest.mark.parametrize("rule", [SOFTMAX, SIGMOID], ids=["softmax", "sigmoid"])
    def test_a_plain_choice_and_one_that_is_not(self, rule: RouterRule, dtype: torch.dtype) -> None:
        logits = [4.0, 3.0, 2.0, 1.0]
        assert self.fits(rule, logits, [0, 1], dtype) and self.fits(rule, logits, [1, 0], dtype)
        assert not self.fits(rule, logits, [0, 2], dtype)
        assert not self.fits(rule, logits, [2, 3], dtype)

    @pytest.mark.parametrize("chosen", [[0, 1], [0, 2], [0, 3]])
    def test_of_an_exact_tie_either_is_the_top_k(self, chosen: list[int]) -> None:
        assert self.fits(SOFTMAX, [5.0, 1.75, 1.75, 1.75, 0.0], chosen)
        assert not self.fits(SOFTMAX, [5.0, 1.75, 1.75, 1.75, 0.0], [0, 4])

    @pytest.mark.parametrize("value", [1.75, -3.5, 0.001])
    def test_a_difference_in_the_last_bit_is_rounding(self, value: float) -> None:
        """As far apart as 2.4e-7 of 1.75 is, with another expert 4 above."""
        above = next_above(value)
        assert above != value
        assert self.fits(SOFTMAX, [value + 4, value, above], [0, 1])
        assert self.fits(SIGMOID, [value + 4, value, above], [0, 1])

    @pytest.mark.parametrize("gap", [1e-3, 1e-4, 2e-5])
    def test_more_than_rounding_is_not(self, gap: float) -> None:
        assert not self.fits(SOFTMAX, [5.75, 1.75, 1.75 + gap], [0, 1])
        assert not self.fits(SIGMOID, [5.75, -1.75, -1.75 + gap], [0, 1])

    def test_every_choice_that_float32_makes_of_its_own_scores_passes(self) -> None:
        """Logits a few units in the last place apart, from far below the largest to near it."""
        generator = torch.Generator().manual_seed(0)
        for distance in (0.0, 1.0, 10.0, 40.0, 80.0):
            steps = torch.randint(0, 4, (4000, 12), generator=generator)
            near = torch.rand(4000, 1, generator=generator) * 8 - 4
            logits = near + steps * near.abs() * torch.finfo(torch.float32).eps
            logits = torch.cat([logits, near + distance], dim=-1)
            for rule, scores in (
                (SOFTMAX, logits.softmax(dim=-1)),
                (SOFTMAX, (logits - logits.logsumexp(dim=-1, keepdim=True)).exp()),
                (SIGMOID, logits.sigmoid()),
                (SIGMOID, 1 / (1 + (-logits).exp())),
            ):
                # The worst that ties allow: the lowest logits of those with like scores.
                chosen = scores.double().add(-1e-9 * scores * steps_of(logits)).topk(4).indices
                assert edits.is_top_k(rule, logits, chosen).all(), (rule, distance)

    def test_saturated_scores_tie_while_logits_differ(self) -> None:
        """Beside a logit of 200 every other probability is zero; above 20 every sigmoid is one."""
        logits = torch.tensor([200.0, 3.0, 2.0, -1.0])
        assert logits.softmax(dim=-1)[1:].tolist() == [0, 0, 0]
        assert self.fits(SOFTMAX, logits.tolist(), [0, 3])
        assert not self.fits(SOFTMAX, [60.0, 3.0, 2.0, -1.0], [0, 3])
        high = torch.tensor([30.0, 25.0, 20.0, 5.0])
        assert high.sigmoid()[:3].tolist() == [1, 1, 1]
        assert self.fits(SIGMOID, high.tolist(), [2, 1])
        assert not self.fits(SIGMOID, high.tolist(), [0, 3])
        assert not self.fits(SOFTMAX, [1.0, 40.0, -60.0, -61.0], [1, 3])

    @pytest.mark.parametrize("dtype", HALF)
    def test_scores_that_tie_in_a_short_format(self, dtype: torch.dtype) -> None:
        """Logits are finer near zero than the scores that are rounded to the same format."""
        logits = torch.tensor([0.001, 0.002, -2.0], dtype=dtype)
        assert logits[0] < logits[1]
        assert logits.sigmoid()[0] == logits.sigmoid()[1]
        assert self.fits(SIGMOID, logits.tolist(), [0], dtype)
        assert not self.fits(SIGMOID, logits.tolist(), [0])  # float32 tells them apart
        # A whole step of the format at 1: the scores differ by more than their rounding.
        step = next_above(8.0, dtype)
        assert self.fits(SOFTMAX, [9.0, 8.0, 8.0, 1.0], [0, 2], dtype)
        assert not self.fits(SOFTMAX, [9.0, 8.0, step + (step - 8), 1.0], [0, 1], dtype)

    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    @pytest.mark.parametrize("bias", [0.1, 0.03])
    def test_a_bias_of_the_router_is_told(self, bias: float, dtype: torch.dtype) -> None:
        """As of DeepSeek-V3: the largest of sigmoid + bias are taken."""
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(500, 32, generator=generator).to(dtype)
        biases = torch.linspace(-bias, bias, 32)
        plain = logits.float().sigmoid()
        assert edits.is_top_k(SIGMOID, logits, plain.topk(4).indices).all()
        fits = edits.is_top_k(SIGMOID, logits, (plain + biases).topk(4).indices)
        moved = (plain + biases).topk(4).indices.sort().values != plain.topk(
            4
        ).indices.sort().values
        assert not fits[moved.any(dim=-1)].all() and fits[~moved.any(dim=-1)].all()
        assert int((~fits).sum()) > 50

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_groups_of_experts_are_told(self, dtype: torch.dtype) -> None:
        """As of DeepSeek-V2: the best of the best group alone are taken."""
        logits = torch.randn(200, 32, generator=torch.Generator().manual_seed(2)).to(dtype)
        by_group = logits.float().view(200, 4, 8)
        best = by_group.amax(dim=-1).argmax(dim=-1)
        chosen = by_group[torch.arange(200), best].topk(3).indices + 8 * best.unsqueeze(-1)
        assert int((~edits.is_top_k(SOFTMAX, logits, chosen)).sum()) > 100

    def test_padding_is_not_counted(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing_fits = torch.zeros(4, 6, dtype=torch.bool)
        monkeypatch.setattr(edits, "is_top_k", lambda *_: nothing_fits)
        outcome = engine.run(Pass((*TWINS, *CLEAN), watched=frozenset({1, 3})))
        assert outcome.not_top_k == {1: 20, 3: 20}


def steps_of(logits: torch.Tensor) -> torch.Tensor:
    """(token, expert): the place of each logit in its row, the lowest first."""
    return logits.argsort(dim=-1).argsort(dim=-1)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (Read("x", 0, "m", "input", 1), ((10, 11, 12), {"a": 13})),
        (Read("x", 0, "m", "input", "a"), ((10,), {"a": 13, "b": 14})),
        (Read("x", 0, "m", "output", 0), (10, 11)),
        (Read("x", 0, "m", "output"), 10),
        (Read("x", 0, "m", "output", "logits"), "an object with attributes"),
    ],
)
def test_putting_is_the_inverse_of_picking(read: Read, value: Any) -> None:
    if isinstance(value, str):
        value = type("Output", (), {})()
        value.logits, value.other = 1, 2
    before = read.pick(value)
    changed = read.put(value, 99)
    assert read.pick(changed) == 99 and read.pick(value) == before
    restored = read.put(changed, before)
    if isinstance(value, int | tuple):
        assert restored == value
    else:
        assert vars(restored) == vars(value)


FAMILY_SAMPLE = (
    "cohere2_moe",  # weights scaled by a constant; the norm is before attention and block alike
    "dbrx",  # experts with a forward of their own
    "deepseek_v2",  # groups of experts
    "deepseek_v3",  # sigmoid, a bias on the choice, a constant
    "gemma4_text",  # norms after attention and after the experts; embeddings are scaled
    "granitemoehybrid",  # the shared expert is beside the block
    "kolibri1",  # sigmoid that is not normalized
    "olmoe",
)


@pytest.mark.parametrize("name", FAMILY_SAMPLE)
def test_in_other_families(name: str) -> None:
    family = FAMILIES[name]
    model = tiny_model(name, family.settings)
    rows = ((3, 14, 15, 11, 65, 35), (8, 97, 61, 23, 5, 77))
    with traced(model, find_blocks(model)) as ready:
        engine = Engine(ready)
        layers = [wiring.block.layer for wiring in ready.wiring.blocks]
        untouched = engine.run(Pass((*rows, *rows)))
        everywhere = torch.ones(2, 6, dtype=torch.bool)
        # Drawing what the router chose: the rule must give the weights that the router gave.
        chosen = {
            layer: found.experts.view(2, 6, -1) for layer, found in ready.run(rows).layers.items()
        }
        redrawn = Intervention("random-routing", tuple(layers), {}, (), {"seed": 0, "draw": 0})
        again = engine.run(Pass((*rows, *rows), (Edit(redrawn, ROWS, None, everywhere, chosen),)))
        torch.testing.assert_close(again.logits, untouched.logits, rtol=1e-4, atol=1e-4)
        # All that the layers from the first with experts on write, on the twin's stream.
        twins = tuple(row[::-1] for row in rows)
        patches = [("residual", layers[:1]), ("block-output", layers)]
        attention = [read.layer for read in ready.wiring.attention]
        assert attention == ([] if name == "cohere2_moe" else layers)
        patches += [("attention-output", attention)] if attention else []
        made = [
            Edit(
                Intervention("patch", tuple(at), {}, (), {"site": site}),
                ROWS,
                TWIN_ROWS,
                everywhere,
            )
            for site, at in patches
        ]
        outcome = engine.run(Pass((*twins, *rows), tuple(made)))
        torch.testing.assert_close(
            outcome.logits[ROWS], outcome.logits[TWIN_ROWS], rtol=1e-4, atol=1e-4
        )
        # Half of it is not enough, so that the above says something.
        if attention:
            half = engine.run(Pass((*twins, *rows), (made[1],)))
            assert not torch.allclose(half.logits[ROWS], outcome.logits[ROWS], atol=1e-2)


@pytest.mark.parametrize("own_choice", [False, True])
@pytest.mark.parametrize(
    "intervention",
    [
        Intervention("ablate-experts", (1, 2), {1: (0, 3), 2: (1, 5, 6)}, (), {"form": "zero"}),
        Intervention("knock-out-shared", (1,)),
        Intervention("patch", (1,), {}, (), {"site": "block-output"}),
        Intervention("patch", (2,), {}, (), {"site": "shared-output"}),
    ],
    ids=named,
)
def test_experts_called_from_a_list_are_changed_as_stacked_ones_are(
    intervention: Intervention, own_choice: bool
) -> None:
    found = []
    for model in (tiny_model("qwen2_moe", {}), with_lists("qwen2_moe", own_choice)):
        with traced(model, find_blocks(model)) as ready:
            engine = Engine(ready)
            found.append(engine.run(Pass((*TWINS, *CLEAN), (an_edit(intervention),))).logits)
            untouched = engine.run(Pass((*TWINS, *CLEAN))).logits
        assert (found[-1][ROWS] - untouched[ROWS]).abs().max() > 1e-2
        torch.testing.assert_close(found[-1][TWIN_ROWS], untouched[TWIN_ROWS])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
