"""A server that sends every message back, on Tandem's frames and without its chat.

The tests of frames use it, and so does Autobahn's fuzzing client, which runs some 300 cases against such a server:

    .venv/bin/python -m tests.support.echo --port=9001 [--frames=tornado] [--certfile=chain.pem --keyfile=key.pem]
    wstest -m fuzzingclient -s fuzzingclient.json    # {"servers": [{"url": "ws://127.0.0.1:9001/"}], "cases": ["*"], …}
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from collections.abc import Callable

import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from handlers.http.server import tls_context
from handlers.websocket.handshake import accept, offered_subprotocols, require_handshake
from handlers.websocket.rfc6455 import BINARY, TEXT
from handlers.websocket.transport import FrameProtocol

__all__ = ["EchoConnection", "serve_echo"]

LONGEST = 16 * 2**20  # bytes; the longest message that Autobahn sends


class EchoConnection(FrameProtocol):
    """Sends every message back, as fast as the client reads."""

    def on_message(self, message: str | bytes) -> asyncio.Future[None]:
        if isinstance(message, str):
            self.write(message.encode(), TEXT)
        else:
            self.write(message, BINARY)
        return asyncio.ensure_future(self.wait_sent())


class _Handshake(RequestHandler):
    """Opens a connection, with the last of the offered subprotocols."""

    async def get(self) -> None:
        require_handshake(self.request.headers)
        offered = offered_subprotocols(self.request.headers)
        connection = self.settings["connection"](self.settings["longest"])
        stream = accept(self, offered[-1] if offered else None)
        await connection.take_over(stream, in_loop=self.settings["in_loop"])


def serve_echo(
    port: int,
    *,
    frames: str,
    longest: int = LONGEST,
    tls: ssl.SSLContext | None = None,
    connection: Callable[[int], FrameProtocol] = EchoConnection,
) -> tuple[HTTPServer, int]:
    """Start a server on loopback; return it and its port."""
    app = Application([("/.*", _Handshake)], in_loop=frames == "bulk", longest=longest, connection=connection)
    server = HTTPServer(app, ssl_options=tls)
    (listening,) = bind_sockets(port, "127.0.0.1")
    server.add_socket(listening)
    return server, listening.getsockname()[1]


async def _run(port: int, frames: str, certificate: str, key: str) -> None:
    serve_echo(port, frames=frames, tls=tls_context(certificate, key) if certificate else None)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--frames", choices=("bulk", "tornado"), default="bulk")
    parser.add_argument("--certfile", default="")
    parser.add_argument("--keyfile", default="")
    given = parser.parse_args()
    uvloop.run(_run(given.port, given.frames, given.certfile, given.keyfile))
