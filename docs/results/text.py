"""Make docs/results/text.md from a run of the job text: its tables, set into the prose.

python docs/results/text.py --store STORE
"""

from pathlib import Path

import click
from page import cleared, write_page

import moedb
from moedb.queries.database import Database
from moedb.queries.result import Result
from moedb.queries.sheets import TableOptions

CLASSES = """
select
    labels.key, labels.value,
    count(distinct works.value) as n_works,
    count(distinct labels.example_id) as n_examples,
    count(*) as n_tokens
from labels
join example_labels as works using (run_id, example_id)
where labels.key in ('domain', 'language', 'upos') and works.key = 'work'
group by all
order by labels.key, n_tokens desc, labels.value
"""

WITHOUT_NULL = TableOptions(
    columns=("layer", "n_decisions", "n_examples", "n_clusters", "information", "normalized"),
    footer=False,
)
"""Of labels that have one work for most values there is nothing to permute."""

WITH_NULL = TableOptions(
    columns=(
        *("layer", "n_decisions", "n_examples", "n_clusters", "information", "normalized"),
        *("null_mean", "null_highest", "p_value"),
    ),
    footer=False,
)

SPECIALISTS = """
select layer, expert, top_value, n_top, n_decisions, exclusivity, pmi
from expert_specialization(key := '{key}', min_decisions := {least})
order by {by} desc, layer, expert
limit 8
"""

TOKENS = """
with specialists as (
    select layer, expert, top_value, exclusivity
    from expert_specialization(key := 'domain', min_decisions := 500)
    order by exclusivity desc, layer, expert
    limit 8
)
select
    layer, expert, top_value,
    string_agg(token, ' · ' order by place) as tokens
from specialists
join top_tokens(by := 'lift', min_count := 20, n := 8) using (layer, expert)
group by layer, expert, top_value, exclusivity
order by exclusivity desc, layer, expert
"""


def questions(db: Database) -> dict[str, tuple[Result, TableOptions]]:
    """The tables of the page, by the names of their files."""
    found = {"classes": (db.sql(CLASSES), TableOptions(footer=False))}
    for key, least, by, options in (
        ("domain", 500, "exclusivity", WITHOUT_NULL),
        ("genre", 500, "pmi", WITH_NULL),
        ("language", 500, "pmi", WITHOUT_NULL),
        ("upos", 100, "exclusivity", WITH_NULL),
    ):
        found[f"information-{key}"] = (
            db.query("label-information", key=key, permutations=999, cluster="work"),
            options,
        )
        found[f"specialists-{key}"] = (
            db.sql(SPECIALISTS.format(key=key, least=least, by=by)),
            TableOptions(footer=False),
        )
    found["tokens"] = (db.sql(TOKENS), TableOptions())
    return found


@click.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True), required=True)
def main(store: Path) -> None:
    """Make the page from STORE."""
    cleared("text")
    write_page("text", questions(moedb.open(store)))


if __name__ == "__main__":
    main()
