"""Serving on this machine until Ctrl-C."""

import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.commands.asking.exploring.desk import Shown
    from moedb.commands.asking.exploring.open_store import OpenStore

_ADDRESS = "127.0.0.1"
_MOST_CONNECTIONS = 100
_PATIENCE = 1
"""Seconds that answers that are being sent get when the server ends."""


def serve(
    store: "OpenStore",
    shown: "Shown",
    port: int,
    seconds: float,
    ready: Callable[[str], None],
) -> None:
    """Serve until the process is interrupted.

    Parameters
    ----------
    store
        The store.
    shown
        What is shown first.
    port
        The port; 0 for one that is free.
    seconds
        How long a statement may take.
    ready
        Called with the address that opens it, once requests reach it.

    Raises
    ------
    UsageError
        If the port is not to be had.
    """
    import uvicorn

    from moedb.commands.asking.exploring.http.guard import TOKEN, Guard
    from moedb.commands.asking.exploring.http.routes import Routes

    token = secrets.token_urlsafe(32)
    with _listening(port) as listening:
        number = listening.getsockname()[1]
        app = Guard(Routes(store, shown, seconds).app(), token, number)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_PATIENCE,
            h11_max_incomplete_event_size=32 * 1024,
        )
        ready(f"http://{_ADDRESS}:{number}/?{TOKEN}={token}")
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # Ctrl-C is how it ends
        finally:
            store.stop()


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((_ADDRESS, port), backlog=_MOST_CONNECTIONS)
    except OSError as error:
        raise UsageError(
            f"cannot listen on port {port}: {error.strerror or error}",
            "another --port, or none for one that is free",
        ) from error
