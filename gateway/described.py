"""What the OpenAPI document says of each endpoint: what is sent, every status that comes back, examples."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from gateway.bodies import OutcomeBody, PendingBody, ProblemBody, StockBody, StockListBody
from gateway.guard import OPEN_PATHS
from gateway.problem import MEDIA_TYPE
from gateway.reports import (
    EventsBody,
    LettersBody,
    ProjectionsBody,
    PurchasesBody,
    RedriveBody,
    StatusBody,
)
from ledger.domain.commands import COMMANDS, KeyPart, PurchaseGoods

SUMMARY = "Purchases and stock over HTTP. A key counts once: each repeat has the same answer, for good."
PURCHASE = {"user_id": "17850", "goods_id": "85123A", "quantity": 6}
COMMAND = {"type": "PurchaseGoods", "id": "order-42", **PURCHASE}
WHY = {
    400: "A header, a parameter or the body is wrong; `field` names it. Nothing was published.",
    401: "No token that is known here.",
    403: "The token lacks the right, or sends as another source.",
    404: "There is nothing of this name.",
    405: "The path has no such method.",
    408: "The body didn't come in time.",
    409: "The token is of another history: the ledger was restored, or is another one.",
    413: "The body is larger than 64 KiB.",
    415: "The body isn't of a type that is taken.",
    422: "The key was first used for another payload, and its fingerprint differs. This one isn't applied.",
    429: "The token asks too often.",
    500: "A bug.",
    503: "Kafka or the database is away, or too many wait. `detail` says what is known to have happened; "
    "a repeat with the same key is safe.",
}
AGAIN_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
HEADERS: Mapping[int, Any] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: AGAIN_AFTER,
}
ANYWHERE = (400, 408, 413, 500)
WITH_TOKEN = (401, 403, 429)
Json = dict[str, Any]


def refusals(*statuses: int) -> dict[int | str, Json]:
    """The problems with these statuses."""
    return {
        status: {
            "description": WHY[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
        for status in sorted(statuses)
    }


REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true`: this command was decided by another request's delivery.",
        "schema": {"type": "string", "const": "true"},
    }
}
DECIDED: dict[int | str, Json] = {
    200: {"model": OutcomeBody, "description": "Applied or rejected, for good.", "headers": REPLAYED},
    202: {
        "model": PendingBody,
        "description": "It is in the topic, and not decided yet.",
        "headers": {"Location": {"schema": {"type": "string"}}, **AGAIN_AFTER},
    },
    **refusals(*ANYWHERE, *WITH_TOKEN, 415, 422, 503),
}
FOUND: dict[int | str, Json] = {
    200: {"model": OutcomeBody, "description": "Applied or rejected, for good."},
    **refusals(*ANYWHERE, *WITH_TOKEN, 404, 503),
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "The command's id, bare or as a quoted string: made once, and sent with each repeat.",
    "schema": {"type": "string", "pattern": r"^[!#-~][!-~]{0,127}$"},
    "example": "order-42",
}
PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=N`: how many seconds to wait for the outcome, 0 to 30; 5 if it isn't said.",
    "schema": {"type": "string"},
    "example": "wait=10",
}


def taken(parameters: list[Json], **content: Any) -> Json:
    """What an endpoint that reads its body itself is sent."""
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


POSITION, AGE = "Stockledger-Position", "Age"
STANDS = {
    POSITION: {
        "description": "The token of the position that it is as of.",
        "schema": {"type": "string"},
        "example": "18402-9f3c21aa00b7e415",
    },
    AGE: {
        "description": "From a cache: it may be as old as so many seconds, and no older.",
        "schema": {"type": "integer"},
    },
}
STOCK: dict[int | str, Json] = {
    200: {"model": StockBody, "description": "The stock.", "headers": STANDS},
    **refusals(*ANYWHERE, *WITH_TOKEN, 404, 409, 503),
}
STOCKS: dict[int | str, Json] = {
    200: {"model": StockListBody, "description": "The stock.", "headers": STANDS},
    **refusals(*ANYWHERE, *WITH_TOKEN, 409, 503),
}
METRICS: dict[int | str, Json] = {
    200: {
        "description": "Every metric, with its meaning.",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}},
        },
    },
    **refusals(*ANYWHERE, *WITH_TOKEN),
}
ASKED = refusals(*ANYWHERE, *WITH_TOKEN, 503)
EVENTS: dict[int | str, Json] = {
    200: {
        "model": EventsBody,
        "description": "A page; or, if that is accepted, a stream without an end.",
        "headers": {POSITION: STANDS[POSITION]},
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **ASKED,
    **refusals(409),
}
PURCHASES: dict[int | str, Json] = {200: {"model": PurchasesBody, "description": "A page."}, **ASKED}
STATUS: dict[int | str, Json] = {200: {"model": StatusBody, "description": "How things stand."}, **ASKED}
PROJECTIONS: dict[int | str, Json] = {200: {"model": ProjectionsBody, "description": "All."}, **ASKED}
LETTERS: dict[int | str, Json] = {200: {"model": LettersBody, "description": "The first of them."}, **ASKED}
REDRIVEN: dict[int | str, Json] = {
    200: {"model": RedriveBody, "description": "What became of them, or what would."},
    **ASKED,
    **refusals(415),
}
PURCHASE_BODY = {"schema": {"$ref": "#/components/schemas/Purchase"}, "example": PURCHASE}
COMMAND_BODY = {"schema": {"$ref": "#/components/schemas/Command"}, "example": COMMAND}
LINES_BODY = {
    "schema": {"type": "string", "description": "A command a line; all of them are sent, or none."},
    "example": json.dumps(COMMAND) + "\n",
}
LINES_ANSWERED = {
    "schema": {
        "type": "string",
        "description": "A line for each command, in their order: the body that a request of its own would "
        "have been answered with, `status`, and `replayed` where it is true.",
    }
}
DECIDED_EACH: dict[int | str, Json] = DECIDED | {
    200: DECIDED[200]
    | {
        "content": {"application/x-ndjson": LINES_ANSWERED},
        "description": "Applied or rejected, for good; of many, a line each.",
    }
}


def _command_schema() -> Json:
    kinds = []
    for name, model in COMMANDS.items():
        schema = model.model_json_schema()
        head = {
            "type": {"const": name, "type": "string"},
            "id": {"$ref": "#/components/schemas/KeyPart"},
            "source": {"$ref": "#/components/schemas/KeyPart"},
        }
        schema["properties"] = head | schema["properties"]
        schema["required"] = ["type", "id", *schema["required"]]
        kinds.append(schema)
    return {"oneOf": kinds, "description": "The JSON line of `stockledger publish`."}


def document(app: FastAPI) -> Json:
    """The whole document."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["ProblemBody"] = ProblemBody.model_json_schema()
    schemas["Purchase"] = PurchaseGoods.model_json_schema()
    schemas["Command"] = _command_schema()
    schemas["KeyPart"] = TypeAdapter(KeyPart).json_schema()
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            if not _is_ours(operation):
                operation["responses"].pop("422", None)
            if path not in OPEN_PATHS:
                operation["security"] = [{"token": []}]
    return found


def _is_ours(operation: Json) -> bool:
    """Whether the status is a conflict, and not what the framework would say to a wrong parameter."""
    return bool(operation["responses"].get("422", {}).get("description") == WHY[422])
