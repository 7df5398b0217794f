"""Sweeps: planned, run, stopped, resumed, refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer

from moedb.capture.interventions import kinds, planning
from moedb.capture.interventions.choices import Choices
from moedb.capture.interventions.engine import Engine, Pass, PassOutcome
from moedb.capture.interventions.parent_run import open_parent
from moedb.capture.interventions.planning import Resources, SweepPlan, grouped, plan_sweep
from moedb.capture.interventions.running import run_sweep
from moedb.capture.jobs import model_outline
from moedb.capture.jobs.language import plan_language_capture
from moedb.capture.jobs.qwen_ioi.job import ioi_dataset
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.capture.models.opening import weight_bytes
from moedb.capture.pipeline import missing_units
from moedb.capture.pipeline.missing_units import Silent
from moedb.capture.pipeline.plan import CaptureOptions
from moedb.capture.pipeline.running import capture
from moedb.cli import run_cli
from moedb.errors import CaptureError, CheckError, ModelError, UsageError
from moedb.queries.database import open_database
from moedb.store.reading.snapshot import read_run, take_snapshot
from moedb.store.verification.run import verify_run
from tests.support.models.tiny_models import FAMILIES, tiny_model
from tests.support.stopping import stopping_at

pytestmark = pytest.mark.model

N = 3


def captured(
    model: str, store: Path, *, twins: bool = True, arrays: tuple[str, ...] = ("residual_pre",)
) -> Path:
    options = CaptureOptions(model=model, batch_size=8, arrays=arrays)
    capture(plan_language_capture(options, partial(ioi_dataset, n=N, seed=0, twins=twins)), store)
    return store


def planned(
    store: Path, model: Path | str | None, *, batch_size: int = 16, **choices: Any
) -> SweepPlan:
    resources = Resources(None if model is None else str(model), batch_size)
    return plan_sweep(open_parent(store, "qwen-ioi"), Choices(**choices), resources)


@pytest.fixture(scope="module")
def store(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run of a random model: layers 1 and 2 have experts, 12 of which 3 run."""
    return captured(str(random_model), tmp_path_factory.mktemp("sweep") / "store")


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "store"


def conditions(plan: SweepPlan) -> list[tuple[Any, ...]]:
    return [(c.kind, c.layer, c.expert, dict(c.params)) for c in plan.conditions]


MANY = {"kinds": ("ablate-experts",), "experts": "0-11", "each": True}
"""24 conditions in four units."""


