"""Logit lens, attribution and effects of interventions, against plain loops and by hand."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import moedb
from moedb.errors import ArrayNotFoundError, ParameterError, RunNotFoundError, UsageError
from moedb.queries.database import Database
from tests.support.oracles.interval_oracle import bca, bca_of_mean, newcombe
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.synthetic_ioi import CAPTURED, INTERVENED, Prompt, Setting

BARE, NO_LAST = "qwen-ioi-bare", "qwen-ioi-nolast"
SAMPLES = 200


@dataclass(frozen=True)
class Made:
    """A store, and what is in it."""

    database: Database
    prompts: list[Prompt]
    settings: list[Setting]


def random_answers(
    rng: np.random.Generator, examples: list[int], base: dict[int, float]
) -> dict[int, tuple[float | None, float, int]]:
    return {
        e: (
            float(np.float32(base[e] + rng.normal(-1))) if e in base else None,
            float(np.float32(-rng.exponential())),
            int(rng.integers(2)),
        )
        for e in examples
    }


def make_settings(prompts: list[Prompt]) -> list[Setting]:
    rng = np.random.default_rng(11)
    base = {p.example_id: p.logit_diff for p in prompts if p.logit_diff is not None}
    every = [p.example_id for p in prompts]
    kinds: list[tuple[str, int | None, int | None, dict[str, object]]] = [
        *(
            ("random-routing", layer, None, {"seed": 0, "draw": d})
            for layer in (0, 2)
            for d in (0, 1)
        ),
        ("uniform-weights", 0, None, {}),
        ("uniform-weights", None, None, {"layers": [0, 2]}),
        ("patch", 0, None, {"site": "residual", "roles": ["end"]}),
        ("patch", 2, None, {"site": "residual"}),
        *(("ablate-experts", layer, e, {"form": "zero"}) for layer in (0, 2) for e in range(4)),
        ("ablate-experts", 0, 1, {"form": "remove"}),
        ("ablate-experts", 2, None, {"form": "zero", "experts": [0, 1]}),
    ]
    untouched: dict[int, tuple[float | None, float, int]] = {
        p.example_id: (p.logit_diff, -0.5, 1) for p in prompts
    }
    return [Setting("none", answers=untouched)] + [
        Setting(kind, layer, expert, params, random_answers(rng, every, base))
        for kind, layer, expert, params in kinds
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    store = tmp_path_factory.mktemp("ioi") / "store"
    prompts = ioi.write_captured(store)
    ioi.write_captured(store, BARE, {"residual_pre": (0, 1, 2, 3), "expert_outputs": (0,)})
    ioi.write_captured(store, NO_LAST, last_token_kept=False)
    settings = make_settings(prompts)
    splits = {p.example_id: p.split for p in prompts}
    pairs = {
        p.example_id: p.example_id + 1
        for p in prompts
        if p.split == "clean" and p.logit_diff is not None
    }
    ioi.write_interventions(store, settings, splits, pairs)
    with moedb.open(store) as database:
        yield Made(database, prompts, settings)


def chosen(prompts: list[Prompt], split: str | None) -> list[Prompt]:
    wanted = {None: ("clean",), "all": ("clean", "corrupted")}.get(split, (split,))
    return [p for p in prompts if p.split in wanted and p.logit_diff is not None]


class TestLogitLens:
    @pytest.mark.parametrize("split", [None, "all", "corrupted"])
    @pytest.mark.parametrize("candidate", ["target", "foil"])
    @pytest.mark.parametrize("position", [None, 1])
    def test_is_what_the_table_says(
        self, made: Made, split: str | None, candidate: str, position: int | None
    ) -> None:
        given = {"split": split, "candidate": candidate, "position": position, "seed": 3}
        rows = made.database.query("logit-lens", run=CAPTURED, samples=SAMPLES, **given).fetchall()
        examples = {p.example_id for p in chosen(made.prompts, split)}
        readings = [
            reading
            for reading in made.database.sql(
                "select layer, place, example_id, position, candidate, logit_diff, logprob, rank "
                "from logit_lens where run_id = $run order by example_id",
                {"run": CAPTURED},
            ).fetchall()
            if reading[2] in examples
            and reading[3] == (2 if position is None else position)
            and reading[4] == candidate
        ]
        points = [(0, "pre"), (0, "mid"), (0, "post"), (2, "mid"), (2, "post")]
        assert [row[:2] for row in rows] == points
        for row in rows:
            own = [r for r in readings if r[:2] == row[:2]]
            differences, logprobs, ranks = ([float(r[at]) for r in own] for at in (5, 6, 7))
            n_ahead = sum(d > 0 for d in differences)
            expected = (
                len(own),
                np.mean(differences),
                np.std(differences, ddof=1),
                *bca_of_mean(differences, SAMPLES, 3, size=2 if split == "all" else 1),
                n_ahead,
                n_ahead / len(own),
                np.mean(logprobs),
                np.mean(ranks),
                np.median(ranks),
                ranks.count(0),
            )
            assert row[2:] == pytest.approx(expected, rel=1e-6)

    def test_without_readings_there_are_no_rows(self, made: Made) -> None:
        with pytest.raises(ParameterError, match=r"no condition 4 in run .*valid: 0"):
            made.database.query("logit-lens", run=CAPTURED, condition=4)
        with pytest.raises(UsageError, match="has no readings of the logit lens") as caught:
            made.database.query("logit-lens", run=INTERVENED)
        assert caught.value.hint == "intervene again, with --lens"
        elsewhere = made.database.query("logit-lens", run=CAPTURED, position=0)
        assert elsewhere.fetchall() == []
        assert "at other positions: 1, 2" in elsewhere.why_empty()

    def test_refuses_a_negative_number_of_samples(self, made: Made) -> None:
        with pytest.raises(ParameterError, match="samples is -1, not 0 to 100000"):
            made.database.query("logit-lens", run=CAPTURED, samples=-1)


class TestExpertAttribution:
    @pytest.mark.parametrize("split", [None, "all", "corrupted"])
    def test_is_what_each_part_wrote(self, made: Made, split: str | None) -> None:
        frame = made.database.query("expert-attribution", run=CAPTURED, split=split).df()
        prompts = chosen(made.prompts, split)
        mean = np.mean([p.logit_diff for p in prompts])
        found = {
            (row.component, *(None if pd.isna(v) else int(v) for v in (row.layer, row.expert))): row
            for row in frame.itertuples()
        }
        # every expert has a row, chosen or not
        assert len(frame) == len(found) == 1 + 2 * (2 + ioi.N_EXPERTS) + 1 + 1 + 1
        for key, row in found.items():
            parts = [p.written[key] for p in prompts if key in p.written]
            if key == ("remainder", None, None):
                parts = [ioi.BIAS] * len(prompts)
            assert row.n_prompts == len(prompts)
            assert row.n_decisions == len(parts)
            assert row.attribution == pytest.approx(sum(parts) / len(prompts), abs=2e-6)
            assert row.share == pytest.approx(row.attribution / mean)
            if parts:
                assert row.attribution_per_use == pytest.approx(np.mean(parts), abs=3e-6)
            else:
                assert math.isnan(row.attribution_per_use)
        assert found["expert", 2, 4].n_decisions == 0
        assert abs(found["remainder", 2, None].attribution) > 1e-2

    @pytest.mark.parametrize("level", ["experts", "layers"])
    def test_adds_up_to_the_mean_logit_difference(self, made: Made, level: str) -> None:
        frame = made.database.query("expert-attribution", run=CAPTURED, level=level).df()
        mean = np.mean([p.logit_diff for p in chosen(made.prompts, None)])
        assert frame["attribution"].sum() == pytest.approx(mean, abs=1e-5)
        assert frame["share"].sum() == pytest.approx(1, abs=1e-5)

    def test_intervals_are_of_prompts_drawn_again(self, made: Made) -> None:
        frame = made.database.query(
            "expert-attribution", run=CAPTURED, split="all", samples=SAMPLES, seed=3
        ).df()
        prompts = chosen(made.prompts, "all")
        whole = np.array([p.logit_diff for p in prompts])
        twins = [[at, at + 1] for at in range(0, len(prompts), 2)]
        for key in (("embedding", None, None), ("expert", 0, 1), ("attention", 2, None)):
            same = [
                frame[name].fillna(-1) == (-1 if part is None else part)
                for name, part in zip(("component", "layer", "expert"), key, strict=True)
            ]
            row = frame[np.all(same, axis=0)].iloc[0]
            wrote = np.array([p.written.get(key, 0.0) for p in prompts])
            for name, statistic in (
                ("attribution", lambda at, w=wrote: w[at].mean()),
                ("share", lambda at, w=wrote: w[at].mean() / whole[at].mean()),
            ):
                found = row[[f"{name}_low", f"{name}_high"]].to_numpy(float)
                wanted = bca(statistic, twins, SAMPLES, 3)
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        never = frame[(frame["component"] == "expert") & (frame["n_decisions"] == 0)]
        assert len(never) and never["attribution_low"].isna().all()
        plain = made.database.query("expert-attribution", run=CAPTURED, samples=0).df()
        assert plain[["attribution_low", "share_high"]].isna().all().all()

    def test_experts_of_a_layer_together(self, made: Made) -> None:
        apart = made.database.query("expert-attribution", run=CAPTURED).df()
        layers = made.database.query("expert-attribution", run=CAPTURED, level="layers").df()
        assert layers["component"].tolist() == [
            "embedding",
            *("attention", "experts", "shared-expert", "remainder"),
            "dense-layer",
            *("attention", "experts", "remainder"),
            "remainder",
        ]
        for layer in ioi.MOE:
            own = apart[(apart["component"] == "expert") & (apart["layer"] == layer)]
            row = layers[(layers["component"] == "experts") & (layers["layer"] == layer)].iloc[0]
            assert row["attribution"] == pytest.approx(own["attribution"].sum())
            assert row["n_decisions"] == own["n_decisions"].sum() == 8 * ioi.TOP_K

    def test_top_keeps_the_largest(self, made: Made) -> None:
        apart = made.database.query("expert-attribution", run=CAPTURED).df()
        top = made.database.query("expert-attribution", run=CAPTURED, top=3).df()
        largest = apart["attribution"].abs().sort_values(ascending=False).iloc[:3]
        np.testing.assert_allclose(top["attribution"].abs(), largest)
        with pytest.raises(ParameterError, match="top is 0, not 1 or more"):
            made.database.query("expert-attribution", run=CAPTURED, top=0)

    def test_names_the_arrays_that_are_missing(self, made: Made) -> None:
        with pytest.raises(ArrayNotFoundError) as caught:
            made.database.query("expert-attribution", run=BARE)
        assert (
            "reads: logit_direction residual_mid@0,2 expert_outputs@2 shared_outputs@0"
            in caught.value.message
        )
        assert caught.value.hint is not None
        assert "--tokens last --arrays logit_direction --arrays" in caught.value.hint

    def test_refuses_prompts_whose_last_token_was_not_kept(self, made: Made) -> None:
        with pytest.raises(ArrayNotFoundError, match="last token of 8 of 8 prompts"):
            made.database.query("expert-attribution", run=NO_LAST)

    def test_refuses_a_split_that_is_not_there(self, made: Made) -> None:
        with pytest.raises(ParameterError, match=r"no split 'held-out' in run .*clean, corrupted"):
            made.database.query("expert-attribution", run=CAPTURED, split="held-out")


NAMES = [
    "kind",
    "layer",
    "expert",
    "params",
    "split",
    "n_conditions",
    "n_prompts",
    "logit_diff",
    "change_logit_diff",
    "change_logit_diff_low",
    "change_logit_diff_high",
    "probability",
    "change_probability",
    "change_probability_low",
    "change_probability_high",
    "accuracy",
    "change_accuracy",
    "change_accuracy_low",
    "change_accuracy_high",
    "top1_accuracy",
    "change_top1_accuracy",
    "change_top1_accuracy_low",
    "change_top1_accuracy_high",
    "normalized",
    "normalized_low",
    "normalized_high",
]


def plain_effects(made: Made, split: str | None) -> dict[tuple[object, ...], dict[str, object]]:
    """The rows of intervention-effect by kind, layer, expert, params and split."""
    base = made.settings[0].answers
    by_id = {p.example_id: p for p in made.prompts}
    found: dict[tuple[object, ...], dict[str, object]] = {}
    groups: dict[tuple[object, ...], list[Setting]] = {}
    for each in made.settings[1:]:
        kept = {k: v for k, v in each.params.items() if k not in ("seed", "draw")}
        key = (each.kind, each.layer, each.expert, json.dumps(kept, sort_keys=True))
        groups.setdefault(key, []).append(each)
    for key, settings in groups.items():
        for own in ("clean", "corrupted"):
            twins = key[0] == "patch"
            if split not in (own, "all") and not (split is None and (own == "clean" or twins)):
                continue
            ids = [
                p.example_id for p in made.prompts if p.split == own and p.logit_diff is not None
            ]

            def measures(answer: tuple[float | None, float, int]) -> tuple[float, ...]:
                difference = float(answer[0] or 0.0)
                return difference, math.exp(answer[1]), float(difference > 0), float(answer[2])

            rows = {e: np.mean([measures(s.answers[e]) for s in settings], axis=0) for e in ids}
            row: dict[str, object] = {"n_conditions": len(settings), "n_prompts": len(ids)}
            for at, name in enumerate(("logit_diff", "probability", "accuracy", "top1_accuracy")):
                values = [rows[e][at] for e in ids]
                changes = [rows[e][at] - measures(base[e])[at] for e in ids]
                low, high = bca_of_mean(changes, SAMPLES, 0)
                if "accuracy" in name:
                    low, high = newcombe(values, [measures(base[e])[at] for e in ids])
                row |= {name: np.mean(values), f"change_{name}": np.mean(changes)}
                row |= {f"change_{name}_low": low, f"change_{name}_high": high}
            if twins:
                other = [e + 1 if own == "clean" else e - 1 for e in ids]
                mine = np.array([by_id[e].logit_diff for e in ids])
                theirs = np.array([by_id[e].logit_diff for e in other])
                clean, corrupt = (mine, theirs) if own == "clean" else (theirs, mine)
                patched = np.array([rows[e][0] for e in ids])

                def restored(
                    rows: list[int], patched=patched, clean=clean, corrupt=corrupt
                ) -> float:
                    span = clean[rows].mean() - corrupt[rows].mean()
                    return float((patched[rows].mean() - corrupt[rows].mean()) / span)

                row["normalized"] = restored(list(range(len(ids))))
                row["normalized_low"], row["normalized_high"] = bca(
                    restored, [[at] for at in range(len(ids))], SAMPLES, 0
                )
            found[*key, own] = row
    return found


class TestInterventionEffect:
    @pytest.mark.parametrize("split", [None, "all", "corrupted"])
    def test_is_what_loops_give(self, made: Made, split: str | None) -> None:
        result = made.database.query(
            "intervention-effect", run=INTERVENED, split=split, samples=SAMPLES
        )
        assert result.columns == NAMES
        expected = plain_effects(made, split)
        rows = [dict(zip(NAMES, row, strict=True)) for row in result.fetchall()]
        keys = [tuple(row[name] for name in NAMES[:5]) for row in rows]
        assert sorted(keys, key=str) == sorted(expected, key=str)
        for key, row in zip(keys, rows, strict=True):
            for name in NAMES[5:]:
                wanted = expected[key].get(name)
                if wanted is None:
                    assert row[name] is None, (key, name)
                else:
                    # near a span of 0 a quotient magnifies the rounding of what was stored
                    rel = 1e-2 if name.startswith("normalized_") else 1e-5
                    assert row[name] == pytest.approx(wanted, rel=rel, abs=1e-6), (key, name)

    def test_rows_are_in_the_order_of_the_conditions(self, made: Made) -> None:
        frame = made.database.query("intervention-effect", run=INTERVENED, samples=0).df()
        kinds = list(dict.fromkeys(frame["kind"]))
        assert kinds == ["random-routing", "uniform-weights", "patch", "ablate-experts"]
        # single experts come last
        assert frame["expert"].isna().tolist() == [True] * 9 + [False] * 9
        draws = frame[frame["kind"] == "random-routing"]
        assert draws["n_conditions"].tolist() == [2, 2]
        assert frame["change_accuracy_low"].isna().all()

    def test_clusters_are_drawn_whole(self, made: Made) -> None:
        given = {"samples": SAMPLES, "cluster": "template"}
        rows = made.database.query(
            "intervention-effect", run=INTERVENED, kind="uniform-weights", **given
        ).df()
        row = rows[rows["layer"] == 0].iloc[0]
        prompts = chosen(made.prompts, None)
        (setting,) = (s for s in made.settings if (s.kind, s.layer) == ("uniform-weights", 0))
        changes = np.array(
            [
                float(setting.answers[p.example_id][0] or 0) - float(p.logit_diff or 0)
                for p in prompts
            ]
        )
        # prompts of the templates 0, 2, 1, 0, ...: twins are of two templates
        templates = [p.example_id % 3 for p in prompts]
        clusters = [
            [at for at, template in enumerate(templates) if template == own]
            for own in dict.fromkeys(templates)
        ]
        wanted = bca(lambda chosen: float(changes[chosen].mean()), clusters, SAMPLES, 0)
        found = row["change_logit_diff_low"], row["change_logit_diff_high"]
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        alone = made.database.query(
            "intervention-effect", run=INTERVENED, kind="uniform-weights", samples=SAMPLES
        ).df()
        assert alone[alone["layer"] == 0].iloc[0]["change_logit_diff_low"] != found[0]
        for name in ("logit-lens", "expert-effect", "intervention-effect"):
            run = CAPTURED if name == "logit-lens" else INTERVENED
            own, other = (
                made.database.query(name, run=run, samples=SAMPLES, **more).df()
                for more in ({}, {"cluster": "template"})
            )
            lows = [column for column in own.columns if column.endswith("_low")]
            assert (own[lows].fillna(0) != other[lows].fillna(0)).any().any(), name
            rest = [c for c in own.columns if not c.endswith(("_low", "_high"))]
            pd.testing.assert_frame_equal(own[rest], other[rest])
            with pytest.raises(ParameterError, match="did you mean template"):
                made.database.query(name, run=run, cluster="templat")

    def test_few_prompts_are_told_of(self, made: Made, caplog: pytest.LogCaptureFixture) -> None:
        made.database.query("logit-lens", run=CAPTURED, samples=SAMPLES, seed=9)
        assert "fewer than 30 independent prompts, the fewest from 8" in caplog.text
        caplog.clear()
        made.database.query("logit-lens", run=CAPTURED, samples=0, seed=9)
        assert not caplog.text

    def test_a_captured_run_stands_for_the_interventions_on_it(self, made: Made) -> None:
        ask = made.database.query
        of_captured = ask("intervention-effect", run=CAPTURED, kind="patch, uniform-weights")
        assert [run.run_id for run in of_captured.provenance.runs] == [INTERVENED]
        assert {row[0] for row in of_captured.fetchall()} == {"patch", "uniform-weights"}
        for name, ending in (("intervention-effect", "random-routing"), ("lens-effect", "--lens")):
            with pytest.raises(RunNotFoundError, match=f"has interventions on {BARE}") as caught:
                ask(name, run=BARE)
            assert caught.value.hint is not None and caught.value.hint.endswith(ending)

    def test_by_hand(self, tmp_path: Path) -> None:
        # two pairs: clean 4 and 2, corrupted -2 and 0; values chosen to be exact in float32
        store = tmp_path / "store"
        base = {0: (4.0, 0.0, 1), 1: (-2.0, -1.0, 0), 2: (2.0, 0.0, 1), 3: (0.0, -1.0, 0)}
        settings = [
            Setting("none", answers=base),
            Setting("patch", 1, None, {"site": "residual"}, {1: (2.5, 0.0, 1), 3: (0.5, 0.0, 1)}),
            Setting("random-routing", 0, None, {"seed": 1, "draw": 0}, {0: (3.0, 0.0, 1)}),
            Setting("random-routing", 0, None, {"seed": 1, "draw": 1}, {0: (-1.0, 0.0, 0)}),
        ]
        splits = {0: "clean", 1: "corrupted", 2: "clean", 3: "corrupted", 9: "clean"}
        ioi.write_interventions(store, settings, splits, {0: 1, 2: 3}, parent=None)
        with moedb.open(store) as database:
            result = database.query("intervention-effect")
            rows = [dict(zip(NAMES, row, strict=True)) for row in result.fetchall()]
        patched, random = rows
        # (1.5 - -1) / (3 - -1)
        assert (patched["split"], patched["n_prompts"]) == ("corrupted", 2)
        assert patched["normalized"] == 0.625
        assert (patched["logit_diff"], patched["change_logit_diff"]) == (1.5, 2.5)
        assert (patched["accuracy"], patched["change_accuracy"]) == (1.0, 1.0)
        assert patched["change_probability"] == pytest.approx(1 - math.exp(-1))
        # one prompt, two draws: 1 on average, and right in one of two
        assert (random["n_conditions"], random["n_prompts"], random["params"]) == (2, 1, "{}")
        assert (random["logit_diff"], random["change_logit_diff"]) == (1.0, -3.0)
        assert (random["accuracy"], random["change_top1_accuracy"]) == (0.5, -0.5)
        assert random["change_logit_diff_low"] is None
        assert random["normalized"] is None

    def test_a_twin_outside_of_the_run_is_read_from_its_parent(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        prompts = ioi.write_captured(store)
        base = {p.example_id: (p.logit_diff, -0.5, 1) for p in prompts if p.split == "corrupted"}
        settings = [
            Setting("none", answers=base),
            Setting("patch", 0, None, {"site": "residual"}, dict.fromkeys(base, (0.0, -0.5, 1))),
        ]
        splits = dict.fromkeys(base, "corrupted")
        ioi.write_interventions(store, settings, splits, {e - 1: e for e in base})
        with moedb.open(store) as database:
            row = database.query("intervention-effect").df().iloc[0]
        clean = np.mean([p.logit_diff for p in chosen(prompts, "clean")])
        corrupt = np.mean([p.logit_diff for p in chosen(prompts, "corrupted")])
        assert row["normalized"] == pytest.approx(-corrupt / (clean - corrupt), rel=1e-5)

    def test_runs_of_interventions_add_up_and_the_newest_wins(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        prompts = ioi.write_captured(store)
        base = {p.example_id: (p.logit_diff, -0.5, 1) for p in prompts if p.logit_diff is not None}
        splits = {p.example_id: p.split for p in prompts}

        def settings(*kinds: str, by: float) -> list[Setting]:
            moved = {e: (d + by, p, c) for e, (d, p, c) in base.items()}
            changed = [Setting(kind, 0, None, {}, moved) for kind in kinds]
            return [Setting("none", answers=base), *changed]

        for run_id, day, made in (
            ("intervene-old", 2, settings("uniform-weights", "knock-out-shared", by=-1.0)),
            ("intervene-new", 3, settings("swap-routing", "uniform-weights", by=-2.0)),
        ):
            ioi.write_interventions(store, made, splits, {}, run_id, day=day)
        with moedb.open(store) as database:
            result = database.query("intervention-effect", run=CAPTURED, split="clean", samples=0)
            frame = result.df()
            old = database.query("intervention-effect", run="intervene-old", split="clean").df()
        assert [run.run_id for run in result.provenance.runs] == ["intervene-new", "intervene-old"]
        changes = dict(zip(frame["kind"], frame["change_logit_diff"].round(4), strict=True))
        assert changes == {"swap-routing": -2, "uniform-weights": -2, "knock-out-shared": -1}
        assert set(old["kind"]) == {"uniform-weights", "knock-out-shared"}


class TestExpertEffect:
    def test_sets_use_and_attribution_beside_the_ablation(self, made: Made) -> None:
        frame = made.database.query("expert-effect", run=CAPTURED, samples=SAMPLES).df()
        used = made.database.query("expert-frequency", run=CAPTURED).df()
        parts = made.database.query("expert-attribution", run=CAPTURED).df()
        effects = made.database.query("intervention-effect", run=INTERVENED, samples=SAMPLES).df()
        effects = effects[(effects["kind"] == "ablate-experts") & effects["expert"].notna()]
        assert len(frame) == len(effects) == 9
        names = ["layer", "expert", "params", "split", "n_prompts", "change_logit_diff"]
        names += ["change_logit_diff_low", "change_logit_diff_high"]
        pd.testing.assert_frame_equal(
            frame[names].astype({"expert": float, "layer": float}),
            effects[names].reset_index(drop=True).astype({"expert": float, "layer": float}),
        )
        for row in frame.itertuples():
            at = (used["layer"] == row.layer) & (used["expert"] == row.expert)
            assert row.frequency == used[at]["frequency"].item()
            at = (parts["layer"] == row.layer) & (parts["expert"] == row.expert)
            assert row.attribution == parts[at]["attribution"].item()
            assert row.n_decisions == parts[at]["n_decisions"].item()

    def test_correlations_of_layers(self, made: Made) -> None:
        experts = made.database.query("expert-effect", run=INTERVENED).df()
        layers = made.database.query("expert-effect", run=INTERVENED, level="layers").df()
        zero, remove = '{"form": "zero"}', '{"form": "remove"}'
        keys = [(p, None if pd.isna(x) else int(x)) for p, x in layers[["params", "layer"]].values]
        assert keys == [(zero, 0), (zero, 2), (zero, None), (remove, 0), (remove, None)]
        for (params, layer), row in zip(keys, layers.itertuples(), strict=True):
            own = experts[experts["params"] == params]
            own = own if layer is None else own[own["layer"] == layer]
            assert row.n_experts == len(own)
            if params == remove:
                assert math.isnan(row.spearman_frequency)
                continue
            change = own["change_logit_diff"]
            by_use = own["frequency"].corr(change.abs(), method="spearman")
            by_part = own["attribution"].corr(-change, method="spearman")
            assert row.spearman_frequency == pytest.approx(by_use)
            assert row.spearman_attribution == pytest.approx(by_part)

    def test_interventions_may_be_named(self, made: Made) -> None:
        named = made.database.query("expert-effect", run=CAPTURED, interventions=INTERVENED[:12])
        assert [run.run_id for run in named.provenance.runs] == [CAPTURED, INTERVENED]
        with pytest.raises(RunNotFoundError, match=f"no interventions on {BARE}"):
            made.database.query("expert-effect", run=BARE, interventions=INTERVENED)

    def test_without_arrays_the_attribution_is_null(
        self, tmp_path: Path, made: Made, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = tmp_path / "store"
        prompts = ioi.write_captured(store, arrays={"residual_pre": (0, 1, 2, 3)})
        splits = {p.example_id: p.split for p in prompts}
        ioi.write_interventions(store, made.settings, splits, {})
        with moedb.open(store) as database:
            frame = database.query("expert-effect").df()
        assert frame["attribution"].isna().all()
        assert frame["frequency"].notna().all()
        assert "expert-effect without attribution" in caplog.text
