"""The AsyncAPI document, and the files that are written of it."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from ledger.domain.envelope import JSON_TYPE, STRUCTURED_TYPE
from producer.relay.outputs import OutgoingRecord, Outputs
from stockledger.contract import schemas
from stockledger.contract.schemas import KEY_PART, JsonObject
from stockledger.contract.story import told
from stockledger.relay_topics import COMPACTED, KEPT

SPECIFICATION, KAFKA_BINDING = "3.1.0", "0.5.0"
DOCUMENT, SCHEMAS = "asyncapi.json", "schemas"
PLACE = "#/components/schemas/"
STRUCTURED = "StructuredCommand"
ABOUT = (
    "Commands that the ledger applies, and what its relay publishes. In binary mode a header is the text of "
    "a CloudEvent's attribute, with ce_ before its name."
)
SERVERS: JsonObject = {
    "kafka": {
        "host": "{bootstrap}",
        "protocol": "kafka",
        "variables": {"bootstrap": {"default": "localhost:9092"}},
    }
}
COMMITTED = "Ask for committed records (isolation.level=read_committed)."
INTERNAL = "How far the relay has come. Internal: nobody else reads it or writes to it."
COMMAND_KEY: JsonObject = {
    "type": "string",
    "description": "The goods_id, or the user_id of a command without goods. It isn't checked: it decides "
    "which commands stay in order.",
}


class Channel(NamedTuple):
    """What is said of a topic, and of the records in it."""

    name: str
    topic: str
    config: Mapping[str, str]
    key: JsonObject
    description: str


def document(topic: str, prefix: str, group: str, version: str) -> JsonObject:
    """The contract of this command topic, and of the relay's topics that are named after the prefix."""
    outputs = Outputs.of(prefix)
    commands = Channel("commands", topic, KEPT, COMMAND_KEY, "What is to be done: one command a record.")
    positions = Channel("positions", outputs.positions, COMPACTED, {}, INTERNAL)
    relayed = _relayed(outputs)
    shown = _records(topic, outputs)
    messages = {commands.name: _commands(shown[topic]), positions.name: {}} | {
        channel.name: _outgoing(channel, shown[channel.topic]) for channel in relayed
    }
    channels = (commands, *relayed, positions)
    return {
        "asyncapi": SPECIFICATION,
        "info": {
            "title": "stockledger",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON_TYPE,
        "servers": SERVERS,
        "channels": {channel.name: _channel(channel, messages[channel.name]) for channel in channels},
        "operations": _operations(group, relayed),
        "components": {
            "messages": {name: each for found in messages.values() for name, each in found.items()},
            "schemas": schemas.of_values() | {STRUCTURED: schemas.of_structured(PLACE)},
        },
    }


def files(document: JsonObject) -> dict[str, str]:
    """What is written, by its name: the document, and the schema of each value as a file of its own."""
    components = document["components"]
    found = {DOCUMENT: text(document)}
    for name, message in components["messages"].items():
        if name != STRUCTURED:
            schema = {"$schema": schemas.DIALECT, **components["schemas"][name]}
            found[f"{SCHEMAS}/{message['name']}.json"] = text(schema)
    return found


def text(document: JsonObject) -> str:
    """As it is printed and written."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _relayed(outputs: Outputs) -> list[Channel]:
    stream = {"type": "string", "description": "The event's stream.", "pattern": "^(goods|user)-"}
    command, item = KEY_PART | {"description": "The command's id."}, {"description": "The goods_id."}
    return [
        Channel("events", outputs.events, KEPT, stream, f"What happened. {COMMITTED}"),
        Channel("outcomes", outputs.outcomes, KEPT, command, f"What became of each command. {COMMITTED}"),
        Channel(
            "stock", outputs.stock, COMPACTED, {"type": "string", **item},
            f"The last stock of each item: of a key keep what has the highest version. {COMMITTED}",
        ),
    ]  # fmt: skip


def _channel(channel: Channel, messages: Mapping[str, JsonObject]) -> JsonObject:
    config = {name: [value] for name, value in channel.config.items()}
    return {
        "address": channel.topic,
        "description": channel.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": _kafka({"topic": channel.topic, "topicConfiguration": config}),
    }


def _operations(group: str, relayed: list[Channel]) -> JsonObject:
    """What this program does with the records: it receives commands, and sends the others."""
    by_group = {"bindings": _kafka({"groupId": {"type": "string", "const": group}})}
    sends = {f"send{each.name.capitalize()}": _operation("send", each.name) for each in relayed}
    return {"receiveCommands": _operation("receive", "commands") | by_group, **sends}


def _operation(action: str, channel: str) -> JsonObject:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _kafka(binding: JsonObject) -> JsonObject:
    return {"kafka": binding | {"bindingVersion": KAFKA_BINDING}}


def _records(topic: str, outputs: Outputs) -> dict[str, dict[str, list[OutgoingRecord]]]:
    """The records of each topic, by what their value is."""
    found: dict[str, dict[str, list[OutgoingRecord]]] = defaultdict(lambda: defaultdict(list))
    for name, record in told(topic, outputs):
        found[record.topic][name].append(record)
    return found


def _commands(shown: Mapping[str, list[OutgoingRecord]]) -> dict[str, JsonObject]:
    found = {
        name: _message(name, records, schemas.of_command_headers(name), COMMAND_KEY)
        for name, records in shown.items()
    }
    return found | {STRUCTURED: _structured(shown["PurchaseGoods"][0])}


def _outgoing(channel: Channel, shown: Mapping[str, list[OutgoingRecord]]) -> dict[str, JsonObject]:
    return {
        name: _message(name, records, schemas.of_relayed_headers(records[0].headers), channel.key)
        for name, records in shown.items()
    }


def _message(name: str, records: list[OutgoingRecord], headers: JsonObject, key: JsonObject) -> JsonObject:
    return {
        "name": dict(records[0].headers).get("ce_type", name.encode()).decode(),
        "title": name,
        "contentType": JSON_TYPE,
        "headers": headers,
        "payload": {"$ref": f"{PLACE}{name}"},
        "bindings": _kafka({"key": key}),
        "examples": [{"headers": _texts(record), "payload": json.loads(record.value)} for record in records],
    }


def _structured(record: OutgoingRecord) -> JsonObject:
    texts = _texts(record)
    event = {name.removeprefix("ce_"): value for name, value in texts.items() if name.startswith("ce_")}
    event["datacontenttype"] = texts["content-type"]
    return {
        "name": STRUCTURED,
        "title": STRUCTURED,
        "contentType": STRUCTURED_TYPE,
        "headers": schemas.STRUCTURED_HEADERS,
        "payload": {"$ref": f"{PLACE}{STRUCTURED}"},
        "bindings": _kafka({"key": COMMAND_KEY}),
        "examples": [
            {
                "headers": {"content-type": STRUCTURED_TYPE},
                "payload": event | {"data": json.loads(record.value)},
            }
        ],
    }


def _texts(record: OutgoingRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}
