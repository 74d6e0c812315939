"""`serve`: the HTTP door."""

import ipaddress
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import BadSettings
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import UsageError, interruption
from stockledger.verb.options import LogFormat, TokensFile, gateway_needed, per_second, seconds

if TYPE_CHECKING:
    from gateway.tokens import Callers
    from stockledger.settings import Settings

CLOSE_WAIT_S = 0.5
PIECES_MAX = 2**53
PEM = typer.Option(metavar="FILE", help="Serve HTTPS: the certificate and its chain, in PEM.")


@verb(topic=True)
def serve(
    call: Call,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, metavar="N", help="0: any that is free.")] = 8080,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who buys, where there is no tokens file.")
    ] = None,
    tokens: TokensFile = None,
    environment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Stands on each page of the dashboard /ui/.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which it is called; repeatable."),
    ] = None,
    tls_cert: Annotated[Path | None, PEM] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's key, in PEM.")
    ] = None,
    rate: Annotated[
        float, typer.Option(parser=per_second, metavar="N", help="Requests a second, for each token.")
    ] = 1000.0,
    waiting: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="The most requests that wait at once.")
    ] = 1000,
    max_staleness: Annotated[
        float, typer.Option(parser=seconds, metavar="S", help="Stock may be as old as so many seconds.")
    ] = 1.0,
    low_below: Annotated[
        int, typer.Option(min=1, max=PIECES_MAX, metavar="N", help="Goods with fewer pieces are low.")
    ] = 10,
    anchor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The dashboard says what verify --anchor has proved."),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the logs on stderr.")] = LogFormat.AUTO,
) -> Answer:
    """Serve HTTP: buy, send commands, ask what became of them, read stock; a dashboard. Until stopped.

    Any number of these may run side by side; they keep nothing. Without a tokens file it listens on this
    machine alone, and whoever calls may do everything.
    """
    from consumer.log import complaints, logger
    from consumer.worker import rarely_collect_cycles
    from ledger import signals
    from ledger.store.connection.lending import Lender
    from ledger.telemetry.exporting import exported
    from stockledger import version
    from stockledger.reports.operations import LedgerOperations
    from stockledger.wiring import ledger, stock_cache, till

    settings = call.settings(source=source, tokens=str(tokens) if tokens else None, environment=environment)
    topic = settings.only_topic("serve")
    lines = logger(log_format.value)
    log = _Log(lines)
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together", remedy="stockledger serve --help")
    with gateway_needed("serve"):
        from gateway.door import Reads
        from gateway.server import ServerTerms, serve
    callers = _callers(settings, host, log)
    terms = ServerTerms(host, port, tuple(allow_host or ()), tls_cert, tls_key, rate, waiting)
    with exported("stockledger-serve", complaints(lines)), signals.asked() as stop:
        made = till(settings, topic)

        def work() -> None:
            with (
                stock_cache(settings, max_staleness, low_below) as cache,
                ledger(settings) as book,
                closing(Lender(settings.conninfo(), "serve")) as lender,
            ):
                reads = Reads(cache, book, lender, LedgerOperations(settings, book, anchor))
                rarely_collect_cycles()
                serve(made, reads, callers, terms, version(), stop, log)

        try:
            signals.in_time(work, stop)
        finally:
            made.close(CLOSE_WAIT_S)
    call.out.say("served", log.address)
    return Answer({"address": log.address}, error=interruption(stop, has_goal=False))


def _callers(settings: "Settings", host: str, log: "_Log") -> "Callers":
    """Who may come: whom the tokens file names, else anybody on this machine."""
    from gateway.tokens import Caller, Callers, Right

    if settings.tokens:
        return Callers(settings.tokens, None, log.unreadable)
    if not _is_loopback(host):
        raise BadSettings(
            f"without a tokens file it serves this machine alone, and {host} can be reached by others",
            remedy="stockledger token add shop --source shop --rights buy,read --tokens tokens.json",
        )
    if settings.source is None:
        raise BadSettings("nobody says in whose name is bought", remedy="stockledger serve --source shop")
    return Callers(None, Caller("anybody", settings.source, frozenset(Right)), log.unreadable)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class _Log:
    """How it goes, as logs like those of `run`; never a token, a body, or what a client put into a path."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.address = ""

    def ready(self, address: str) -> None:
        self.address = address
        self._log.info("ready", address=address)

    def ending(self, in_hand: int) -> None:
        self._log.info("ending", in_hand=in_hand)

    def unreadable(self, error: BadSettings) -> None:
        self._log.error("tokens", cause=error.message, code=error.code, next=error.remedy)

    def failed(self, method: str, path: str, fault: BaseException) -> None:
        at, where = fault.__traceback__, ""
        while at is not None:
            where, at = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}", at.tb_next
        self._log.error("failed", method=method, path=path, fault=type(fault).__name__, at=where)
