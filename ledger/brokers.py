"""What a Kafka client's complaint means: the address and the cause, and the next step.

The clients live in the edges, one each; what librdkafka says to them comes here as code and text.
"""

import re
from typing import NamedTuple, Protocol

# librdkafka's numbers, which are part of its interface.
BAD_MESSAGE = -199
TRANSPORT = -195
RESOLVE = -193
ALL_DOWN = -187
TIMED_OUT = -185
SSL = -181
AUTHENTICATION = -169
SASL_REFUSED = 58
CREDENTIALS = {AUTHENTICATION, SSL, SASL_REFUSED}
HOPELESS = {*CREDENTIALS, BAD_MESSAGE}
"""Waiting is of no use: what is there refuses us, or isn't a broker."""
WRAPPING = re.compile(r"^(\w+://)?(?P<address>\S+)/\w+: | \(after \d+ms in state .*$")


class Complaint(NamedTuple):
    """What is wrong with the way to the brokers, and the step that mends it."""

    what: str
    remedy: str


class Error(Protocol):
    """What a client gives to its `error_cb`."""

    def code(self) -> int:
        """librdkafka's number."""
        ...

    def str(self) -> str:
        """The words for it."""
        ...


class Heard:
    """The last thing that a client of `servers` complained about, which says more than a time-out."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.code: int | None = None
        self.text = ""

    def note(self, error: Error) -> None:
        """librdkafka's `error_cb`; never raises."""
        if error.code() != ALL_DOWN:  # it follows each cause and says less
            self.code, self.text = error.code(), error.str()

    @property
    def cause(self) -> str:
        """The cause for people, without the broker's name in front and the connection's state at the end."""
        return unwrapped(self.text)

    @property
    def complaint(self) -> Complaint:
        """What it means, and the step that mends it."""
        return complaint(self.servers, self.code, self.text)


def unwrapped(text: str) -> str:
    """The cause alone. Of a TLS handshake it may be told as the disconnect that it led to."""
    return WRAPPING.sub("", text).removeprefix("Disconnected: ")


def complaint(servers: str, code: int | None, text: str) -> Complaint:
    """The meaning of the last complaint of a client of `servers`; None and "" if it made none."""
    named = WRAPPING.match(text)
    at = named["address"] if named and named["address"] else servers
    cause = unwrapped(text) or "no answer"
    if code in CREDENTIALS:
        return Complaint(
            f"the broker at {at} refuses the connection ({cause})",
            "correct security.protocol, sasl.* and ssl.*: stockledger config",
        )
    if code == BAD_MESSAGE:
        return Complaint(
            f"{at} does not speak Kafka (HTTP or TLS?)", "correct the port, or set security.protocol=ssl"
        )
    if code == RESOLVE:
        hosts = {address.rpartition("://")[2].strip() for address in servers.split(",")}
        given = "bootstrap.servers" if at in hosts else f"the broker's advertised.listeners, which names {at}"
        return Complaint(f"no broker reachable at {at} ({cause})", f"correct the host name in {given}")
    if "security.protocol" in cause or cause.startswith("SSL "):
        return Complaint(
            f"the broker at {at} hangs up ({cause.partition(':')[0]})",
            "set security.protocol as the broker's listener has it: ssl, sasl_ssl or plaintext",
        )
    return Complaint(
        f"no broker reachable at {at} ({cause})", "start the broker, or correct bootstrap.servers"
    )
