"""One socket: frames in and out, each answer handed to whoever asked, and an end when the server falls silent."""

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
    """An inbox socket that is open until `ended` is done, which then tells why. Nothing is called after `close`.

    `take` is called with each frame that answers nothing, `ask` calls back with the frame that does. An answer that
    does not come within ANSWER_WITHIN ends the connection.
    """

    def __init__(self, take: Then, log: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ClientError] = loop.create_future()
        self.close_code: int | None = None
        self._take = take
        self._log = log  # the id of the installation that was signed in to
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._socket: WebSocketClientConnection | None = None
        self._asked: dict[str, tuple[int, Then, asyncio.TimerHandle]] = {}
        self._names = (f"q{number}" for number in count())
        self._writing: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, server: Server, take: Then) -> Connection:
        """Opens a socket and waits for the greeting. Raises ClientError; SessionOver when it is no use to try again."""
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
        """Sends a request; `then` gets the answer. `name` is its id, one of the connection's own if it is empty."""
        if self.ended.done():
            return  # whoever waits for `ended` is about to know
        name = name or next(self._names)
        if name in self._asked:
            self._asked[name][2].cancel()
        timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN, self._end, Unreachable("the server is silent"))
        self._asked[name] = kind, then, timer
        self.tell(kind, id=name, **fields)

    def tell(self, kind: int, **fields: Any) -> None:
        """Sends a frame that nothing answers."""
        if self._socket is None or self.ended.done():
            return
        # Not escaped: a character is to take no more bytes than it has to, since frames have a limit.
        text = json.dumps({"type": kind, **fields}, ensure_ascii=False)
        try:
            writing = self._socket.write_message(text)
        except WebSocketClosedError:
            self._end(Unreachable("the connection was lost"))
            return
        self._writing.add(writing)
        writing.add_done_callback(self._written)

    def close(self) -> None:
        """Closes the socket, without waiting for the server to agree."""
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
        """Takes the greeting, which names the installation: ids of users mean somebody else in another one."""
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
    """The same, as an end of the session where the server will go on to refuse: all but "too many" (429)."""
    code = getattr(error, "code", 0)
    return SessionOver(code, str(error)) if 400 <= code < 500 and code != 429 else error


def _close_late(opening: asyncio.Future[WebSocketClientConnection]) -> None:
    """Closes a socket that opened although nobody waits any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
