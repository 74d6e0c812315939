"""How pages are made: every value is escaped, links are percent-encoded, and nothing comes from elsewhere.

Ids are any text. They stand in queries and not in paths: browsers take `%2E%2E` in a path for its parent.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.tokens import Caller, Right
from ledger.figures import count

ROOT = "/ui/"
STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("style", "script", "img", "connect")),
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
KEPT = "\n\t"
"""Characters that can't be printed, and that a text may have."""


def is_page(path: str) -> bool:
    """Whether the path is one of the dashboard's, which has pages for refusals, too."""
    return path == ROOT.rstrip("/") or path.startswith(ROOT)


def plain(text: str) -> str:
    """The text with what can't be printed as JSON has it: no control character turns a line around."""
    return "".join(c if c.isprintable() or c in KEPT else json.dumps(c)[1:-1] for c in text)


def _amount(number: int | None) -> str:
    return "–" if number is None else count(number)


def _instant(time: datetime | str | None) -> str:
    if time is None:
        return "–"
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False, indent=2)


_made = Environment(
    loader=PackageLoader("gateway.ui"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_made.filters |= {"amount": _amount, "instant": _instant, "plain": plain, "pretty": _pretty}


def html(template: str, values: Mapping[str, Any]) -> str:
    """The page, or the part of one."""
    return _made.get_template(template).render(values)


def page(request: Request, template: str, answered: int = 200, **values: Any) -> Response:
    """A whole page, with what all of them show: who looks at it, and which installation it is."""
    return HTMLResponse(html(template, shared(request.scope) | values), answered)


def shared(scope: Mapping[str, Any]) -> dict[str, Any]:
    """What every page shows, as far as it is known."""
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    return {
        "caller": caller,
        "may_operate": bool(caller and Right.OPERATE in caller.rights),
        "by_cookie": state.get("by_cookie", False),
        "environment": state.get("environment"),
        "path": scope["path"],
        "q": "",
    }


def static(name: str) -> Response:
    """A file that pages load."""
    return Response((files("gateway.ui") / "static" / name).read_bytes(), media_type=STATIC[name])
