"""A refusal as a page: what problem+json says, for people; and for whoever isn't known, the way in."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gateway.problem import Problem
from gateway.ui.pages import ROOT, html, shared

HTML = "text/html; charset=utf-8"


def refusal(problem: Problem, scope: Mapping[str, Any]) -> bytes:
    """The page, whole."""
    values = shared(scope)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        return html("sign_in.html", values | {"next": _place(scope), "wrong": False}).encode()
    return html("refusal.html", values | {"problem": problem.body}).encode()


def _place(scope: Mapping[str, Any]) -> str:
    """Where the visitor wanted to go."""
    if scope["method"] != "GET":
        return ROOT
    query: bytes = scope["query_string"]
    place: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return place.decode("latin-1")
