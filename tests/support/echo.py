"""A server that sends every message back, on Tandem's frames and without its chat.

The tests of frames use it, and so does Autobahn's fuzzing client, which runs some 300 cases against such a server:

    .venv/bin/python -m tests.support.echo --port=9001 [--frames=tornado] [--certfile=chain.pem --keyfile=key.pem]
    wstest -m fuzzingclient -s fuzzingclient.json    # {"servers": [{"url": "ws://127.0.0.1:9001/"}], "cases": ["*"], …}
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from typing import Any

import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from handlers.http.server import tls_context
from handlers.websocket.transport import BulkProtocol

__all__ = ["EchoHandler", "serve_echo"]

LONGEST = 16 * 2**20  # bytes; the longest message that Autobahn sends


class EchoHandler(WebSocketHandler):
    """Sends every message back, with the methods that WebSocketHandler offers to its subclasses."""

    def get_websocket_protocol(self) -> BulkProtocol:
        return BulkProtocol(self, self.settings["longest"], in_loop=self.settings["in_loop"])

    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> asyncio.Future[None]:
        return self.write_message(message, binary=isinstance(message, bytes))

    def on_fragment(self, size: int) -> None:
        pass

    def on_failure(self, code: int) -> None:
        pass


def serve_echo(
    port: int,
    *,
    frames: str,
    longest: int = LONGEST,
    tls: ssl.SSLContext | None = None,
    handler: type[EchoHandler] = EchoHandler,
    **settings: Any,
) -> tuple[HTTPServer, int]:
    """Start a server on loopback; return it and its port."""
    app = Application([("/.*", handler)], in_loop=frames == "bulk", longest=longest, **settings)
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
