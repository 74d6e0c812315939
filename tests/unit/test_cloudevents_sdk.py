"""The SDK of CloudEvents judges both codecs: what it writes is taken, and what is taken it reads alike."""

import json
import random

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from ledger.domain.commands import COMMANDS, MessageKey
from ledger.domain.delivery import Request
from ledger.domain.structs import struct_of
from tests.support import codecs
from tests.unit.strategies import commands, keys

RECORDS = 4000
FORMAT = JSONFormat()
NEEDED = ("ce_specversion", "ce_id", "ce_source", "ce_type")


@pytest.mark.parametrize("mode", [to_binary, to_structured])
@given(keys, commands)
def test_what_it_writes_is_taken(mode, key, command):
    """In both modes of the Kafka binding: the same key, and the same command."""
    attributes = {
        "specversion": "1.0",
        "id": key.id,
        "source": key.source,
        "type": f"stockledger.{struct_of(command).NAME}.v1",
        "datacontenttype": "application/json",
    }
    message = mode(CloudEvent(attributes, command.model_dump(exclude_none=True)), FORMAT)
    found = codecs.decode([*message.headers.items()], message.value)
    assert isinstance(found, Request), found
    assert (found.key, found.command) == (key, struct_of(command))


def test_what_is_taken_it_reads_alike(seed):
    """Attributes and data, of records by strangers: of the attributes those that a command needs."""
    choose = random.Random(seed)
    taken = 0
    for _ in range(RECORDS):
        value, headers = codecs.any_record(choose)
        found = codecs.decode(headers, value)
        if not isinstance(found, Request):
            continue
        taken += 1
        ours = {name: text for name, text in headers or [] if name in NEEDED and text is not None}
        message = KafkaMessage(ours | {"content-type": b"application/json"}, None, value or b"")
        event = from_kafka(message, FORMAT)
        assert MessageKey(event.get_source(), event.get_id()) == found.key
        assert event.get_type() == f"stockledger.{found.command.NAME}.v1"
        model = COMMANDS[found.command.NAME].model_validate_json(json.dumps(event.get_data()))
        assert struct_of(model) == found.command
    assert taken > RECORDS / 10
