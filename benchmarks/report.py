"""Results into benchmarks/README.md, between markers: what stands outside them is written by people."""

from pathlib import Path
from typing import Any

from benchmarks.result import FOLDER

README = Path(__file__).with_name("README.md")


def section(name: str, found: dict[str, Any], tables: str, has_plot: bool) -> str:
    """The text between the markers of a benchmark."""
    machine = found["machine"]
    settings = ", ".join(f"{key} {value}" for key, value in machine["settings"].items())
    lines = [
        f"{found['rounds']} rounds on {machine['cores']} cores, {machine['memory_gb']} GB, load "
        f"{machine['load_average']:.1f} at the start. {machine['services']}; {settings}. "
        f"Python {machine['python']}, librdkafka {machine['librdkafka']}, psycopg {machine['psycopg']}.",
        "",
        *[f"Skipped: {what}." for what in found["skipped"]],
        tables.strip(),
        "",
    ]
    if has_plot:
        lines += [f"![{name}](results/{name}.svg)", ""]
    return "\n".join(lines)


def between_markers(text: str, name: str, inside: str) -> str:
    """The text with what is between the markers of `name` replaced. Raises ValueError without markers."""
    begin, end = f"<!-- {name}: begin, written by python -m benchmarks -->\n", f"<!-- {name}: end -->"
    head, found, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"README.md has no markers for {name}")
    return f"{head}{begin}{inside}{end}{tail}"


def write(name: str, found: dict[str, Any], tables: str, svg: str | None) -> None:
    """The section and the plot of one benchmark."""
    if svg:
        (FOLDER / f"{name}.svg").write_text(svg)
    inside = section(name, found, tables, bool(svg))
    README.write_text(between_markers(README.read_text(), name, inside))
