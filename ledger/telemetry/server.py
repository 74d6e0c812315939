"""A small HTTP server for whoever watches a process: it can't be made to cost more than a few threads.

One request a connection, a few seconds for all of it, and so many at once: where one more comes, the oldest
is cut off. So a client that says nothing, or reads nothing, keeps no other one out.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple
from urllib.parse import urlsplit

CONNECTIONS_MAX = 8
REQUEST_MAX_S = 5.0
LOOK_INTERVAL_S = 0.2
END_MAX_S = 0.5
"""How long an answer in hand holds up the end."""


class WatchPage(NamedTuple):
    """An answer."""

    status: int
    media_type: str
    body: bytes


Pages = Callable[[str, str], WatchPage]
"""The page of a path, for who accepts that."""


class WatchServer(ThreadingMixIn, HTTPServer):
    """Answers GET and HEAD from threads of its own, until `close`. Raises OSError where it can't listen."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._open: dict[Any, float] = {}
        """Each connection, and when it came; the oldest first."""
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((host, port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(LOOK_INTERVAL_S,), name="stockledger-watch", daemon=True
        )
        self._thread.start()

    def server_bind(self) -> None:
        """Without asking the network for its own name, as HTTPServer does."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a connection, in the place of the oldest one where there is no other."""
        if not self._free.acquire(blocking=False):
            self._cut([*self._open][:1])
            self._free.acquire()
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection ends."""
        super().shutdown_request(request)
        if self._open.pop(request, None) is not None:
            self._free.release()

    def service_actions(self) -> None:
        """Now and then: cut off who takes too long."""
        late = time.monotonic() - REQUEST_MAX_S
        self._cut([each for each, since in [*self._open.items()] if since < late])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _cut(self, connections: list[Any]) -> None:
        for each in connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Answer what is in hand, for a moment, and let go of the port."""
        self.shutdown()
        until = time.monotonic() + END_MAX_S
        while self._open and time.monotonic() < until:
            time.sleep(0.01)
        self._cut([*self._open])
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = REQUEST_MAX_S

    def do_GET(self) -> None:
        page = self.server.pages(urlsplit(self.path).path, self.headers.get("Accept", ""))
        self.send_response(page.status)
        self.send_header("Content-Type", page.media_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815 (the names are the base class's)

    def version_string(self) -> str:
        return "stockledger"

    def log_message(self, *_: object) -> None:
        return
