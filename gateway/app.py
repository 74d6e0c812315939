"""The application: its endpoints, and what the framework refuses said in the same way as all else."""

from functools import cache

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from gateway import orders, past, standing, stock
from gateway.bodies import AliveBody, ReadyBody
from gateway.described import ANYWHERE, METRICS, SUMMARY, document, refusals
from gateway.door import Door, may
from gateway.problem import JSON, MEDIA_TYPE, Problem, written
from gateway.tokens import Right
from gateway.ui import dashboard
from gateway.ui.pages import ROOT, is_page
from gateway.ui.refusal import HTML, refusal
from ledger.errors import LedgerError


class _AnyId(PathConvertor):
    """An id in a path, `{goods_id:any}`: any text. Starlette's own `path` ends at a line feed."""

    regex = r"[\s\S]*"


register_url_convertor("any", _AnyId())


def application(door: Door, version: str) -> FastAPI:
    """All endpoints of the door, without what `Guard` does before them."""
    app = FastAPI(
        title="stockledger",
        version=version,
        summary=SUMMARY,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        # its own spans have the path with all that is in it, and end before `Guard` does
        telemetry={"tracing": False, "metrics": False, "logs": False},
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(orders.routes(door))
    app.include_router(stock.routes(door))
    app.include_router(past.routes(door))
    app.include_router(standing.routes(door))
    app.include_router(dashboard.routes(door))

    @app.get("/livez", responses={200: {"model": AliveBody}, **refusals(*ANYWHERE)}, summary="Is it alive?")
    async def livez() -> Response:
        """It answers, so its loop moves. A database that is away doesn't make it dead."""
        return Response(written(AliveBody().model_dump()), media_type=JSON)

    @app.get(
        "/readyz", responses={200: {"model": ReadyBody}, **refusals(*ANYWHERE, 503)}, summary="Can it sell?"
    )
    async def readyz() -> Response:
        """Kafka and the database answer, and it isn't ending."""
        await door.require_ready()
        return Response(written(ReadyBody().model_dump()), media_type=JSON)

    @app.get(
        "/metrics",
        dependencies=[Depends(may(Right.READ))],
        responses=METRICS,
        response_class=PlainTextResponse,
        summary="How it goes, for Prometheus",
    )
    async def metrics(request: Request) -> Response:
        """Latencies by endpoint, what is in hand, the cache's age; as OpenMetrics if that is accepted."""
        text, media_type = door.meter.written(door, version, request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    @app.get("/openapi.json", responses=refusals(*ANYWHERE), summary="This document")
    async def openapi() -> Response:
        """OpenAPI 3.1, as it is committed in docs/openapi.json."""
        return Response(described(), media_type=JSON)

    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    described = cache(lambda: written(app.openapi()))  # to make it takes long, and anybody may ask for it

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return _response(request, error)

    @app.exception_handler(LedgerError)
    async def fault(request: Request, error: LedgerError) -> Response:
        return _response(request, Problem.of(error))

    @app.exception_handler(TimeoutError)
    async def late(request: Request, error: TimeoutError) -> Response:
        return _response(request, Problem(503, str(error), remedy="ask again later", retryable=True))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        detail = {404: "there is no such path", 405: "this path has no such method"}
        remedy = f"see {ROOT}" if is_page(request.scope["path"]) else "see /openapi.json"
        return _response(
            request,
            Problem(
                error.status_code, detail.get(error.status_code, str(error.detail)), remedy=remedy,
                headers=error.headers,
            ),
        )  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _response(request, Problem.bad(str(first["loc"][-1]), first["msg"]))

    return app


def _response(request: Request, problem: Problem) -> Response:
    if is_page(request.scope["path"]):
        return Response(refusal(problem, request.scope), problem.status, problem.headers, HTML)
    return Response(written(problem.told()), problem.status, problem.headers, MEDIA_TYPE)
