"""A span for each request, around all that is done for it; a child of the client's own where it names that.

What a client puts into a path is in no span: an endpoint is named as it is documented.
"""

from typing import Any

from opentelemetry.trace import Span, SpanKind, Tracer

from gateway.guard import Asgi, AsgiEvent, AsgiScope, Receive, Send
from gateway.measured import METHODS
from ledger.telemetry import tracing

UNTRACED = {"/livez", "/readyz", "/metrics"}
"""They are asked by machines, every few seconds."""
OTHER = "_OTHER"
"""OpenTelemetry's word for methods that aren't known."""
FIELDS = (b"traceparent", b"tracestate")


def traced(app: Asgi) -> Asgi:
    """The application with its spans; as it is where nobody traces."""
    tracer = tracing.tracer()
    return Traced(app, tracer) if tracer else app


class Traced:
    """ASGI around an application."""

    def __init__(self, app: Asgi, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else OTHER
        parent = tracing.context_of(
            {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in FIELDS}
        )
        attributes: tracing.Attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        with tracing.spanning(self._tracer, method, SpanKind.SERVER, attributes, parent=parent) as span:

            async def answer(event: AsgiEvent) -> None:
                if event["type"] == "http.response.start":
                    _answered(span, event["status"])
                await send(event)

            await self._app(scope, receive, answer)
            if route := getattr(scope.get("route"), "path_format", None):
                _named(span, method, route)


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        tracing.failed(span, str(status))


def _named(span: Span, method: str, route: Any) -> None:
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
