"""What a benchmark found: runs by contender and round; their spreads and ratios; the JSON that is kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, Spread

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Options:
    """How much to measure. `quick` proves that it works and measures nothing."""

    rounds: int = 3
    quick: bool = False
    lines: int = 200_000
    """How many lines the producer's benchmark publishes."""

    @property
    def broker_warm_s(self) -> int:
        """A broker that was just started takes two or three times the CPU for each request."""
        return 1 if self.quick else 45


@dataclass
class Runs:
    """The runs of each contender, one a round: only what ran in the same round is compared."""

    by_name: dict[str, list[Run]] = field(default_factory=dict)

    def play(self, rounds: int, contenders: Mapping[str, Callable[[], Run]]) -> None:
        """Each contender in turn, so many times; every second round backwards, against drift."""
        for number in range(rounds):
            for name in list(contenders)[:: -1 if number % 2 else 1]:
                run = contenders[name]()
                self.by_name.setdefault(name, []).append(run)
                print(f"round {number + 1}  {name:24} {run.rate:11,.0f}/s", flush=True)

    def rate(self, name: str) -> Spread:
        """Commands a second."""
        return Spread.of([run.rate for run in self.by_name[name]])

    def ratio(self, name: str, to: str) -> Spread:
        """The ratio of the rates, round by round."""
        pairs = zip(self.by_name[name], self.by_name[to], strict=True)
        return Spread.of([run.rate / other.rate for run, other in pairs])

    def middle(self, name: str, what: str) -> float | None:
        """The median of a figure of `Run`, over the rounds that have it."""
        values = [value for run in self.by_name[name] if (value := getattr(run, what)) is not None]
        return Spread.of(values).median if values else None

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """The runs as results/*.json has them."""
        return {name: [run.as_json() for run in runs] for name, runs in self.by_name.items()}

    @classmethod
    def from_json(cls, kept: dict[str, list[dict[str, Any]]]) -> "Runs":
        """The runs, read back from results/*.json."""
        names = set(Run.__dataclass_fields__)
        runs = {
            name: [Run(**{k: v for k, v in run.items() if k in names}) for run in each]
            for name, each in kept.items()
        }
        return cls(runs)


def keep(name: str, found: dict[str, Any]) -> None:
    """Write results/NAME.json."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def kept(name: str) -> dict[str, Any] | None:
    """Read it back; None where there is none."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def spread_cell(spread: Spread, digits: int = 0) -> str:
    """`min / median / max` for a table."""
    return " / ".join(f"{value:,.{digits}f}" for value in (spread.min, spread.median, spread.max))


def cell(value: float | None, digits: int = 1) -> str:
    """A number for a table; `-` where it wasn't measured."""
    return "-" if value is None else f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["-" for _ in head], *rows]
    return "\n".join(
        f"| {' | '.join(line)} |" if n != 1 else f"|{'|'.join(line)}|" for n, line in enumerate(lines)
    )
