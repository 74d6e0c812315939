"""The relay killed at any point, over and over.

`STOCKLEDGER_TEST_RELAY_KILLS=500` kills so many; `--seed` kills the same ones again.
"""

import os
import random
import time
from collections import Counter
from signal import SIGKILL

import pytest

from ledger import failpoints

pytestmark = pytest.mark.real_kafka
KILLS = int(os.environ.get("STOCKLEDGER_TEST_RELAY_KILLS", "12"))
ANY_MOMENT = ""
POINTS = (*failpoints.RELAY_STEPS, ANY_MOMENT)
LIFE_MAX_S = 0.3
PROVED_EVERY = 60


class Hunter:
    """Starts relays, and sees to it that none of them lives long."""

    def __init__(self, relayed, choose):
        self.kills: Counter[str] = Counter()
        self._relayed = relayed
        self._choose = choose

    def strike(self, point):
        """One relay less, at this point or at any moment."""
        hit = 1 if point == "relay.fenced" else self._choose.randint(1, 2)
        process = self._relayed.start(armed=f"{point}=kill@{hit}" if point else "")
        if point == ANY_MOMENT:
            if self._choose.random() < 0.8:
                process.says("ready")  # most of its short life would be the start
            time.sleep(self._choose.random() * LIFE_MAX_S)
            process.send(SIGKILL)
        assert process.ended() == -SIGKILL, process.logged
        self._relayed.processes.remove(process)
        self.kills[point or "any moment"] += 1


@pytest.mark.slow
@pytest.mark.timeout(300 + 30 * KILLS)
def test_it_may_be_killed_at_any_point(relayed, seed):
    """After each SIGKILL the next relay goes on exactly where the last commit was."""
    choose = random.Random(seed)
    hunter = Hunter(relayed, choose)
    for number in range(KILLS):
        if number % len(POINTS) == 0:
            relayed.sell(f"sale-{number}", 120)
        hunter.strike(POINTS[number % len(POINTS)])
        if (number + 1) % PROVED_EVERY == 0:
            relayed.catches_up()
            relayed.proves()
            print(f"{dict(hunter.kills)}", flush=True)
    assert hunter.kills.total() == KILLS
    relayed.catches_up()
    relayed.proves()
