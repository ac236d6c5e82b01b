"""Tests of MongoDB's errors: outages, requests that were never sent, and permanent refusals."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import InsertOne
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    CursorNotFound,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)
from structlog.testing import capture_logs
from tornado.ioloop import IOLoop

from models.errors import DatabaseRefused, NotSent, StorageUnavailable
from server import Server
from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from storage.mongo.errors import MongoErrors
from storage.mongo.messages import MongoMessages, mongo_client
from tests.conftest import Ask
from tests.support.clocks import Clock
from tests.support.processes import stop


@pytest.fixture
def strict(io_loop: IOLoop, addresses: Addresses) -> Iterator[Any]:
    """A collection that refuses every document."""
    client = mongo_client(addresses.mongo, timeout=5)
    database = client[f"test-{secrets.token_hex(6)}"]
    io_loop.run_sync(lambda: database.create_collection("strict", validator={"never": {"$exists": True}}))
    yield database.strict
    io_loop.run_sync(lambda: client.drop_database(database.name))
    client.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AutoReconnect("gone"), None),
        (NotPrimaryError("no primary"), None),
        (CursorNotFound("gone", 43), None),
        (WTimeoutError("slow", 64), None),
        (OperationFailure("stepped down", 189), None),
        (OperationFailure("shutting down", 91, {"codeName": "ShutdownInProgress"}), None),
        (OperationFailure("try again", 999_999, {"errorLabels": ["RetryableWriteError"]}), None),
        (OperationFailure("no code"), None),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"errmsg": "timeout"}]}), None),
        (BulkWriteError({"writeErrors": [{"code": 112, "index": 0}]}), None),
        (BulkWriteError({"writeErrors": [{"code": 13, "index": 0}]}), "13"),
        (OperationFailure("not authorized", 13, {"codeName": "Unauthorized"}), "Unauthorized"),
        (OperationFailure("authentication failed", 18, {"codeName": "AuthenticationFailed"}), "AuthenticationFailed"),
    ],
)
def test_permanent_and_temporary_errors(error: PyMongoError, kind: str | None) -> None:
    """Only a permanent error is a refusal."""
    with pytest.raises(StorageUnavailable) as caught, MongoErrors()():
        raise error
    assert getattr(caught.value, "kind", None) == kind


def test_a_request_that_was_never_sent() -> None:
    """A request that was never sent raises NotSent, whose text names the tried servers once."""
    with pytest.raises(NotSent, match="refused"), MongoErrors()():
        raise ServerSelectionTimeoutError("db1:27017: connection refused, Timeout: 3.0s, Topology Description: <…>")


async def test_a_refusal(strict: Any) -> None:
    """A refusal of one or several writes is logged once with its cause, and is not an outage."""
    errors = MongoErrors()
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(DatabaseRefused, match="validation"), errors():
                await strict.insert_one({"a": 1})
        with pytest.raises(DatabaseRefused), errors():
            await strict.bulk_write([InsertOne({"a": 1})], ordered=False)
    assert [entry["event"] for entry in logs] == ["database_refused"]
    assert "validation" in logs[0]["reason"]


async def test_an_outage(embedded: EmbeddedDatabases, addresses: Addresses, clock: Clock) -> None:
    """An outage is logged once with its cause when it begins, and once when it ends."""
    client = mongo_client(addresses.mongo, timeout=0.2)
    store = MongoMessages(client, "tandem", clock=clock, max_batch=10, max_concurrent=1, max_blocks=3)
    with capture_logs() as logs:
        await store.ping()
        stop(embedded.pids["mongod"])
        try:
            for call in (store.ping, lambda: store.newest("1-2"), lambda: store.blocks.by([1]), store.ping):
                with pytest.raises(StorageUnavailable):
                    await call()
        finally:
            os.kill(embedded.pids["mongod"], signal.SIGCONT)
        while logs[-1]["event"] != "outage_ended":
            try:
                await store.ping()
            except StorageUnavailable:
                continue
        await store.newest("1-2")
    assert [(entry["event"], entry["database"]) for entry in logs] == [
        ("outage_began", "mongodb"),
        ("outage_ended", "mongodb"),
    ]
    client.close()


async def test_repeats_are_no_outage(http_server: Server, connect2: Any, pair: tuple[int, int]) -> None:
    """A duplicate key is an answer of MongoDB and not an outage, though the driver raises an error."""
    one = await connect2(*pair)
    with capture_logs() as logs:
        for _ in range(3):
            await one.say("hello", 50005, id="k")
    assert [entry for entry in logs if entry["event"] in ("outage_began", "database_refused")] == []


async def test_a_request_that_is_refused(ask: Ask, mongo: Any, pair: tuple[int, int]) -> None:
    """A request that MongoDB refuses is answered with 500, and the log has the cause."""
    await mongo.command("collMod", "blocks", validator={"never": {"$exists": True}})
    try:
        with capture_logs() as logs:
            answer = await ask("PUT", f"/user/blocks/{pair[1]}?uid={pair[0]}", body={})
        assert (answer.status, answer.error) == (500, "Internal Server Error")
    finally:
        await mongo.command("collMod", "blocks", validator={})
    refused = [entry for entry in logs if entry["event"] == "database_refused"]
    assert [(entry["database"], entry["log_level"]) for entry in refused] == [("mongodb", "error")]
    assert (await ask("PUT", f"/user/blocks/{pair[1]}?uid={pair[0]}", body={})).status == 200
