"""The format of the data in a MongoDB database, and the id of its log.

The collection `meta` has one document {_id: "format", version: 1, log: "<16 hex digits>"}, created with the other
collections. All servers on one database read the same `log`, and two databases have different ones unless one is a copy
of the other. So it identifies an installation: clients store their data under it, and the names of all keys and
channels in Redis contain it.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from storage.mongo.errors import MongoErrors

__all__ = ["VERSION", "UnsuitableMongoError", "read_log"]

VERSION = 1  # of the data's format
LOG = re.compile(r"[0-9a-f]{16,64}")


class UnsuitableMongoError(Exception):
    """This MongoDB cannot be used. The text says why, and what to do."""


async def read_log(meta: Any, errors: MongoErrors) -> str:
    """Return the id of the log from motor's collection `meta`. Create it if there is none.

    Raises UnsuitableMongoError for data of another version, StorageUnavailable.
    """
    with errors():
        while True:
            try:
                kept = await meta.find_one_and_update(
                    {"_id": "format"},
                    {"$setOnInsert": {"version": VERSION, "log": secrets.token_hex(8)}},
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
                break
            except DuplicateKeyError:  # another server has just created it
                continue
    version, log = kept.get("version"), kept.get("log")
    if version != VERSION:
        raise UnsuitableMongoError(
            f"the data in MongoDB has format {version!r}, but this version of Tandem reads format {VERSION}; "
            "start the version that wrote the data"
        )
    if not isinstance(log, str) or not LOG.fullmatch(log):
        raise UnsuitableMongoError("the document 'format' of the collection meta has no valid log; restore it")
    return log
