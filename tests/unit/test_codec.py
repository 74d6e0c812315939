"""Two codecs, one result: what the native one makes of records and rows is what the one in Python makes.

STOCKLEDGER_TEST_CODEC_CASES=10000000 asks for as many cases in place of some thousand; --seed for the same
ones again.
"""

import os
import random
import sys
import tomllib
from collections import Counter
from importlib import metadata
from types import SimpleNamespace

import pytest

from benchmarks.workload import Workload, encoded
from ledger import codec
from ledger.domain.delivery import Bad, Request
from ledger.errors import BadSettings
from tests.support import codecs
from tools.reference import ROOT

CASES = int(os.environ.get("STOCKLEDGER_TEST_CODEC_CASES", "4000"))
ROWS_AT_ONCE = 50

needs_native = pytest.mark.skipif(
    len(codecs.every()) < 2, reason="no native codec is installed here: make native"
)


@needs_native
@pytest.mark.timeout(0 if CASES > 4000 else 400)
def test_records_and_rows_differ_in_nothing(seed):
    """Accepted or refused, code and text, request, fingerprint and packed record; lines in both orders."""
    choose = random.Random(seed)
    accepted: Counter[type] = Counter()
    for number in range(CASES // 2):
        value, headers = codecs.any_record(choose)
        key = choose.choice([None, b"", b"tea", b"\xff" * 9])
        epoch, time_ms = choose.choice([-1, 0, 3, 2**31 - 1]), choose.choice(codecs.TIMES)
        accepted[type(codecs.delivered(number, key, value, headers, epoch, time_ms).content)] += 1
    assert min(accepted[Request], accepted[Bad]) > CASES / 20
    for _ in range(CASES // 4 // ROWS_AT_ONCE):
        register = [codecs.any_registered(choose) for _ in range(ROWS_AT_ONCE)]
        events = [codecs.any_event(choose, ordinal) for ordinal in range(ROWS_AT_ONCE)]
        assert codecs.made(each.register_rows(register) for each in codecs.every())[0] == ROWS_AT_ONCE
        assert codecs.made(each.event_rows(7, events) for each in codecs.every())[0] == ROWS_AT_ONCE


@needs_native
def test_plain_records_never_reach_python(monkeypatch):
    """What shops send is decoded by the native codec itself: else it would be right, and for nothing."""
    asked = []
    monkeypatch.setattr(codec, "_delivery", lambda *record: asked.append(record))
    native = codec._native.__wrapped__()  # over that function
    for record in encoded(Workload(500, duplicates=0.1, rejections=0.1, registrations=0.1)).records:
        native.delivery(0, record.key, record.value, record.headers, 0, 0)
    assert asked == []
    native.delivery(0, None, b"{", [], 0, 0)
    assert asked == [(0, None, b"{", [], 0, 0)]


def test_without_a_wheel_it_is_python(monkeypatch):
    """Nobody needs Rust; who asks for the native codec all the same hears what to do."""
    monkeypatch.setitem(sys.modules, codec.NATIVE, None)
    monkeypatch.setattr(codec, "_native", codec._native.__wrapped__)
    assert codec.named(None) is codec.named("python") is codec.PYTHON
    assert codec.unfit() == ""
    with pytest.raises(BadSettings, match="the native codec can't be loaded") as refused:
        codec.named("native")
    assert "pip install 'stockledger[native]==" in (refused.value.remedy or "")


def test_a_wheel_of_another_version_is_left_alone(monkeypatch):
    """Chosen by itself it isn't; asked for, it is refused; and `doctor` says why."""
    monkeypatch.setitem(sys.modules, codec.NATIVE, SimpleNamespace(VERSION="0.0.9"))
    monkeypatch.setattr(codec, "_native", codec._native.__wrapped__)
    assert codec.named(None) is codec.PYTHON
    assert "0.0.9" in codec.unfit()
    with pytest.raises(BadSettings, match=r"version 0\.0\.9, not"):
        codec.named("native")


def test_one_version_for_both():
    """The crate, the extra that asks for its wheel, and the program have one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    crate = tomllib.loads((ROOT / "native/Cargo.toml").read_text("utf-8"))
    assert crate["package"]["version"] == project["version"] == metadata.version("stockledger")
    assert project["optional-dependencies"]["native"] == [f"stockledger-native=={project['version']}"]
    assert all(
        version.startswith("=")
        for each in crate["dependencies"].values()
        for version in [each if isinstance(each, str) else each["version"]]
    )


def test_it_stays_small():
    """What two people must read to trust it: the limits of the decision."""
    rust = [file.read_text("utf-8").count("\n") for file in (ROOT / "native/src").glob("*.rs")]
    assert sum(rust) < 1500
    assert (ROOT / "ledger/codec.py").read_text("utf-8").count("\n") < 150
