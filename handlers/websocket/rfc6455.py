"""The numbers of RFC 6455: opcodes, close codes, and what a frame begins with."""

from __future__ import annotations

from functools import lru_cache

# Section 5.2.
FIN = 0x80
RESERVED = 0x70
OPCODE = 0x0F
MASKED = 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
WHOLE_TEXT = FIN | TEXT
MAX_CONTROL = 125  # bytes of a control frame's payload
# Section 7.4.1.
NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
INVALID_PAYLOAD = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009

_MAY_BE_SENT = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
_OWN = range(3000, 5000)  # of libraries and applications, section 7.4.2


def may_close_with(code: int) -> bool:
    """Whether a close frame may carry a code."""
    return code in _MAY_BE_SENT or code in _OWN


@lru_cache(maxsize=4096)
def head(opcode: int, size: int) -> bytes:
    """What a whole, unmasked frame begins with; `size` is that of its payload in bytes."""
    if size < 126:
        return bytes((FIN | opcode, size))
    if size < 0x10000:
        return bytes((FIN | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((FIN | opcode, 127)) + size.to_bytes(8, "big")
