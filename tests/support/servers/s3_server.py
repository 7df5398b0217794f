"""A server of S3 for a test: moto's, in a process of its own, that fails when it is told to.

Run as a program it prints its port. It takes requests as they come, writes a line for each into
``requests.log`` of its folder, and looks into ``faults.json`` there:

``fail``
    So many requests are answered by 503, those that ``methods`` names.
``seconds``
    Each answer takes so long.
``full``
    Whatever is written is refused, as a bucket does whose quota is used up.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Failing:
    """An application that fails when it is told to."""

    def __init__(self, application: Application, folder: Path) -> None:
        self._application, self._folder = application, folder
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        what = f"{method} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        with self._lock:
            with (self._folder / "requests.log").open("a") as log:
                log.write(f"{what} {environ.get('HTTP_RANGE', '')}\n")
            faults = self._faults()
            fails = faults.get("fail", 0) > 0 and method in faults.get("methods", [method])
            if fails:
                faults["fail"] -= 1
                (self._folder / "faults.json").write_text(json.dumps(faults))
        time.sleep(faults.get("seconds", 0))
        if fails:
            return self._refuse(environ, start, "503 Service Unavailable", "SlowDown")
        if faults.get("full") and method in ("PUT", "POST"):
            return self._refuse(environ, start, "403 Forbidden", "QuotaExceeded")
        return self._application(environ, start)

    def _refuse(
        self, environ: dict[str, Any], start: Callable[..., Any], status: str, code: str
    ) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH")
        environ["wsgi.input"].read(int(length) if length else 0)
        body = f"<Error><Code>{code}</Code><Message>told to refuse</Message></Error>".encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _faults(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder / "faults.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found


def serve(folder: Path) -> None:
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    application = Failing(DomainDispatcherApplication(create_backend_app), folder)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
