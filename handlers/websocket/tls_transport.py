"""TLSTransport: a connection under TLS, with the interface of asyncio's transports.

Tornado's stream does the handshake of TLS on an `ssl.SSLSocket`, which has the keys and the state of the connection.
This transport takes over that socket, and reads and writes it on the event loop without the stream.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any

from handlers.websocket.half_close import HalfClosed

__all__ = ["TLSTransport", "close_notify"]

RECORD = 16_384  # bytes of the longest record of TLS (RFC 8446, section 5.1), which is all that one read returns

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def close_notify(tls: ssl.SSLSocket) -> None:
    """Send `close_notify`, without which the peer cannot tell our end from an attacker's."""
    with suppress(OSError, ValueError):  # it is sent first; then the peer's is missing, or data stands before it
        tls.unwrap()


class TLSTransport(asyncio.Transport):
    """A transport on an SSLSocket that does not block. It reads nothing until `resume_reading` is called.

    The states of writing are those of StreamTransport in tornado_transport.py.
    """

    __slots__ = (
        "_closed",
        "_closing",
        "_congested",
        "_ended",
        "_ending",
        "_loop",
        "_max_unsent",
        "_protocol",
        "_reading",
        "_tls",
        "_unsent",
    )

    def __init__(self, tls: ssl.SSLSocket, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._protocol = protocol
        self._unsent: bytearray | None = None  # set while the operating system takes no more bytes
        self._max_unsent = RECORD  # bytes above which the protocol is paused
        self._congested = False  # the protocol is paused
        self._reading = False
        self._ending = False
        self._ended: HalfClosed | None = None  # set once our half is closed
        self._closing = False
        self._closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the operating system's `socket`; nothing else is known."""
        if name != "socket":
            return default
        return self._tls if self._ended is None else self._ended.socket

    # Reading

    def pause_reading(self) -> None:
        """Read no more."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._tls)

    def resume_reading(self) -> None:
        """Read until told to pause."""
        if not self._reading and not self._ending and not self._closing:
            self._reading = True
            self._loop.add_reader(self._tls, self._receive)
            if self._tls.pending():  # bytes of a record that the socket has read: it is not reported for them
                self._loop.call_soon(self._receive)

    def is_reading(self) -> bool:
        """Whether the protocol is given what arrives."""
        return self._reading

    def _receive(self) -> None:
        if not self._reading:
            return
        try:
            data = self._tls.recv(RECORD)
        except _NOT_NOW:
            return
        except (OSError, ValueError):  # the peer has reset the connection, or breaks TLS
            self.abort()
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._protocol.eof_received()
            self.close()

    # Writing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pause the protocol above `high` unsent bytes, and resume it when all are sent, whatever `low` is."""
        self._max_unsent = RECORD if high is None else high

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the operating system has not taken yet."""
        return 0 if self._unsent is None else len(self._unsent)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes; nothing once the connection ends."""
        if self._closing or self._ending:
            return
        if self._unsent is None:
            sent = self._send(data)
            if sent == len(data) or self._closing:
                return
            self._unsent = bytearray(memoryview(data)[sent:])
            self._loop.add_writer(self._tls, self._send_unsent)
        else:
            self._unsent += data
        if not self._congested and len(self._unsent) > self._max_unsent:
            self._congested = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Return that one half of the connection can be closed."""
        return True

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """Send bytes, record by record. Return how many the operating system has taken."""
        sent = 0
        try:
            with memoryview(data) as view:
                while sent < len(view):
                    sent += self._tls.send(view[sent : sent + RECORD])
        except _NOT_NOW:
            pass
        except (OSError, ValueError):
            self.abort()
        return sent

    def _send_unsent(self) -> None:
        unsent = self._unsent
        if unsent is None:
            return
        del unsent[: self._send(unsent)]
        if unsent or self._closed:
            return
        self._unsent = None
        self._loop.remove_writer(self._tls)
        if self._congested:
            self._congested = False
            self._protocol.resume_writing()
        if self._closing:
            self._finish()
        elif self._ending and self._ended is None:
            self._end()

    # The end

    def is_closing(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self._closing

    def write_eof(self) -> None:
        """Close our half of the connection once all is sent. What the peer still sends is dropped."""
        if self._ending or self._closing:
            return
        self._ending = True
        self.pause_reading()
        if self._unsent is None:
            self._end()

    def _end(self) -> None:
        close_notify(self._tls)
        self._ended = HalfClosed(self._tls, self._lose)

    def close(self) -> None:
        """Close the connection once all is sent."""
        if self._closing:
            return
        self._closing = True
        self.pause_reading()
        if self._ended is not None:
            self._ended.close()
        elif self._unsent is None:
            self._finish()

    def _finish(self) -> None:
        close_notify(self._tls)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._closing = True
        if self._ended is not None:
            self._ended.close()
        elif not self._closed:
            self._closed = True
            self.pause_reading()
            if self._unsent is not None:
                self._loop.remove_writer(self._tls)
            self._tls.close()
            self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        self._closing = True
        self._unsent = None
        protocol, self._protocol = self._protocol, asyncio.Protocol()  # they refer to each other
        protocol.connection_lost(None)
