"""A server without one of its guarantees, to show that the verdict notices.

python -m tests.faults.sabotaged KIND [the server's own flags]
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from pymongo.errors import OperationFailure

import server
from models.chat.ports import Insert
from models.errors import StorageUnavailable
from models.records import Message
from storage.mongo.messages import MongoMessages

__all__ = ["KINDS"]

_stored: set[Insert] = set()
_insert, _prepare = MongoMessages.insert, MongoMessages.prepare


def _insert_later(self: MongoMessages, *run: Message) -> Insert:
    storing = _insert(self, *run)
    _stored.add(storing)
    storing.add_done_callback(_inserted)
    stored: Insert = asyncio.get_running_loop().create_future()
    stored.set_result(None)
    return stored


def _inserted(storing: Insert) -> None:
    _stored.discard(storing)
    if not storing.cancelled():
        storing.exception()  # the error is dropped: that is the sabotage


async def _prepare_without_index(self: MongoMessages) -> None:
    with contextlib.suppress(StorageUnavailable):  # the index cannot be made once there are duplicates
        await _prepare(self)
    with contextlib.suppress(OperationFailure):  # the other server has dropped the index
        await self._messages.drop_index("key")


def _acknowledge_before_storing() -> None:
    MongoMessages.insert = _insert_later  # type: ignore[method-assign]  # that is the sabotage


def _allow_keys_twice() -> None:
    MongoMessages.prepare = _prepare_without_index  # type: ignore[method-assign]


KINDS = {"acknowledge-early": _acknowledge_before_storing, "without-index": _allow_keys_twice}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    sys.exit(server.main(sys.argv[2:]))
