"""CloudEvents 1.0 on Kafka: (headers, value) to a `Request` or a `Bad`, and back. Knows no Kafka client.

`decode` never raises: whatever the bytes are, the answer is exactly one of the two. What it accepts are UTF-8
JSON objects with integers only and without repeated keys that their command's model accepts (`parse_fields`,
`validate`); plain ones are known to be such without asking it (`_plain`).
Source: CloudEvents 1.0.2, "Kafka Protocol Binding", sections 3.2 (binary) and 3.3 (structured).
"""

import hashlib
import json
from collections import Counter
from functools import lru_cache
from typing import Any, Never, TypeVar, cast

from msgspec import MsgspecError
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from ledger.domain import foreign, structs
from ledger.domain.commands import COMMANDS, KEY_PART_MAX, AnyCommand, MessageKey, is_key_part
from ledger.domain.delivery import Bad, Headers, Request
from ledger.domain.structs import canonical, struct_of

SPEC_VERSION = "1.0"
TYPE_PREFIX = "stockledger."
TYPE_VERSION = ".v1"
JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"
_JSON = JSON_TYPE.encode()
REQUIRED = ("specversion", "id", "source", "type")
DETAIL_MAX = 500
NAME_MAX = 100

MODELS = {f"{TYPE_PREFIX}{name}{TYPE_VERSION}": model for name, model in COMMANDS.items()}
"""The models by `ce_type`."""


class _Invalid(Exception):
    def __init__(self, code: str, detail: str, hint: str = "") -> None:
        super().__init__(code)
        self.code, self.detail, self.hint = code, detail[:DETAIL_MAX], hint

    @property
    def bad(self) -> Bad:
        # Details quote names out of the record: whatever they hold must be fit for a text column.
        text = f"{self.detail}: {self.hint}" if self.hint else self.detail
        return Bad(
            self.code, text.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")[:DETAIL_MAX]
        )


class _Missing(_Invalid):
    """One of CloudEvents' headers isn't there, so the record may be anything."""

    def __init__(self, header: str) -> None:
        super().__init__("attribute", f"the header {header} is missing")


def decode(headers: Headers | None, value: bytes | None) -> Request | Bad:
    """The command in a record, or why it is none."""
    plain = _plain(headers, value) if headers and value else None
    return plain or judge(headers, value)


def judge(headers: Headers | None, value: bytes | None) -> Request | Bad:
    """Decode by the models alone, as `decode` does with all records that aren't plain."""
    try:
        attributes = _attributes(headers or [])
        if value is None:
            raise _Invalid("tombstone", "the record has no value")
        if attributes.get("content-type", _JSON) != _JSON:
            content_type = _text(attributes["content-type"], "content-type")
            if content_type.lstrip().lower().startswith("application/cloudevents"):
                return _structured(content_type, value)
            _require_json(content_type)
        return _binary(attributes, value)
    except _Missing as missing:
        missing.hint = foreign.record_is(headers or [], value or b"")
        return missing.bad
    except _Invalid as invalid:
        return invalid.bad


def _plain(headers: Headers, value: bytes) -> Request | None:
    """The command, if nothing in the record needs a second look, else None."""
    attributes = dict(headers)
    get = attributes.get
    if len(attributes) < len(headers) or get("content-type", _JSON) != _JSON:
        return None
    try:
        source, model = _sender(get("ce_specversion"), get("ce_source"), get("ce_type"))
        id, command = attributes["ce_id"].decode(), structs.DECODE[model.NAME](value)  # type: ignore[union-attr]
    except (_Invalid, KeyError, AttributeError, UnicodeDecodeError, MsgspecError):
        return None
    payload = canonical(command)
    if not is_key_part(id) or not structs.is_plain(value, payload):
        return None
    key = MessageKey(source, id)
    return Request(key, command, _fingerprint(key, command, payload))


def encode(
    key: MessageKey, command: AnyCommand | structs.AnyStruct, *, time: str = "", subject: str = ""
) -> tuple[Headers, bytes]:
    """Headers and value of the record that carries the command, in binary mode. `time` is RFC 3339."""
    return headers(*key, command.NAME, time, subject), canonical(command)


