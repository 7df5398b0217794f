"""The page that the server gives: the client, and what it has to know before it asks."""

from moedb.commands.asking.exploring.desk import Desk, Shown
from moedb.queries.report.pages.contents import footer_of, index_of, title_of
from moedb.queries.report.pages.rendering import Page, render

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""What a page may load: what this server gives, nothing else. Styles are inline in figures."""


def page_of(shown: Shown, version: str, desk: Desk) -> bytes:
    """Return the page of a run, in which no view is yet.

    Parameters
    ----------
    shown
        What it shows.
    version
        The snapshot that its views are asked of.
    desk
        The database.
    """
    explored = desk.explored(shown)
    subject = explored.subject
    index = index_of(subject, explored.slices, [])
    index["links"].append(("SQL", "sql"))
    runs = [
        [run.run_id, run.title]
        for run in reversed(desk.snapshot.runs.values())
        if run.n_rows("routing")
    ]
    live = {
        "run": subject.run.run_id,
        "run_b": None if subject.run_b is None else subject.run_b.run_id,
        "snapshot": version,
        "runs": runs,
    }
    page = Page(
        title=title_of(subject),
        footer=footer_of(subject),
        views={"index": index, "live": live},
        places={},
        assets="assets",
        policy=POLICY,
    )
    return render(page).encode()