class TestConditions:
    def test_by_default_every_layer_is_a_condition(self, store: Path, random_model: Path) -> None:
        plan = planned(store, random_model, kinds=("knock-out-shared", "uniform-weights"))
        assert conditions(plan) == [
            ("none", None, None, {}),
            ("knock-out-shared", 1, None, {}),
            ("knock-out-shared", 2, None, {}),
            ("uniform-weights", 1, None, {}),
            ("uniform-weights", 2, None, {}),
        ]
        assert [(g.start, g.conditions) for g in plan.groups] == [(1, (1, 3)), (2, (2, 4))]

    def test_layers_roles_experts_and_draws_multiply(self, store: Path, random_model: Path) -> None:
        ablated = planned(
            store, random_model, kinds=("ablate-experts",), experts="3,5", roles="IO,s1+S2,all"
        )
        ablation = {"form": "remove", "experts": [3, 5]}
        assert conditions(ablated)[1:] == [
            ("ablate-experts", layer, None, ablation | roles)
            for layer in (1, 2)
            for roles in ({"roles": ["io"]}, {"roles": ["s1", "s2"]}, {})
        ]
        each = planned(
            store, random_model, kinds=("ablate-experts",), experts="3,5", each=True, form="zero"
        )
        assert conditions(each)[1:] == [
            ("ablate-experts", layer, expert, {"form": "zero"})
            for layer in (1, 2)
            for expert in (3, 5)
        ]
        drawn = planned(store, random_model, kinds=("random-routing",), draws=2, seed=4, layers="2")
        assert conditions(drawn)[1:] == [
            ("random-routing", 2, None, {"seed": 4, "draw": draw}) for draw in (0, 1)
        ]

    def test_together_is_one_condition(self, store: Path, random_model: Path) -> None:
        plan = planned(
            store,
            random_model,
            kinds=("ablate-experts",),
            pairs=((1, 4), (1, 2), (2, 7)),
            together=True,
        )
        params = {"form": "remove", "layers": [1, 2], "experts": {"1": [2, 4], "2": [7]}}
        assert conditions(plan)[1:] == [("ablate-experts", None, None, params)]
        plan = planned(store, random_model, kinds=("patch",), sites=("residual",), together=True)
        assert conditions(plan)[1][3] == {"site": "residual", "layers": [0, 1, 2]}

    def test_the_most_frequent_are_counted_from_the_routing(
        self, store: Path, random_model: Path
    ) -> None:
        plan = planned(store, random_model, kinds=("ablate-experts",), most_frequent=2)
        run = plan.parent.snapshot
        for intervention in plan.interventions:
            [layer] = intervention.layers
            counts = duckdb.sql(
                f"select expert, count(*) from '{run.layout.tables}/routing/*.parquet' "
                f"where layer = {layer} group by expert"
            ).fetchall()
            ordered = sorted(counts, key=lambda row: (-row[1], row[0]))
            assert intervention.experts[layer] == tuple(sorted(expert for expert, _ in ordered[:2]))

    def test_a_unit_holds_a_few_conditions_of_one_start(self) -> None:
        made = [kinds.Intervention("uniform-weights", (layer,)) for layer in (3, 1, 2) * 9]
        groups = grouped(made, stored=(0, 2, 3), with_twins=True)
        assert sorted(n for group in groups for n in group.conditions) == list(range(1, 28))
        assert all(len(group.conditions) <= planning.UNIT_CONDITIONS for group in groups)
        for group in groups:
            layers = {made[number - 1].first_layer for number in group.conditions}
            assert layers == {0: {1}, 2: {2}, 3: {3}}[group.start]

    def test_edits_after_which_a_block_runs_again_are_kept_apart(self) -> None:
        zero = kinds.Intervention("ablate-experts", (2,), {2: (1,)}, (), {"form": "zero"})
        made = (zero, kinds.Intervention("knock-out-shared", (2,)))
        assert len(grouped(made, (2,), with_twins=True)) == 1
        assert len(grouped(made, (2,), with_twins=True, in_list={2})) == 2


def test_a_sweep_is_a_run_linked_to_its_parent(own_store: Path, random_model: Path) -> None:
    plan = planned(own_store, random_model, kinds=("knock-out-shared", "swap-routing"), seed=3)
    outcome = run_sweep(plan, own_store)
    run = read_run(own_store, outcome.run_id)
    parent = plan.parent.snapshot
    assert run.is_complete and run.row["parent_run_id"] == parent.run_id
    assert run.row["job"] == "intervene" and run.row["seed"] == 3
    for name in ("model", "model_sha256", "dataset", "dataset_sha256", "n_examples", "dtype"):
        assert run.row[name] == parent.row[name]
    mine, parents = (run_contents_of(own_store, r.run_id) for r in (run, parent))
    for table in ("examples", "example_labels", "moe_layers"):
        assert [row[1:] for row in mine[table]] == [row[1:] for row in parents[table]]
    diffs = {row[2]: row[-1] for row in mine["predictions"] if row[1] == 0}
    assert diffs == pytest.approx({row[2]: row[-1] for row in parents["predictions"]}, abs=1e-3)
    assert len(mine["predictions"]) == 2 * N * 5
    assert "sound" in str(verify_run(run))
    # What is asked without naming a run is asked of a capture.
    newest = take_snapshot(own_store).newest_complete()
    assert newest is not None and newest.run_id == parent.run_id
    with open_database(own_store) as database:
        assert database.sql("from latest_run").fetchall() == [(parent.run_id,)]


def run_contents_of(store: Path, run_id: str) -> dict[str, Any]:
    run = read_run(store, run_id)
    tables = ("examples", "example_labels", "moe_layers", "predictions", "conditions")
    return {
        table: duckdb.read_parquet([str(path) for path in run.files(table)]).order("all").fetchall()
        for table in tables
    }


