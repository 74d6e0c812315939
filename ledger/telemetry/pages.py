"""The three pages of a process that is watched: `/livez`, `/readyz`, `/metrics`."""

import json

from ledger.telemetry import names
from ledger.telemetry.board import Board
from ledger.telemetry.exposition import written
from ledger.telemetry.server import Pages, WatchPage

JSON = "application/json"


def pages(board: Board, version: str) -> Pages:
    """The pages of this board."""

    def page(path: str, accept: str) -> WatchPage:
        if path == "/metrics":
            numbers = board.sum()
            numbers.put(names.READY, not board.trouble())
            text, media_type = written(numbers, version, accept)
            return WatchPage(200, media_type, text)
        if path == "/livez":
            stuck_s = board.stuck_s()
            return _told("live", f"its loop has stood still for {stuck_s:.0f} s" if stuck_s else "")
        if path == "/readyz":
            return _told("ready", board.trouble())
        return WatchPage(404, JSON, _line(detail="there is no such path: /livez, /readyz, /metrics"))

    return page


def _told(what: str, trouble: str) -> WatchPage:
    if trouble:
        return WatchPage(503, JSON, _line(**{what: False}, detail=trouble))
    return WatchPage(200, JSON, _line(**{what: True}))


def _line(**members: object) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
