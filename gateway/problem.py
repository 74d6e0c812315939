"""A refusal over HTTP: `application/problem+json` with a code, the next step, and whether a repeat may help.

Source: RFC 9457. `type` is `about:blank`, so `title` is the status's own phrase, and `code` tells the kinds
apart (docs/ERRORS.md).
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self

from ledger.errors import Defect, HistoryChanged, LedgerError, Retry, Stale
from ledger.telemetry import tracing

JSON = "application/json"
MEDIA_TYPE = "application/problem+json"
AGAIN_AFTER_S = "1"
CODES = {
    400: "SL-HTTP-400",
    401: "SL-HTTP-401",
    403: "SL-HTTP-403",
    404: "SL-HTTP-404",
    405: "SL-HTTP-405",
    408: "SL-HTTP-408",
    413: "SL-HTTP-413",
    415: "SL-HTTP-415",
    422: "SL-HTTP-422",
    429: "SL-HTTP-429",
    500: "SL-HTTP-500",
    503: "SL-HTTP-503",
}
ALWAYS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers that every answer has."""
WRONG = "correct the request, and send it again"


def written(body: Any) -> bytes:
    """The body as JSON, with a line's end for whoever reads it on a terminal."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"  # half a pair of UTF-16 becomes its JSON escape


class Problem(Exception):
    """Why a request isn't carried out. `facts` are further members of the body."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        remedy: str = WRONG,
        retryable: bool = False,
        code: str = "",
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        if retryable:
            self.headers.setdefault("Retry-After", AGAIN_AFTER_S)
        self.body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code or CODES.get(status, CODES[400]),
            "remedy": remedy,
            "retryable": retryable,
            **facts,
        }

    def told(self) -> dict[str, Any]:
        """The body as the client gets it: with the id of the trace that its request is in, if in any."""
        trace_id = tracing.trace_id()
        return self.body | {"trace_id": trace_id} if trace_id else self.body

    @classmethod
    def of(cls, error: LedgerError, **facts: Any) -> Self:
        """What a fault of the ledger or of Kafka means to a client."""
        retryable = isinstance(error, Retry | Stale)
        status = 409 if isinstance(error, HistoryChanged) else 500 if isinstance(error, Defect) else 503
        return cls(status, error.message, remedy=error.remedy, retryable=retryable, code=error.code, **facts)

    @classmethod
    def bad(cls, field: str, reason: str, remedy: str = WRONG, **facts: Any) -> Self:
        """Something in the request can't be what it must be; `field` names it."""
        return cls(400, f"{field}: {reason}" if field else reason, remedy=remedy, field=field, **facts)


def refusal(problem: Problem) -> bytes:
    """The whole answer, for a client of whom no request was read; the connection ends after it."""
    text = written(problem.body)
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(text)),
        "connection": "close",
        **ALWAYS,
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {problem.status} {problem.body['title']}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + text
