"""Spans out of this process, as OpenTelemetry's own variables say; without them nothing is imported or done.

`OTEL_TRACES_EXPORTER`, or an address of `OTEL_EXPORTER_OTLP_ENDPOINT`, turns it on. All else is read by the
SDK itself. What is wrong with it is said, and never stops the work: traces are a help, no part of the ledger.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from opentelemetry import trace

from ledger.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORTER = "OTEL_TRACES_EXPORTER"
ADDRESSES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OFF = "OTEL_SDK_DISABLED"
GROUP = "opentelemetry_traces_exporter"
NONE, OTLP, CONSOLE = "none", "otlp", "console"
EXTRA = "pip install 'stockledger[otel]'"
END_WAIT_S = 0.5
"""How long the last spans may take at the end: a collector that is away holds up nobody."""

Say = Callable[[str], object]


@contextmanager
def exported(name: str, say: Say) -> Iterator[None]:
    """Have spans sent where they are wanted, until the end. `name` is the service's, if nothing names it.

    `say` hears what is wrong with that. A provider that the program was started with is left alone.
    """
    provider = _provider(name, say) if _wanted() and tracing.tracer() is None else None
    try:
        yield
    finally:
        if provider:
            ending = threading.Thread(target=provider.shutdown, daemon=True)
            ending.start()
            ending.join(END_WAIT_S)


def _wanted() -> str:
    """The exporter's name; "" for none."""
    if os.environ.get(OFF, "").strip().lower() == "true":
        return ""
    default = OTLP if any(map(os.environ.get, ADDRESSES)) else NONE
    name = (os.environ.get(EXPORTER) or default).strip()
    return "" if name == NONE else name


def _provider(name: str, say: Say) -> "TracerProvider | None":
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter(_wanted())
    except (ImportError, LookupError) as missing:
        say(f"no traces: {missing}; {EXTRA}")
        return None
    named = SERVICE_NAME in OTELResourceDetector().detect().attributes
    resource = Resource.create({} if named else {SERVICE_NAME: name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    complaints = logging.getLogger("opentelemetry")
    complaints.addHandler(_Saying(say))
    complaints.propagate = False
    return provider


def _exporter(name: str) -> "SpanExporter":
    """The exporter of this name. Raises LookupError or ImportError where there is none."""
    if name == CONSOLE:  # on stderr: what a verb finds is alone on stdout
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    if name == OTLP:
        protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), "")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise LookupError(f"there is no exporter {name}")
    made: SpanExporter = found[name].load()()
    return made


class _Saying(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"traces: {record.getMessage()}")
