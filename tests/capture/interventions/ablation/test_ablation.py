"""What an ablation changes equals the same made to the plain model by PyTorch hooks.

The oracle is transformers alone, one example at a time: where the router hands the experts their
weights, those of one expert are zero. Attributions are worked out from what the experts module
gives with an expert and without it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

import moedb
from moedb.capture.interventions.ablation import untouched
from moedb.capture.interventions.ablation.opening import plan_ablation
from moedb.capture.interventions.planning import Resources
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.errors import CheckError, ModelError, MoedbError, UsageError
from moedb.schemas.interventions import Ablation, AblationEffect

pytestmark = pytest.mark.model

TEXTS = (
    "The cat sat on the mat, and the dog lay beside it in the warm sun.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))",
    "We find that $x^2 + y^2 = 1$ holds for every point on the circle. Then we go on.",
)
FOLLOW = 3


@dataclass
class Run:
    store: Path
    run_id: str
    model: str

    def rows(self, table: str, columns: str, order: str) -> list[tuple[Any, ...]]:
        files = self.store / "runs" / self.run_id / "tables" / table / "*.parquet"
        return duckdb.sql(f"select {columns} from '{files}' order by {order}").fetchall()

    def ids(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for example_id, token in self.rows("tokens", "example_id, token_id", "token_idx"):
            found.setdefault(example_id, []).append(token)
        return found

    def chosen(self) -> dict[tuple[int, int, int], list[int]]:
        """For each layer, expert and example the positions that chose the expert."""
        places = {
            token: (example, position)
            for token, example, position in self.rows(
                "tokens", "token_idx, example_id, position", "token_idx"
            )
        }
        found: dict[tuple[int, int, int], list[int]] = {}
        for layer, expert, token in self.rows(
            "routing", "layer, expert, token_idx", "layer, token_idx"
        ):
            example, position = places[token]
            found.setdefault((layer, expert, example), []).append(position)
        return found


@pytest.fixture(scope="module", params=["random", "mini"])
def run(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    model = str(random_model) if request.param == "random" else "qwen-moe-mini"
    folder = tmp_path_factory.mktemp("ablation")
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    store = folder / "store"
    run_id = moedb.capture_text(folder / "texts.jsonl", store, model=model, arrays=["none"])
    return Run(store, run_id, model)


class Plain:
    """The model as transformers has it, one example at a time."""

    def __init__(self, model: str) -> None:
        folder = find_checkpoint(model).folder
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @contextmanager
    def _without(self, layer: int, expert: int) -> Iterator[None]:
        def silence(module: Any, args: Any) -> Any:
            hidden, index, weights = args
            return hidden, index, weights.masked_fill(index == expert, 0)

        experts = self.model.model.layers[layer].mlp.experts
        handle = experts.register_forward_pre_hook(silence)
        yield
        handle.remove()

    def logprobs(
        self, ids: list[int], without: tuple[int, int] | None = None
    ) -> NDArray[np.float64]:
        """(position,): of the next token."""
        with torch.no_grad():
            if without is None:
                logits = self.model(input_ids=torch.tensor([ids])).logits[0]
            else:
                with self._without(*without):
                    logits = self.model(input_ids=torch.tensor([ids])).logits[0]
        found = logits.double().log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        return np.asarray(found)

    def attributions(self, ids: list[int]) -> list[dict[tuple[int, int], float]]:
        """For each token but the last what each expert writes into the next token's logit."""
        given: dict[int, Any] = {}
        last: list[torch.Tensor] = []
        handles = [self.model.model.norm.register_forward_pre_hook(lambda _, a: last.append(a[0]))]
        blocks = {
            number: layer.mlp.experts
            for number, layer in enumerate(self.model.model.layers)
            if hasattr(layer.mlp, "experts")
        }
        for number, experts in blocks.items():
            handles.append(
                experts.register_forward_pre_hook(
                    lambda _, a, n=number: given.__setitem__(n, [v.clone() for v in a])
                )
            )
        with torch.no_grad():
            self.model(input_ids=torch.tensor([ids]))
            for handle in handles:
                handle.remove()
            stream = last[0][0]
            norm, head = self.model.model.norm, self.model.lm_head.weight
            scale = (stream.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
            towards = scale[:-1] * norm.weight * (head[ids[1:]] - head.mean(0))
            found: list[dict[tuple[int, int], float]] = [{} for _ in ids[1:]]
            for number, (hidden, index, weights) in given.items():
                whole = blocks[number](hidden, index, weights)
                for expert in index.unique().tolist():
                    rest = blocks[number](hidden, index, weights.masked_fill(index == expert, 0))
                    written = ((whole - rest)[:-1] * towards).sum(-1)
                    for place in (index[:-1] == expert).any(-1).nonzero().flatten().tolist():
                        found[place][number, expert] = float(written[place])
        return found


def every_ablation(run: Run, layer: int, experts: list[int]) -> list[Ablation]:
    """At every token of every example."""
    chosen, found = run.chosen(), []
    for expert in experts:
        for example_id, ids in run.ids().items():
            places = chosen.get((layer, expert, example_id), [])
            everywhere = range(len(ids))
            ends = tuple(min(place + FOLLOW, len(ids) - 1) for place in everywhere)
            chose = tuple(place in places for place in everywhere)
            first = min(places, default=None)
            found.append(Ablation(layer, expert, example_id, tuple(everywhere), ends, chose, first))
    return found


def measured(
    run: Run, ablations: list[Ablation], batch_size: int = 5
) -> tuple[list[list[AblationEffect]], list[str]]:
    notes: list[str] = []
    planned = plan_ablation(run.store, run.run_id, Resources(run.model, batch_size))
    with planned.opened(ablations, notes.append) as measure:
        found = dict(measure(ablations))
    return [found[number] for number in range(len(ablations))], notes


def most_used(run: Run, layer: int) -> list[int]:
    """Two that are used much, one that is seldom used, and one that is used nowhere if there is."""
    counts: dict[int, int] = {}
    for (of, expert, _), places in run.chosen().items():
        if of == layer:
            counts[expert] = counts.get(expert, 0) + len(places)
    order = sorted(counts, key=lambda expert: (-counts[expert], expert))
    n_experts = 12 if run.model != "qwen-moe-mini" else 60
    return [*order[:2], order[-1], *sorted(set(range(n_experts)) - set(counts))[:1]]


@pytest.fixture(scope="module")
def effects_of(run: Run) -> list[tuple[Ablation, list[AblationEffect]]]:
    """Of some experts of two layers."""
    ablations = [
        each for layer in (1, 2) for each in every_ablation(run, layer, most_used(run, layer))
    ]
    found, notes = measured(run, ablations)
    assert notes == []
    return list(zip(ablations, found, strict=True))


Effects = list[tuple[Ablation, list[AblationEffect]]]


def test_an_ablation_changes_what_silencing_the_expert_does(run: Run, effects_of: Effects) -> None:
    plain = Plain(run.model)
    sizes = []
    for ablation, effects in effects_of:
        ids = run.ids()[ablation.example_id]
        without = plain.logprobs(ids, (ablation.layer, ablation.expert))
        change = without - plain.logprobs(ids)
        for place, effect in enumerate(effects[:-1]):
            assert effect.next_change is not None and effect.following_change is not None
            assert effect.next_change == pytest.approx(change[place], abs=2e-4)
            after = change[place : place + FOLLOW]
            assert effect.following_change == pytest.approx(after.mean(), abs=2e-4)
            sizes.append(abs(effect.next_change))
        last = effects[-1]
        assert last.next_change is None and last.following_change is None  # nothing follows
    assert max(sizes) > 0.01


def test_before_the_expert_is_chosen_nothing_changes_at_all(run: Run, effects_of: Effects) -> None:
    chosen = run.chosen()
    late = 0
    for ablation, effects in effects_of:
        places = chosen.get((ablation.layer, ablation.expert, ablation.example_id), [])
        first = min(places, default=len(effects))
        for place, effect in enumerate(effects[:-1]):
            if place < first:
                assert effect.next_change == 0
                late += 1
            if place + FOLLOW <= first:
                assert effect.following_change == 0
    assert late


def test_attributions_are_what_each_expert_writes_and_ranked(run: Run, effects_of: Effects) -> None:
    plain = Plain(run.model)
    by_example = {example_id: plain.attributions(ids) for example_id, ids in run.ids().items()}
    n_compared = 0
    for ablation, effects in effects_of:
        expected = by_example[ablation.example_id]
        for place, effect in enumerate(effects[:-1]):
            own = expected[place].get((ablation.layer, ablation.expert))
            if own is None:
                assert effect[2:] == (None, None, None)
                continue
            assert effect.attribution == pytest.approx(own, abs=1e-4)
            others = np.array(list(expected[place].values()))
            assert effect.n_attributed == len(others)
            assert effect.attribution_rank is not None
            assert 1 + (others > own + 1e-4).sum() <= effect.attribution_rank
            assert effect.attribution_rank <= (others >= own - 1e-4).sum()
            n_compared += 1
    assert n_compared > 5


def test_a_last_token_after_which_nothing_stands_takes_no_pass(run: Run) -> None:
    """The expert is chosen after all that is looked at, but for the last token."""
    example_id, ids = next(iter(run.ids().items()))
    last = len(ids) - 1
    ablation = Ablation(1, 0, example_id, (0, last), (2, last), (False, True), 2)
    assert ablation.n_read == 0
    assert ablation._replace(first=1).n_read == 2
    ((found,), _) = measured(run, [ablation])
    assert found == [AblationEffect(0.0, 0.0), AblationEffect(None, None)]


def test_neither_batches_nor_starts_change_anything(
    run: Run, effects_of: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [each for each in effects_of if each[0].example_id]
    monkeypatch.setattr(untouched, "MOST_STREAM_BYTES", 0)  # every pass starts from the tokens
    monkeypatch.setattr(untouched, "_MOST_WRITTEN_BYTES", 1)
    found, _ = measured(run, [ablation for ablation, _ in some], batch_size=1)
    for (_, own), same in zip(some, found, strict=True):
        for effect, other in zip(own, same, strict=True):
            assert effect == pytest.approx(other, abs=1e-4)


def test_another_model_than_the_run_s_is_refused(run: Run, random_model: Path) -> None:
    other = "qwen-moe-mini" if run.model != "qwen-moe-mini" else str(random_model)
    with pytest.raises(ModelError, match="is not the model of run"):
        plan_ablation(run.store, run.run_id, Resources(other))


def test_a_run_that_the_model_did_not_give_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablations = every_ablation(run, 1, most_used(run, 1)[:1])
    monkeypatch.setattr(untouched, "allowed_gap", lambda dtype, largest: -1.0)
    with pytest.raises(CheckError, match="are not those of the run"):
        measured(run, ablations)


def test_images_have_no_next_token(cifar_store: Any) -> None:
    run_id = next((cifar_store.folder / "runs").iterdir()).name
    with pytest.raises(UsageError, match="no tokens of a language model"):
        plan_ablation(cifar_store.folder, run_id, Resources())


def test_no_such_run(run: Run) -> None:
    with pytest.raises(MoedbError, match="no run"):
        plan_ablation(run.store, "nothing", Resources())
