"""Make docs/results/text.md from a run of the job text: its tables, set into the prose.

    python docs/results/text.py --store STORE

The prose is in text.in.md. What the page shows lies beside it in text/, each file with a sidecar
that says from which run it came.
"""

import re
from pathlib import Path

import click

import moedb
from moedb.queries.database import Database
from moedb.queries.export import export
from moedb.queries.result import Result
from moedb.queries.sheets import TableOptions

HERE = Path(__file__).parent
FOLDER = HERE / "text"

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


def make(store: Path) -> None:
    """Write the page and what it shows."""
    db = moedb.open(store)
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    shown = {}
    for name, (result, options) in questions(db).items():
        export(result, FOLDER / f"{name}.csv")
        page, sidecar = export(result, FOLDER / f"{name}.md", options)
        shown[name] = page.read_text(encoding="utf-8").strip()
        page.unlink()
        sidecar.unlink()
    template = (HERE / "text.in.md").read_text(encoding="utf-8")
    text = re.sub(r"^@(\S+)@$", lambda match: shown[match.group(1)], template, flags=re.MULTILINE)
    (HERE / "text.md").write_text(text, encoding="utf-8")


@click.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True), required=True)
def main(store: Path) -> None:
    """Make the page from STORE."""
    make(store)


if __name__ == "__main__":
    main()
