"""Workers that are killed (SIGKILL) at random moments and replaced at once."""

import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.support import retail
from tests.support.workers import Group, Process

WORKERS = 2
BOTH = 0.2
"""How likely a strike hits both workers at once."""
AT_WORK = 0.6
"""How likely a strike waits until something is being applied, and then hits the worker that does it."""
TRIES = 50
"""How often such a strike looks for the worker inside a transaction, before it hits it elsewhere."""
PAUSE_MAX_S = 2.0
SESSION_TIMEOUT_MS = 1_500
"""As short as a busy machine bears: a dead member's lanes stand still for so long."""

# What the victim's database session is doing: between batches, or the statement of its transaction.
PHASE = r"""
SELECT CASE WHEN a.xact_start IS NULL THEN 'between batches'
            ELSE 'in a transaction: ' || substring(a.query FROM '\s*(\w+( ledger\.\w+)?)') END
FROM ledger.lane l JOIN pg_stat_activity a ON a.pid = l.backend_pid AND a.backend_start = l.backend_start
WHERE l.owner_pid = %s LIMIT 1
"""
NUMBERED = re.compile("in a transaction: (?!BEGIN|COMMIT)")
"""A transaction that has taken its entry's number."""
AT_WORK_NOW = """
SELECT l.owner_pid FROM ledger.journal j JOIN ledger.lane l USING (topic, partition)
ORDER BY j.position DESC LIMIT 1
"""


class Crew:
    """Workers, each a `stockledger run` of its own, that are killed and replaced at once."""

    def __init__(self, group: Group, conn: psycopg.Connection, seed: int, batch_sizes: Sequence[int]) -> None:
        self.phases: Counter[str] = Counter()  # in which phase the kills hit
        self._group, self._conn, self._choose = group, conn, random.Random(seed)
        self._batch_sizes = batch_sizes
        self._workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> Process:
        return self._group.start("--batch", str(self._choose.choice(self._batch_sizes)))

    def strike(self, step: int, published: int) -> None:
        """At a random moment SIGKILL one worker or both, and start others in their place."""
        victims = list(range(WORKERS))
        self._choose.shuffle(victims)
        if self._choose.random() < AT_WORK:
            further = self._choose.randrange(step // 2)
            goal = min(retail.delivered(self._conn) + further, published - step // 4)
            retail.wait_for_deliveries(self._conn, goal)
            time.sleep(self._choose.uniform(0, 0.02))
            [(busy,)] = self._conn.execute(AT_WORK_NOW)
            victims.sort(key=lambda number: self._workers[number].pid != busy)
            self._freeze_in_transaction(self._workers[victims[0]])
        else:
            time.sleep(self._choose.uniform(0, PAUSE_MAX_S))
        for number in victims[: WORKERS if self._choose.random() < BOTH else 1]:
            self._kill(self._workers[number])
            self._workers[number] = self._start()

    def _freeze_in_transaction(self, victim: Process) -> None:
        """Stop it (SIGSTOP) in the midst of a transaction, or let it run after so many tries.

        One that runs is out of its transaction, which takes some milliseconds, before a kill can reach it.
        """
        for _ in range(TRIES):
            victim.send(SIGSTOP)
            victim.frozen()
            if NUMBERED.match(self._phase(victim)):
                return
            victim.send(SIGCONT)
            time.sleep(self._choose.uniform(0, 0.02))

    def _phase(self, worker: Process) -> str:
        row = self._conn.execute(PHASE, [worker.pid]).fetchone()
        return row[0] if row else "without a lane" if worker.said("ready") else "starting"

    def _kill(self, victim: Process) -> None:
        phase = self._phase(victim)
        assert victim.alive, f"a worker ended by itself: {victim.logged[-5:]}"
        victim.send(SIGKILL)
        assert victim.ended() == -SIGKILL
        self.phases[phase] += 1

    def stop(self) -> None:
        """The last ones end as told, once they have begun to listen."""
        for worker in self._workers:
            worker.says("ready")
            worker.send(SIGTERM)
        assert [worker.ended() for worker in self._workers] == [0] * WORKERS


def short_session(group: Group, protocol: str) -> dict[str, str]:
    """What the group's members need for the shortest session that is of use and that the broker grants."""
    admin = AdminClient({**group.kafka, "log_level": "0"})
    if protocol == "consumer":  # then it is the broker's business
        timeout = ConfigEntry(
            "consumer.session.timeout.ms",
            str(SESSION_TIMEOUT_MS),
            incremental_operation=AlterConfigOpType.SET,
        )
        resource = ConfigResource(ResourceType.GROUP, group.name, incremental_configs=[timeout])
        try:
            admin.incremental_alter_configs([resource])[resource].result(60)
        except KafkaException as refused:
            pytest.skip(f"the broker grants no session of {SESSION_TIMEOUT_MS} ms: {refused.args[0].str()}")
        return {"group.protocol": "consumer"}
    [broker] = list(admin.list_topics(timeout=60).brokers)[:1]
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    settings = admin.describe_configs([resource])[resource].result(60)
    timeout_ms = max(SESSION_TIMEOUT_MS, int(settings["group.min.session.timeout.ms"].value))
    return {"session.timeout.ms": str(timeout_ms), "heartbeat.interval.ms": str(timeout_ms // 5)}
