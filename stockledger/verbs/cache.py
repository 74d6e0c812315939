"""The stock cache of a host: `cache feed`, or `cache` alone, keeps it; `cache check`; `cache prune`."""

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ledger.errors import AGAIN, CacheDiffers, LedgerError
from ledger.figures import counted
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import Interrupted, UsageError, interruption
from stockledger.verb.options import HttpOption, LogFormat, percent, seconds

if TYPE_CHECKING:
    from ledger.cache.host_sink import HostSink
    from stockledger.reports.cache_check import CacheComparison

FEED = "feed"
SHARE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
WATCH_INTERVAL_S = 1.0
PIECES_MAX = 2**53
YEAR_S = 31_536_000


class _Group(TyperGroup):
    """Without the name of a verb it is `feed`."""

    unsaid = FEED

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name what is meant."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.unsaid, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="The stock cache of a host: `cache --into DIR` keeps it, the others look after it.",
    no_args_is_help=True,
)
Into = Annotated[
    Path, typer.Option("--into", metavar="DIR", help="The cache's folder, such as /dev/shm/stock.")
]


@app.command(FEED)
@verb()
def feed(
    call: Call,
    into: Into,
    share: Annotated[
        str | None, typer.Option(metavar="N/OF", help="The goods of one share alone: 0/16 to 15/16.")
    ] = None,
    low_below: Annotated[
        int | None, typer.Option(min=1, max=PIECES_MAX, help="Keep bands: goods with fewer pieces are low.")
    ] = None,
    poll: Annotated[
        float, typer.Option(parser=seconds, metavar="S", help="Seconds between two looks.")
    ] = 0.01,
    until_loaded: Annotated[bool, flag("--until-loaded", "End once the stock is loaded.")] = False,
    http: HttpOption = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the logs on stderr.")] = LogFormat.AUTO,
) -> Answer:
    """Keep the stock in a folder for all processes of this host, until stopped. It only reads the ledger.

    They read it with `HostCache(DIR)`. Of two that keep one folder, the one that began first ends.
    """
    from consumer.log import logger
    from ledger import signals
    from ledger.cache.files import About
    from ledger.cache.host_feeder import keep
    from stockledger.meters import CacheMeter
    from stockledger.watched import watched

    about = About(_share(share), low_below)
    told = _Log(logger(log_format.value))
    settings = call.settings(http=http)
    dsn = settings.conninfo()
    with signals.asked() as stop, watched(settings, log_format.value) as board:
        listener = CacheMeter(told, board) if board else told
        keep(dsn, into, about, stop, listener, poll_s=poll, until_loaded=until_loaded)
    error = interruption(stop, has_goal=until_loaded)
    if told.position is not None:
        call.out.say(str(into), f"loaded as of position {told.position}")
    data = {"into": str(into), "position": told.position, "loads": told.loads}
    return Answer(data, next=call.onward("cache check --into", str(into)), error=error)


def _share(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = SHARE.fullmatch(text)
    if not found or not int(found[1]) < int(found[2]):
        raise UsageError(f"{text} is no share", remedy="for example --share 0/16")
    return int(found[1]), int(found[2])


class _Log:
    """How it goes, as logs like those of `run`."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.position: int | None = None
        self.loads = 0

    def waiting(self, trouble: str, cause: LedgerError | None) -> None:
        told = {"code": cause.code, "next": cause.remedy} if cause else {}
        self._log.warning("waiting", cause=trouble, **told)

    def loaded(self, position: int, loads: int) -> None:
        self._log.info("ready" if self.position is None else "goes on", position=position, loads=loads)
        self.position, self.loads = position, loads

    def looked(self, _: "HostSink") -> None:
        return


@app.command("check")
@verb()
def check(
    call: Call,
    into: Into,
    sample: Annotated[
        float | None, typer.Option(metavar="PERCENT", parser=percent, help="Of so many of the goods.")
    ] = None,
    watch: Annotated[bool, flag("--watch", "Again and again, until Ctrl-C.")] = False,
) -> Answer:
    """Compare what the cache says with what the ledger says as of the same position.

    A difference is a fact and no guess: it ends with exit 4, and names goods, position and both values.
    """
    from ledger import signals
    from ledger.cache.host_cache import HostCache
    from stockledger.reports.cache_check import CacheComparison, compare
    from stockledger.wiring import ledger

    settings, done = call.settings(), CacheComparison()
    with (
        signals.asked() as stop,
        ledger(settings) as book,
        HostCache(into, on_stale="serve", dsn=settings.conninfo()) as cache,
    ):
        while not stop.is_set():
            compare(cache, book, sample, done)
            if done.difference or not watch:
                break
            call.out.note(_words(done))
            stop.wait(WATCH_INTERVAL_S)
    call.out.say(_words(done))
    data = {"compared": done.compared, "token": done.token, "rounds": done.rounds}
    if found := done.difference:
        differs = CacheDiffers(str(found), remedy="stop the feeder, keep the folder, and report it")
        return Answer(data | {"agrees": False, "difference": found.as_json()}, error=differs)
    error = Interrupted("interrupted", remedy=AGAIN) if stop.is_set() and not watch else None
    return Answer(data | {"agrees": True}, error=error)


def _words(done: "CacheComparison") -> str:
    return f"{counted(done.compared, 'comparison')}, the last one as of {done.token}"


@app.command("prune")
@verb()
def prune(
    call: Call,
    keep: Annotated[
        float, typer.Option(min=0, max=YEAR_S, metavar="S", help="Keep the changes of so many seconds.")
    ] = 3600.0,
) -> Answer:
    """Forget the changes of stock that no cache needs any more. Workers do so by themselves, after an hour.

    A cache that was cut off for longer loads the stock anew.
    """
    from ledger.store.tables import stock_delta
    from stockledger.wiring import ledger_database

    with ledger_database(call.settings(), "cache") as conn:
        pruned = 0
        while some := stock_delta.prune(conn, timedelta(seconds=keep)):
            pruned += some
    call.out.say(f"{counted(pruned, 'change')} of stock forgotten")
    return Answer({"pruned": pruned})
