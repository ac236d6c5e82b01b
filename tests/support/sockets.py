"""Clients for tests: a correct one on Tornado's WebSocket client, and a raw one that sends any bytes."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import ssl
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.support.patience import PATIENCE


async def until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)


def socket_path(uid: object, to: object = None, **query: str) -> str:
    """Return the path of a pair socket, or of an inbox socket without `to`."""
    return "/ws?" + urlencode({"uid": uid, **({} if to is None else {"toUid": to}), **query})


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: HTTPHeaders
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)["data"]

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


class ClosedError(ConnectionError):
    """The connection is closed; the text has the code of the close frame, None without one."""


async def websocket(
    port: int, path: str, headers: dict[str, str] | None = None, *, timeout: float = PATIENCE, **options: Any
) -> WebSocketClientConnection:
    """Return an upgraded connection; `options` are those of `websocket_connect`.

    Raises HTTPClientError if the server refuses, or does not answer in time.
    """
    url = f"ws://127.0.0.1:{port}{path}"
    request = HTTPRequest(url, headers=headers, connect_timeout=timeout, request_timeout=timeout)
    return await websocket_connect(request, **options)


class Client:
    """A chat client of protocol v1."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection

    @classmethod
    async def open(cls, port: int, uid: int, to: int, headers: dict[str, str] | None = None, **query: str) -> Client:
        return cls(await websocket(port, socket_path(uid, to, **query), headers))

    async def send(self, kind: int, content: str = "") -> None:
        await self.connection.write_message(json.dumps({"type": kind, "content": content}))

    async def send_text(self, text: str | bytes, *, binary: bool = False) -> None:
        await self.connection.write_message(text, binary=binary)

    async def read(self) -> str | None:
        """Return the next frame's text, None at the end."""
        async with asyncio.timeout(PATIENCE):
            frame = await self.connection.read_message()
        assert frame is None or isinstance(frame, str)
        return frame

    async def receive(self, code: int, content: str | None = None, sender: str | None = None) -> str:
        """Return the next frame's content, whose code (and content, and `from`) must be as given."""
        text = await self.read()
        assert text is not None, f"closed with {self.connection.close_code}"
        frame = json.loads(text)
        assert list(frame) == ["from", "code", "content"]
        assert frame["code"] == code, frame
        if content is not None:
            assert frame["content"] == content
        if sender is not None:
            assert frame["from"] == sender
        return str(frame["content"])

    async def say(self, content: str, code: int | None = None) -> int:
        """Send a message and return the code of the answer."""
        await self.send(1, content)
        text = await self.read()
        assert text is not None
        answer: int = json.loads(text)["code"]
        assert code is None or answer == code, text
        return answer

    async def closed(self) -> int | None:
        """Read to the end and return the close code."""
        while await self.read() is not None:
            pass
        return self.connection.close_code

    def close(self) -> None:
        self.connection.close()


_asked = itertools.count()


