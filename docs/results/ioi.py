"""Make docs/results/ioi.md from a capture of IOI prompts and the interventions on it.

python docs/results/ioi.py --store STORE --run RUN
"""

from pathlib import Path

import click
from page import cleared, write_page

import moedb
from moedb.queries.database import Database
from moedb.queries.report.writing import write_ioi_report
from moedb.queries.results.result import Result
from moedb.queries.results.sheets import TableOptions

ROUTING = ("random-routing", "uniform-weights", "swap-routing", "knock-out-shared")
"""The kinds of interventions that change a layer's routing, or its shared expert, as a whole."""


def questions(db: Database, run: str) -> dict[str, tuple[Result, TableOptions]]:
    """The tables of the page, by the names of their files."""
    bare = TableOptions(footer=False)
    of_kinds = {"run": run, "kind": ",".join(ROUTING), "split": "clean"}
    effects = db.query("intervention-effect", **of_kinds)
    patches = db.query("intervention-effect", run=run, kind="patch", split="corrupted")
    return {
        "page-consistency": (
            db.query("active-experts", run=run),
            TableOptions(
                columns=(
                    *("layer", "experts_ever", "experts_50", "experts_90", "most", "uniform"),
                    "share_50",
                ),
                footer=False,
            ),
        ),
        "page-lens": (
            db.query("logit-lens", run=run),
            TableOptions(
                columns=(
                    *("layer", "place", "mean_logit_diff", "mean_logit_diff_low"),
                    *("mean_logit_diff_high", "share_ahead", "median_rank"),
                ),
                footer=False,
            ),
        ),
        "page-effects": (
            effects,
            TableOptions(
                columns=(
                    *("kind", "layer", "change_logit_diff", "change_logit_diff_low"),
                    *("change_logit_diff_high", "change_probability", "change_probability_low"),
                    *("change_probability_high", "change_accuracy"),
                )
            ),
        ),
        "page-patches": (
            patches,
            TableOptions(pivot=("params", "layer", "normalized"), footer=False),
        ),
        "page-attribution": (
            db.query("expert-attribution", run=run, level="layers"),
            TableOptions(columns=("component", "layer", "attribution", "share"), footer=False),
        ),
        "page-experts": (
            db.query("expert-attribution", run=run, top=12),
            TableOptions(
                columns=("component", "layer", "expert", "n_decisions", "attribution", "share"),
                footer=False,
            ),
        ),
        "page-correlations": (db.query("expert-effect", run=run, level="layers"), bare),
    }


@click.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", required=True, help="The captured run.")
def main(store: Path, run: str) -> None:
    """Make the page from RUN of STORE, and from the interventions on it."""
    with moedb.open(store) as db:
        write_ioi_report(db, cleared("ioi"), run)
        write_page("ioi", questions(db, run))


if __name__ == "__main__":
    main()
