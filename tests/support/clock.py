"""A clock for code that waits: it goes on by what is slept alone, so a busy machine changes nothing.

monkeypatch.setattr("ledger.api.time", Clock())
"""


class Clock:
    """Takes the place of the module `time` in the module that waits. `slept` is each wait, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
