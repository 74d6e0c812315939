"""The command line as people and scripts use it: a process of its own, its exit code, its one JSON object.

    stockledger = Cli(dsn, bootstrap_servers, topic)
    assert stockledger("publish", "orders.jsonl")["published"] == 3
    refused = stockledger("publish", "bad.jsonl", exits=4)

For a worker that goes on running, see `tests.support.workers`.
"""

import json
import os
import subprocess
import sys
from typing import Any

from tests.support import shapes

TIMEOUT_S = 120
TOLD_MAX = 3_000


class Cli:
    """`stockledger` with this ledger's and topic's settings in its environment, and no others."""

    def __init__(self, dsn: str, bootstrap_servers: str, topic: str, **settings: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STOCKLEDGER_")}
        named = {"DSN": dsn, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "TOPIC": topic, **settings}
        self.environment = inherited | {f"STOCKLEDGER_{name}": value for name, value in named.items()}
        self.said = ""
        """What the last verb has said on stderr."""

    def __call__(self, *words: object, exits: int = 0, stdin: str = "") -> dict[str, Any]:
        """Run the verb with `--json` and return the object; it must end with this exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "stockledger", *map(str, words), "--json"],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        self.said = done.stderr
        told = f"{words} ended with {done.returncode}: {(done.stdout + done.stderr)[-TOLD_MAX:]}"
        assert done.returncode == exits, told
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["ok"] is (exits == 0), told
        assert shapes.undocumented(words, answer) == [], "docs/FORMAT.md lacks members of --json"
        return answer

    def peak_mb(self, *words: object) -> float:
        """Run the verb, which must succeed: the most memory that it had."""
        measured = (
            "import resource, subprocess, sys;"
            "code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL);"
            "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        command = [sys.executable, "-m", "stockledger", *map(str, words), "--json"]
        done = subprocess.run(
            [sys.executable, "-c", measured, *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=2 * TIMEOUT_S,
            check=True,
        )
        code, peak_kb = map(int, done.stdout.split())
        assert code == 0, words
        return peak_kb / 1024
