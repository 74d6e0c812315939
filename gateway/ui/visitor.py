"""Who looks: a browser can't send a bearer token by itself, so a cookie does, and goes to `/ui/` alone.

The cookie holds the token, so nothing of a visit is stored here, any gateway knows it, and a token that is
revoked is known nowhere. What changes something must come from a page of this very host.
"""

from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.asked import require_media
from gateway.door import Door
from gateway.problem import Problem
from gateway.ui.pages import ROOT, STATIC, page, static

COOKIE = "stockledger"
SECURE_COOKIE = f"__Secure-{COOKIE}"
LASTS_S = 12 * 3600
SIGN_IN, SIGN_OUT = f"{ROOT}sign-in", f"{ROOT}sign-out"
OPEN_PAGES = {SIGN_IN, *(f"{ROOT}static/{name}" for name in STATIC)}
FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 10


def presented(cookies: str) -> str | None:
    """The token in a `Cookie` header, if there is one. The one that only HTTPS sets comes first."""
    found = dict(part.strip().partition("=")[::2] for part in cookies.split(";"))
    return found.get(SECURE_COOKIE) or found.get(COOKIE)


async def from_here(request: Request) -> None:
    """Raise Problem where something is to be changed, and no page of this host asks for it.

    A browser says which site a form is on: `Sec-Fetch-Site` where the connection is to be trusted, else
    `Origin`. Whoever says neither is no browser, and has the API.
    """
    if request.method == "GET":
        return
    site = request.headers.get("sec-fetch-site")
    origin = urlsplit(request.headers.get("origin", ""))
    if site != "same-origin" if site else origin.netloc != request.headers.get("host") or not origin.netloc:
        raise Problem(403, "this wasn't sent by a page of this dashboard", remedy="use the page's own form")


async def form(request: Request) -> dict[str, str]:
    """The fields of the form that was sent."""
    require_media(request, FORM)
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError:
        raise Problem.bad("", "the form can't be read") from None


def onward(place: str) -> str:
    """Where a visitor goes once he is let in: a page of ours, whatever the form says."""
    return place if place.startswith(ROOT) and place.isascii() and place.isprintable() else ROOT


def routes(door: Door) -> APIRouter:
    """Signing in and out, and the files that the pages load."""
    router = APIRouter(include_in_schema=False)

    @router.get(SIGN_IN)
    async def ask(request: Request) -> Response:
        return page(request, "sign_in.html", next=ROOT, wrong=False)

    @router.post(SIGN_IN)
    async def sign_in(request: Request) -> Response:
        given = await form(request)
        place, token = onward(given.get("next", ROOT)), given.get("token", "").strip()
        if door.callers.find(token) is None:
            return page(request, "sign_in.html", HTTPStatus.UNAUTHORIZED, next=place, wrong=True)
        answer = RedirectResponse(place, HTTPStatus.SEE_OTHER)
        _keep(request, answer, token, LASTS_S)
        return answer

    @router.post(SIGN_OUT)
    async def sign_out(request: Request) -> Response:
        answer = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
        _keep(request, answer, "", 0)
        return answer

    @router.get(ROOT + "static/{name}")
    async def file(name: str) -> Response:
        if name not in STATIC:
            raise Problem(404, "there is no such file", remedy=f"see {ROOT}")
        return static(name)

    return router


def _keep(request: Request, answer: Response, token: str, lasts_s: int) -> None:
    # A proxy may be the one that speaks TLS: then the browser's own word for where it is says so.
    is_secure = "https" in (request.url.scheme, urlsplit(request.headers.get("origin", "")).scheme)
    answer.set_cookie(
        SECURE_COOKIE if is_secure else COOKIE,
        token,
        max_age=lasts_s,
        path=ROOT,
        secure=is_secure,
        httponly=True,
        samesite="strict",
    )
