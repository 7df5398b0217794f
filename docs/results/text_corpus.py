r"""Label the corpus of docs/results/text.md with the work that each document is from.

python docs/results/text_corpus.py corpus.parquet works.parquet

A document's source is ``PROJECT/FILE#PART``. The work is the project: a novel, a treebank, a code
base. The English Web Treebank is a collection: there it is the file, or the group, the blog or the
mailbox that the file is from. ``genre`` is the domain where it has more than one work.
"""

from pathlib import Path

import click
import duckdb

LABELLED = r"""
with works as (
    select
        *,
        case
            when domain in ('web_newsgroup', 'web_weblog')
                then regexp_extract(source, '/([^_]*_[^_]*)_', 1)
            when domain = 'web_email' then regexp_extract(source, '/([^_]*)_', 1)
            when source like 'UD_English-EWT/%' then regexp_extract(source, '/(.*)#', 1)
            else regexp_extract(source, '^[^/#]*')
        end as work
    from read_parquet($corpus)
)

select
    *,
    case when domain in (select domain from works group by all having count(distinct work) > 1)
        then domain
    end as genre
from works
"""


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("labelled", type=click.Path(path_type=Path, dir_okay=False))
def main(corpus: Path, labelled: Path) -> None:
    """Read CORPUS and write it with its labels to LABELLED."""
    duckdb.sql(LABELLED, params={"corpus": str(corpus)}).write_parquet(str(labelled))


if __name__ == "__main__":
    main()
