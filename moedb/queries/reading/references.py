"""Which runs a result names, and which of their examples it read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from moedb.queries.results.result import CORRUPTED, RUNS_NAMED, RunReference
from moedb.store.reading.snapshot import Snapshot


class SplitSize(NamedTuple):
    """What a split of a run has."""

    n_examples: int
    n_tokens: int


SplitSizes = Mapping[str, Mapping[str, SplitSize]]
"""For each run the sizes of its splits."""

SPLITS = """
select
    examples.run_id,
    examples.split,
    count(*) as n_examples,
    cast(sum(examples.n_tokens) as bigint) as n_tokens
from examples
group by examples.run_id, examples.split
order by examples.run_id, examples.split
""".strip()


def references(
    snapshot: Snapshot, run_ids: Iterable[str], sizes: Callable[[], SplitSizes]
) -> tuple[RunReference, ...]:
    """Return the runs as a result names them, each once.

    Parameters
    ----------
    snapshot
        What is read.
    run_ids
        The runs.
    sizes
        Counts the examples of the snapshot. It is not asked where there is no run, nor for more
        runs than a footer names, since opening the files of hundreds would take its time.
    """
    runs = [snapshot.run(run_id) for run_id in dict.fromkeys(run_ids)]
    found = sizes() if 0 < len(runs) <= RUNS_NAMED else None
    return tuple(
        RunReference(
            run_id=row["run_id"],
            job=row["job"],
            model=row["model"],
            model_sha256=row["model_sha256"],
            dataset=row["dataset"],
            n_examples=row["n_examples"],
            status=row["status"],
            splits=None if found is None else _n_examples(found.get(row["run_id"], {})),
            name=run.named.name,
        )
        for run in runs
        for row in (run.row,)
    )


def _n_examples(sizes: Mapping[str, SplitSize]) -> dict[str, int]:
    return {split: size.n_examples for split, size in sizes.items()}


def narrowed(
    run: RunReference, split: object, splits_read: tuple[str, ...] | None = None
) -> RunReference:
    """Return the run with the splits that were read of it.

    Parameters
    ----------
    run
        The run.
    split
        The parameter ``split`` of a question: null for all but the corrupted twins.
    splits_read
        The splits, where the parameter does not say.
    """
    if splits_read is None and split is None:
        splits_read = tuple(name for name in run.splits or () if name != CORRUPTED)
    elif splits_read is None and split != "all":
        splits_read = (str(split),)
    return replace(run, splits_read=splits_read)
