"""JSON Schemas (draft 7, as AsyncAPI has them) of all values, and of the headers beside them.

Values come from the models. What headers there are is taken from records; their rules stand here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from pydantic import TypeAdapter

from ledger.domain.commands import COMMANDS, KeyPart
from ledger.domain.envelope import JSON_TYPE, MODELS, REQUIRED, SPEC_VERSION, STRUCTURED_TYPE, headers
from ledger.domain.events import EVENTS
from producer.relay.outputs import TOKEN_PATTERN, CommandDecided, RelayedStock

JsonObject = dict[str, Any]
DIALECT = "http://json-schema.org/draft-07/schema#"
KEY_PART: JsonObject = TypeAdapter(KeyPart).json_schema()
NUMBER: JsonObject = {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}
NOT_LOOKED_AT = "Not looked at."
COMMAND_HEADERS: dict[str, JsonObject] = {
    "ce_specversion": {"type": "string", "const": SPEC_VERSION},
    "ce_id": KEY_PART | {"description": "The command's id: made once, and sent with each repeat."},
    "ce_source": KEY_PART | {"description": "Who made the id."},
    "ce_type": {},
    "content-type": {
        "type": "string",
        "description": f"{JSON_TYPE}, with charset=utf-8 or none; without the header it counts as JSON.",
    },
    "ce_time": {"type": "string", "description": f"When it was made, RFC 3339. {NOT_LOOKED_AT}"},
    "ce_subject": {"type": "string", "description": f"What it is about. {NOT_LOOKED_AT}"},
    "ce_partitionkey": {
        "type": "string",
        "description": f"The record key, where it isn't the subject. {NOT_LOOKED_AT}",
    },
    "ce_traceparent": {
        "type": "string",
        "description": "W3C's traceparent of the span that it was sent in. No part of the command.",
    },
    "ce_tracestate": {"type": "string", "description": "W3C's tracestate beside it."},
}
TRACED = ("ce_traceparent", "ce_tracestate")
"""They are there while somebody traces."""
RELAYED_HEADERS: dict[str, JsonObject] = {
    "ce_specversion": {"type": "string", "const": SPEC_VERSION},
    "ce_id": {"type": "string", "pattern": r"^[1-9][0-9]*\.(0|[1-9][0-9]*)$"},
    "ce_source": {"type": "string", "format": "uri-reference", "description": "The ledger."},
    "ce_type": {},
    "ce_subject": {"type": "string", "description": "The record key."},
    "ce_time": {"type": "string", "format": "date-time", "description": "When it was recorded, in UTC."},
    "content-type": {"type": "string", "const": JSON_TYPE},
    "ce_position": NUMBER | {"description": "The journal entry."},
    "ce_ordinal": NUMBER | {"description": "The event's place in its entry."},
    "ce_version": NUMBER | {"description": "The event's place in its stream, from 1, without holes."},
    "ce_causationsource": KEY_PART | {"description": "The source of the command that caused it."},
    "ce_causationid": KEY_PART | {"description": "The id of the command that caused it."},
    "ce_token": {"type": "string", "pattern": TOKEN_PATTERN, "description": "The entry's token."},
}
REPEATS = "No ce_ header and no content-type may occur twice."


def of_values() -> dict[str, JsonObject]:
    """The schema of each value, by its name."""
    found = {name: model.model_json_schema() for name, model in COMMANDS.items()}
    kinds: Iterable[type[msgspec.Struct]] = (*EVENTS.values(), CommandDecided, RelayedStock)
    return found | {kind.__name__: msgspec.json.schema(kind)["$defs"][kind.__name__] for kind in kinds}


def of_command_headers(name: str) -> JsonObject:
    """The headers of a command of this name in binary mode."""
    known = dict(headers("source", "id", name, "time", "subject", "key"))
    rules = {each: COMMAND_HEADERS[each] for each in (*known, *TRACED)}
    required = [f"ce_{attribute}" for attribute in REQUIRED]
    return _headers(rules, known["ce_type"], required) | {"description": REPEATS}


def of_relayed_headers(found: Sequence[tuple[str, bytes]]) -> JsonObject:
    """The headers of records that have these: each is always there."""
    rules = {name: RELAYED_HEADERS[name] for name, _ in found}
    return _headers(rules, dict(found).get("ce_type"), list(rules))


def _headers(rules: Mapping[str, JsonObject], type: bytes | None, required: list[str]) -> JsonObject:
    of_type = {"ce_type": {"type": "string", "const": type.decode()}} if type else {}
    return {"type": "object", "properties": {**rules, **of_type}, "required": required}


STRUCTURED_HEADERS: JsonObject = {
    "type": "object",
    "properties": {
        "content-type": {
            "type": "string",
            "description": f"{STRUCTURED_TYPE}, with charset=utf-8 or none. No other header is needed.",
        }
    },
    "required": ["content-type"],
    "description": REPEATS,
}


def of_structured(place: str) -> JsonObject:
    """A command in structured mode: the whole event. `place` is where the schemas of values are."""
    kinds = [
        {"properties": {"type": {"const": type_}, "data": {"$ref": f"{place}{model.NAME}"}}}
        for type_, model in MODELS.items()
    ]
    return {
        "type": "object",
        "description": "A command as a CloudEvent in JSON; other attributes are left alone.",
        "properties": {
            "specversion": {"type": "string", "const": SPEC_VERSION},
            "id": KEY_PART,
            "source": KEY_PART,
            "type": {"type": "string", "enum": list(MODELS)},
            "datacontenttype": {"type": ["string", "null"], "description": f"As the header: {JSON_TYPE}."},
            "data": {"type": "object"},
            "data_base64": False,
        },
        "required": [*REQUIRED, "data"],
        "oneOf": kinds,
    }
