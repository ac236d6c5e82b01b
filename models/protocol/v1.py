"""Protocol v1, and what v1 and v2 share: codes, texts, and the checks of a frame.

A frame is a JSON object in a WebSocket text message. The article's section 2.1 defines both directions (`SendMsg`,
`ReplyMsg`). docs/protocol.md says where this server is stricter than the article's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from enum import IntEnum
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from models.errors import InvalidFrame

__all__ = [
    "TEXTS",
    "Code",
    "Language",
    "Request",
    "RequestType",
    "decode",
    "decode_with",
    "encode",
    "moment",
    "reply",
    "require_unique_keys",
    "too_long",
    "unknown_type",
]

Language = str


class Code(IntEnum):
    """The meaning of a frame from the server."""

    MESSAGE = 50001
    SUCCESS = 50002
    END = 50003
    ONLINE = 50004
    OFFLINE = 50005
    LIMIT = 50006
    MOVED = 50007
    TYPING = 50008
    PRESENCE = 50009
    INVALID = 400
    FORBIDDEN = 403
    UNKNOWN_USER = 404
    TOO_FAST = 429
    BUG = 500
    DATABASE = 40001


class RequestType(IntEnum):
    """What a client's frame asks for."""

    SEND = 1
    HISTORY = 2
    UNREAD = 3
    MARK = 4
    TYPING = 5
    RESUME = 6


# The article's texts, and English ones for sockets that were opened with lang=en.
TEXTS: dict[Language, dict[Any, str]] = {
    "zh": {
        "connected": "已连接至服务器",
        "closing": "连接已断开",
        Code.END: "到底了",
        Code.ONLINE: "对方在线应答",
        Code.OFFLINE: "对方不在线应答",
        Code.LIMIT: "达到限制",
        Code.INVALID: "请求参数错误",
        Code.FORBIDDEN: "没有权限",
        Code.UNKNOWN_USER: "用户不存在",
        Code.TOO_FAST: "请求过于频繁",
        Code.BUG: "fail",
        Code.DATABASE: "数据库操作出错,请重试",
    },
    "en": {
        "connected": "connected",
        "closing": "closing",
        Code.END: "no more messages",
        Code.ONLINE: "stored, the other is online",
        Code.OFFLINE: "stored, the other is offline",
        Code.LIMIT: "limit reached until the other answers",
        Code.INVALID: "invalid request",
        Code.FORBIDDEN: "not allowed",
        Code.UNKNOWN_USER: "no such user",
        Code.TOO_FAST: "too many requests",
        Code.BUG: "fail",
        Code.DATABASE: "database unavailable, please retry",
    },
}


class Request(Struct, frozen=True):
    """A client's frame. Unknown fields are ignored, as by the article's server."""

    type: int
    content: str = ""


class _Reply(Struct, rename={"sender": "from"}):
    """A server's frame; the order of the fields is the order on the wire."""

    sender: str
    code: int
    content: str


_TYPES = frozenset({RequestType.SEND, RequestType.HISTORY, RequestType.UNREAD})
_decode = msgspec.json.Decoder(Request).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_KEYS = ('"type"', '"content"')
_AT = re.compile(r"(.*) - at `\$\.([a-z]+)[^`]*`")  # the path of the faulty field in msgspec's errors
_TYPE = re.compile(r"\b[a-z]+\b")
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MISSING = re.compile(r"Object missing required field `([a-z]+)`")
_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]+)?\s*", re.ASCII)


Decoded = TypeVar("Decoded")


