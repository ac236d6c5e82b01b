"""Protocol v2: the frames of v1 with more fields, and more frames (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from models.chat.events import PositionsChanged
from models.errors import InvalidFrame
from models.protocol.v1 import (
    TEXTS,
    Code,
    Language,
    RequestType,
    decode_with,
    require_unique_keys,
    too_long,
    unknown_type,
)
from models.records import Message, ReadPositions

__all__ = [
    "MOST",
    "Request2",
    "answer",
    "decode2",
    "greeting",
    "id_in",
    "live",
    "moved",
    "page",
    "presence",
    "shown",
    "typing",
]

MOST = 100  # messages in one answer

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Seq = Annotated[int, Meta(ge=0, le=2**53)]  # integers that every client can represent


class Request2(Struct, frozen=True):
    """A client's frame. Unknown fields are ignored."""

    type: int
    id: Id | None = None
    content: str = ""
    to: str | None = None
    before: Seq | None = None
    after: Seq | dict[str, Seq] | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 50
    received: Seq | None = None
    read: Seq | None = None


class _Named(Struct, frozen=True):
    """The id of a frame that is not valid."""

    id: Id | None = None


class _Shown(Struct, rename={"sender": "from"}, omit_defaults=True):
    """A message in a list of messages."""

    sender: str
    to: str
    seq: int
    time: int
    content: str
    id: str = ""


class _Frame(Struct, rename={"sender": "from"}, omit_defaults=True):
    """A server's frame. Fields that are not set are left out."""

    sender: str
    code: int
    content: str
    to: str = ""
    id: str = ""
    seq: int = 0
    time: int = 0
    dup: bool = False
    online: bool | UnsetType = UNSET
    received: int | UnsetType = UNSET
    read: int | UnsetType = UNSET
    messages: list[_Shown] | UnsetType = UNSET
    complete: bool | UnsetType = UNSET
    more: list[str] | UnsetType = UNSET
    retry_after: float = 0.0
    log: str = ""
    error: str = ""


_TYPES = frozenset(RequestType)
_KEYS = tuple(f'"{name}"' for name in Request2.__struct_fields__)
_decode = msgspec.json.Decoder(Request2).decode
_decode_name = msgspec.json.Decoder(_Named).decode
_encode = msgspec.json.Encoder().encode


def decode2(text: str, max_content: int) -> Request2:
    """Decode a client's frame. `max_content` is in characters. Raises InvalidFrame."""
    request = decode_with(_decode, text, _KEYS)
    if isinstance(request.after, dict):
        require_unique_keys(text)
    if request.type not in _TYPES:
        raise unknown_type(_TYPES)
    if len(request.content) > max_content:
        raise too_long(request.content, max_content)
    match request.type:
        case RequestType.HISTORY:
            if isinstance(request.after, dict):
                raise InvalidFrame("after: is not a seq")
            if request.before is not None and request.after is not None:
                raise InvalidFrame("before: cannot stand beside after")
        case RequestType.MARK:
            if request.received is None and request.read is None:
                raise InvalidFrame("received: is missing, and so is read")
        case RequestType.RESUME:
            if request.after is None:
                raise InvalidFrame("after: is missing")
    return request


def id_in(text: str) -> str | None:
    """Return the id of a frame that is not valid, None if it cannot be read."""
    try:
        return _decode_name(text).id
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def greeting(text: str, log: str) -> bytes:
    """Return the first frame on a socket. `log` is the id of the log."""
    return _encode(_Frame("", Code.SUCCESS, text, log=log))


def answer(
    code: int,
    language: Language,
    request: str | None,
    *,
    to: str = "",
    seq: int = 0,
    time: int = 0,
    dup: bool = False,
    positions: ReadPositions | None = None,
    retry_after: float = 0.0,
    error: str = "",
) -> bytes:
    """Return the answer to a request, with its id.

    `to` names the peer on an inbox socket. `retry_after` is in seconds. `error` says which field of an invalid request
    is wrong, and why.
    """
    frame = _Frame("", code, TEXTS[language].get(code, ""), to, request or "", seq, time, dup)
    if retry_after:
        frame.retry_after = round(retry_after, 3)
    frame.error = error
    if positions is not None:
        frame.received, frame.read = positions.received, positions.read
    return _encode(frame)


def page(
    request: str | None, messages: Sequence[Message], *, complete: bool, to: str = "", more: Sequence[str] = ()
) -> bytes:
    """Return the answer to a history, unread or resume request. `more` are peers with whom there are more messages."""
    frame = _Frame("", Code.SUCCESS, "", to, request or "")
    frame.messages = [_shown(message) for message in messages]
    frame.complete = complete
    if more:
        frame.more = list(more)
    return _encode(frame)


def live(message: Message) -> bytes:
    """Return a message as both users get it."""
    return _encode(
        _Frame(
            str(message.sender),
            Code.MESSAGE,
            message.content,
            str(message.recipient),
            message.id,
            message.seq,
            message.time,
        )
    )


def moved(event: PositionsChanged) -> bytes:
    """Return the frame that the peer has received or read up to a seq."""
    frame = _Frame(str(event.user), Code.MOVED, "", str(event.peer))
    frame.received, frame.read = event.received, event.read
    return _encode(frame)


def typing(user: int, peer: int) -> bytes:
    """Return the frame that `user` is typing to `peer`."""
    return _encode(_Frame(str(user), Code.TYPING, "", str(peer)))


def presence(user: int, peer: int, *, online: bool) -> bytes:
    """Return the frame for `peer` that `user` came online or went offline."""
    return _encode(_Frame(str(user), Code.PRESENCE, "", str(peer), online=online))


def shown(message: Message) -> dict[str, Any]:
    """Return a message as HTTP answers show it, with the same fields as on the socket."""
    return dict(msgspec.to_builtins(_shown(message)))


def _shown(message: Message) -> _Shown:
    return _Shown(str(message.sender), str(message.recipient), message.seq, message.time, message.content, message.id)
