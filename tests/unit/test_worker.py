"""What a worker does where there is no service to work with."""

import socket

import pytest
import structlog

from consumer import worker
from consumer.worker import Worker, WorkerSettings
from ledger.errors import Unavailable


def test_a_run_that_somebody_waits_for_gives_up_on_an_unreachable_database(monkeypatch):
    """`--until-caught-up` ends with the fault once its patience is spent: no script hangs for ever."""
    monkeypatch.setattr(worker, "PATIENCE_S", 0.5)
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        dsn = f"host=127.0.0.1 port={taken.getsockname()[1]} dbname=none"
        settings = WorkerSettings(dsn, {}, ("commands",), "stockledger", until_caught_up=True)
        quiet = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("critical"))
        with pytest.raises(Unavailable):
            Worker(settings, quiet).run()
