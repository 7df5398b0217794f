"""The stores that the benchmark asks: written when they are not there, used again when they are."""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.queries.synthetic.run import write_run
from benchmarks.queries.synthetic.settings import Settings
from benchmarks.queries.synthetic.trials import write_trials

MOST_PROMPT_TOKENS = 40_000
"""Tokens of the run of prompts at most: it does not grow with the documents."""
N_IMAGES = 10_000
"""Images of a trial."""


@dataclass(frozen=True)
class Written:
    """A store, and its runs.

    Attributes
    ----------
    folder
        The store.
    trials
        The store of the trials, which may be the same.
    text, ioi
        The run of documents, which everything grows with, and the run of prompts.
    earlier
        The same documents through an earlier checkpoint; ``text`` itself where there is none.
    n_decisions, n_tokens
        Those of ``text``, about.
    """

    folder: Path
    trials: Path
    text: str
    ioi: str
    earlier: str
    n_decisions: int
    n_tokens: int


def write_store(
    folder: Path, documents: Settings, prompt_tokens: int, n_runs: int, one_store: bool = False
) -> Written:
    """Write what is missing of a store.

    Parameters
    ----------
    folder
        The store's folder.
    documents
        The run of documents.
    prompt_tokens
        Tokens of a prompt of the second run.
    n_runs
        2 for documents and prompts; with 3 the documents are there once more, as an earlier
        checkpoint routes them.
    one_store
        Whether the trials are in this store too, not in one beside it.

    Raises
    ------
    SystemExit
        If the store has runs that are none of this benchmark's with these settings.
    """
    prompts = replace(
        documents,
        job="qwen-ioi",
        tokens=min(MOST_PROMPT_TOKENS, documents.tokens),
        example_tokens=prompt_tokens,
    )
    earlier = replace(documents, checkpoint=1)
    wanted = [prompts, *([earlier] if n_runs > 2 else []), documents]
    names = [write_run(folder, settings) for settings in wanted]
    trials = folder if one_store else folder.parent / "trials"
    of_trials = write_trials(trials, N_IMAGES, documents.seed)
    expected = {*names, earlier.run_id, *(of_trials if one_store else ())}
    others = {path.name for path in (folder / "runs").iterdir() if path.is_dir()} - expected
    if others:
        raise SystemExit(
            f"{folder} has runs of other settings: {', '.join(sorted(others))}; "
            "name another folder with --store, or delete this one"
        )
    n_decisions = documents.tokens * documents.layers * documents.top_k
    return Written(
        folder=folder,
        trials=trials,
        text=documents.run_id,
        ioi=prompts.run_id,
        earlier=earlier.run_id if n_runs > 2 else documents.run_id,
        n_decisions=n_decisions,
        n_tokens=documents.tokens,
    )
