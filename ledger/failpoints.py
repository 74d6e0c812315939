"""Crash at a named point: the tests' way to prove that every step may be the last.

Armed by `STOCKLEDGER_FAILPOINTS="seal=kill@3,load=raise"`: at the third time the step `seal` is
reached the process kills itself (SIGKILL), at the first time `load` is reached it raises. `stop` sends
SIGSTOP, `pause` sleeps for 3 seconds. Unarmed, a point costs one dictionary look-up.

Whoever measures a worker hears of the same points (`watching`).
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEPS = (
    "claim",
    "decode",
    "begin",
    "dedup",
    "load",
    "decide",
    "seal",
    "sending",
    "committed",
    "advanced",
)
"""Every named point, in the order in which a batch reaches them."""

REBUILD_STEPS = (
    "rebuild.begin",
    "rebuild.chunk",
    "rebuild.applied",
    "rebuild.caught_up",
    "rebuild.compare",
    "rebuild.compared",
    "rebuild.swap",
    "rebuild.swapped",
    "rebuild.drop",
    "follow.applied",
)
"""The same for a rebuild, and a follower."""

RELAY_STEPS = ("relay.fenced", "relay.begun", "relay.placed", "relay.sent", "relay.committed")
"""The same for the relay."""


class Injected(Exception):
    """What an armed `raise` raises; nobody's business to handle."""


def _parse(text: str) -> dict[str, tuple[str, int]]:
    armed = {}
    for item in filter(None, text.split(",")):
        step, _, action = item.partition("=")
        kind, _, count = action.partition("@")
        if step not in STEPS + REBUILD_STEPS + RELAY_STEPS or kind not in ("kill", "raise", "stop", "pause"):
            raise ValueError(f"STOCKLEDGER_FAILPOINTS: unknown point or action: {item}")
        armed[step] = (kind, int(count or 1))
    return armed


_armed = _parse(os.environ.get("STOCKLEDGER_FAILPOINTS", ""))
_watchers: list[Callable[[str], None]] = []


def hit(step: str) -> None:
    """Pass the named point, or die there."""
    for watcher in _watchers:
        watcher(step)
    if step not in _armed:
        return
    kind, count = _armed[step]
    if count > 1:
        _armed[step] = (kind, count - 1)
        return
    del _armed[step]
    if kind == "raise":
        raise Injected(step)
    if kind == "pause":
        time.sleep(3)
    else:
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)


@contextmanager
def watching(watcher: Callable[[str], None]) -> Iterator[None]:
    """Have the watcher called at each point that this process passes; in the thread that does."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
