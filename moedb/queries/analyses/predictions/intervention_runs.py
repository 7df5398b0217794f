"""The runs that hold interventions on a run, and the run that they are on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moedb.errors import RunNotFoundError
from moedb.queries.questions.parameters import Parameter
from moedb.queries.reading.reader import SnapshotReader

if TYPE_CHECKING:
    import pandas as pd

    from moedb.store.reading.snapshot import RunSnapshot

RUN_OF_INTERVENTIONS = Parameter(
    "run",
    "varchar",
    None,
    False,
    "the run with the interventions, or the run that they are on: then every complete run of them "
    "is read, and of the same condition the newest one; the newest complete run when null",
)

_CONDITIONS = """
select count(*) as n_conditions
from conditions
where conditions.run_id = cast($run as varchar)
    and conditions.kind <> 'none'
""".strip()
_CHILDREN = """
select runs.run_id
from runs
where runs.parent_run_id = cast($run as varchar)
    and runs.status = 'complete'
order by runs.created_at desc, runs.run_id desc
""".strip()


def find_interventions(
    reader: "SnapshotReader", run: str, given: str | None = None, options: str = ""
) -> "list[RunSnapshot]":
    """Return the runs that hold the interventions on a run, the newest first.

    Parameters
    ----------
    reader
        Reads the store.
    run
        A captured run, or one with interventions, which is returned itself.
    given
        The run with the interventions; every complete one that continues ``run`` unless given.
    options
        What else ``moedb intervene`` needs to be told for the question at hand.

    Raises
    ------
    RunNotFoundError
        If there is none, or the one given continues another run.
    """
    own = reader.snapshot.run(run)
    if given is not None:
        found = reader.snapshot.run(given)
        parent = found.row["parent_run_id"]
        if found.run_id != own.run_id and parent != own.run_id:
            raise RunNotFoundError(
                f"run {found.run_id} holds no interventions on {own.run_id}: it continues "
                f"{parent or 'no run'}"
            )
        return [found]
    if reader.sql(_CONDITIONS, {"run": own.run_id}).fetchall() != [(0,)]:
        return [own]
    children = reader.sql(_CHILDREN, {"run": own.run_id}).fetchall()
    if not children:
        raise RunNotFoundError(
            f"no complete run in {reader.snapshot.title} has interventions on {own.run_id}"
            f"{incomplete_interventions(reader, own.run_id)}",
            f"moedb intervene --run {own.run_id} --kind random-routing {options}".rstrip(),
        )
    return [reader.snapshot.run(child) for (child,) in children]


def incomplete_interventions(reader: SnapshotReader, run: str) -> str:
    """Name the runs of interventions on ``run`` that are passed over, to end a sentence with."""
    found = [
        f"{each.run_id} is incomplete ({len(each.missing_units)} of {len(each.manifest.units)} "
        "units are missing) and not read; its moedb intervene command, typed again, resumes it"
        for each in reader.snapshot.runs.values()
        if each.row["parent_run_id"] == run and not each.is_complete
    ]
    return "".join(f"; {sentence}" for sentence in sorted(found))


def captured_run(reader: SnapshotReader, run: str) -> "RunSnapshot":
    """Return the run that a run of interventions continues; a captured run is returned itself."""
    own = reader.snapshot.run(run)
    parent = own.row["parent_run_id"]
    there = {**reader.snapshot.runs, **reader.snapshot.damaged}
    return reader.snapshot.run(parent) if parent in there else own


def run_ids_of(answers: "pd.DataFrame", runs: "Sequence[RunSnapshot]") -> tuple[str, ...]:
    """The runs that answers are from; all that were read where there are no answers."""
    return tuple(answers["run_id"].unique()) or tuple(run.run_id for run in runs)
