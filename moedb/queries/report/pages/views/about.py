"""What was captured: model, data, settings, layers, tables."""

from moedb.queries.guidance.overview import run_details
from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.columns import table
from moedb.queries.report.pages.subject import Subject

_MAIN = (
    *("model", "model_revision", "model_sha256", "architecture", "dataset", "dataset_sha256"),
    *("n_examples", "n_tokens", "dtype", "seed", "created_at", "finished_at", "status"),
)


def about(subject: Subject) -> Json:
    """What a run is and holds: as ``moedb show`` prints it, its main lines first."""
    run = subject.run
    rows = run_details(subject.database, run.run_id)
    main = [(name, str(run.row[name])) for name in _MAIN if run.row[name] is not None]
    named = [(key, value) for key, value in run.named.labels.items()]
    return {
        "id": "about",
        "title": "What was captured",
        "text": "While a run is captured, every batch is checked: experts are distinct and in "
        "range, weights are what the router's rule gives, and the parts add up to the block's "
        "output. "
        f"moedb verify {run.run_id} checks the files again.",
        "items": [*named, ("run", run.run_id), ("job", str(run.row["job"])), *main],
        "command": f"moedb show {run.run_id}",
        "table": table(rows.arrow()),
    }
