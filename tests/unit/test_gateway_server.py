"""How the gateway listens."""

import socket
from contextlib import closing

from gateway.server import ServerTerms, listen


def test_an_answers_body_doesnt_wait_until_its_head_is_acknowledged():
    """Each connection sends at once what it is given: a client may take 40 ms to acknowledge a part."""
    listening = closing(listen(ServerTerms("127.0.0.1", 0)))
    with listening as server, socket.create_connection(server.getsockname()), server.accept()[0] as made:
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
