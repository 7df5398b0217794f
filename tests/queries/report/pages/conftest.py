"""The store that pages are made of: prompts with interventions, and runs with hostile names."""

from pathlib import Path

import pytest

from tests.queries.analyses.test_ioi_analyses import make_settings
from tests.support.stores import synthetic_ioi as ioi
from tests.support.stores.made.hostile import write_hostile


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, what became of them under interventions, and the hostile runs."""
    folder = tmp_path_factory.mktemp("pages") / "store"
    prompts = ioi.write_captured(folder)
    kept = [each for each in make_settings(prompts) if each.params.get("form") != "remove"]
    splits = {p.example_id: p.split for p in prompts}
    ioi.write_interventions(folder, kept, splits, {e: e + 1 for e in splits if e % 9 % 2 == 0})
    write_hostile(folder)
    return folder
