"""Which runs are meant where several may be: a list, or a pattern over their names."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from moedb.errors import RunNotFoundError, UsageError, did_you_mean
from moedb.queries.questions.query_file import NamedQuery
from moedb.queries.questions.question import Question
from moedb.queries.reading.reader import SnapshotReader
from moedb.store.reading.snapshot import Snapshot

_WILD = frozenset("*?[")

_LABELS = "select run_id, key, value from run_labels order by run_id, key"


def names_several(run: object) -> bool:
    """Whether a value for ``run`` may mean several runs: a list, ``a,b``, or a pattern.

    Examples
    --------
    >>> names_several("text-*"), names_several("first,second"), names_several("text-3f")
    (True, True, False)
    """
    if isinstance(run, str):
        return "," in run or not _WILD.isdisjoint(run)
    return isinstance(run, Sequence | frozenset | set)


def several_runs(snapshot: Snapshot, run: str | Iterable[str]) -> list[str]:
    """Return the runs that are meant, each once: those of a pattern by their age, the oldest first.

    Parameters
    ----------
    snapshot
        The runs that there are.
    run
        Names, beginnings of names, and patterns (``text-*``) over the names that runs are stored
        as and those given to them. A pattern means complete runs.

    Raises
    ------
    RunNotFoundError
        If one means none.
    UsageError
        If nothing is named.
    """
    parts = run.split(",") if isinstance(run, str) else [str(each) for each in run]
    found: dict[str, None] = {}
    for part in (each.strip() for each in parts):
        if not part:
            continue
        if _WILD.isdisjoint(part):
            found[snapshot.run(part).run_id] = None
        else:
            found |= dict.fromkeys(_matching(snapshot, part))
    if not found:
        raise UsageError("no run is named", "--run RUN, --run RUN,RUN or --run 'text-*'")
    return list(found)


def expect_run_parameter(question: Question) -> None:
    """Check that a question is one about a run.

    Raises
    ------
    UsageError
        If it takes no run, or reads all trials together.
    """
    over_trials = isinstance(question, NamedQuery) and question.reads_trials
    if over_trials or all(parameter.name != "run" for parameter in question.parameters):
        raise UsageError(
            f"{question.name} is not asked of one run after the other: it reads "
            f"{'all trials together' if over_trials else 'no run'}",
            f"moedb query {question.name} --help",
        )


def run_labels(reader: SnapshotReader, run_ids: Sequence[str], key: str) -> dict[str, str | None]:
    """Return the value of a label for each run.

    Raises
    ------
    UsageError
        If a run has no such label.
    """
    labels: dict[str, dict[str, str]] = {run_id: {} for run_id in run_ids}
    for run_id, each, value in reader.sql(_LABELS).fetchall():
        if run_id in labels:
            labels[run_id][each] = value
    for run_id in run_ids:
        if key not in labels[run_id]:
            raise UsageError(
                f"run {reader.snapshot.run(run_id).title} has no label {key!r} of its own; "
                f"{did_you_mean(key, labels[run_id])}",
                f"moedb show {run_id}",
            )
    return {run_id: labels[run_id][key] for run_id in run_ids}


def _matching(snapshot: Snapshot, pattern: str) -> list[str]:
    ages = {
        run.run_id: (run.row["created_at"], run.run_id)
        for run in snapshot.runs.values()
        if run.is_complete
        and any(fnmatchcase(name, pattern) for name in (run.run_id, run.named.name or ""))
    }
    if not ages:
        known = [run.title for run in snapshot.runs.values()]
        raise RunNotFoundError(
            f"no complete run in {snapshot.store} is called like {pattern!r}; "
            f"{did_you_mean(pattern, known)}",
            "moedb runs",
        )
    return sorted(ages, key=ages.__getitem__)
