"""`pytest -n 4`: who runs which tests. pytest-xdist starts the workers; this gives out tests and services.

A file stays together on one worker, in its order, unless it is named in SPREAD. What takes long begins first.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.support.lending import Lender

ALONE = {
    "tests/kafka/test_broker_faults.py",
    "tests/kafka/test_gateway_fire.py",
    "tests/kafka/test_large.py",
    "tests/kafka/test_publisher.py",
}
"""They kill, freeze or flood the broker: one after the other, by the worker that has a broker to itself."""

TOGETHER = {
    "tests/e2e/test_cli_answers.py": "the group by default",
    "tests/e2e/test_known_topic.py": "the group by default",
    "tests/e2e/test_readme.py": "the group by default",
    "tests/e2e/test_tutorial.py": "the group by default",
    "tests/kafka/test_gateway.py": "the open shop",
    "tests/kafka/test_gateway_document.py": "the open shop",
    "tests/kafka/test_gateway_guard.py": "the open shop",
    "tests/kafka/test_gateway_raw.py": "the open shop",
    "tests/kafka/test_gateway_slow.py": "the open shop",
    "tests/kafka/test_gateway_idempotency.py": "the open shop",
    "tests/kafka/test_gateway_reads.py": "the open shop",
    "tests/kafka/test_gateway_stock.py": "the open shop",
    "tests/kafka/test_gateway_streams.py": "the open shop",
}
"""Files that would meet each other, by what they have in common."""

SPREAD = {
    "tests/chaos/test_sigkill.py",
    "tests/e2e/test_how_to.py",
    "tests/e2e/test_routed_month.py",
    "tests/kafka/test_lifecycle.py",
    "tests/kafka/test_postgres_faults.py",
    "tests/kafka/test_unreachable_broker.py",
    "tests/postgres/test_interleavings_generations.py",
    "tests/postgres/test_verify.py",
}
"""Long files whose tests share nothing: each test is on its own."""

SECONDS = {
    "the group by default": 240,
    "the open shop": 120,
    "tests/kafka/test_lost_tail.py": 240,
    "tests/kafka/test_shop.py": 40,
    "tests/e2e/test_publish_run_answer.py": 190,
    "tests/chaos/test_rebuild_kills.py": 120,
    "tests/postgres/test_verify_parts.py": 100,
    "tests/postgres/test_cache_contract.py": 100,
    "tests/kafka/test_waits.py": 90,
    "tests/kafka/test_topic_changes.py": 90,
    "tests/chaos/test_sigkill.py": 90,
    "tests/e2e/test_demo.py": 80,
    "tests/postgres/test_replay.py": 80,
    "tests/postgres/test_settings_sweep.py": 80,
    "tests/kafka/test_rights.py": 70,
    "tests/kafka/test_topics.py": 70,
    "tests/e2e/test_several_topics.py": 70,
    "tests/test_spec.py": 60,
    "tests/kafka/test_group.py": 60,
    "tests/e2e/test_compose.py": 50,
    "tests/postgres/test_interleavings_generations.py": 50,
    "tests/kafka/test_routed.py": 50,
    "tests/kafka/test_postgres_faults.py": 40,
    "tests/e2e/test_how_to.py": 30,
    "tests/e2e/test_routed_month.py": 20,
    "tests/kafka/test_lifecycle.py": 15,
}
"""How long a file takes, or a test of one in SPREAD, on slow cores; roughly, and only what takes long."""

ENDING_S = 60
"""For a test that was interrupted and takes down what it has started."""


class SideBySide:
    """The plugin of the process that was started; workers have none."""

    def __init__(self, seed: int) -> None:
        self.lender = Lender()
        self._seed = seed
        self._alone: str | None = None

    @pytest.hookimpl
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a worker the run's seed and where the services are; the first one has a broker alone."""
        name = node.gateway.id
        self._alone = self._alone or name
        node.workerinput |= {
            "seed": self._seed,
            "lender": self.lender.address,
            "alone": name == self._alone,
        }

    @pytest.hookimpl
    def pytest_keyboard_interrupt(self) -> None:
        """A terminal's Ctrl-C reaches this process alone. It hands it on, so that tests clean up."""
        self.lender.interrupt(ENDING_S)

    @pytest.hookimpl
    def pytest_testnodedown(self, node: WorkerController) -> None:
        if node.gateway.id == self._alone:
            self._alone = None  # the one that replaces it takes over

    @pytest.hookimpl
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        return Scheduler(config, log)

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        self.lender.stop()


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Gives out what takes longest first; what ALONE names, to the worker that has a broker alone."""

    assigned_work: dict[WorkerController, Any]

    def add_node(self, node: WorkerController) -> None:
        super().add_node(node)
        if node.workerinput["alone"]:  # of more workers than work, the last ones are sent home
            self.assigned_work = {node: self.assigned_work.pop(node), **self.assigned_work}

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in SPREAD else TOGETHER.get(file, file)

    def _next_for(self, node: WorkerController) -> str | None:
        alone = node.workerinput["alone"]
        fit = [scope for scope in self.workqueue if alone or scope not in ALONE]
        return max(
            fit, key=lambda scope: (scope in ALONE, SECONDS.get(scope.partition("::")[0], 0)), default=None
        )

    def _assign_work_unit(self, node: WorkerController) -> None:
        scope = self._next_for(node)
        if scope is None:
            node.shutdown()
            return
        self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if node.shutting_down:
            return
        if self._next_for(node) is None:
            node.shutdown()
        elif self._pending_of(self.assigned_work[node]) <= 1:
            self._assign_work_unit(node)
