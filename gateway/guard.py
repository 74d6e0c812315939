"""Before any endpoint: whose host is meant, who comes, how often, and how much is sent.

Whatever is refused is refused here before a byte of it is parsed. A body is read as a whole, within its limit
and its time, so a slow or a dead client holds no thread and nothing but its own few kilobytes.
"""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from gateway.measured import DoorMeter
from gateway.problem import ALWAYS, MEDIA_TYPE, Problem, written
from gateway.tokens import Caller, Callers
from gateway.ui import pages, visitor
from gateway.ui.refusal import HTML, refusal
from ledger.errors import REPORT

AsgiScope = MutableMapping[str, Any]
AsgiEvent = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiEvent]]
Send = Callable[[AsgiEvent], Awaitable[None]]
Asgi = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

BODY_MAX = 64 * 1024
BODY_WAIT_S = 10.0
OPEN_PATHS = {"/livez", "/readyz", "/openapi.json"}
NUL = b"%00"
"""As an address has it; Postgres' text can't."""
HEADERS = [(name.encode(), value.encode()) for name, value in ALWAYS.items()]


class DoorLog(Protocol):
    """Who is told of what no client can be told; never a token, a body or an id."""

    def failed(self, method: str, path: str, fault: BaseException) -> None:
        """A request ended with a fault of this program."""
        ...


class Hosts:
    """The names that requests may be for. An address in digits always is: no name can be rebound to it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    def require(self, host: str | None) -> None:
        """Raise Problem where a name of somebody else's leads here, as in DNS rebinding."""
        name = _name_of(host or "")
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return
        if name not in self._names:
            raise Problem.bad(
                "Host",
                "isn't a name of this gateway",
                remedy="use its address, or start it with --allow-host",
            )


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower().rstrip(".") if ":" in host else host.lower().rstrip(".")


@dataclass
class Bucket:
    """So many requests a second, and as many at once."""

    per_s: float
    left: float = field(init=False)
    filled_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = max(self.per_s, 1.0)

    def take(self) -> bool:
        """Whether there is room for one more."""
        now = time.monotonic()
        self.left = min(self.left + (now - self.filled_at) * self.per_s, max(self.per_s, 1.0))
        self.filled_at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Guard:
    """ASGI around the application; the meter counts the requests that it is at work on."""

    def __init__(
        self, app: Asgi, hosts: Hosts, callers: Callers, per_s: float, log: DoorLog, meter: DoorMeter
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._callers = callers
        self._per_s = per_s
        self._buckets: dict[str, Bucket] = {}
        self._log = log
        self._meter = meter

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        answering, began_at = _Answering(scope, send), time.perf_counter()
        self._meter.in_hand += 1
        try:
            await self._serve(scope, receive, answering)
        except Problem as problem:
            if not answering.status:
                await answering.refuse(problem)
        except Exception as fault:  # noqa: BLE001 (else the server would log it, with all that it quotes)
            self._log.failed(scope["method"], _template(scope), fault)
            if not answering.status:
                await answering.refuse(Problem(500, f"a bug: {type(fault).__name__}", remedy=REPORT))
        finally:
            self._meter.in_hand -= 1
            if answering.status:
                route = getattr(scope.get("route"), "path_format", None)
                took_s = answering.began_at - began_at
                self._meter.answered(scope["method"], route, answering.status, took_s)

    async def _serve(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        self._hosts.require(headers.get("host"))
        _require_text(scope["raw_path"] + b"?" + scope["query_string"])
        if scope["path"] not in OPEN_PATHS | visitor.OPEN_PAGES:
            caller = self._caller(scope, headers)
            if not self._buckets.setdefault(caller.name, Bucket(self._per_s)).take():
                raise Problem(
                    429, f"{caller.name} asks more often than {self._per_s:g} times a second",
                    remedy="ask again later, and more slowly", retryable=True,
                )  # fmt: skip
            scope["state"]["caller"] = caller
        body = await _body(headers.get("content-length"), receive)
        await self._app(scope, _replayed(body, receive), send)

    def _caller(self, scope: AsgiScope, headers: Mapping[str, str]) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else None
        if pages.is_page(scope["path"]) and not scheme:  # nowhere else does a cookie let anybody in
            shown = visitor.presented(headers.get("cookie", ""))
            scope["state"]["by_cookie"] = shown is not None
        caller = self._callers.find(shown)
        if caller is None:
            raise Problem(
                401, "no token that is known here", remedy="send a token as: Authorization: Bearer",
                headers={"WWW-Authenticate": 'Bearer realm="stockledger"'},
            )  # fmt: skip
        return caller


def _headers(scope: AsgiScope) -> dict[str, str]:
    """The headers by name. Raises Problem where one that we judge by is there twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "authorization", "content-type", "idempotency-key"):
            raise Problem.bad(key, "is there more than once")
        found[key] = value.decode("latin-1")
    if "content-length" in found and "transfer-encoding" in found:  # a proxy may have gone by the other one
        raise Problem.bad("Content-Length", "doesn't go with Transfer-Encoding")
    return found


def _require_text(address: bytes) -> None:
    """Raise Problem where a part of the address is no text: the framework would make one of it."""
    if NUL in address:
        raise Problem.bad("", "the address has a NUL character, which no id and no text has")
    try:
        unquote_to_bytes(address).decode()
    except UnicodeDecodeError:
        raise Problem.bad("", "the address isn't UTF-8, percent-encoded") from None


async def _body(length: str | None, receive: Receive) -> bytes:
    """All of the body. Raises Problem for one that is too large, or takes too long."""
    too_large = Problem(413, f"a body has at most {BODY_MAX} bytes", remedy="send it in parts")
    if length and length.isdigit() and int(length) > BODY_MAX:
        raise too_large
    body: bytes = b""
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise Problem.bad("", "the connection ended before the body did")
                body += bytes(event.get("body", b""))
                if len(body) > BODY_MAX:
                    raise too_large
                if not event.get("more_body"):
                    return body
    except TimeoutError:
        raise Problem(
            408,
            f"the body didn't come within {BODY_WAIT_S:g} s",
            retryable=True,
            headers={"Connection": "close"},
        ) from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body once more, as one piece, and then what comes after it."""
    whole: list[AsgiEvent] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> AsgiEvent:
        return whole.pop() if whole else await receive()

    return replay


def _template(scope: AsgiScope) -> str:
    """The endpoint's path as it is documented: what a client put into it belongs into no log."""
    return str(getattr(scope.get("route"), "path", "unknown"))


class _Answering:
    """Sends, with the headers that every answer has, and knows when it began, and with which status."""

    def __init__(self, scope: AsgiScope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._is_page = pages.is_page(scope["path"])
        self.status = 0
        self.began_at = 0.0

    async def __call__(self, event: AsgiEvent) -> None:
        if event["type"] == "http.response.start":
            self.status, self.began_at = event["status"], time.perf_counter()
            event["headers"] = [*event["headers"], *(pages.HEADERS if self._is_page else HEADERS)]
        await self._send(event)

    async def refuse(self, problem: Problem) -> None:
        """Answer with the problem; with a page where people look."""
        text = refusal(problem, self._scope) if self._is_page else written(problem.told())
        media = HTML if self._is_page else MEDIA_TYPE
        headers = {"content-type": media, "content-length": str(len(text)), **problem.headers}
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": problem.status, "headers": encoded})
        await self({"type": "http.response.body", "body": text})
