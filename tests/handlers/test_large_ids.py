"""Tests of the largest possible user id, in all that a user does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from config import Settings
from server import Server, serving
from storage.embedded.supervisor import Addresses
from storage.mysql.schema import migrate, seed
from tests.conftest import Ask
from tests.support.clocks import Clock
from tests.support.database import mysql_connection
from tests.support.sockets import Client, Client2, websocket

LARGEST = 2**63 - 1
DATABASE = "large_ids"
GIVEN = {"nick_name": "largest", "user_name": "largest", "password": "the first password"}


@pytest.fixture
def flags() -> list[str]:
    return ["--auth=token", f"--mongo-database={DATABASE}"]


@pytest.fixture
def http_server(io_loop: IOLoop, settings: Settings, addresses: Addresses, clock: Clock) -> Iterator[Server]:
    """A server whose next account gets the largest id."""
    stack = AsyncExitStack()
    with mysql_connection(addresses.mysql, database=None) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {DATABASE}")
        migrate(cursor)
        seed(cursor)
        cursor.execute(f"ALTER TABLE `user` AUTO_INCREMENT = {LARGEST}")
        there = addresses._replace(mysql=addresses.mysql.replace("/tandem?", f"/{DATABASE}?"))
        yield io_loop.run_sync(
            lambda: stack.enter_async_context(serving(settings, there, article_users=False, clock=clock))
        )
        io_loop.run_sync(stack.aclose)
        cursor.execute(f"DROP DATABASE {DATABASE}")


async def test_all_that_a_user_does(ask: Ask, http_server: Server, opened: list[Client | Client2]) -> None:
    """Registration, signing in and out, passwords, blocks, messages in both protocols and lists work."""

    async def token_of(user: int) -> str:  # signing in takes a while
        return http_server.access.issue((await http_server.stores.users.active_now([user]))[user])

    async def connect(kind: type[Any], path: str, token: str) -> Any:
        client = kind(await websocket(http_server.port, path, {"Authorization": f"Bearer {token}"}))
        opened.append(client)
        await client.receive(50002)
        return client

    registered = await ask("POST", "/user/register", body=GIVEN)
    assert (registered.status, registered.data["id"]) == (200, LARGEST)
    assert f'"id":{LARGEST},'.encode() in registered.body  # a number, as gin-chat-demo's clients expect it
    signed_in = await ask("POST", "/user/login", body=GIVEN)
    assert (signed_in.status, signed_in.data["user"]["id"]) == (200, LARGEST)
    token, peer = signed_in.data["token"], await token_of(1)

    inbox = await connect(Client2, "/ws?v=2", token)
    pair = await connect(Client, f"/ws?toUid={LARGEST}", peer)
    await pair.say("hello", 50004)
    live = await inbox.receive(50001, content="hello", to=str(LARGEST))
    assert live["from"] == "1"
    assert (await inbox.say("hello yourself", 50004, to="1"))["seq"] == 2
    await pair.receive(50001, "hello yourself")
    assert (await inbox.ask(4, to="1", read=1))["read"] == 1
    theirs = (await ask("GET", "/conversations", token=peer)).data
    assert [(entry["peer"]["id"], entry["online"]) for entry in theirs] == [(LARGEST, True)]
    shown = (await ask("GET", f"/messages?toUid={LARGEST}", token=peer)).data["messages"]
    assert [(message["from"], message["to"]) for message in shown] == [("1", str(LARGEST)), (str(LARGEST), "1")]
    assert (await ask("GET", "/users?user_name=LARGEST", token=peer)).data["id"] == LARGEST
    assert str(LARGEST).encode() in (await ask("GET", "/user/export", token=token)).body

    assert (await ask("PUT", f"/user/blocks/{LARGEST}", token=peer)).status == 200
    assert [each["id"] for each in (await ask("GET", "/user/blocks", token=peer)).data] == [LARGEST]
    await inbox.say("blocked", 403, to="1")
    assert (await ask("DELETE", f"/user/blocks/{LARGEST}", token=peer)).status == 200

    assert (await ask("PATCH", "/user/me", token=token, body={"email": "a@b"})).data["id"] == LARGEST
    body = {"password": GIVEN["password"], "new_password": "the second password"}
    changed = await ask("POST", "/user/password", token=token, body=body)
    assert (changed.status, changed.data["user"]["id"]) == (200, LARGEST)
    assert (await ask("GET", "/user/me", token=token)).status == 401
    token = changed.data["token"]
    ticket = (await ask("POST", "/ws/ticket", token=token)).data["ticket"]
    again = Client2(await websocket(http_server.port, f"/ws?v=2&ticket={ticket}"))
    opened.append(again)
    await again.receive(50002)
    other = await token_of(LARGEST)
    assert (await ask("POST", "/user/logout", token=token)).status == 200
    assert [(await ask("GET", "/user/me", token=each)).status for each in (token, other)] == [401, 200]
    assert (await ask("POST", "/user/logout/everywhere", token=other)).status == 200
    assert (await ask("GET", "/user/me", token=other)).status == 401
    token = await token_of(LARGEST)
    assert (await ask("DELETE", "/user/me", token=token, body={"password": "the second password"})).status == 200
    assert (await ask("POST", "/user/register", body=GIVEN | {"user_name": "beyond"})).status == 500
