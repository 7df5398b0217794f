"""Importing moedb does nothing: what a process is set up with is set up where a capture begins."""

import json
import subprocess
import sys

IMPORT_ALL = """
import importlib, json, os, pkgutil
import accelerate, click, datasets, huggingface_hub, nnsight, rich, torch, transformers, zarr
from transformers.integrations import moe

before = dict(os.environ), sorted(moe.ALL_EXPERTS_FUNCTIONS)
import moedb
names = [found.name for found in pkgutil.walk_packages(moedb.__path__, "moedb.")]
for name in names:
    importlib.import_module(name)
after = dict(os.environ), sorted(moe.ALL_EXPERTS_FUNCTIONS)
print(json.dumps({"before": before, "after": after, "names": names}))
"""


def test_importing_changes_neither_the_environment_nor_what_transformers_knows() -> None:
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert "moedb.capture.structure.taps" in found["names"]
    assert found["after"] == found["before"]