def decode_with(decoder: Callable[[str], Decoded], text: str, keys: Iterable[str]) -> Decoded:
    """Decode one JSON object in which none of these keys, given in quotes, appears twice. Raises InvalidFrame."""
    try:
        decoded = decoder(text)
        # msgspec silently takes the last of two equal keys. Then the name occurs twice in the text, or one of the two
        # is written with an escape.
        if "\\" in text or max(map(text.count, keys)) > 1:
            require_unique_keys(text)
    except RecursionError:
        raise InvalidFrame("frame: is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise InvalidFrame("frame: holds a lone surrogate" if _has_surrogate(text) else _reason(str(error))) from None
    return decoded


def _has_surrogate(text: str) -> bool:
    """Return whether the JSON is valid except for a lone surrogate, which msgspec reports as the end of the text."""
    try:
        return "\\" in text and bool(_SURROGATE.search(json.dumps(json.loads(text), ensure_ascii=False)))
    except (ValueError, RecursionError):
        return False


def require_unique_keys(text: str) -> None:
    """Raise InvalidFrame if a key appears twice in an object, at any depth."""
    try:
        json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise InvalidFrame("frame: is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidFrame(f"frame: {error}") from None
    except ValueError:  # Python refuses numbers of 5,000 digits
        raise InvalidFrame("frame: a number is too long") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidFrame("frame: a key appears twice")
    return found


def _reason(text: str) -> str:
    """Return msgspec's error with the field in front, as in errors over HTTP. It quotes no value."""
    if missing := _MISSING.fullmatch(text):
        return f"{missing[1]}: is missing"
    at = _AT.fullmatch(text)
    what, field = (at[1], at[2]) if at else (text, "frame")
    what = _TYPE.sub(lambda found: _JSON_TYPES.get(found[0], found[0]), what.replace("`", ""))
    return f"{field}: {what[:1].lower()}{what[1:]}"


def decode(text: str, max_content: int) -> Request:
    """Decode a client's frame. `max_content` is in characters.

    Keys may be written in any case, and content may be null, as for the article's server. Go reads JSON like this, and
    clients in Go and C# rely on it. Only frames that differ from the documented spelling take the extra time.

    Raises InvalidFrame if `text` is not one JSON object with a known type and text content.
    """
    try:
        request = decode_with(_decode, text, _KEYS)
    except InvalidFrame as error:
        request = _decode_in_any_case(text, error)
    else:
        if not request.content and ("\\" in text or text.lower().count('"content"') != text.count('"content"')):
            request = _decode_in_any_case(text, None)
    # This runs for each frame, so a valid one takes as few calls as possible.
    if request.type not in _TYPES:
        raise unknown_type(_TYPES)
    if len(request.content) > max_content:
        raise too_long(request.content, max_content)
    return request


def _decode_in_any_case(text: str, error: InvalidFrame | None) -> Request:
    """Decode a frame whose keys may be in any case.

    A key with the documented spelling precedes other spellings of it. null counts as left out.

    Raises InvalidFrame: `error`, unless the case of a key is the cause.
    """
    require_unique_keys(text)
    try:
        fields = _decode_any(text)
        if not isinstance(fields, dict):
            raise error or InvalidFrame("frame: is not an object")
        given = {name: fields[name] for name in Request.__struct_fields__ if fields.get(name) is not None}
        for key, value in fields.items():
            name = key.lower() if key.isascii() else key
            if name == key or name not in Request.__struct_fields__ or value is None or fields.get(name) is not None:
                continue
            if name in given:
                raise InvalidFrame(f"{name}: appears twice")
            given[name] = value
        return msgspec.convert(given, Request)
    except RecursionError:
        raise InvalidFrame("frame: is nested too deeply") from None
    except msgspec.DecodeError as again:
        raise error or InvalidFrame(_reason(str(again))) from None


def unknown_type(kinds: Collection[int]) -> InvalidFrame:
    """Return the error for a type that is not one of these."""
    return InvalidFrame(f"type: is not one of {', '.join(map(str, sorted(kinds)))}")


def too_long(content: str, max_content: int) -> InvalidFrame:
    """Return the error for content of more than `max_content` characters."""
    return InvalidFrame(f"content: has {len(content)} characters, {max_content} are allowed")


def moment(content: str) -> int | None:
    """Return the time that a history request names, in milliseconds since the epoch; None means the newest.

    The article sends Unix seconds as text, and takes anything that is not a number as "from the newest".
    """
    if not _NUMBER.fullmatch(content):
        return None
    return round(max(-1e12, min(1e12, float(content))) * 1000)


def encode(code: int, content: str, sender: str = "") -> bytes:
    """Encode a server's frame as UTF-8 JSON. A Code is written as a number."""
    return _encode(_Reply(sender, code, content))


def reply(code: int, language: Language = "zh") -> bytes:
    """Return the frame for a code that has a text of its own."""
    return _REPLIES[language][code]


_REPLIES: dict[Language, dict[int, bytes]] = {
    language: {code: encode(code, text) for code, text in texts.items() if isinstance(code, Code)}
    for language, texts in TEXTS.items()
}
