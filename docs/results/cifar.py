"""Make docs/results/cifar.md from the CIFAR-10 runs of a store: its tables, set into the prose.

python docs/results/cifar.py --store STORE
"""

from pathlib import Path

import click
from page import cleared, write_page

import moedb
from moedb.queries.database import Database
from moedb.queries.drawing import draw
from moedb.queries.result import Result
from moedb.queries.sheets import TableOptions

VEHICLES = ["airplane", "automobile", "ship", "truck"]

PAIRS = """
with pairs as (
    select
        variant, experts, n_trials, {value},
        list_contains($vehicles, class_a)::int + list_contains($vehicles, class_b)::int
            as n_vehicles
    from ({rows})
    where class_a < class_b
)
select
    variant, experts, n_trials,
    avg({value}) filter (n_vehicles = 2) as vehicles,
    avg({value}) filter (n_vehicles = 0) as animals,
    avg({value}) filter (n_vehicles = 1) as one_of_each,
    avg(abs({value})) as mean_size
from pairs
group by all
order by all
"""
"""What two classes have in common, on average: two vehicles, two animals, one of each."""

KMEANS = (
    *("n_clusters", "ami_experts", "ami_clusters", "purity_experts", "purity_clusters"),
    "ami_between",
)

SPREAD = TableOptions(columns=("value", "expert", "share", "sd", "lowest", "highest"))

ABILITY = """
select value, expert, accuracy
from expert_accuracy(run := '{run}')
order by value, expert
"""
"""Accuracy of each expert of a trial on all images of a class."""

HOME = """
with experts as (
    select
        variant, experts, routed, accuracy,
        avg(case when routed >= 0.5 then accuracy end) over (
            partition by variant, experts, trial, value
        ) as accuracy_of_main
    from expert_accuracy()
)
select
    variant, experts,
    sum(routed * accuracy) / sum(routed) as as_routed,
    avg(accuracy) as any_expert,
    avg(accuracy) filter (routed >= 0.5) as main_expert,
    avg(accuracy) filter (routed < 0.1) as hardly_chosen,
    avg(accuracy_of_main) filter (routed < 0.1) as main_of_the_same,
    count(*) filter (routed < 0.1) as n_hardly_chosen
from experts
group by all
order by all
"""
"""Accuracy of experts on whole classes, by how much of the class the router gives them.

The main expert of a class is beside the expert that is hardly chosen for it: the mean of all main
experts is over other classes.
"""


def questions(db: Database) -> dict[str, tuple[Result, TableOptions]]:
    """The tables of the page, by the names of their files."""
    counts = ("variant", "experts", "n_trials")
    trial = ("variant", "experts", "trial")
    found = {
        "router-ablation": (
            db.query("router-ablation"),
            TableOptions(
                columns=(
                    *(*counts, "learned", "random", "decrease", "decrease_error", "error_over"),
                    *("decrease_sd", "reweighted", "reinitialized"),
                )
            ),
        ),
        "trials": (
            db.query("router-ablation", level="trial"),
            TableOptions(
                columns=(
                    *(*trial, "n_correct", "n_images", "learned", "random", "decrease"),
                    "decrease_error",
                )
            ),
        ),
        "load-balance": (
            db.query("load-balance-by-trial"),
            TableOptions(
                columns=(
                    *(*trial, "n_dead", "normalized_entropy", "smallest_share", "largest_share"),
                    "switch_loss",
                )
            ),
        ),
        "home": (db.sql(HOME), TableOptions()),
        "covariance": (pairs(db, "class_covariance", "covariance"), TableOptions(precision=4)),
        "consistency": (
            pairs(db, "class_consistency", "share", least=2),
            TableOptions(columns=(*counts, "vehicles", "animals", "one_of_each")),
        ),
    }
    several = groups(db, least=2)
    for variant, experts in groups(db):
        chosen = {"variant": variant, "experts": experts}
        found[f"routing-{variant}-{experts}"] = (
            db.query("routing-by-class-over-trials", **chosen),
            SPREAD
            if (variant, experts) in several
            else TableOptions(pivot=("value", "expert", "share"), bold="row-max"),
        )
    for run, variant, experts in db.sql(
        "select run_id, variant, experts from trials where trial = 0 order by all"
    ).fetchall():
        # a statement that names its run has a footer that does
        found[f"ability-{variant}-{experts}"] = (
            db.sql(ABILITY.format(run=run)),
            TableOptions(pivot=("value", "expert", "accuracy"), bold="row-max"),
        )
        found[f"overlap-{variant}-{experts}"] = (
            db.query("output-overlap", run=run),
            TableOptions(
                columns=("expert_a", "expert_b", "n_tokens", "cosine", "cka"), footer=False
            ),
        )
        found[f"kmeans-{variant}-{experts}"] = (
            db.query("kmeans-baseline", run=run, key="class"),
            TableOptions(columns=KMEANS, footer=False),
        )
    return found


def pairs(db: Database, table: str, value: str, least: int = 1) -> Result:
    """A measure of two classes, averaged by what the two are; of so many trials at least."""
    rows = " union all ".join(
        f"from {table}(variant := '{variant}', experts := {experts})"
        for variant, experts in groups(db, least)
    )
    return db.sql(PAIRS.format(rows=rows, value=value), {"vehicles": VEHICLES})


def groups(db: Database, least: int = 1) -> list[tuple[str, int]]:
    """The variants and numbers of experts of which the store has at least so many trials."""
    rows = db.sql(
        "select variant, experts from trials group by all having count(*) >= $least order by all",
        {"least": least},
    ).fetchall()
    return [(variant, experts) for variant, experts in rows]


def draw_figures(db: Database, folder: Path) -> None:
    """Draw the figures of the page, and of the paper, into a folder."""
    draw("router-ablation", db.query("router-ablation"), folder / "router-ablation.png")
    for variant, experts in groups(db):
        names = ["class-correlation", "class-covariance"]
        if (variant, experts) in groups(db, least=2):
            names.append("class-consistency")
        for name in names:
            answer = db.query(name, variant=variant, experts=experts)
            draw(name, answer, folder / f"{name}-{variant}-{experts}.png")


@click.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True), required=True)
def main(store: Path) -> None:
    """Make the page from STORE."""
    with moedb.open(store) as db:
        draw_figures(db, cleared("cifar"))
        write_page("cifar", questions(db))


if __name__ == "__main__":
    main()
