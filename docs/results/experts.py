"""Make docs/results/experts.md from runs of the mixture and its dense twins, with their probes.

python docs/results/experts.py --store STORE --model FOLDER --model FOLDER

The runs have names: ``mini``, and where they are there ``twin-active`` and ``twin-total``. The
probes of the first are called ``experts``, and ``shared`` those of its shared expert; those of a
twin ``whole``, ``groups`` and ``matched``. ``--model`` is the folder of a twin with its card.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from page import cleared, write_page

import moedb
from moedb.capture.models.checkpoints import find_checkpoint
from moedb.errors import RunNotFoundError
from moedb.queries.database import Database
from moedb.queries.figures.drawing import draw
from moedb.queries.results.result import Result
from moedb.queries.results.rows.given import result_of_rows
from moedb.queries.results.sheets import TableOptions
from moedb.schemas.tables import TABLES

RUNS = {"mixture": "mini", "active": "twin-active", "total": "twin-total"}
PROBES = {
    "mixture": ("experts", "shared"),
    "active": ("whole", "groups", "matched"),
    "total": ("whole", "groups", "matched"),
}

SIZES = (1, 32)
"""Neurons of the probes in the tables: one, and all that an expert has."""

KEY = "upos"
"""The labels of people; those of all other keys are made by rules."""

LEAST = 10
"""Concepts that an expert has probes for before it is said to tell only one, and half of the tokens
of that one that it is scored on."""

CHOSEN = """sets (model, probe, run_id) as (values {sets}),

chosen as (
    select sets.model, probe_choices.*
    from probe_choices
    join sets using (run_id, probe)
),

common as (
    select key, value
    from chosen
    where permutation = 0
    group by all
    having count(distinct (model, probe, protocol, k)) = (
        select count(distinct (model, probe, protocol, k)) from chosen where permutation = 0
    )
)
"""
"""The choices of all sets of probes, and the concepts that each of them has probes for."""

CONCEPTS = """
with {chosen},

of_concepts as (
    select key, value, count(*) as n_tokens, count(distinct example_id) as n_documents
    from labels
    where run_id = '{mixture}'
    group by all
)

select * from of_concepts semi join common using (key, value)
order by key = '{key}' desc, n_tokens desc, key, value
"""

MEANS = """
with {chosen}

select
    model, probe, protocol, k,
    cast(round(avg(n_candidates)) as integer) as candidates,
    avg(f1_best_on_test) filter (permutation = 0) as best_on_test,
    avg(f1) filter (permutation = 0) as chosen,
    avg(f1_mean) filter (permutation = 0) as mean_by_tokens,
    avg(f1_mean_each) filter (permutation = 0) as mean_each,
    avg(f1_always_yes) filter (permutation = 0) as always_yes,
    avg(f1_best_on_test) filter (permutation > 0) as best_shuffled,
    avg(f1) filter (permutation > 0) as chosen_shuffled,
    avg(balanced_accuracy) filter (permutation = 0) as accuracy,
    avg(balanced_accuracy) filter (permutation > 0) as accuracy_shuffled
