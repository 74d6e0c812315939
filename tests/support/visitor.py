"""Somebody who looks at the dashboard without a browser: what a page says, links to, loads and sends."""

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from gateway.ui.pages import POLICY
from tests.support.workers import PATIENCE_S

APART = {"dd", "dt", "h1", "h2", "li", "p", "small", "td", "th"}
"""What begins a piece of text of its own."""
SCREENS = ["", "items", "lanes", "projections", "dead-letters", "settings", "find"]
FORM = "application/x-www-form-urlencoded"


@dataclass
class Page(HTMLParser):
    """An answer as a browser would see it."""

    status: int
    headers: Mapping[str, str]
    source: str
    text: str = ""
    loads: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    anchors: list[tuple[str, str]] = field(default_factory=list)
    _href: str | None = None

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if tag in APART:
            self.text += " "
        if tag == "a":
            self._href = given["href"]
            self.anchors.append((self._href, ""))
        elif address := given.get("src") or given.get("href"):
            self.loads.append(address)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._href = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._href is not None:
            self.anchors[-1] = self._href, self.anchors[-1][1] + data

    @property
    def links(self) -> list[str]:
        """Where its links lead."""
        return [href for href, _ in self.anchors]

    @property
    def said(self) -> str:
        """Its text in one line."""
        return re.sub(r"\s+", " ", self.text).strip()

    def fields(self, action: str) -> dict[str, str]:
        """The fields of the form that is sent there, as they are filled in."""
        found: dict[str, str] = {}
        inside = False
        for tag, given in self.tags:
            if tag == "form":
                inside = given.get("action") == action
            elif tag == "input" and inside:
                found[given["name"]] = given.get("value", "")
        return found

    def link(self, text: str) -> str:
        """Where the link that says this leads."""
        [found] = {href for href, said in self.anchors if said.strip() == text}
        return found


class Visitor:
    """Looks at pages of one gateway. Keeps cookies as a browser does, and follows where it is sent."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address = address
        self.token = token
        self.cookies: dict[str, str] = {}
        self.set_cookie = ""

    def __call__(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] = {},
        *,
        follows: bool = True,
    ) -> Page:
        """The page at the path; with a form, what comes of sending that."""
        given = {"Origin": self.address} if form is not None else {}
        if form is not None:
            given["Content-Type"] = FORM
        if self.token:
            given["Authorization"] = f"Bearer {self.token}"
        if self.cookies:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE_S)
        try:
            body = urlencode(form).encode() if form is not None else None
            method, sent = "GET" if form is None else "POST", path.partition("#")[0]
            connection.request(method, sent, body, {**given, **headers})
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        if cookie := found.get("set-cookie"):
            self.set_cookie = cookie
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies = {name: value} if value.strip('"') else {}
        require_safe(found)
        if answer.status in (303, 307) and follows:
            return self(urljoin(path, found["location"]))
        return Page(answer.status, found, text)


def require_safe(headers: Mapping[str, str]) -> None:
    """What every answer below /ui/ has."""
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
