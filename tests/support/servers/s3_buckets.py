"""Buckets of a server of S3 beside the tests, see :mod:`tests.support.servers.s3_server`."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECRET = "made+up/of-Letters0123456789abcdefghijkl"  # noqa: S105
KEY = "AKIAMADEUPFORTESTS12"


class Server:
    """A server that is running, and how to reach it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "5",
        }

    def fail(self, **faults: Any) -> None:
        """Tell the server how to fail; nothing has it work again."""
        (self.folder / "faults.json").write_text(json.dumps(faults))

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Collect the requests of a context."""
        log = self.folder / "requests.log"
        start = len(log.read_text().splitlines()) if log.exists() else 0
        found: list[str] = []
        yield found
        found += log.read_text().splitlines()[start:]


class Bucket:
    """A new bucket."""

    def __init__(self, server: Server) -> None:
        import fsspec

        self.server, self.name = server, f"bucket-{secrets.token_hex(6)}"
        self.files = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        self.files.mkdir(self.name)

    @property
    def url(self) -> str:
        return f"s3://{self.name}/some/store"

    def put(self, store: Path, url: str | None = None) -> str:
        """Put the files of a store there, as they are; returns its address."""
        url = url or self.url
        paths = [path for path in store.rglob("*") if path.is_file()]

        def put_one(path: Path) -> None:
            self.files.pipe_file(f"{url}/{path.relative_to(store).as_posix()}", path.read_bytes())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put_one, paths))
        return url

    def contents(self, url: str | None = None) -> dict[str, bytes]:
        """Every object below an address, by its name there."""
        url = url or self.url
        root = url.removeprefix("s3://")
        found = self.files.find(url)
        if not found:
            return {}
        return {
            name.removeprefix(f"{root}/"): content
            for name, content in self.files.cat(found).items()
        }


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Run a server; its process ends with the context."""
    code = Path(__file__).with_name("s3_server.py")
    environment = {name: v for name, v in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [sys.executable, str(code), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            yield Server(int(process.stdout.readline()), folder)
        finally:
            process.kill()
