"""Charts as plain shapes: where lines and bars are, in a box of a known size; the page draws them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ledger.figures import count
from ledger.store.reads.balance import Change
from ledger.store.reads.paces import Pace

WIDTH, HEIGHT = 720, 160
MARKS_MAX = 60
"""With more changes than that, the line alone is drawn."""
GAP = 3


class Bar(NamedTuple):
    """A part of a bar: where it is, and of which outcome."""

    kind: str
    x: float
    y: float
    width: float
    height: float


class StepLine(NamedTuple):
    """A line of steps, its marks with what they say, and the values at its top and its bottom."""

    path: str
    area: str
    marks: list[tuple[float, float, str]]
    top: int
    bottom: int


def bars(lately: Sequence[Pace]) -> dict[str, Any]:
    """A bar a stretch, the outcomes on each other."""
    top = max((sum(each) for each in lately), default=0)
    step = WIDTH / max(len(lately), 1)
    found = []
    for number, pace in enumerate(lately):
        y = float(HEIGHT)
        for kind, value in pace._asdict().items():
            if value:
                height = value / top * HEIGHT
                y -= height
                found.append(Bar(kind, *(round(n, 1) for n in (number * step, y, step - GAP, height))))
    return {"top": top, "bars": found, "width": WIDTH, "height": HEIGHT}


def steps(changes: Sequence[Change]) -> StepLine | None:
    """The stock before the first of the changes, and after each of them."""
    if not changes:
        return None
    levels = [changes[0].on_hand - changes[0].delta, *(each.on_hand for each in changes)]
    top, bottom = max(levels), min(0, *levels)
    step = WIDTH / len(changes)
    places = [round(HEIGHT - (level - bottom) / max(top - bottom, 1) * HEIGHT, 1) for level in levels]
    path = f"M0 {places[0]}" + "".join(
        f"H{round(number * step, 1)}V{y}" for number, y in enumerate(places[1:], 1)
    )
    said = [
        (round(number * step, 1), y, f"version {each.version}: {each.delta:+}, then {count(each.on_hand)}")
        for number, (each, y) in enumerate(zip(changes, places[1:], strict=True), 1)
    ]
    marks = said if len(changes) <= MARKS_MAX else []
    return StepLine(path, f"{path}V{HEIGHT}H0Z", marks, top, bottom)
