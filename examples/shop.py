"""A shop's page: it shows stock from a cache while purchases run, and each visitor sees his own purchase.

    pip install '.[cache]' fastapi uvicorn
    uvicorn --app-dir examples shop:app

It takes STOCKLEDGER_DSN, STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS and STOCKLEDGER_TOPIC from the environment. With
SHOP_CACHE_DIR it reads the folder that `stockledger cache --into` keeps, so workers share one copy.
To show the page asks nobody. Whether a purchase succeeds the ledger decides, whatever number the page had.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from html import escape
from typing import Annotated
from urllib.parse import quote
from uuid import UUID, uuid4

from fastapi import Cookie, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from stockledger import HistoryChanged, HostCache, LedgerError, Shop, StockCache

DSN = os.environ.get("STOCKLEDGER_DSN", "")
KAFKA = {"bootstrap.servers": os.environ.get("STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")}
TOPIC = os.environ.get("STOCKLEDGER_TOPIC", "purchase-commands")
FOLDER = os.environ.get("SHOP_CACHE_DIR")
USER = "17850"  # a shop with a login knows who it is
OUTCOME_WAIT_S = 10.0
REFRESH = '<meta http-equiv="refresh" content="2">'

cache = HostCache(FOLDER, dsn=DSN) if FOLDER else StockCache(DSN, strategy="copy")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The cache follows the ledger, and the shop is open, for as long as the application runs."""
    await asyncio.to_thread(cache.start)
    app.state.shop = await asyncio.to_thread(Shop, KAFKA, TOPIC, "shop-page", DSN)
    try:
        yield
    finally:
        await asyncio.to_thread(app.state.shop.close)
        await asyncio.to_thread(cache.close)


def html(body: str, status: int = 200, head: str = "") -> HTMLResponse:
    """A page; what others wrote is escaped by whoever puts it into the body."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><title>Shop</title>{head}<body>{body}</body></html>', status
    )


# FastAPI's own pages load their scripts from elsewhere.
app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.exception_handler(LedgerError)
@app.exception_handler(TimeoutError)
async def not_now(request: Request, error: Exception) -> Response:
    """What can't be answered right now, and why; a page that was only read comes back by itself."""
    if request.method == "GET":
        return html(f"<p>The stock isn't known right now: {escape(str(error))}", 503, REFRESH)
    again = "Reload this page to send the same again: it counts once."
    return html(f"<p>There is no answer to your purchase: {escape(str(error))}<p>{again}", 503)


@app.get("/")
def page(token: Annotated[str | None, Cookie()] = None) -> Response:
    """All goods as of one position; the token of the visitor's purchase says which one at least."""
    goods, forgets = cache.snapshot(), False
    try:
        levels = cache.get_many(goods, at_least=token)
    except (HistoryChanged, ValueError):  # the ledger was restored to before that, or it is no token
        levels, forgets = cache.get_many(goods), True
    rows = "".join(
        f"<tr><td>{escape(level.goods_id)}<td>{level.on_hand}<td><form method='post'"
        f" action='/buy/{quote(level.goods_id, safe='')}?id={uuid4()}'><button>Buy one</button></form>"
        for _, level in sorted(levels.items())
        if level
    )
    as_of = f"<p>As of {levels.token}, {levels.age_s:.3f} s old at most"
    response = html(f"<table><tr><th>Goods<th>On hand<th>{rows}</table>{as_of}", head=REFRESH)
    if forgets:
        response.delete_cookie("token")
    return response


@app.post("/buy/{goods_id:path}")
def buy(goods_id: str, id: UUID) -> Response:
    """Buy one. The id came with the button, so a second click sends the same again, and it counts once."""
    if cache.get(goods_id) is None:  # or anybody could fill the ledger with rejections
        return html(f"<p>There are no goods {escape(goods_id)}", 404)
    found = app.state.shop.buy_goods(USER, goods_id, 1, request_id=id, timeout_s=OUTCOME_WAIT_S)
    if found.outcome != "applied":
        return html(f"<p>Not bought: {(found.reason or found.outcome).replace('_', ' ')}", 409)
    response = RedirectResponse("/", 303)
    response.set_cookie("token", found.token, httponly=True, samesite="lax")
    return response


@app.get("/health")
def health() -> Response:
    """How the cache stands; asks nobody."""
    status = cache.status()
    return JSONResponse(asdict(status), 200 if status.fresh else 503)
