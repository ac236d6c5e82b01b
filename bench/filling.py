"""Write millions of stored messages straight into MongoDB, in the server's format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import time
from typing import Any

from bson import Binary, Int64
from pymongo import MongoClient, WriteConcern

from bench.wire import CONTENT
from models.records import conversation_of

__all__ = ["KEPT", "document", "fill"]

DATABASE = "tandem"
SHARE = 0.5  # the share of messages in the conversation that is read
OTHERS = 500  # messages in each of the other conversations
BATCH = 5000  # documents in one insert_many
THREADS = 2  # one encodes while mongod works for the other
KEPT = timedelta(days=90)
AGE = 7 * 86_400_000  # milliseconds since the first message
TEXT = "x" * CONTENT

Documents = list[dict[str, Any]]


def fill(url: str, users: Sequence[int], count: int, progress: Callable[[int], None]) -> int:
    """Store `count` messages: half of them between the first two users, the others among the rest.

    Returns the last `seq` of the first two, and reports to `progress` how many are stored. All are durable when it
    returns.
    """
    main = int(count * SHARE)
    sizes = [main, *[OTHERS] * ((count - main) // OTHERS)]
    pairs = list(zip(users[::2], users[1::2], strict=True))[: len(sizes)]
    if len(pairs) < len(sizes):
        raise ValueError(f"{count} messages need {2 * len(sizes)} users")
    now = int(time() * 1000)
    stored = 0
    with MongoClient[dict[str, Any]](url, retryWrites=False) as client, ThreadPoolExecutor(THREADS) as executor:
        database = client.get_database(DATABASE, write_concern=WriteConcern(w=1, j=False))
        for batch in _batches(_conversation(*pair, size, now) for pair, size in zip(pairs, sizes, strict=True)):
            database.conversations.insert_many(batch, ordered=False)
        messages = database.messages

        def insert(batch: Documents) -> int:
            messages.insert_many(batch, ordered=False)
            return len(batch)

        documents = (each for pair, size in zip(pairs, sizes, strict=True) for each in _messages(*pair, size, now))
        batches = _batches(documents)
        while some := list(islice(batches, THREADS)):
            stored += sum(executor.map(insert, some))
            progress(stored)
        client.admin.command("fsync")  # otherwise it would be written during a measurement
    return main


def document(
    conversation: str, seq: int, sender: int, content: str, key: bytes, sent: int, gone: datetime
) -> dict[str, Any]:
    """Return a message as the server stores it, `sent` in milliseconds since the epoch.

    It is a copy, so that runs at different commits store the same; tests/test_bench.py compares it with the server's.
    """
    return {
        "_id": {"c": conversation, "s": Int64(seq)},
        "conversation": conversation,
        "sender": Int64(sender),
        "content": content,
        "key": Binary(key),
        "startTime": Int64(sent),
        "endTime": gone,
    }


def _conversation(one: int, two: int, size: int, now: int) -> dict[str, Any]:
    """Return the document that `MongoMessages.reserve` has written by then."""
    return {
        "_id": conversation_of(one, two),
        "reserved": Int64(-(-size // 1000) * 1000),
        "base": Int64(0),
        "based": Int64(now - AGE),
        "users": [Int64(one), Int64(two)],
        "mutual": True,
    }


def _messages(one: int, two: int, size: int, now: int) -> Iterator[dict[str, Any]]:
    name, gone = conversation_of(one, two), datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + KEPT
    for seq in range(1, size + 1):
        sent = now - AGE + AGE * seq // (size + 1)
        sender = one if seq % 2 else two
        key = sent.to_bytes(6, "big") + seq.to_bytes(10, "big")  # ascending, as the server's keys are
        yield document(name, seq, sender, f"{seq:09d} {TEXT}"[:CONTENT], key, sent, gone)


def _batches(documents: Iterator[dict[str, Any]]) -> Iterator[Documents]:
    while batch := list(islice(documents, BATCH)):
        yield batch
