"""Spans as a test sees them: in memory where they were made, or as a collector gets them.

`recording(patch)` has all that is made from then on traced, in this process alone, and undone with the patch.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from tests.support.workers import wait_for


class Recorded:
    """What was traced in this process."""

    def __init__(self, sampler: Sampler) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> Sequence[ReadableSpan]:
        """Those that have ended, in the order of their ends."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Of them the ones of this name."""
        return [span for span in self.all() if span.name == name]

    def waits_for(self, name: str, times: int = 1) -> list[ReadableSpan]:
        """The same, once there are so many."""

        def enough() -> list[ReadableSpan] | None:
            found = self.named(name)
            return found if len(found) >= times else None

        found: list[ReadableSpan] = wait_for(f"{times} spans {name}", enough)
        return found


def recording(patch: pytest.MonkeyPatch, sampler: Sampler = ALWAYS_ON) -> Recorded:
    """Have whatever is made from now on traced."""
    made = Recorded(sampler)
    patch.setattr(trace, "get_tracer_provider", lambda: made.provider)
    return made


class Collector:
    """Takes spans over OTLP, from any process; `spans` are `(service, span)`, as the protocol has them."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens on this machine."""
    with Collector() as made:
        yield made
