"""What there is to ask, and of what: the runs of a store, one run in detail, the questions."""

import json
from dataclasses import replace

from moedb.queries.analyses.registry import ANALYSES
from moedb.queries.questions.catalog import catalog
from moedb.queries.questions.question import SUBJECTS, Question
from moedb.queries.reading.reader import SnapshotReader
from moedb.queries.results.result import Result
from moedb.queries.results.rows.given import result_of_rows
from moedb.schemas.arrays import array_spec
from moedb.schemas.tables import TABLES
from moedb.store.reading.additions import StoredAddition, additions_of

_RUN_LIST = """
select
    runs.run_id, names.value as name, runs.job, runs.status, runs.model, runs.dataset,
    runs.n_examples, runs.n_tokens, runs.dtype, runs.created_at, notes.value as note
from runs
left join run_labels as names on runs.run_id = names.run_id and names.key = 'name'
left join run_labels as notes on runs.run_id = notes.run_id and notes.key = 'note'
order by runs.created_at, runs.run_id
"""
_LABELS = """
select kind, key, count(distinct value)
from (
    select 'example label' as kind, run_id, key, value from example_labels
    union all
    select 'token label', run_id, key, value from token_labels
    union all
    select 'run label', run_id, key, value from run_labels
)
where run_id = $run
group by kind, key
order by kind, key
"""


def run_list(reader: SnapshotReader) -> Result:
    """One row for each run, in the order in which they were started; damaged runs last.

    Of a damaged run there is what could be read of it, and its status is ``damaged``.
    """
    sound = reader.sql(_RUN_LIST)
    damaged = reader.snapshot.damaged
    if not damaged:
        empty = f"{reader.snapshot.title} holds no runs; moedb capture qwen-ioi makes one"
        return replace(sound, explain=lambda: empty)
    columns = dict(zip(sound.columns, sound.types, strict=True))
    rows = sound.fetchall()
    for run_id, run in sorted(damaged.items()):
        known = {**run.row, "run_id": run_id, "status": "damaged"}
        rows.append(tuple(known.get(name) for name in columns))
    return result_of_rows(columns, rows)


def run_details(reader: SnapshotReader, run: str) -> Result:
    """What a run is and holds, one item a row.

    Raises
    ------
    RunNotFoundError
        If there is no such run.
    """
    found = reader.snapshot.run(run)
    rows: list[tuple[str, str, str]] = []
    for name, value in found.row.items():
        if name == "config":
            rows += [("config", key, _text(v)) for key, v in json.loads(value or "{}").items()]
        elif name == "versions":
            rows += [("version", key, _text(v)) for key, v in json.loads(value or "{}").items()]
        elif value is not None:
            rows.append(("run", name, str(value)))
    done = len(found.manifest.units) - len(found.missing_units)
    rows[:0] = [("run", key, value) for key, value in found.named.labels.items()]
    rows.append(("run", "units", f"{done} of {len(found.manifest.units)} committed"))
    rows.append(("run", "bytes", f"{found.n_bytes():,}"))
    for layer in found.manifest.layers:
        shared = ", shared expert" if layer["has_shared_expert"] else ""
        what = f"{layer['n_experts']} experts, top {layer['top_k']}, {layer['scoring']}{shared}"
        rows.append(("layer", str(layer["layer"]), f"{layer['module']}: {what}"))
    for entry in TABLES:
        if found.n_rows(entry.name):
            rows.append(("table", entry.name, f"{found.n_rows(entry.name):,} rows"))
    rows += [("addition", name, _added(each)) for name, each in additions_of(found).items()]
    for array, layers in sorted(found.manifest.arrays.items()):
        spec = array_spec(array)
        kept = "the whole model" if spec.is_of_run else f"layers {', '.join(map(str, layers))}"
        place = "of" if spec.is_of_run else "at"
        rows.append(("array", array, f"{spec.shape_text} {place} {kept}"))
    for kind, key, n_values in reader.sql(_LABELS, {"run": found.run_id}).fetchall():
        rows.append((kind, key, f"{n_values} values"))
    return result_of_rows({"what": "VARCHAR", "name": "VARCHAR", "value": "VARCHAR"}, rows)


def _added(addition: StoredAddition) -> str:
    """What an addition is: its kind, when it was added, what it fills."""
    about = addition.about
    filled = [f"{n:,} rows of {table}" for table, n in sorted(addition.n_rows.items())]
    parts = f", {len(about.parts)} parts" if about.parts else ""
    return f"{about.kind}, {about.added_at}{parts}: {', '.join(filled) or 'no rows'}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def query_list() -> Result:
    """One row for each named query and each analysis in Python, by subject."""
    asked: list[Question] = [*catalog().values(), *ANALYSES.values()]
    order = list(SUBJECTS)
    asked.sort(key=lambda question: (order.index(question.subject), question.name))
    rows = [(each.subject, each.name, each.title, each.answers) for each in asked]
    return result_of_rows(dict.fromkeys(("subject", "name", "title", "answers"), "VARCHAR"), rows)