class Client2:
    """A chat client of protocol v2: on a pair socket, or on an inbox socket if it opens without `to`.

    A frame that does not come within `patience` seconds raises TimeoutError, and a closed connection ClosedError.
    """

    def __init__(self, connection: WebSocketClientConnection, patience: float | None = PATIENCE) -> None:
        self.connection = connection
        self.patience = patience
        self.unread: deque[dict[str, Any]] = deque()  # frames that came before an awaited one

    @classmethod
    async def open(
        cls, port: int, uid: int, to: int | None = None, headers: dict[str, str] | None = None, **query: str
    ) -> Client2:
        client = cls(await websocket(port, socket_path(uid, to, v="2", **query), headers))
        assert (await client.read())["code"] == 50002
        return client

    async def write(self, kind: int, **fields: Any) -> str:
        """Send a frame with an id, made here unless one is given; return the id."""
        frame = {"type": kind, "id": f"r{next(_asked)}", **fields}
        await self.connection.write_message(json.dumps({key: value for key, value in frame.items() if value != ""}))
        return str(frame["id"])

    async def read(self) -> dict[str, Any]:
        """Return the next frame."""
        if self.unread:
            return self.unread.popleft()
        return await self._next()

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(self.patience):
            text = await self.connection.read_message()
        if text is None:
            raise ClosedError(f"closed with {self.connection.close_code}")
        frame: dict[str, Any] = json.loads(text)
        assert list(frame)[:3] == ["from", "code", "content"]
        return frame

    async def answer(self, request: str) -> dict[str, Any]:
        """Return the answer to a request; keep other frames for later."""
        while True:
            frame = await self._next()
            if frame.get("id") == request and frame["from"] == "":
                return frame
            self.unread.append(frame)

    async def ask(self, kind: int, **fields: Any) -> dict[str, Any]:
        """Send a frame and return its answer."""
        return await self.answer(await self.write(kind, **fields))

    async def say(self, content: str, code: int | None = None, **fields: Any) -> dict[str, Any]:
        """Send a message and return its answer."""
        answer = await self.ask(1, content=content, **fields)
        assert code is None or answer["code"] == code, answer
        return answer

    async def receive(self, code: int, **fields: Any) -> dict[str, Any]:
        """Return the next frame, which must be as given."""
        frame = await self.read()
        assert {"code": code, **fields} == {key: frame.get(key) for key in ("code", *fields)}, frame
        return frame

    async def silent(self) -> bool:
        """Return whether nothing comes before the answer to a request that is sent now."""
        await self.ask(4, received=0, **({"to": "999999999"} if self.inbox else {}))
        return not self.unread

    inbox = False

    def close(self) -> None:
        self.connection.close()

    def abort(self) -> None:
        """End the connection at once, as when the network fails."""
        protocol = self.connection.protocol
        if protocol is not None and protocol.stream is not None:  # there is none once it is closed
            protocol.stream.close()


class RawSocket:
    """A TCP connection that sends exactly the given parts of the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls, port: int, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", source: str | None = None
    ) -> RawSocket:
        """Connect, from another address than the usual one if `source` is given."""
        local = (source, 0) if source else None
        return cls(*await asyncio.open_connection(host, port, ssl=tls, local_addr=local))

    @classmethod
    async def upgraded(cls, port: int, uid: int, to: int, tls: ssl.SSLContext | None = None) -> RawSocket:
        raw = await cls.open(port, tls)
        status, _ = await raw.request(socket_path(uid, to), upgrade=True)
        assert status == 101
        await raw.frame()
        return raw

    async def request(
        self,
        path: str,
        *,
        upgrade: bool = False,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        body: str = "",
    ) -> tuple[int, bytes]:
        """Send an HTTP request; return its status and body."""
        lines = {"Host": "127.0.0.1"}
        if upgrade:
            key = base64.b64encode(os.urandom(16)).decode()
            lines |= {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key,
            }
        if body:
            lines["Content-Length"] = str(len(body.encode()))
        lines |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n{body}".encode())
        async with asyncio.timeout(PATIENCE):
            answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            length = [line.split(":")[1] for line in answer.split("\r\n") if line.lower().startswith("content-length:")]
            content = await self.reader.readexactly(int(length[0])) if length else b""
        return int(answer.split()[1]), content

    def write_frame(self, opcode: int, payload: bytes, *, fin: bool = True, length: int | None = None) -> None:
        """Write one masked frame; `length` claims another size than the payload's."""
        claimed = len(payload) if length is None else length
        if claimed < 126:
            size = struct.pack("!B", 0x80 | claimed)
        elif claimed < 65536:
            size = struct.pack("!BH", 0x80 | 126, claimed)
        else:
            size = struct.pack("!BQ", 0x80 | 127, claimed)
        self.writer.write(bytes([(0x80 if fin else 0) | opcode]) + size + bytes(4) + payload)

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame; return its opcode and payload."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """Read up to the close frame; return its code."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return int.from_bytes(payload[:2], "big")

    def abort(self) -> None:
        """Abort the connection."""
        self.writer.transport.abort()
