"""Headers whose names aren't UTF-8: read again through librdkafka's own interface.

The binding makes every name a str and fails on such a one, with all headers of the record. Beside valid ones
it doesn't count (a tracing library's bug must not make a purchase dead), and what is kept is kept byte for
byte. So the record is read once more, by the C functions of the very librdkafka that the binding carries (its
simple consumer; no group). One thing that interface can't show: a name ends at its first NUL.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any

from confluent_kafka import KafkaError, cimpl

from consumer.clients import REQUEST_TIMEOUT_S, REQUIRED, KafkaProperties
from ledger import codec
from ledger.domain.delivery import Delivery, Headers, Lane, Unread
from ledger.errors import BrokerUnavailable

CONSUMER = 1
OTHERS = ("group.", "session.", "heartbeat.", "partition.assignment.", "max.poll.", "enable.auto.")
"""Properties of membership, which a simple consumer has none of."""


class _Message(ctypes.Structure):
    _fields_ = (
        ("err", c_int), ("topic", c_void_p), ("partition", c_int32), ("payload", c_void_p), ("len", c_size_t),
        ("key", c_void_p), ("key_len", c_size_t), ("offset", c_int64), ("private", c_void_p),
    )  # fmt: skip


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "conf_new": (c_void_p, []),
    "conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "destroy": (None, [c_void_p]),
    "topic_new": (c_void_p, [c_void_p, c_char_p, c_void_p]),
    "topic_destroy": (None, [c_void_p]),
    "consume_start": (c_int, [c_void_p, c_int32, c_int64]),
    "consume": (POINTER(_Message), [c_void_p, c_int32, c_int]),
    "consume_stop": (c_int, [c_void_p, c_int32]),
    "message_destroy": (None, [POINTER(_Message)]),
    "message_headers": (c_int, [POINTER(_Message), POINTER(c_void_p)]),
    "header_get_all": (
        c_int,
        [c_void_p, c_size_t, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_size_t)],
    ),
}


class RawReader:
    """Completes records whose headers the binding couldn't hand out. Connects at the first one."""

    def __init__(self, kafka: KafkaProperties) -> None:
        self._kafka = kafka
        self._rd: ctypes.CDLL | None = None
        self._client: int | None = None

    def complete(self, lane: Lane, found: Delivery) -> Delivery:
        """The record with all its headers. Raises BrokerUnavailable where it can't be read now."""
        if type(found) is not Unread:
            return found
        headers = self._headers(lane, found.offset)
        record, mark = found.record, found.mark
        return codec.in_use.delivery(
            found.offset, record.key, record.value, headers, mark.leader_epoch, mark.timestamp_ms
        )

    def close(self) -> None:
        """End the client."""
        if self._rd and self._client:
            self._rd.rd_kafka_destroy(self._client)
        self._client = None

    def _headers(self, lane: Lane, offset: int) -> Headers:
        rd, client = self._connected()
        topic = rd.rd_kafka_topic_new(client, lane.topic.encode(), None)
        rd.rd_kafka_consume_start(topic, lane.partition, offset)
        try:
            message = rd.rd_kafka_consume(topic, lane.partition, int(REQUEST_TIMEOUT_S * 1000))
            if not message:
                raise BrokerUnavailable(f"read {lane}@{offset} again: no answer")
            try:
                if message.contents.err or message.contents.offset != offset:
                    why = KafkaError(message.contents.err).str()
                    raise BrokerUnavailable(f"read {lane}@{offset} again: {why}")
                return _headers_of(rd, message)
            finally:
                rd.rd_kafka_message_destroy(message)
        finally:
            rd.rd_kafka_consume_stop(topic, lane.partition)
            rd.rd_kafka_topic_destroy(topic)

    def _connected(self) -> tuple[ctypes.CDLL, int]:
        if self._rd is None:
            self._rd = _library()
        if self._client is None:
            conf = self._rd.rd_kafka_conf_new()
            error = ctypes.create_string_buffer(256)
            for name, value in {"log_level": "0", **self._kafka, **REQUIRED}.items():
                if not name.startswith(OTHERS):
                    self._rd.rd_kafka_conf_set(conf, name.encode(), value.encode(), error, len(error))
            self._client = self._rd.rd_kafka_new(CONSUMER, conf, error, len(error))
            if not self._client:
                raise BrokerUnavailable(f"read a record again: {error.value.decode()}")
        return self._rd, self._client


def _headers_of(rd: ctypes.CDLL, message: Any) -> Headers:
    headers, name, value, size = c_void_p(), c_char_p(), c_void_p(), c_size_t()
    found: Headers = []
    if rd.rd_kafka_message_headers(message, byref(headers)):
        return found
    while not rd.rd_kafka_header_get_all(headers, len(found), byref(name), byref(value), byref(size)):
        said = (name.value or b"").decode("utf-8", "surrogateescape")
        found.append((said, ctypes.string_at(value.value, size.value) if value.value else None))
    return found


def _library() -> ctypes.CDLL:
    """librdkafka as confluent-kafka carries it: a name is also looked up in the libraries of `cimpl`."""
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in SIGNATURES.items():
        function = library["rd_kafka_" + name]
        function.restype, function.argtypes = result, arguments
        setattr(library, "rd_kafka_" + name, function)
    return library
