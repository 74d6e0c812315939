"""Whoever watches a process over HTTP: its pages, and its metrics by name and labels."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.support.workers import PATIENCE_S, Told, wait_for

Labels = frozenset[tuple[str, str]]


class Seen(NamedTuple):
    """An answer."""

    status: int
    media_type: str
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


class Watcher:
    """Asks one process, each time on a connection of its own."""

    def __init__(self, address: str, token: str = "") -> None:
        self.host, self.port = urlsplit(address).hostname or "", urlsplit(address).port or 0
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def of(cls, process: Told) -> "Watcher":
        """Of a process that was given `--http`."""
        [line] = process.says("watched")
        return cls(line["address"])

    def get(self, path: str, method: str = "GET", timeout_s: float = PATIENCE_S) -> Seen:
        """Raises OSError, or what `http.client` raises for an answer that was cut short."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, headers=self._headers)
            answer = connection.getresponse()
            return Seen(answer.status, answer.getheader("Content-Type", ""), answer.read().decode())
        finally:
            connection.close()

    @property
    def live(self) -> bool:
        return self.get("/livez").status == 200

    @property
    def ready(self) -> bool:
        return self.get("/readyz").status == 200

    def metrics(self) -> dict[tuple[str, Labels], float]:
        """Every sample by its name and labels."""
        told = self.get("/metrics")
        assert told.status == 200, told
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(told.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sample's value; -1: there is none."""
        return self.metrics().get((name, frozenset(labels.items())), -1)

    def shows(self, name: str, value: float, **labels: str) -> None:
        """Wait until it has that value."""
        wait_for(f"{name} {labels} {value}", lambda: self.value(name, **labels) == value)

    @contextmanager
    def scraped_without_pause(self) -> Iterator[None]:
        """Meanwhile three ask for the metrics again and again, until they are refused.

        By then the process has ended, inside the block. Each answer was whole, or there was none.
        """
        answers: list[str] = []
        torn: list[http.client.HTTPException] = []

        def scrape() -> None:
            while True:
                try:
                    answers.append(self.get("/metrics").text)
                except OSError:
                    return
                except http.client.HTTPException as fault:  # nothing came, which is a refusal, or a part
                    torn.append(fault)
                    return

        threads = [threading.Thread(target=scrape) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for("answers", lambda: len(answers) > 10)
        yield
        for thread in threads:
            thread.join()
        assert all(answer.endswith("\n") and "stockledger_build_info" in answer for answer in answers)
        assert [fault for fault in torn if isinstance(fault, http.client.IncompleteRead)] == []
