"""A line chart with two logarithmic axes as SVG: nothing to install, and it is text in a diff."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 180, 40, 50
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f")


class Series(NamedTuple):
    """A named line through points of which both numbers are above 0; others aren't drawn."""

    name: str
    points: Sequence[tuple[float, float]]


class _Axis(NamedTuple):
    """Maps numbers to pixels by their logarithm."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> "_Axis":
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1), begin, end)

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(int(self.low), int(self.high) + 1)]


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """The SVG text. Raises ValueError where there is nothing to draw."""
    drawn = [Series(s.name, [(x, y) for x, y in s.points if x > 0 and y > 0]) for s in series]
    points = [point for s in drawn for point in s.points]
    if not points:
        raise ValueError("nothing to draw")
    x_axis = _Axis.over([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y_axis = _Axis.over([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, anchor="middle"),
        _text(LEFT, TOP - 6, y_label, anchor="end"),
    ]
    for tick in x_axis.ticks():
        parts.append(_line(x_axis.at(tick), HEIGHT - BOTTOM, x_axis.at(tick), TOP))
        parts.append(_text(x_axis.at(tick), HEIGHT - BOTTOM + 16, f"{tick:,.10g}", anchor="middle"))
    for tick in y_axis.ticks():
        parts.append(_line(LEFT, y_axis.at(tick), WIDTH - RIGHT, y_axis.at(tick)))
        parts.append(_text(LEFT - 6, y_axis.at(tick) + 4, f"{tick:,.10g}", anchor="end"))
    for number, (name, line) in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        at = [(x_axis.at(x), y_axis.at(y)) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in at]
        parts.append(_text(WIDTH - RIGHT + 12, TOP + 12 + number * 18, name, colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#ddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#333"
) -> str:
    place = f'x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
