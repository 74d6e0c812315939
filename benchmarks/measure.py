"""What a contender costs: CPU time, WAL, memory; and the disk's own speed. All from outside the contender.

CPU time is read from /proc, so only where the process runs on this machine; containers are found, too,
because their processes are visible from the host. What can't be found is None, and said to be skipped.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE = 8192


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum over the rounds."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Run:
    """One contender, once. CPU in microseconds a command, WAL in bytes a command, memory (peak) in MB."""

    commands: int
    seconds: float
    cpu_worker_us: float | None = None
    cpu_postgres_us: float | None = None
    cpu_broker_us: float | None = None
    wal_bytes: float | None = None
    memory_mb: float | None = None
    batch_mean: float | None = None
    """Commands a transaction, as it turned out: never more than asked for, often fewer."""

    @property
    def rate(self) -> float:
        """Commands a second."""
        return self.commands / self.seconds

    def as_json(self) -> dict[str, float | None]:
        """The run as results/*.json has it."""
        return {"rate": self.rate, **asdict(self)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the sorted values don't exceed: no interpolation."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def cpu_s(pids: Iterable[int], *, with_children: bool = False) -> float:
    """CPU seconds, user and system, of the processes so far; with those of the children they have or had."""
    stats = _stats() if with_children else {pid: found for pid in pids if (found := _stat(pid))}
    total = 0.0
    for pid, (parent, own, reaped) in stats.items():
        if pid in pids:
            total += own + (reaped if with_children else 0)
        elif with_children and parent in pids:
            total += own + reaped
    return total / TICKS_PER_S


def memory_peak_mb(pids: Iterable[int]) -> float | None:
    """The largest resident size that any of the processes ever had."""
    peaks = []
    for pid in pids:
        with suppress(OSError):
            for line in (PROC / str(pid) / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peaks.append(int(line.split()[1]) / 1024)
    return max(peaks, default=None)


def postmaster(database: str) -> int | None:
    """The pid of the Postgres server that has a session in this database, if it runs on this machine."""
    for pid, title in _titles():
        if title.startswith(b"postgres: ") and database.encode() in title and (found := _stat(pid)):
            return found[0]
    return None


def broker(port: int) -> int | None:
    """The pid of the Kafka broker that listens on this port, if it runs on this machine."""
    for pid, title in _titles():
        if b"kafka.Kafka" in title and _listens(pid, port):
            return pid
    return None


def fdatasync_us(seconds: float = 1.0) -> Spread:
    """Microseconds to write 8 KiB over a file that is there and to have it on the disk, one after the other.

    Percentiles 10, 50 and 90, in this folder: /tmp may be memory. What `pg_test_fsync` does for fdatasync.
    """
    page = os.urandom(PAGE)
    times: list[float] = []
    with tempfile.TemporaryFile(dir=Path(__file__).parent) as file:
        file.write(page * 2048)
        file.flush()
        os.fsync(file.fileno())
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            begun = time.perf_counter()
            os.pwrite(file.fileno(), page, len(times) % 2048 * PAGE)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e6)
    times.sort()
    return Spread(percentile(times, 0.1), percentile(times, 0.5), percentile(times, 0.9))


def _stat(pid: int) -> tuple[int, int, int] | None:
    """Parent, own ticks, ticks of the children that it has reaped. Source: proc_pid_stat(5)."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if PROC.exists() else []


def _stats() -> dict[int, tuple[int, int, int]]:
    return {pid: found for pid in _pids() if (found := _stat(pid))}


def _titles() -> Iterable[tuple[int, bytes]]:
    for pid in _pids():
        with suppress(OSError):
            yield pid, (PROC / str(pid) / "cmdline").read_bytes()


def _listens(pid: int, port: int) -> bool:
    """Whether it has a listening TCP socket on the port, in its own network namespace."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    with suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(descriptor) in inodes:
                    return True
    return False
