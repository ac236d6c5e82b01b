"""Tornado's own way of frames, and what both ways have in common.

With handlers/bulk.py the place that reaches below the public surface of Tornado's WebSocket protocol. What is added to
`tornado.websocket.WebSocketProtocol13` (Tornado 6.6): a text frame is written without a Task of its own, the bytes that
wait in the stream can be asked for, a message that is not UTF-8 is answered with close code 1007 (RFC 6455, section
8.1) instead of a torn connection, and nothing is done any more for a connection that is gone.
"""

from __future__ import annotations

import asyncio
from functools import cache

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from handlers.rfc6455 import INVALID_PAYLOAD, TEXT

__all__ = ["ChatProtocol"]


@cache
def _parameters(max_message_size: int) -> _WebSocketParams:
    """Tornado's parameters, the same for all connections."""
    return _WebSocketParams(
        ping_interval=None,  # handlers/socket.py pings
        ping_timeout=None,
        max_message_size=max_message_size,
        compression_options=None,  # 160 KiB a connection
    )


class ChatProtocol(WebSocketProtocol13):
    """RFC 6455 as Tornado implements it, for frames that are already encoded.

    `taken_over` says that the connection goes on without the coroutine that opened it; only BulkProtocol sets it.
    """

    taken_over = False

    def __init__(self, handler: WebSocketHandler, max_message_size: int) -> None:
        super().__init__(handler, mask_outgoing=False, params=_parameters(max_message_size))

    @property
    def unsent(self) -> int:
        """Bytes that were written and not yet taken by the operating system."""
        buffer = self.stream._write_buffer
        return 0 if buffer is None else len(buffer)  # None once it is closed

    def write_text(self, payload: bytes) -> bool:
        """Writes one text message; False says that it is too late."""
        if self.is_closing():
            return False
        try:
            self._write_frame(True, TEXT, payload)
        except StreamClosedError:
            return False
        return True

    async def sent(self) -> None:
        """Waits until everything written so far is sent, or the connection gone."""
        if self.unsent and not self.stream.closed():
            try:
                await self.stream.write(b"")
            except StreamClosedError:
                return

    def _handle_message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        if self.stream.closed():  # what was read before is still handed on, however much it is
            self.client_terminated = True  # ends the loop that reads
            return None
        if opcode == TEXT and not self.client_terminated:
            try:
                data.decode()
            except UnicodeDecodeError:
                self.close(INVALID_PAYLOAD, "not UTF-8")
                return None
        return super()._handle_message(opcode, data)
