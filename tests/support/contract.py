"""The contract as it is committed, which is what other languages read, and what it says of values."""

import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft7Validator

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = DOCS / "schemas"


def document() -> dict[str, Any]:
    """The AsyncAPI document."""
    return json.loads((DOCS / "asyncapi.json").read_text("utf-8"))  # type: ignore[no-any-return]


@cache
def validator(name: str) -> Draft7Validator:
    """Of the values of this `ce_type`, or of this name where records have none."""
    return Draft7Validator(json.loads((SCHEMAS / f"{name}.json").read_text("utf-8")))


def is_taken(command: str, data: str) -> bool:
    """Whether the schema of this command takes the JSON text."""
    return validator(f"stockledger.{command}.v1").is_valid(json.loads(data))


def is_unsayable(text: str) -> bool:
    """Whether JSON Schema has no word for what is wrong with this id: only Unicode's tables know.

    Characters beyond U+00FF that can't be printed, and what isn't in normal form C.
    """
    return any(c > "\xff" and not c.isprintable() for c in text) or not unicodedata.is_normalized("NFC", text)


def judge_record(record: Any, name: str = "") -> None:
    """A record that was read from a topic has the headers, the key and the value that the document says."""
    headers = {header: value.decode() for header, value in record.headers() or []}
    of_headers, of_key, of_value = _validators(headers.get("ce_type", name))
    of_headers.validate(headers)
    of_key.validate(record.key().decode())
    of_value.validate(json.loads(record.value()))


@cache
def _validators(name: str) -> tuple[Draft7Validator, ...]:
    [message] = [each for each in document()["components"]["messages"].values() if each["name"] == name]
    headers = message["headers"] | {"additionalProperties": False}
    return Draft7Validator(headers), Draft7Validator(message["bindings"]["kafka"]["key"]), validator(name)
