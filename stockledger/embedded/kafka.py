"""A Kafka broker inside this process: librdkafka's mock cluster, for the demo and the fast tests.

EXPERIMENTAL, says librdkafka of it, and so not a proof of anything: nothing is kept on disk, transactions
aren't fenced, and a partition holds 5 MiB or 100,000 records, then drops its oldest. Right are the wire
protocol, headers, watermarks, topic ids, offset commits and group rebalances (eager, cooperative, KIP-848);
faults come on demand. The admin requests that change or configure something are missing: make topics with
`create_topic`. A producer that names an unknown topic creates it, with 4 partitions. A classic group takes
its session timeout less a second to rebalance after a member joins or leaves; a KIP-848 group doesn't.
`tests/kafka/test_embedded_kafka.py` guards what is used.
"""

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int16, c_int32, c_int64, c_size_t, c_void_p
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, cimpl

from ledger.errors import Unavailable

PRODUCER = 0
BROKER = 1

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "conf_new": (c_void_p, []),
    "conf_set_log_cb": (None, [c_void_p, c_void_p]),
    "new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "destroy": (None, [c_void_p]),
    "mock_cluster_new": (c_void_p, [c_void_p, c_int]),
    "mock_cluster_destroy": (None, [c_void_p]),
    "mock_cluster_bootstraps": (c_char_p, [c_void_p]),
    "mock_set_controller_id": (c_int, [c_void_p, c_int32]),
    "mock_group_initial_rebalance_delay_ms": (None, [c_void_p, c_int32]),
    "mock_set_group_consumer_session_timeout_ms": (None, [c_void_p, c_int32]),
    "mock_set_group_consumer_heartbeat_interval_ms": (None, [c_void_p, c_int32]),
    "mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "mock_topic_delete": (c_int, [c_void_p, c_char_p]),
    "mock_partition_delete_records": (c_int, [c_void_p, c_char_p, c_int32, c_int64]),
    "mock_push_request_errors_array": (None, [c_void_p, c_int16, c_size_t, POINTER(c_int)]),
    "mock_broker_set_down": (c_int, [c_void_p, c_int32]),
    "mock_broker_set_up": (c_int, [c_void_p, c_int32]),
    "mock_broker_set_rtt": (c_int, [c_void_p, c_int32, c_int]),
}


class EmbeddedKafka:
    """One mock broker on 127.0.0.1 with `topics` (name -> partitions); also a context manager.

    It lives and dies with this process; other processes can connect to it. All methods but `start` and `stop`
    need a started broker; those that the broker can refuse raise `KafkaException`.
    """

    def __init__(self, topics: dict[str, int] | None = None) -> None:
        self._topics = topics or {}
        self._client: int | None = None
        self._cluster: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Open the broker's port and make the topics; groups rebalance without the initial delay of 3 s.

        Raises `Unavailable` if this build of librdkafka has no mock cluster.
        """
        if self._cluster:
            return
        self._rd = _library()
        conf = self._rd.rd_kafka_conf_new()
        self._rd.rd_kafka_conf_set_log_cb(conf, None)
        error = ctypes.create_string_buffer(256)
        self._client = self._rd.rd_kafka_new(PRODUCER, conf, error, len(error))
        if not self._client:
            raise Unavailable(f"librdkafka made no client: {error.value.decode()}")
        with _signals_blocked():
            self._cluster = self._rd.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            raise Unavailable("librdkafka made no mock cluster")
        # without a controller the admin client's describe_topics and describe_cluster wait for one
        _check(self._rd.rd_kafka_mock_set_controller_id(self._cluster, BROKER))
        self._rd.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for name, partitions in self._topics.items():
            self.create_topic(name, partitions)

    def stop(self) -> None:
        """Close the port and forget everything. Safe to call twice."""
        if self._cluster:
            self._rd.rd_kafka_mock_cluster_destroy(self._cluster)
            self._cluster = None
        if self._client:
            self._rd.rd_kafka_destroy(self._client)
            self._client = None

    def set_session_timeout(self, timeout_ms: int) -> None:
        """How long a KIP-848 group waits for a silent member; a sign of life is due three times as often."""
        self._rd.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, timeout_ms)
        self._rd.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, timeout_ms // 3)

    @property
    def bootstrap_servers(self) -> str:
        bootstraps: bytes = self._rd.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return bootstraps.decode()

    def create_topic(self, name: str, partitions: int) -> None:
        """A topic that exists already is refused."""
        _check(self._rd.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))

    def delete_topic(self, name: str) -> None:
        """Delete the topic and its records; made again under the same name it has another topic id."""
        _check(self._rd.rd_kafka_mock_topic_delete(self._cluster, name.encode()))

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Drop the records below `before_offset`, as retention would."""
        rd, name = self._rd, topic.encode()
        _check(rd.rd_kafka_mock_partition_delete_records(self._cluster, name, partition, before_offset))

    def push_request_errors(self, api_key: int, *errors: int) -> None:
        """Answer the next requests of this protocol key (0 Produce, 1 Fetch, ...) with these error codes.

        `KafkaError._TRANSPORT` cuts the connection instead.
        """
        codes = (c_int * len(errors))(*errors)
        self._rd.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(errors), codes)

    def set_down(self) -> None:
        """Cut every connection and refuse new ones; records and groups are kept."""
        _check(self._rd.rd_kafka_mock_broker_set_down(self._cluster, BROKER))

    def set_up(self) -> None:
        """Take connections again."""
        _check(self._rd.rd_kafka_mock_broker_set_up(self._cluster, BROKER))

    def set_rtt(self, rtt_ms: int) -> None:
        """Answer every request this much later; 0 for at once."""
        _check(self._rd.rd_kafka_mock_broker_set_rtt(self._cluster, BROKER, rtt_ms))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block all signals for a thread that is made inside, and inherits that.

    A signal that strikes the mock's thread in its `poll` ends the broker, and `stop` then crashes or hangs.
    It does where the main thread has them blocked for a moment, as in making a Kafka client.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _library() -> ctypes.CDLL:
    """librdkafka as confluent-kafka carries it: a name is also looked up in the libraries of `cimpl`."""
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in SIGNATURES.items():
        try:
            function = library["rd_kafka_" + name]
        except AttributeError:
            raise Unavailable(f"this build of librdkafka has no rd_kafka_{name}") from None
        function.restype, function.argtypes = result, arguments
        setattr(library, "rd_kafka_" + name, function)
    return library


def _check(code: int) -> None:
    if code:
        raise KafkaException(KafkaError(code))
