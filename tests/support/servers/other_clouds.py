"""A server on this machine that speaks as Microsoft's object storage does.

It is Azurite, from npm: ``npm install -g azurite``. Nothing else needs it.
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
            yield _new_bucket()
        finally:
            process.terminate()


def _new_bucket() -> str:
    from moedb.store.reading.places.file_systems import file_system

    name = f"bucket-{secrets.token_hex(6)}"
    file_system(f"az://{name}").mkdir(name)
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
