"""A TCP proxy on 127.0.0.1 that loses what a network can lose: connections, time, and one chosen answer."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

CHUNK_BYTES = 1 << 16


@dataclass
class Loss:
    """The answer to the next request that `asked` accepts, up to the reply that `answered` accepts."""

    asked: Callable[[bytes], bool]
    answered: Callable[[bytes], bool]
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Forwards every connection to `host:port`; a context manager. Its controls work from any thread."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[Link] = []
        self._lock = threading.Lock()  # a link is in the list before a cut can miss it
        self._flows = threading.Event()
        self._flows.set()
        self._loss: Loss | None = None
        self._is_refusing = False
        self._accepting = spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more connections and cut the open ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut()

    def cut(self) -> None:
        """End every open connection, for both of its sides; new ones are taken. Ends a stall."""
        self.resume()
        with self._lock:
            while self._links:
                self._links.pop().close()

    def refuse(self) -> None:
        """End every connection, and each new one at once, until `accept`."""
        with self._lock:
            self._is_refusing = True
        self.cut()

    def accept(self) -> None:
        """Take connections again."""
        self._is_refusing = False

    def stall(self) -> None:
        """Hold every byte back, both ways, until `resume`; connections stay open, and new ones are taken."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def lose_answer(
        self, asked: Callable[[bytes], bool], answered: Callable[[bytes], bool] = bool
    ) -> threading.Event:
        """Lose the answer to the next request that `asked` accepts: it takes effect, its sender can't know.

        The request is forwarded; what the server says from then on is withheld; when it has said something
        that `answered` accepts, the connection is cut and the returned event is set. A predicate sees one
        chunk as it came from the socket, not a message of the protocol.
        """
        self._loss = Loss(asked, answered)
        return self._loss.happened

    def _take_loss(self, request: bytes) -> Loss | None:
        loss = self._loss
        if loss is None or not loss.asked(request):
            return None
        self._loss = None
        return loss

    def _accept(self) -> None:
        with suppress(OSError):  # stop() shut the listener down
            while True:
                client, _ = self._listener.accept()
                self._link(client)

    def _link(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        with self._lock:
            if not self._is_refusing:
                self._links.append(Link(client, server, self._flows, self._take_loss))
                return
        client.close()
        server.close()


class Link:
    """A client's connection to the proxy, the proxy's to the server, and a thread each way."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        flows: threading.Event,
        take_loss: Callable[[bytes], Loss | None],
    ) -> None:
        self._client, self._server = client, server
        self._flows, self._take_loss = flows, take_loss
        self._loss: Loss | None = None
        self._threads = [spawn(self._forward_requests), spawn(self._forward_replies)]

    def close(self) -> None:
        self._shut()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def _forward_requests(self) -> None:
        for request in self._chunks(self._client):
            self._loss = self._loss or self._take_loss(request)
            with suppress(OSError):
                self._server.sendall(request)

    def _forward_replies(self) -> None:
        for reply in self._chunks(self._server):
            if self._loss is None:
                with suppress(OSError):
                    self._client.sendall(reply)
            elif self._loss.answered(reply):
                self._shut()
                self._loss.happened.set()

    def _chunks(self, source: socket.socket) -> Iterator[bytes]:
        """What arrives, once it may flow; when one side is done, both are."""
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                self._flows.wait()
                yield chunk
        self._shut()

    def _shut(self) -> None:
        """Before any close: only a shutdown wakes the threads that wait in recv."""
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def spawn(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread
