"""The server around the application: it listens, and it ends in time with every request in hand answered.

When it is asked to end, `/readyz` says so for a moment while all else goes on. Then whoever still waits is
told what is known by then, and the port is closed.
"""

import asyncio
import logging
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uvicorn

from gateway import connections
from gateway.app import application
from gateway.connections import Patience
from gateway.door import Door, Reads
from gateway.guard import Asgi, DoorLog, Guard, Hosts
from gateway.till import Till
from gateway.tokens import Callers
from gateway.traces import traced
from ledger.errors import BadSettings
from ledger.signals import LOOK_INTERVAL_S, Asked

DRAIN_LEAST_S = 1.0
"""`/readyz` says 503 for as long as that before the port is closed."""
DRAIN_MOST_S = 2.5
BACKLOG = 2048


@dataclass(frozen=True)
class ServerTerms:
    """Where it listens, and what it bears."""

    host: str
    port: int
    hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    per_s: float = 1000.0
    waiting_max: int = 1000


class ServerLog(DoorLog, Protocol):
    """Who is told how it goes."""

    def ready(self, address: str) -> None:
        """It listens there."""
        ...

    def ending(self, in_hand: int) -> None:
        """It was asked to end, with so many requests in hand."""
        ...


def serve(
    till: Till, reads: Reads, callers: Callers, terms: ServerTerms, version: str, stop: Asked, log: ServerLog
) -> None:
    """Answer requests until `stop` is set. Raises BadSettings where it can't listen there."""
    door = Door(till, reads, terms.waiting_max, callers)
    guard = Guard(
        application(door, version), Hosts([terms.host, *terms.hosts]), callers, terms.per_s, log, door.meter
    )
    listening = listen(terms)
    with listening:
        asyncio.run(_serve(traced(guard), door, terms, listening, stop, log))


def listen(terms: ServerTerms) -> socket.socket:
    """A socket that listens there. Raises BadSettings where that can't be."""
    family = socket.AF_INET6 if ":" in terms.host else socket.AF_INET
    try:
        made = socket.create_server((terms.host, terms.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BadSettings(
            f"can't listen on {terms.host} port {terms.port}: {error.strerror}",
            remedy="choose another address with --host and --port",
        ) from None
    # Each connection has it from here: asyncio sets it only on sockets made with a protocol's number.
    # Without it an answer's body waits until the client acknowledges its head, which takes it 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


async def _serve(
    app: Asgi, door: Door, terms: ServerTerms, listening: socket.socket, stop: Asked, log: ServerLog
) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=connections.connection_class(connections.places()),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=connections.KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            ssl_certfile=terms.certificate,
            ssl_keyfile=terms.key,
        )
    )
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it quotes what it can't read
    try:
        server.config.load()
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(
            f"the certificate or its key can't be used: {error}",
            remedy="give both as openssl writes them",
        ) from None
    running = asyncio.create_task(server.serve([listening]))
    port = listening.getsockname()[1]
    scheme = "https" if terms.certificate else "http"
    host = f"[{terms.host}]" if ":" in terms.host else terms.host
    while not server.started and not running.done():
        await asyncio.sleep(LOOK_INTERVAL_S)
    log.ready(f"{scheme}://{host}:{port}")
    patient = asyncio.create_task(_be_patient(server))
    while not stop.is_set() and not running.done():
        door.meter.look(door.reads.cache)
        await asyncio.sleep(LOOK_INTERVAL_S)
    door.is_draining = True
    log.ending(door.meter.in_hand)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < DRAIN_MOST_S and (
        door.meter.in_hand or passed < DRAIN_LEAST_S
    ):
        await asyncio.sleep(LOOK_INTERVAL_S)
    door.end_waiting()
    server.should_exit = True
    await running
    patient.cancel()


async def _be_patient(server: uvicorn.Server) -> None:
    """Cut whoever keeps the server waiting for too long, as long as it runs."""
    patience = Patience()
    while True:
        await asyncio.sleep(connections.LOOK_INTERVAL_S)
        patience.look(list(server.server_state.connections))