from chosen
semi join common using (key, value)
where k in {sizes}
group by model, probe, protocol, k
order by k, protocol, model = 'mixture' desc, model, probe = 'whole' desc, probe
"""

INTERVAL = """avg(lead) as lead,
    avg(lead) - (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as low,
    avg(lead) + (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as high"""
"""A mean over concepts with its 95 % interval by Student's t, expanded to the first order."""

LEADS = """
with {chosen},

steps (step, protocol, counted, control) as (values
    (1, 'herbst2026', 'best on test', 'whole'),
    (2, 'herbst2026', 'best on test', 'groups'),
    (3, 'herbst2026', 'best on test', 'matched'),
    (4, 'documents', 'chosen', 'matched'),
    (5, 'herbst2026', 'mean by tokens', 'whole'),
    (6, 'herbst2026', 'mean by tokens', 'matched'),
    (7, 'documents', 'mean by tokens', 'matched')
),

counted as (
    select
        chosen.model, chosen.probe, key, value, k, steps.*, permutation > 0 as is_shuffled,
        avg(case counted
            when 'best on test' then f1_best_on_test
            when 'chosen' then f1
            else f1_mean
        end) as f1
    from chosen
    semi join common using (key, value)
    join steps using (protocol)
    group by all
),

leads as (
    select
        dense.model, k, step, protocol, counted, control, key, value, is_shuffled,
        experts.f1 as experts, dense.f1 as others, experts.f1 - dense.f1 as lead
    from counted as dense
    join counted as experts using (step, protocol, counted, control, k, key, value, is_shuffled)
    where dense.model <> 'mixture' and dense.probe = control
        and experts.probe = 'experts'
)

select
    model as twin, k, step, protocol, counted, control, count(*) as n_concepts,
    avg(experts) as experts, avg(others) as others,
    {interval},
    any_value(lead_shuffled) as lead_shuffled
from leads
join (
    select model, k, step, avg(lead) as lead_shuffled from leads where is_shuffled group by all
) using (model, k, step)
where not is_shuffled and k in {sizes}
group by all
order by twin, k, step
"""

PAIRS = """
with {chosen},

pairs as (
    select
        sets.model as twin, expert.k, key, value, expert.permutation > 0 as is_shuffled,
        expert.f1 as f1, other.f1 as other_f1,
        expert.balanced_accuracy as accuracy, other.balanced_accuracy as other_accuracy
    from probe_scores as expert
    join probe_scores as other using (layer, candidate, key, value, protocol, permutation, k)
    join sets on other.run_id = sets.run_id and other.probe = sets.probe
    where expert.run_id = '{mixture}' and expert.probe = 'experts' and sets.probe = 'matched'
        and protocol = 'documents'
),

concepts as (
    select
        twin, k, is_shuffled, key, value, count(*) as n,
        avg(f1) as experts, avg(other_f1) as others, avg(f1 - other_f1) as lead,
        avg((f1 > other_f1)::int + 0.5 * (f1 = other_f1)::int) as ahead,
        avg(accuracy - other_accuracy) as accuracy_lead
    from pairs
    semi join common using (key, value)
    group by all
)

select
    twin, k, case when is_shuffled then 'shuffled' else 'true' end as labels,
    count(*) as n_concepts, sum(n)::bigint as n_pairs,
    avg(experts) as experts, avg(others) as others,
    {interval},
    avg(ahead) as share_ahead,
    avg(accuracy_lead) as accuracy_lead
from concepts
where k in {sizes}
group by all
order by twin, k, labels desc
"""

BY_CONCEPT = """
with {chosen}

select
    key, value,
    any_value(experts.layer) as layer, any_value(experts.candidate) as expert,
    any_value(experts.f1) as f1, any_value(experts.f1_low) as low,
    any_value(experts.f1_high) as high, any_value(experts.f1_always_yes) as always_yes,
    any_value(experts.n_documents) as n_documents,
    max(other.f1) filter (other.model = 'active') as active,
    max(other.f1_low) filter (other.model = 'active') as active_low,
    max(other.f1_high) filter (other.model = 'active') as active_high,
    max(other.f1) filter (other.model = 'total') as total,
    max(other.f1_low) filter (other.model = 'total') as total_low,
    max(other.f1_high) filter (other.model = 'total') as total_high
from chosen as experts
semi join common using (key, value)
left join chosen as other
    using (key, value, protocol, permutation, k)
where experts.probe = 'experts' and other.probe = 'matched'
    and protocol = 'documents' and permutation = 0 and k = 1
group by key, value
order by key = '{key}' desc, f1 desc
"""

NEURONS = """
with sets (model, probe, run_id) as (values {sets}),

asked as (
    select model, probe, run_id, count(distinct (layer, candidate, neuron)) as n_neurons
    from probe_scores
    join sets using (run_id, probe)
    where k = 1 and permutation = 0 and protocol = 'documents'
    group by all
),

told as (
    {told}
),

by_chance as (
    select
        run_id, probe,
        count(distinct (permutation, layer, candidate, neuron))
        / count(distinct permutation) as n_shuffled
    from probe_scores
    where k = 1 and permutation > 0 and protocol = 'documents' and balanced_accuracy >= 0.8
    group by all
)

select
    model, probe, n_neurons, count(told.neuron) as n_telling,
    coalesce(any_value(n_shuffled), 0) as telling_shuffled,
    count(told.neuron) filter (n_concepts = 1) as tell_one,
    count(told.neuron) filter (n_concepts = 1) / nullif(count(told.neuron), 0) as share_one,
    avg(n_concepts) as mean_concepts, max(n_concepts) as most_concepts
from asked
left join told using (run_id, probe)
left join by_chance using (run_id, probe)
group by model, probe, n_neurons
order by model = 'mixture' desc, model, probe
"""

TOLD = "select '{run}' as run_id, * from polysemanticity(run := '{run}', probe := '{probe}')"

SPECIALISTS = """
select
    told.layer, told.candidate as expert, told.neuron, told.key, told.value,
    told.n_concepts as tells, told.n_asked as asked,
    told.balanced_accuracy, scores.f1, scores.f1_low, scores.f1_high, scores.f1_always_yes,
    scores.n_yes, scores.n_test, scores.n_documents
from polysemanticity(run := '{mixture}', probe := 'experts') as told
join probe_scores as scores
    on scores.run_id = '{mixture}' and scores.probe = 'experts'
    and scores.layer = told.layer and scores.candidate = told.candidate
    and scores.key = told.key and scores.value = told.value
    and scores.k = 1 and scores.permutation = 0 and scores.protocol = 'documents'
where told.n_concepts = 1 and told.n_asked >= {least} and scores.n_yes >= 2 * {least}
order by told.balanced_accuracy desc, told.layer, told.candidate, told.neuron
limit 12
"""

LABELS = """
select
    layer, expert, label, status, detection_f1, detection_other, detection_yes,
    fuzzing_f1, fuzzing_low, fuzzing_high, fuzzing_other, fuzzing_yes
from labelled_experts(run := '{mixture}')
order by layer, expert
"""

LABEL_WORTH = """
with verdicts as (
    select
        kind, count(*) as n_verdicts, avg(says_yes) as says_yes,
        avg((says_yes = other_says_yes)::int) as same_as_other
    from label_verdicts
    where run_id = '{mixture}'
    group by kind
),

leads as (
    select
        kind, f1, always_yes_f1, other_f1, f1 - other_f1 as lead, f1 - always_yes_f1 as lead_yes,
        balanced_accuracy, other_balanced_accuracy
    from expert_label_scores
    where run_id = '{mixture}' and against = 'all' and f1 is not null and other_f1 is not null
)

select
    kind, count(*) as n_experts, any_value(n_verdicts) as n_verdicts,
    avg(f1) as f1, avg(other_f1) as other_label, avg(always_yes_f1) as always_yes,
    {interval},
    avg((lead > 0)::int) as share_ahead, avg((lead_yes > 0)::int) as share_above_yes,
    avg(balanced_accuracy) as accuracy, avg(other_balanced_accuracy) as other_accuracy,
    any_value(says_yes) as says_yes, any_value(same_as_other) as same_as_other
from leads
join verdicts using (kind)
group by kind
order by kind
"""

EFFECTS = """
with effects as (
    select
        role, cluster, next_change, following_change,
        case when role <> 'control-own' then routed end as chose_it,
        case when role <> 'control-own' then fits end as label_fits
    from label_effects
    where run_id = '{mixture}'
)

select
    role, chose_it, label_fits,
    count(*) as n_tokens, count(distinct cluster) as n_documents,
    avg(next_change) as next_change, median(next_change) as next_median,
    avg(following_change) as following_change
from effects
group by role, chose_it, label_fits
order by role <> 'own', role, chose_it desc, label_fits desc
"""

SAMPLES = """
with sets (model, probe, run_id) as (values {sets})

select
    sets.model as twin, count(*) as n_probes,
    count(*) filter (
        expert.n_train = other.n_train and expert.n_selection = other.n_selection
        and expert.n_test = other.n_test and expert.n_yes = other.n_yes
    ) as n_same
from probe_scores as expert
join probe_scores as other
    using (layer, candidate, key, value, protocol, permutation, k)
join sets on other.run_id = sets.run_id and other.probe = sets.probe
where expert.run_id = '{mixture}' and expert.probe = 'experts' and sets.probe = 'matched'
group by twin
order by twin
"""

COUNTED = (
    *("layer", "comparison", "n_experts", "n_compared", "n_below", "n_intervals"),
    *("n_surely_below", "n_surely_above", "mean", "mean_low", "mean_high"),
)
"""What the page shows of the differences between groups of tokens."""

OPTIONAL = ("total", "labels", "effects")
"""What the page has sections about where the store has rows, and says that it lacks elsewhere."""

BARE = TableOptions(footer=False)


def runs_of(db: Database) -> dict[str, str]:
    """The runs that are there, by what the page calls their models."""
    found = {}
    for model, name in RUNS.items():
        try:
            found[model] = db.snapshot.run(name).run_id
        except RunNotFoundError:
            if model == "mixture":
                raise
    return found


def sets_of(db: Database, runs: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(model, probes, run) of all probes that are there."""
    there = set(db.sql("select distinct run_id, probe from probe_scores").fetchall())
    for model, run in runs.items():
        yield from ((model, probe, run) for probe in PROBES[model] if (run, probe) in there)


def questions(db: Database) -> dict[str, tuple[Result, TableOptions]]:
    """The tables of the page, by the names of their files."""
    runs = runs_of(db)
    sets = list(sets_of(db, runs))
    listed = ", ".join(str(each) for each in sets)
    twins = [model for model in runs if model != "mixture"]
    told = [TOLD.format(run=run, probe=probe) for _, probe, run in sets]

    def asked(statement: str) -> Result:
        filled = statement.replace("{chosen}", CHOSEN).replace("{interval}", INTERVAL)
        filled = filled.replace("{sets}", listed).replace("{mixture}", runs["mixture"])
        filled = filled.replace("{sizes}", str(SIZES)).replace("{key}", KEY)
        filled = filled.replace("{least}", str(LEAST))
        return db.sql(filled.replace("{told}", "\n    union all\n    ".join(told)))

    tables = {
        "concepts": (asked(CONCEPTS), BARE),
        "means": (asked(MEANS), TableOptions(footer=False, precision=3)),
        "leads": (asked(LEADS), TableOptions(footer=False, precision=3)),
        "pairs": (asked(PAIRS), TableOptions(footer=False, precision=3)),
        "samples": (asked(SAMPLES), BARE),
        "by-concept": (
            asked(BY_CONCEPT),
            TableOptions(
                footer=False,
                precision=2,
                columns=(
                    *("key", "value", "layer", "expert", "f1", "low", "high"),
                    *("always_yes", "n_documents"),
                    *(f"{twin}{end}" for twin in twins for end in ("", "_low", "_high")),
                ),
            ),
        ),
        "neurons": (asked(NEURONS), TableOptions(footer=False, precision=3)),
        "specialists": (asked(SPECIALISTS), TableOptions(footer=False, precision=2)),
    }
    if has_rows(db, "expert_label_scores", runs["mixture"]):
        tables["labels"] = (asked(LABELS), TableOptions(footer=False, precision=2))
        tables["label-worth"] = (asked(LABEL_WORTH), TableOptions(footer=False, precision=3))
    if has_rows(db, "label_effects", runs["mixture"]):
        tables["effects"] = (asked(EFFECTS), TableOptions(footer=False, precision=4))
        counts = db.query("label-effect-counts", run=runs["mixture"])
        shown = TableOptions(footer=False, precision=4, columns=COUNTED)
        tables["effect-counts"] = (counts, shown)
    return tables


def has_rows(db: Database, table: str, run: str) -> bool:
    """Whether a table is known, and has rows of a run."""
    if table not in {each.name for each in TABLES}:
        return False
    statement = f"select 1 from {table} where run_id = $run limit 1"  # noqa: S608
    return bool(db.sql(statement, {"run": run}).fetchall())


def cards(folders: tuple[Path, ...]) -> Result:
    """The cards of the mixture and its twins, side by side."""
    columns = {
        "model": "varchar",
        "parameters": "bigint",
        "active": "bigint",
        "perplexity": "double",
        "5-gram": "double",
        "ioi_trained": "double",
        "ioi_other": "double",
        "minutes": "double",
        "seed": "bigint",
    }
    embedded = find_checkpoint("qwen-moe-mini").folder
    return result_of_rows(columns, [_card(folder) for folder in (embedded, *folders)])


def _card(folder: Path) -> list[Any]:
    found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    model, ioi, training = found["model"], found["ioi"], found["training"]
    perplexity = found["held_out"]["perplexity"]["all"]
    return [
        model["name"],
        model["parameters"],
        model["active_parameters"],
        perplexity["model"],
        perplexity["5-gram"],
        ioi["own"]["accuracy"],
        None if ioi["published"] is None else ioi["published"]["accuracy"],
        training["seconds"] / 60,
        training["config"]["seed"],
    ]


def values(tables: dict[str, tuple[Result, TableOptions]]) -> dict[str, str]:
    """The numbers that stand in lines: leads with their intervals, and what they are of."""
    rows = {name: result.df().to_dict("records") for name, (result, _) in tables.items()}
    return {**_of_leads(rows), **_of_sets(rows), **_of_concepts(rows), **_of_labels(rows)}


Rows = dict[str, list[dict[Any, Any]]]
"""The rows of the tables, by their names."""


def _of_leads(tables: Rows) -> dict[str, str]:
    found = {}
    for row in tables["leads"]:
        place = f"{row['twin']}-{row['k']}-{row['step']}"
        found[f"lead-{place}"] = _signed(row)
        found[f"experts-{place}"] = f"{row['experts']:.3f}"
        found[f"others-{place}"] = f"{row['others']:.3f}"
        found[f"shuffled-{place}"] = f"{row['lead_shuffled']:+.3f}"
    for row in tables["pairs"]:
        if row["labels"] == "true":
            place = f"{row['twin']}-{row['k']}"
            found[f"pair-{place}"] = _signed(row)
            found[f"n-pairs-{place}"] = f"{row['n_pairs']:,}"
            found[f"ahead-{place}"] = _percent(row["share_ahead"])
    for row in tables["samples"]:
        found[f"n-probes-{row['twin']}"] = f"{row['n_probes']:,}"
        found[f"n-same-{row['twin']}"] = f"{row['n_same']:,}"
    return found


def _of_sets(tables: Rows) -> dict[str, str]:
    found = {}
    for row in tables["means"]:
        place = f"{row['model']}-{row['probe']}-{row['protocol']}-{row['k']}"
        for column in ("best_on_test", "chosen", "mean_by_tokens", "always_yes", "best_shuffled"):
            found[f"{column}-{place}"] = f"{row[column]:.3f}"
        found[f"candidates-{place}"] = f"{row['candidates']:.0f}"
    for row in tables["neurons"]:
        place = f"{row['model']}-{row['probe']}"
        found[f"telling-{place}"] = f"{row['n_telling']} of {row['n_neurons']:,}"
        found[f"by-chance-{place}"] = f"{row['telling_shuffled']:.0f}"
        found[f"one-{place}"] = _percent(row["share_one"])
    return found


def _of_concepts(tables: Rows) -> dict[str, str]:
    concepts, best = tables["concepts"], tables["by-concept"]
    found = {
        "n-concepts": str(len(concepts)),
        "n-upos": str(sum(row["key"] == KEY for row in concepts)),
    }
    for twin in ("active", "total"):
        overlaps = [
            row["low"] <= row[f"{twin}_high"] and row[f"{twin}_low"] <= row["high"] for row in best
        ]
        found[f"n-overlap-{twin}"] = str(sum(overlaps))
    return found


def _of_labels(tables: Rows) -> dict[str, str]:
    """What labels are worth, where there are some."""
    labels = tables.get("labels", [])
    found = {
        "n-read": str(len(labels)),
        "n-labelled": str(sum(row["status"] == "labelled" for row in labels)),
    }
    for label, n in Counter(row["label"] for row in labels).most_common(1):
        found |= {"commonest": f"`{label}`", "n-commonest": str(n)}
    for row in tables.get("label-worth", []):
        kind = row["kind"]
        found[f"label-lead-{kind}"] = _signed(row)
        found[f"n-verdicts-{kind}"] = f"{row['n_verdicts']:,}"
        for column in ("f1", "other_label", "always_yes", "accuracy", "other_accuracy"):
            found[f"{column}-{kind}"] = f"{row[column]:.3f}"
        for column in ("says_yes", "same_as_other"):
            found[f"{column}-{kind}"] = _percent(row[column])
    # the last row of a comparison is of all layers
    for row in tables.get("effect-counts", []):
        place = row["comparison"]
        found[f"effect-{place}"] = _signed(
            {"lead": row["mean"], "low": row["mean_low"], "high": row["mean_high"]}
        )
        for column in ("n_experts", "n_intervals", "n_surely_below", "n_surely_above"):
            found[f"{column}-{place}"] = str(row[column])
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _signed(row: dict[Any, Any]) -> str:
    return f"{row['lead']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def draw_figures(db: Database, folder: Path) -> None:
    """Draw the figures of the page into a folder."""
    runs = runs_of(db)
    for model, probe, run in sets_of(db, runs):
        if probe in ("experts", "whole", "matched"):
            answer = db.query("probe-curves", run=run, probe=probe, key=KEY)
            draw("probe-curves", answer, folder / f"curves-{model}-{probe}.png")
        if probe in ("experts", "matched"):
            answer = db.query("polysemanticity", run=run, probe=probe)
            draw("polysemanticity", answer, folder / f"neurons-{model}-{probe}.png")
    best = db.query("probe-best", run=runs["mixture"], probe="experts", k=1)
    draw("probe-best", best, folder / "best-mixture.png")
    if has_rows(db, "expert_label_scores", runs["mixture"]):
        labels = db.query("labelled-experts", run=runs["mixture"])
        draw("labelled-experts", labels, folder / "labels.png")


@click.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="A trained twin with its card; repeatable.",
)
def main(store: Path, models: tuple[Path, ...]) -> None:
    """Make the page from STORE, and from the cards of the twins."""
    with moedb.open(store) as db:
        make(db, models)


def make(db: Database, models: tuple[Path, ...]) -> None:
    """Make the page from a store, and from the folders of the twins' models."""
    draw_figures(db, cleared("experts"))
    tables = questions(db)
    # a store without twins, labels or effects leaves their sections out
    there = {*tables, *runs_of(db)}
    sections = {*there, *(f"no-{name}" for name in OPTIONAL if name not in there)}
    shown = {"cards": (cards(models), TableOptions(footer=False, precision=3)), **tables}
    write_page("experts", shown, values(tables), sections)


if __name__ == "__main__":
    main()
