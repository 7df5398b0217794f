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
select key, value, count(distinct example_id) as n_examples, count(*) as n_tokens
from labels
where key in ('domain', 'language', 'upos')
group by all
order by key, n_tokens desc, value
"""

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
    for key, least, by in (
        ("domain", 500, "exclusivity"),
        ("language", 500, "pmi"),
        ("upos", 100, "exclusivity"),
    ):
        found[f"information-{key}"] = (
            db.query("label-information", key=key, permutations=200),
            TableOptions(footer=False),
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