class Counted:
    """Counts the passes of an engine; stops before the one that it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
        self.passes: list[Pass] = []
        run = Engine.run

        def counted(engine: Engine, batch: Pass) -> PassOutcome:
            if stop_after is not None and len(self.passes) == stop_after:
                raise KeyboardInterrupt
            self.passes.append(batch)
            return run(engine, batch)

        monkeypatch.setattr(Engine, "run", counted)


def test_a_stopped_sweep_resumes_with_the_conditions_that_are_missing(
    own_store: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = own_store.parent / "whole"
    shutil.copytree(own_store, whole)
    plan = planned(own_store, random_model, batch_size=1000, **MANY)
    assert len(plan.units) == 5
    run_sweep(plan, whole)
    # Two rehearsals, the untouched model, two groups; the third group is cut off.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Counted(patch, stop_after=5)
        run_sweep(plan, own_store)
    before = read_run(own_store, plan.run_id)
    assert not before.is_complete and 1 < len(before.missing_units) < 5
    assert "sound" in str(verify_run(before))
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        outcome = run_sweep(plan, own_store)
    assert len(counted.passes) == 2 + len(before.missing_units)
    assert outcome.units_before == 5 - len(before.missing_units)
    assert outcome.units_now == len(before.missing_units)
    assert run_contents_of(own_store, plan.run_id) == run_contents_of(whole, plan.run_id)
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        assert run_sweep(plan, own_store).was_complete
    assert not counted.passes


def test_a_killed_sweep_resumes_by_the_same_command(own_store: Path, random_model: Path) -> None:
    def start(first: str = "") -> "subprocess.Popen[str]":
        arguments = ["--run", "qwen-ioi", "--kind", "ablate-experts", "--experts", "0-11", "--each"]
        return subprocess.Popen(
            [
                *(sys.executable, "-c", f"{first}\nfrom moedb.cli import main; main()"),
                *("intervene", "--store", str(own_store), "--model", str(random_model)),
                *(*arguments, "--batch-size", "8"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )

    plan = planned(own_store, random_model, batch_size=8, **MANY)
    committed = own_store / "runs" / plan.run_id / "segments" / "000001.json"
    process = start(stopping_at(committed, signal.SIGKILL))
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert not read_run(own_store, plan.run_id).is_complete
    process = start()
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.strip() == plan.run_id and "were there" in errors
    whole = own_store.parent / "whole"
    shutil.copytree(own_store, whole, ignore=shutil.ignore_patterns("intervene-*"))
    run_sweep(plan, whole)
    assert run_contents_of(own_store, plan.run_id) == run_contents_of(whole, plan.run_id)


def test_another_choice_is_another_run(store: Path, random_model: Path) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"layers": "2"},
        {"roles": "s2"},
        {"split": "clean"},
        {"draws": 2},
        {"seed": 1},
        {"together": True},
        {"batch_size": 5},
        {"kinds": ("random-routing", "knock-out-shared")},
    ]
    run_ids = {
        planned(store, random_model, **{"kinds": ("random-routing",), **variant}).run_id
        for variant in variants
    }
    assert len(run_ids) == len(variants)
    same = planned(store, random_model, kinds=("random-routing",), layers="1-2", draws=1)
    assert same.run_id in run_ids


def without_streams(plan: SweepPlan, tmp_path: Path) -> tuple[SweepPlan, Path]:
    store = captured(str(plan.checkpoint.folder), tmp_path / "bare", arrays=("none",))
    return planned(store, plan.checkpoint.folder, kinds=("uniform-weights", "swap-routing")), store


def predictions(store: Path, run_id: str) -> list[float]:
    rows = run_contents_of(store, run_id)["predictions"]
    return [value for row in rows for value in (row[1], row[2], *row[-2:])]


def test_without_stored_streams_it_starts_from_the_tokens_and_says_so(
    own_store: Path, random_model: Path, tmp_path: Path
) -> None:
    plan = planned(own_store, random_model, kinds=("uniform-weights", "swap-routing"))
    bare, bare_store = without_streams(plan, tmp_path)
    assert {group.start for group in plan.groups} == {1, 2}
    assert {group.start for group in bare.groups} == {0}
    assert not plan.notes and "does not keep residual_pre" in bare.notes[0]
    run_sweep(plan, own_store)
    run_sweep(bare, bare_store)
    assert predictions(own_store, plan.run_id) == pytest.approx(
        predictions(bare_store, bare.run_id), rel=1e-4, abs=1e-4
    )


def test_a_model_whose_weights_come_from_the_disk(
    own_store: Path, random_model: Path, tmp_path: Path
) -> None:
    parent, choices = open_parent(own_store, "qwen-ioi"), Choices(("swap-routing",))
    plan = plan_sweep(parent, choices, Resources(str(random_model)))
    resources = Resources(str(random_model), max_bytes=weight_bytes(plan.checkpoint, "float32") - 1)
    streamed = plan_sweep(parent, choices, resources)
    assert streamed.run_id == plan.run_id and {group.start for group in plan.groups} == {1, 2}
    other = tmp_path / "other"
    shutil.copytree(own_store, other)
    heard = Heard()
    run_sweep(streamed, own_store, heard)
    assert not heard.notes
    run_sweep(plan, other)
    found, expected = (predictions(place, plan.run_id) for place in (own_store, other))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_where_a_stored_stream_leads_elsewhere_it_starts_from_the_tokens(
    own_store: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(own_store, random_model, kinds=("uniform-weights",))
    right = own_store.parent / "right"
    shutil.copytree(own_store, right)
    run_sweep(plan, right)
    streams = type(plan.parent).streams
    monkeypatch.setattr(
        type(plan.parent), "streams", lambda self, layer: [-s for s in streams(self, layer)]
    )
    heard = Heard()
    run_sweep(plan, own_store, heard)
    assert "passes start from the tokens" in heard.notes[0]
    assert predictions(own_store, plan.run_id) == pytest.approx(
        predictions(right, plan.run_id), rel=1e-4, abs=1e-4
    )


@pytest.mark.parametrize("lens", [False, True])
def test_a_disk_that_is_too_full_is_told_of_before_the_model_is_loaded(
    own_store: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch, lens: bool
) -> None:
    choices = Choices(kinds=("ablate-experts",), experts="0-11", each=True, split="clean")
    plan = plan_sweep(
        open_parent(own_store, "qwen-ioi"), choices, Resources(str(random_model)), lens
    )
    # By hand: three prompts, their twins under condition 0 alone; 24 conditions; a reading has two
    # rows before the first of three layers, after each, and after the attention of two of them.
    n_answers, n_readings = 6 + 24 * 3, 12 * lens
    tables = plan.parent.snapshot.layout.tables
    examples, labels = (pq.read_table(tables / name) for name in ("examples", "example_labels"))
    text = sum(len(each.encode()) for each in examples["text"].to_pylist())
    answers = (5 * 4 + 16) + n_readings * (8 * 4 + 16)
    needed = n_answers * answers + 6 * 8 + text + labels.num_rows * (4 + 12)
    assert plan.bytes_of(range(len(plan.units))) == needed
    opened = []

    def open_engine() -> NoReturn:
        opened.append(True)
        raise AssertionError("the model was loaded")

    unloaded = dataclasses.replace(plan, open_engine=open_engine)
    monkeypatch.setattr(missing_units, "free_bytes", lambda store: needed - 1)
    with pytest.raises(CaptureError, match=r"takes up to .* GB free") as caught:
        run_sweep(unloaded, own_store)
    assert "--layers, --experts" in str(caught.value)
    assert not (own_store / "runs" / plan.run_id).exists()
    monkeypatch.setattr(missing_units, "free_bytes", lambda store: needed)
    with pytest.raises(AssertionError, match="the model was loaded"):
        run_sweep(unloaded, own_store)


class TestRefusals:
    @pytest.mark.parametrize(
        ("choices", "said"),
        [
            (
                {"kinds": ("knock-out-shared",), "layers": "0"},
                "no MoE block at .0.; MoE layers are 1 to 2",
            ),
            (
                {"kinds": ("patch",), "sites": ("residual",), "layers": "4"},
                "0 to 2, or 3 for the one",
            ),
            (
                {"kinds": ("ablate-experts",), "experts": "12"},
                "no expert 12; its experts are 0 to 11",
            ),
            ({"kinds": ("ablate-experts",), "experts": "0-9"}, "at most 9 can be removed"),
            ({"kinds": ("ablate-experts",), "experts": "x"}, "valid are 3, 0,2 and 4-7"),
            ({"kinds": ("ablate-experts",)}, "expected experts"),
            ({"kinds": ("ablate-experts",), "experts": "1", "most_frequent": 2}, "only one"),
            ({"kinds": ("ablate-experts",), "pairs": ((7, 1),)}, "gives layer 7"),
            ({"kinds": ("ablate-experts",), "pairs": ()}, "gives no expert"),
            ({"kinds": ("ablate-experts",), "most_frequent": 0}, "expected 1 or more"),
            ({"kinds": ("force-experts",), "experts": "0-3"}, "name up to 3"),
            ({"kinds": ("uniform-weights",), "experts": "1"}, "none of uniform-weights is about"),
            ({"kinds": ("uniform-weights",), "form": "zero"}, "only ablate-experts takes it"),
            ({"kinds": ("uniform-weights",), "sites": ("residual",)}, "only patch takes it"),
            ({"kinds": ("uniform-weights",), "draws": 2}, "only random-routing takes it"),
            ({"kinds": ("random-routing",), "draws": 0}, "expected 1 or more"),
            ({"kinds": ("patch",)}, "expected --site; valid: block-output"),
            ({"kinds": ("patch",), "sites": ("blok-output",)}, "did you mean block-output"),
            ({"kinds": ("pach",)}, "did you mean patch"),
            ({"kinds": ("swap-routing",), "roles": "s3"}, "no token has the role 's3'"),
            ({"kinds": ("uniform-weights",), "each": True}, "about single experts"),
        ],
    )
    def test_what_does_not_fit(
        self, choices: dict[str, Any], said: str, store: Path, random_model: Path
    ) -> None:
        with pytest.raises(UsageError, match=said):
            planned(store, random_model, **choices)

    def test_a_run_without_twins_where_twins_are_needed(
        self, random_model: Path, tmp_path: Path
    ) -> None:
        store = captured(str(random_model), tmp_path / "store", twins=False)
        for choices in (
            {"kinds": ("swap-routing",)},
            {"kinds": ("patch",), "sites": ("residual",)},
        ):
            with pytest.raises(UsageError, match="has no corrupted twins") as caught:
                planned(store, random_model, **choices)
            assert "capture qwen-ioi --twins" in str(caught.value)
        with pytest.raises(UsageError, match="no such examples"):
            planned(store, random_model, kinds=("uniform-weights",), split="corrupted")
        plan = planned(store, random_model, kinds=("uniform-weights",))
        assert run_sweep(plan, store).units_now == len(plan.units)

    def test_a_run_of_interventions_is_no_run_to_intervene_on(
        self, own_store: Path, random_model: Path
    ) -> None:
        plan = planned(own_store, random_model, kinds=("knock-out-shared",))
        run_id = run_sweep(plan, own_store).run_id
        with pytest.raises(UsageError, match="job intervene; interventions take runs of qwen-ioi"):
            open_parent(own_store, run_id)

    def test_a_model_that_is_gone_or_another(self, store: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="does not keep where it was") as caught:
            planned(store, None, kinds=("knock-out-shared",))
        assert "--model FOLDER" in str(caught.value)
        with pytest.raises(ModelError, match="is not the model of run") as caught:
            planned(store, "qwen-moe-mini", kinds=("knock-out-shared",))
        assert "--model FOLDER" in str(caught.value)
        with pytest.raises(ModelError, match="does not exist"):
            planned(store, tmp_path / "nowhere", kinds=("knock-out-shared",))

    def test_experts_called_from_a_list(
        self, store: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_outline, "stays_quantized", lambda checkpoint, placement: True)
        for kind in ("swap-routing", "random-routing", "uniform-weights"):
            with pytest.raises(ModelError, match="from a list, and takes no routing"):
                planned(store, random_model, kinds=(kind,))
        planned(store, random_model, kinds=("knock-out-shared",))
        planned(store, random_model, kinds=("ablate-experts",), experts="1", form="zero")

    def test_answers_that_are_not_those_of_the_run(
        self, own_store: Path, random_model: Path
    ) -> None:
        plan = planned(own_store, random_model, kinds=("knock-out-shared",))
        plan.parent.logit_diffs[2] += 0.5
        with pytest.raises(CheckError, match=r"at example 2 .*rounding explains"):
            run_sweep(plan, own_store)
        assert plan.run_id not in take_snapshot(own_store).runs

    @pytest.fixture
    def of_family(self, tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
        def make(name: str) -> tuple[Path, Path]:
            tokenizer = AutoTokenizer.from_pretrained(find_checkpoint("qwen-moe-mini").folder)
            settings = {**FAMILIES[name].settings, "vocab_size": len(tokenizer)}
            folder = tmp_path / name
            model = tiny_model(name, settings)
            with torch.no_grad():  # a bias large enough that it decides
                for path, buffer in model.named_buffers():
                    if "correction_bias" in path:
                        buffer.copy_(torch.linspace(-1, 1, len(buffer)))
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return folder, captured(str(folder), tmp_path / "store")

        return make

    def test_a_choice_that_is_not_the_top_k_of_the_logits(
        self, of_family: Callable[[str], tuple[Path, Path]]
    ) -> None:
        folder, store = of_family("deepseek_v3")
        plan = planned(store, folder, kinds=("ablate-experts",), experts="1")
        with pytest.raises(ModelError, match=r"not the top-k of the router's logits") as caught:
            run_sweep(plan, store)
        assert "--form zero" in str(caught.value)
        assert plan.run_id not in take_snapshot(store).runs, "an empty run was left behind"
        plan = planned(store, folder, kinds=("ablate-experts",), experts="1", form="zero")
        assert run_sweep(plan, store).units_now == len(plan.units)

    def test_weights_of_no_known_rule(self, of_family: Callable[[str], tuple[Path, Path]]) -> None:
        folder, store = of_family("phimoe")
        for kind in ("random-routing", "force-experts", "ablate-experts"):
            experts = None if kind == "random-routing" else "1"
            with pytest.raises(ModelError, match="follow no rule that moedb knows"):
                planned(store, folder, kinds=(kind,), experts=experts)
        with pytest.raises(UsageError, match="has no shared expert"):
            planned(store, folder, kinds=("knock-out-shared",))
        plan = planned(store, folder, kinds=("uniform-weights", "swap-routing"))
        assert run_sweep(plan, store).units_now == len(plan.units)

    def test_attention_that_no_module_gives(
        self, of_family: Callable[[str], tuple[Path, Path]]
    ) -> None:
        folder, store = of_family("cohere2_moe")
        plan = planned(store, folder, kinds=("patch",), sites=("attention-output",), layers="0")
        with pytest.raises(ModelError, match="has no module at layer 0 whose output is what atten"):
            run_sweep(plan, store)
        assert plan.run_id not in take_snapshot(store).runs


class TestCommand:
    @pytest.fixture
    def moedb(
        self, own_store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., tuple[int, str, str]]:
        monkeypatch.setenv("MOEDB_STORE", str(own_store))

        def run(*arguments: str) -> tuple[int, str, str]:
            code = run_cli(list(arguments))
            return code, *capfd.readouterr()

        return run

    def test_it_prints_the_run_and_then_says_nothing_to_do(
        self, moedb: Callable[..., tuple[int, str, str]], random_model: Path, own_store: Path
    ) -> None:
        query = "select layer, expert from routing where layer = 2 and rank = 0 group by all"
        arguments = ["intervene", "-r", "qwen-ioi", "--kind", "ablate-experts", "--each"]
        arguments += ["--experts-sql", query, "--model", str(random_model)]
        code, out, err = moedb(*arguments, "--dry-run", "--format", "json")
        assert code == 0, err
        listed = json.loads(out)
        expected = duckdb.sql(
            query.replace("from routing", f"from '{own_store}/runs/qwen*/tables/routing/*.parquet'")
        ).fetchall()
        assert sorted((row["layer"], row["expert"]) for row in listed[1:]) == sorted(expected)
        assert {row["starts_at"] for row in listed[1:]} == {2}
        code, out, err = moedb(*arguments)
        assert code == 0 and out.startswith("intervene-") and "units written" in err
        run_id = out.strip()
        assert moedb(*arguments)[2].endswith("is complete already: nothing to do\n")
        for others in (("verify", run_id), ("show", run_id), ("runs",)):
            code, out, err = moedb(*others)
            assert code == 0 and run_id in out, err

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (("--kind", "patch"), 2, "expected --site"),
            (("--kind", "knock-out-shared", "--layers", "7"), 2, "MoE layers are 1 to 2"),
            (("--kind", "ablate-experts", "--experts-sql", "drop table routing"), 2, "refused"),
            (
                ("--kind", "ablate-experts", "--experts-sql", "select 1 as layer"),
                2,
                "columns layer and",
            ),
            (("--kind", "knock-out-shared", "--model", "qwen-moe-mini"), 1, "is not the model"),
        ],
    )
    def test_errors_have_their_exit_codes(
        self,
        arguments: tuple[str, ...],
        code: int,
        said: str,
        moedb: Callable[..., tuple[int, str, str]],
        random_model: Path,
    ) -> None:
        model = () if "--model" in arguments else ("--model", str(random_model))
        found, out, err = moedb("intervene", "-r", "qwen-ioi", *arguments, *model)
        assert (found, out) == (code, "") and said in err
