"""`--http`: a port where a verb says how it stands. Without it nothing is measured, and nothing imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from consumer.log import logger
from ledger.errors import BadSettings
from ledger.telemetry.board import SILENCE_MAX_S, Board
from stockledger import version
from stockledger.settings import Settings

if TYPE_CHECKING:
    from ledger.telemetry.server import WatchServer

EXTRA = "pip install 'stockledger[metrics]'"


@contextmanager
def watched(settings: Settings, log_format: str) -> Iterator[Board | None]:
    """The board whose pages are served meanwhile; None where nobody wants them.

    Raises BadSettings where it can't listen there, before anything else is done.
    """
    if settings.http is None:
        yield None
        return
    board = Board(_silence_max_s(settings))
    server = _listening(settings, board)
    host, port = server.server_address[:2]
    address = f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"
    logger(log_format).info("watched", address=address)
    try:
        yield board
    finally:
        server.close()


def _silence_max_s(settings: Settings) -> float:
    """How long Kafka bears a loop that stands still."""
    given_ms = settings.kafka.get("max.poll.interval.ms", "")
    return int(given_ms) / 1000 if given_ms.isdecimal() else SILENCE_MAX_S


def _listening(settings: Settings, board: Board) -> "WatchServer":
    try:
        from ledger.telemetry.pages import pages
        from ledger.telemetry.server import WatchServer
    except ImportError as missing:
        raise BadSettings(f"--http needs the package {missing.name}", remedy=EXTRA) from None
    host, port = settings.http_address
    try:
        return WatchServer(host, port, pages(board, version()))
    except OSError as error:
        raise BadSettings(
            f"can't listen on {host} port {port} (http from {settings.origin('http')}): {error.strerror}",
            remedy="choose another one with --http",
        ) from None
