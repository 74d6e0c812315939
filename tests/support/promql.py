"""What a query of Prometheus asks for, beside what the program says of itself."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.telemetry import names

OF_PROMETHEUS = {"job", "instance"}
"""Labels that it adds itself."""
NAME = re.compile(r"\b(?:up|ALERTS|(?:stockledger|kafka_consumergroup)_[a-z_]+)\b")
WORDS = re.compile(r'"[^"]*"|\'[^\']*\'')


def series() -> dict[str, set[str]]:
    """Each series' name as it is stored, with its labels; a histogram is three."""
    found: dict[str, set[str]] = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
    for family in names.FAMILIES.values():
        labels = set(family.labels)
        if family.buckets:
            found |= {f"{family.name}_{part}": labels for part in ("sum", "count")}
            found[f"{family.name}_bucket"] = labels | {"le"}
        else:
            found[family.name] = labels
    return found


def asked(query: str) -> set[str]:
    """The names of the series that it asks for."""
    return set(NAME.findall(WORDS.sub("", query)))


def labels(query: str) -> set[str]:
    """The labels that it selects or groups by."""
    plain = WORDS.sub('""', query)
    grouped = re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", plain)
    return {*re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", plain), *re.findall(r"\w+", " ".join(grouped))}


def unknown(query: str, *also: str) -> Iterator[str]:
    """What it asks for and never finds; `also` are labels that are used elsewhere with it."""
    there = series()
    yield from (name for name in asked(query) if name not in there)
    known = OF_PROMETHEUS.union(*(there.get(name, ()) for name in asked(query)))
    yield from {*labels(query), *also} - known


def promtool(*arguments: object, folder: Path) -> str:
    """What it says; it must end well. Skips where it isn't installed."""
    if not (program := shutil.which("promtool")):
        pytest.skip("no promtool: it is in Debian's package `prometheus`")
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
