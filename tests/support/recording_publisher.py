"""A publisher that writes into a file what it is asked to send: a killed process leaves the truth behind."""

import json
import os
from pathlib import Path

from producer.publisher import Publisher
from producer.routing import Routing
from producer.tally import Tally


class RecordingPublisher(Publisher):
    """Takes the place of `Publisher` for `publish_lines`; acknowledges all. `on_send(count)` may strike."""

    topic = "commands"
    partitions = 0
    routing = Routing()

    def __init__(self, record: Path, source="shop", on_send=lambda count: None):
        self.source = source
        self._record = record
        self._on_send = on_send
        self._sent = 0

    def connect(self, timeout_s=None):
        self.partitions = 4

    def post(self, ready, id, on_report=None):
        line = json.dumps([ready.source, id, ready.name, json.loads(ready.value)]) + "\n"
        with self._record.open("a") as file:
            file.write(line)
            file.flush()
            os.fdatasync(file.fileno())
        self._sent += 1
        self._on_send(self._sent)

    def poll(self, timeout_s):
        pass

    def flush(self, timeout_s=None):
        return self.tally

    def check(self):
        pass

    @property
    def tally(self):
        return Tally(self._sent, 0, 0)


def recorded(record: Path):
    """What was sent, in order: (source, id, name, fields)."""
    return [tuple(json.loads(line)) for line in record.read_text().splitlines()] if record.exists() else []
