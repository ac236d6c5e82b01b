"""Checks of what a server sends: every field of every frame and answer is checked before it is used.

A server may be broken, hostile, or another program. What passes has the right type, and a size that can be counted,
shown and stored. Anything else raises Senseless.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

__all__ = ["Frame", "Senseless", "conversations_in", "data_in", "frame_in", "page_in", "session_in", "user_in"]

T = TypeVar("T")
Frame = dict[str, Any]

Count = Annotated[int, Meta(ge=0, le=2**53)]
Seq = Annotated[int, Meta(ge=1, le=2**53)]
Time = Annotated[int, Meta(ge=0, le=253_000_000_000_000)]  # milliseconds since the epoch, up to the year 9987
UserId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
UserIdText = Annotated[str, Meta(pattern=r"\A[1-9][0-9]{0,18}\Z")]
NoneOrUserIdText = Annotated[str, Meta(pattern=r"\A([1-9][0-9]{0,18})?\Z")]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Name = Annotated[str, Meta(max_length=1024)]
LogId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16,64}\Z")]

MESSAGE, MOVED, IS_TYPING, PRESENCE, GIVEN = 50001, 50007, 50008, 50009, 50002  # codes
STORED = (50004, 50005)
HISTORY, RESUME = 2, 6  # types of requests that are answered with messages
# By code: the fields that a frame must have besides those of all frames.
NEEDED = {
    MESSAGE: ("sender", "to", "seq", "time"),
    MOVED: ("sender", "to", "received", "read"),
    IS_TYPING: ("sender", "to"),
    PRESENCE: ("sender", "to", "online"),
    **dict.fromkeys(STORED, ("id", "seq", "time")),
}


class Senseless(Exception):
    """A server's frame or answer breaks the protocol."""


class _Message(Struct):
    sender: UserIdText = field(name="from")
    to: UserIdText
    seq: Seq
    time: Time
    content: str
    id: str = ""


class _Frame(Struct, omit_defaults=True):
    code: int
    content: str = ""
    sender: NoneOrUserIdText = field(name="from", default="")
    id: str | UnsetType = UNSET
    to: UserIdText | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET
    time: Time | UnsetType = UNSET
    received: Count | UnsetType = UNSET
    read: Count | UnsetType = UNSET
    online: bool | UnsetType = UNSET
    messages: list[_Message] | UnsetType = UNSET
    complete: bool | UnsetType = UNSET
    more: list[str] | UnsetType = UNSET
    retry_after: Seconds | UnsetType = UNSET
    log: LogId | UnsetType = UNSET


class _User(Struct):
    id: UserId
    user_name: Name = ""
    nickname: Name = ""
    nick_name: Name = ""


class _Session(Struct):
    auth: str
    users: list[_User]
    max_content: Annotated[int, Meta(ge=1, le=10_000_000)]
    log: LogId | UnsetType = UNSET


class _Entry(Struct):
    peer: _User
    last: _Message
    unread: Count | str
    received: Count
    read: Count
    online: bool
    blocked: bool


class _Page(Struct):
    messages: list[_Message]
    complete: bool


_frame = msgspec.json.Decoder(_Frame).decode


def frame_in(text: str | bytes | None, answered: int = 0) -> Frame:
    """Return the frame in a message of the socket. Raises Senseless."""
    if not isinstance(text, str):
        raise Senseless("a binary frame")
    try:
        frame = _frame(text)
    except (ValueError, RecursionError) as error:
        raise Senseless(str(error)) from None
    needed = NEEDED.get(frame.code, ()) if frame.sender or frame.code in STORED else ()
    if any(getattr(frame, name) in (UNSET, "") for name in needed):
        raise Senseless(f"a frame of code {frame.code} without all that belongs to it")
    found: Frame = {"from": "", "content": "", **msgspec.to_builtins(frame)}
    return found


def require_answer(kind: int, frame: Frame) -> None:
    """Raise Senseless if a frame lacks a field that the answer to a request of that type has."""
    if kind in (HISTORY, RESUME) and frame["code"] == GIVEN and not {"messages", "complete"} <= frame.keys():
        raise Senseless("an answer without messages")


def data_in(body: bytes) -> Any:
    """Return the `data` of an answer. Raises Senseless."""
    try:
        envelope = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise Senseless(str(error)) from None
    if not isinstance(envelope, dict) or "data" not in envelope:
        raise Senseless("no envelope")
    return envelope["data"]


def session_in(data: Any) -> dict[str, Any]:
    """Return the answer of `GET /session`."""
    return _checked(data, _Session)


def user_in(data: Any) -> dict[str, Any]:
    """Return a user."""
    return _checked(data, _User)


def page_in(data: Any) -> dict[str, Any]:
    """Return a page of history."""
    return _checked(data, _Page)


def conversations_in(data: Any) -> list[dict[str, Any]]:
    """Return a page of the list of conversations."""
    return _checked(data, list[_Entry])  # type: ignore[return-value]  # a list gives a list


def _checked(data: Any, form: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.to_builtins(msgspec.convert(data, form))
    except (ValueError, RecursionError) as error:
        raise Senseless(str(error)) from None
    return found
