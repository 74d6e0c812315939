"""What a worker says while it works, to stderr: for people on a terminal, JSON for machines elsewhere."""

import sys
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from ledger.telemetry import tracing


def logger(log_format: str = "auto", *listeners: Processor) -> FilteringBoundLogger:
    """A logger for this process. `log_format` is `console`, `json`, or `auto`: console on a terminal.

    The `listeners` hear each line before it is written. Within a trace a line says which.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
        if console
        else structlog.processors.JSONRenderer()
    )
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    made: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[*listeners, structlog.processors.add_log_level, _traced, stamp, renderer],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return made


def complaints(log: FilteringBoundLogger) -> Callable[[str], object]:
    """Says what is wrong with the traces."""
    return lambda cause: log.warning("traces", cause=cause)


def _traced(_: Any, __: str, line: EventDict) -> EventDict:
    if found := tracing.trace_id():
        line["trace_id"] = found
    return line