def headers(
    source: str, id: str, name: str, time: str = "", subject: str = "", partition_key: str = ""
) -> Headers:
    """The headers of a record in binary mode that carries a command of this name. `time` is RFC 3339.

    `partition_key` is the record key where that isn't the subject (CloudEvents' extension "partitioning").
    """
    specversion, from_source, type, content_type = _common_headers(source, name)
    made: Headers = [specversion, ("ce_id", id.encode()), from_source, type, content_type]
    if time:
        made.append(("ce_time", time.encode()))
    if subject:
        made.append(("ce_subject", subject.encode()))
    if partition_key:
        made.append(("ce_partitionkey", partition_key.encode()))
    return made


@lru_cache(maxsize=1_000)
def _common_headers(source: str, name: str) -> Headers:
    return [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_source", source.encode()),
        ("ce_type", f"{TYPE_PREFIX}{name}{TYPE_VERSION}".encode()),
        ("content-type", JSON_TYPE.encode()),
    ]


def request(key: MessageKey, command: AnyCommand) -> Request:
    """The command with its identity and its fingerprint."""
    return Request(key, struct_of(command), fingerprint(key, command))


def fingerprint(key: MessageKey, command: AnyCommand | structs.AnyStruct) -> bytes:
    """First 16 bytes of SHA-256 over the type's name without its version, LF, and the canonical payload."""
    return _fingerprint(key, struct_of(command), canonical(command))


def _fingerprint(key: MessageKey, command: structs.AnyStruct, payload: bytes) -> bytes:
    if type(command) is structs.CancelPurchaseStruct and command.purchase_source == key.source:
        payload = canonical(replace(command, purchase_source=None))  # its default: left out
    sha = _FINGERPRINTED[command.NAME].copy()
    sha.update(payload)
    return sha.digest()[:16]


_FINGERPRINTED = {name: hashlib.sha256(f"{TYPE_PREFIX}{name}\n".encode()) for name in COMMANDS}


