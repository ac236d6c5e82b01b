"""One socket: it sends and receives frames, passes each answer to its caller, and ends if the server falls silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import count
from typing import Any

from tornado.httpclient import HTTPClientError
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketError, websocket_connect

from clients.server import ANSWER_WITHIN, ClientError, Server, SessionOver, Unreachable, error_of
from clients.wire import Frame, Senseless, frame_in, require_answer

__all__ = ["Connection", "Frame"]

PING_EVERY = 20.0  # seconds
PONG_WITHIN = 15.0  # seconds
POLICY_VIOLATION, TOO_BIG = 1008, 1009  # RFC 6455, section 7.4.1
ENDED = {
    POLICY_VIOLATION: "the session has ended: signed out, the password was changed, or the account is gone",
}
CLOSED = {
    1001: "the server is going away",
    TOO_BIG: "the server does not take a message that long",
    4008: "too much was waiting for this client",
    4010: "the server heard nothing of this client",
}

Then = Callable[[Frame], None]


class Connection:
    """An inbox socket that is open until `ended` is done with the reason. Nothing is called after `close`.

    `take` is called with each frame that is not an answer. `ask` calls back with the answer. An answer that does not
    arrive within ANSWER_WITHIN ends the connection.
    """

    def __init__(self, take: Then, log: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ClientError] = loop.create_future()
        self.close_code: int | None = None
        self._take = take
        self._log = log  # the id of the installation that the user signed in to
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._socket: WebSocketClientConnection | None = None
        self._asked: dict[str, tuple[int, Then, asyncio.TimerHandle]] = {}
        self._names = (f"q{number}" for number in count())
        self._writing: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, server: Server, take: Then) -> Connection:
        """Open a socket and wait for the greeting. Raises ClientError, and SessionOver if a retry is of no use."""
        connection = cls(take, server.log)
        opening = asyncio.ensure_future(
            websocket_connect(
                server.socket_request(),
                on_message_callback=connection._came,
                ping_interval=PING_EVERY,
                ping_timeout=PONG_WITHIN,
            )
        )
        try:
            connection._socket = await asyncio.shield(opening)
            async with asyncio.timeout(ANSWER_WITHIN):
                await asyncio.wait((connection._greeted, connection.ended), return_when=asyncio.FIRST_COMPLETED)
            if connection.ended.done():
                raise connection.ended.result()
        except (OSError, HTTPClientError, StreamClosedError, WebSocketError, TimeoutError) as error:
            connection.close()
            raise _refusal(error_of(error, server.url)) from None
        except BaseException:
            opening.add_done_callback(_close_late)
            connection.close()
            raise
        return connection

    def ask(self, kind: int, then: Then, *, name: str = "", **fields: Any) -> None:
        """Send a request. `then` is called with the answer. `name` is its id; if empty, the connection makes one."""
        if self.ended.done():
            return  # `ended` is about to be done
        name = name or next(self._names)
        if name in self._asked:
            self._asked[name][2].cancel()
        timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN, self._end, Unreachable("the server is silent"))
        self._asked[name] = kind, then, timer
        self.tell(kind, id=name, **fields)

    def tell(self, kind: int, **fields: Any) -> None:
        """Send a frame that has no answer."""
        if self._socket is None or self.ended.done():
            return
        # Not escaped: frames have a limit in bytes.
        text = json.dumps({"type": kind, **fields}, ensure_ascii=False)
        try:
            writing = self._socket.write_message(text)
        except WebSocketClosedError:
            self._end(Unreachable("the connection was lost"))
            return
        self._writing.add(writing)
        writing.add_done_callback(self._written)

    def close(self) -> None:
        """Close the socket without waiting for the server's close frame."""
        self._end(Unreachable("closed"))
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled() and writing.exception() is not None:
            self._end(Unreachable("the connection was lost"))

    def _came(self, text: str | bytes | None) -> None:
        if self.ended.done():
            return
        if text is None:
            self._closed()
            return
        try:
            self._took(frame_in(text))
        except Senseless:
            self._end(Unreachable("the server's frame makes no sense"))

    def _took(self, frame: Frame) -> None:
        if not self._greeted.done():
            self._greet(frame)
            return
        asked = None if frame["from"] else self._asked.get(frame.get("id", ""))
        if asked is None:
            self._take(frame)
            return
        kind, then, timer = asked
        require_answer(kind, frame)
        del self._asked[frame["id"]]
        timer.cancel()
        then(frame)

    def _greet(self, frame: Frame) -> None:
        """Check the greeting, which names the installation: in another one, the same user ids are other users."""
        if self._log and frame.get("log", self._log) != self._log:
            self._end(SessionOver(0, "another installation answers at this address now; start again"))
        else:
            self._greeted.set_result(None)

    def _closed(self) -> None:
        self.close_code = code = None if self._socket is None else self._socket.close_code
        if code in ENDED:
            self._end(SessionOver(code, ENDED[code]))
        else:
            self._end(Unreachable(CLOSED.get(code or 0, "the connection was lost")))

    def _end(self, reason: ClientError) -> None:
        for _, _, timer in self._asked.values():
            timer.cancel()
        self._asked.clear()
        if not self.ended.done():
            self.ended.set_result(reason)


def _refusal(error: ClientError) -> ClientError:
    """Return the error as an end of the session if the server would refuse again; all but "too many" (429) do."""
    code = getattr(error, "code", 0)
    return SessionOver(code, str(error)) if 400 <= code < 500 and code != 429 else error


def _close_late(opening: asyncio.Future[WebSocketClientConnection]) -> None:
    """Close a socket that opened after its caller had given up."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
