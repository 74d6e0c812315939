"""What a worker says while it works, to stderr: for people on a terminal, JSON for machines elsewhere."""

import sys

import structlog
from structlog.typing import FilteringBoundLogger, Processor


def logger(log_format: str = "auto", *listeners: Processor) -> FilteringBoundLogger:
    """A logger for this process. `log_format` is `console`, `json`, or `auto`: console on a terminal.

    The `listeners` hear each line before it is written.
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
        processors=[*listeners, structlog.processors.add_log_level, stamp, renderer],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return made