def parse_fields(text: str) -> dict[str, Any]:
    """A JSON object without repeated keys, floats and constants such as NaN.

    Raises ValueError with a sentence that says where it isn't one.
    """
    try:
        fields = _QUICK.decode(text)
        if not isinstance(fields, dict):
            raise _Refused("isn't a JSON object")
        # As many colons as fields: no key is repeated. Else one is, or an object or a text holds a colon.
        return fields if text.count(":") == len(fields) else _CAREFUL.decode(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (json.JSONDecodeError, _Refused):
        raise
    except ValueError:  # the interpreter's limit
        raise ValueError("has a number beyond the limit of 4,300 digits") from None


def is_strict(value: str) -> bool:
    """Whether `parse_fields` takes what this JSON text holds, as a member's value."""
    try:
        parse_fields(f'{{"":{value}}}')
    except ValueError:
        return False
    return True


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(model: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """The model of these fields. Raises ValueError naming the first field that is wrong, never its value."""
    if len(fields) > len(model.__pydantic_fields__):  # so one isn't known: the model would name each of them
        unknown = next(name for name in fields if name not in model.__pydantic_fields__)
        raise ValueError(f"{unknown[:NAME_MAX]}: Extra inputs are not permitted")
    try:
        return cast(ModelT, model.__pydantic_validator__.validate_python(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "value"
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _binary(attributes: dict[str, bytes | None], value: bytes) -> Request:
    get = attributes.get
    source, model = _sender(get("ce_specversion"), get("ce_source"), get("ce_type"))
    key = MessageKey(source, _key_part(_text(get("ce_id"), "ce_id")))
    return request(key, _command(model, _object(value)))


@lru_cache(maxsize=1_000)
def _sender(
    specversion: bytes | None, source: bytes | None, type: bytes | None
) -> tuple[str, type[AnyCommand]]:
    """The source and the model: what records have in common, so it is read once; nothing invalid is kept."""
    model = _model(_text(specversion, "ce_specversion"), _text(type, "ce_type"))
    return _key_part(_text(source, "ce_source")), model


def _structured(content_type: str, value: bytes) -> Request:
    media, _, parameters = content_type.partition(";")
    if media.strip().lower() != STRUCTURED_TYPE:
        raise _Invalid("content_type", f"{media.strip()} isn't supported: use {STRUCTURED_TYPE}")
    _require_utf8(parameters)
    event = _object(value)
    specversion, id, source, type = (_attribute(event, name) for name in REQUIRED)
    key, model = MessageKey(_key_part(source), _key_part(id)), _model(specversion, type)
    if "data_base64" in event:
        raise _Invalid("data_base64", "data_base64 isn't supported: pass the SDK an object, not bytes")
    data_type = event.get("datacontenttype")
    if data_type is not None:
        if not isinstance(data_type, str):
            raise _Invalid("attribute", f"the attribute datacontenttype must be text, not {_kind(data_type)}")
        _require_json(data_type)
    data = event.get("data")
    if not isinstance(data, dict):
        raise _Invalid(
            "json", f"data must be an object, not {_kind(data)}", "pass the SDK an object, not text"
        )
    return request(key, _command(model, data))


def _model(specversion: str, type: str) -> type[AnyCommand]:
    if specversion != SPEC_VERSION:
        raise _Invalid("attribute", f"specversion must be {SPEC_VERSION}")
    model = MODELS.get(type)
    if model is None:
        raise _Invalid("unknown_type", f"{type[:128]} isn't known to this version")
    return model


def _key_part(text: str) -> str:
    if not is_key_part(text):
        raise _Invalid("attribute", f"id and source must be 1 to {KEY_PART_MAX} visible ASCII characters")
    return text


def _command(model: type[AnyCommand], fields: dict[str, Any]) -> AnyCommand:
    try:
        return validate(model, fields)
    except ValueError as error:
        said = foreign.object_is(fields)
        raise _Invalid("field", str(error), said and f"the value {said}") from None


def _attributes(headers: Headers) -> dict[str, bytes | None]:
    found = dict(headers)
    if len(found) != len(headers):
        for name, times in Counter(name for name, _ in headers).items():
            if times > 1 and (name.startswith("ce_") or name == "content-type"):
                raise _Invalid("repeated_attribute", f"the header {name} occurs more than once")
    return found


def _attribute(event: dict[str, Any], name: str) -> str:
    if name not in event:
        said = foreign.object_is(event)
        raise _Invalid("attribute", f"the attribute {name} is missing", said and f"the value {said}")
    attribute = event[name]
    if not isinstance(attribute, str):
        raise _Invalid("attribute", f"the attribute {name} must be text, not {_kind(attribute)}")
    return attribute


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", str: "text", list: "an array", dict: "an object"}
    return names.get(type(value), "null")


def _text(raw: bytes | None, header: str) -> str:
    if raw is None:
        raise _Missing(header)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _Invalid("attribute", f"the header {header} isn't UTF-8") from None


def _require_json(content_type: str) -> None:
    media, _, parameters = content_type.partition(";")
    if media.strip().lower() != JSON_TYPE:
        raise _Invalid("content_type", f"{media.strip()} isn't supported: use {JSON_TYPE}")
    _require_utf8(parameters)


def _require_utf8(parameters: str) -> None:
    if "charset" not in parameters.lower():
        return
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(' "').lower() != "utf-8":
            raise _Invalid("encoding", "charset must be UTF-8")


def _object(value: bytes) -> dict[str, Any]:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        said = foreign.value_is(value)
        raise _Invalid("encoding", f"the value isn't UTF-8, at byte {error.start}", said) from None
    try:
        return parse_fields(text)
    except json.JSONDecodeError as error:
        said = foreign.value_is(value) or f"is no valid JSON: {error}"
        raise _Invalid("json", f"the value {said}") from None
    except ValueError as error:
        path = foreign.refused_path(text, is_strict)
        said = f"{path}: {error}" if path else f"the value {foreign.value_is(value) or error}"
        raise _Invalid("json", said) from None


class _Refused(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Refused("has a repeated key")
    return fields


def _no_float(text: str) -> Never:
    raise _Refused(f"has the number {text[:40]}, which is no integer")


_QUICK = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float)
_CAREFUL = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
