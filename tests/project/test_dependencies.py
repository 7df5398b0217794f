"""The bounds in pyproject.toml, and the versions that the tests run with."""

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*extras: str) -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines if not line.startswith("moedb[")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pinned(name: str) -> dict[str, Version]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def test_the_lowest_versions_are_those_that_pyproject_allows() -> None:
    lowest = pinned("constraints-lowest.txt")
    for name, requirement in requirements("hub", "labels", "shell", "test").items():
        bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
        assert len(bounds) == 1, f"{name} has no lower bound"
        assert lowest[name] == Version(bounds[0]), name


def test_what_moedb_is_built_with_is_allowed() -> None:
    used = pinned("constraints.txt")
    extras = ("benchmarks", "browser", "hub", "labels", "shell", "site", "spark", "test", "dev")
    for name, requirement in requirements(*extras).items():
        assert requirement.specifier.contains(used[name]), name


def test_gptqmodel_is_tested_with_what_moedb_is_built_with() -> None:
    """All but numpy, of which gptqmodel names one version."""
    used, beside_it = pinned("constraints.txt"), pinned("constraints-gptq.txt")
    for name, requirement in requirements("gptq", "hub", "labels", "shell", "test").items():
        assert requirement.specifier.contains(beside_it[name]), name
    others = {name for name in used.keys() & beside_it.keys() if used[name] != beside_it[name]}
    assert others == {"numpy"}


def test_object_storage_is_tested_with_what_moedb_is_built_with() -> None:
    """All but python-dateutil, of which botocore wants an older one."""
    used, beside_it = pinned("constraints.txt"), pinned("constraints-remote.txt")
    for name, requirement in requirements("s3", "remote", "hub", "labels", "shell", "test").items():
        assert requirement.specifier.contains(beside_it[name]), name
    others = {name for name in used.keys() & beside_it.keys() if used[name] != beside_it[name]}
    assert others == {"python-dateutil"}


def test_every_version_is_pinned() -> None:
    """What the libraries need in turn is pinned too: the same versions are tested every time."""
    import importlib.metadata

    for file in (
        "constraints.txt",
        "constraints-lowest.txt",
        "constraints-gptq.txt",
        "constraints-remote.txt",
    ):
        versions = pinned(file)
        for name in requirements("hub", "labels", "shell", "test"):
            installed = importlib.metadata.distribution(name)
            if versions[name] != Version(installed.version):
                continue  # another file's turn
            for line in installed.requires or ():
                needed = Requirement(line)
                applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
                if applies:
                    assert canonicalize_name(needed.name) in versions, f"{file}: {needed.name}"
