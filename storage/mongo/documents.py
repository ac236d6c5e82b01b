"""Messages as MongoDB documents: their ids, ranges of ids, and expiry.

A message's `_id` is {c: conversation, s: seq}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from bson import Int64

from models.records import Message

__all__ = ["DAY", "RETENTION", "Document", "alive", "documents_of", "id_of", "id_range", "message_of"]

DAY = 86_400_000  # milliseconds, like all times here
RETENTION = 90 * DAY  # three months of thirty days, as in the article (section 2.5.1)
HOUR = 3_600_000  # expiry dates are rounded up to full hours, since equal dates keep the TTL index small

Document = dict[str, Any]


def id_of(conversation: str, seq: int) -> Document:
    """Return the `_id` of a message."""
    return {"c": conversation, "s": Int64(seq)}


def id_range(conversation: str, first: int = 0, last: int | None = None) -> Document:
    """Return the query for messages with `first` <= seq <= `last`."""
    end = 2**63 - 1 if last is None else last
    return {"_id": {"$gte": id_of(conversation, first), "$lte": id_of(conversation, end)}}


def alive(now: float) -> Document:
    """Return the query for messages that have not expired. `now` is in seconds since the epoch."""
    return {"startTime": {"$gt": int(now * 1000) - RETENTION}}


def documents_of(run: Sequence[Message]) -> list[Document]:
    """Return the documents for messages of one conversation."""
    name = run[0].conversation
    return [_document_of(message, name) for message in run]


def _document_of(message: Message, name: str) -> Document:
    document: Document = {
        "_id": id_of(name, message.seq),
        "conversation": name,
        "sender": Int64(message.sender),
        "content": message.content,
        "key": message.key,
        "startTime": message.time,  # always stored as 64 bits, since it needs them
        "endTime": _hour(-(-(message.time + RETENTION) // HOUR)),
    }
    if message.id:
        document["id"] = message.id
    return document


@lru_cache(maxsize=16)
def _hour(number: int) -> datetime:
    """Return the beginning of an hour, counted since the epoch."""
    return datetime.fromtimestamp(number * HOUR // 1000, UTC)


def message_of(document: Mapping[str, Any]) -> Message:
    """Return the message in a document."""
    one, other = (int(user) for user in document["conversation"].split("-"))
    sender = int(document["sender"])
    return Message(
        sender=sender,
        recipient=other if sender == one else one,
        seq=int(document["_id"]["s"]),
        time=int(document["startTime"]),
        content=document["content"],
        key=bytes(document["key"]),
        id=document.get("id", ""),
    )
