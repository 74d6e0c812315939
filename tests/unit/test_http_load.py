"""The load over HTTP: a server may end any connection, and every request is still answered."""

import asyncio

from benchmarks import http_load

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
NUMBER = 50


def test_what_was_asked_on_a_connection_that_ends_is_asked_again():
    """Every third request has no answer but the end of its connection; idle connections end, too."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            if asked % 3 == 0:
                break
            writer.write(ANSWER)
        writer.close()

    async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.wait_for(answer(reader, writer), 0.05)
        except (TimeoutError, asyncio.IncompleteReadError):
            writer.close()

    async def main() -> http_load.Served:
        server = await asyncio.start_server(idle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await http_load._open_loop(f"http://127.0.0.1:{port}", [REQUEST] * NUMBER, 100, 0)

    assert asyncio.run(main()).statuses == {200: NUMBER}
    assert asked > NUMBER
