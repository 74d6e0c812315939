"""What the gateway knows of its own answers."""

import time

from gateway import measured
from gateway.measured import DoorMeter, PurchaseTimes


def test_how_long_the_latest_purchases_took(monkeypatch):
    """By rank, of those that had an outcome in the last five minutes; other answers don't count."""
    meter, now = DoorMeter(), [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert meter.purchases() is None
    meter.answered("POST", "/v1/purchases", 200, 9.0)
    now[0] += measured.RECENT_S + 1
    for ms in range(1, 101):
        meter.answered("POST", "/v1/purchases", 200, ms / 1000)
    meter.answered("POST", "/v1/purchases", 202, 30.0)
    meter.answered("GET", "/v1/purchases", 200, 30.0)
    assert meter.purchases() == PurchaseTimes(100, 0.050, 0.099)
    now[0] += measured.RECENT_S + 1
    assert meter.purchases() is None
