"""Tests of one socket to the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from tornado.ioloop import IOLoop

import clients.connection
from clients.connection import Connection, Frame
from clients.server import Server, SessionOver, Unreachable
from server import Server as Serving
from tests.clients.conftest import Through
from tests.conftest import Ask, TokenOf
from tests.support.sockets import until

Remote = Callable[..., Server]


@pytest.fixture
def remote(io_loop: IOLoop, http_server: Serving) -> Iterator[Remote]:
    """Return a function that makes servers as the client sees them, with a caller."""
    with ExitStack() as stack:

        def make(url: str = http_server.url, **caller: Any) -> Server:
            return stack.enter_context(closing(Server(url, **caller)))

        yield make


def nothing(frame: Frame) -> None:
    """Ignore the arguments."""


async def test_answers_find_who_asked(remote: Remote, token_of: TokenOf, pair: tuple[int, int]) -> None:
    """Each of many answers reaches its caller; other frames go to `take`."""
    taken: list[Frame] = []
    one = await Connection.open(remote(token=await token_of(pair[0])), nothing)
    two = await Connection.open(remote(token=await token_of(pair[1])), taken.append)
    answers: dict[str, Frame] = {}
    for name in ("a", "b", "c"):
        one.ask(1, lambda frame, name=name: answers.update({name: frame}), name=name, to=str(pair[1]), content=name)
    await until(lambda: len(answers) == 3 and len(taken) == 3)
    assert {name: frame["id"] for name, frame in answers.items()} == {"a": "a", "b": "b", "c": "c"}
    assert [frame["content"] for frame in taken] == ["a", "b", "c"]
    page: list[Frame] = []
    two.ask(2, page.append, to=str(pair[0]))
    await until(lambda: page)
    assert [message["id"] for message in page[0]["messages"]] == ["a", "b", "c"]
    one.close()
    two.close()


async def test_nothing_is_called_after_the_end(remote: Remote, token_of: TokenOf, pair: tuple[int, int]) -> None:
    """After the end there is no call for an answer that still arrives, nor for a later request."""
    server = remote(token=await token_of(pair[0]))
    called: list[Frame] = []
    connection = await Connection.open(server, called.append)
    connection.ask(1, called.append, to=str(pair[1]), content="x")
    connection.close()
    connection.ask(1, called.append, to=str(pair[1]), content="y")
    connection.tell(5, to=str(pair[1]))
    answered: list[Frame] = []
    other = await Connection.open(server, answered.append)
    other.ask(1, answered.append, name="z", to=str(pair[1]), content="z")
    await until(lambda: any(frame.get("id") == "z" for frame in answered))
    assert str(connection.ended.result()) == "closed"
    assert called == []
    other.close()


async def test_an_end_for_good(remote: Remote, token_of: TokenOf, ask: Ask, pair: tuple[int, int]) -> None:
    """1008, and 401 and 404 at the upgrade, end the session."""
    token = await token_of(pair[0])
    connection = await Connection.open(remote(token=token), nothing)
    await ask("POST", "/user/logout", token=token, body="")
    assert isinstance(await connection.ended, SessionOver)
    assert connection.close_code == 1008
    connection.close()
    with pytest.raises(SessionOver, match="no longer good") as over:
        await Connection.open(remote(token=token), nothing)
    assert over.value.code == 401
    with pytest.raises(SessionOver, match="no such user"):
        await Connection.open(remote(uid=2**31 - 2), nothing)


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> list[str]:
    return getattr(request, "param", [])


@pytest.mark.parametrize("flags", [["--max-user-connections=1"]], indirect=True)
async def test_a_refusal_for_now(remote: Remote, token_of: TokenOf, pair: tuple[int, int]) -> None:
    """429 does not end the session, and says when to retry."""
    server = remote(token=await token_of(pair[0]))
    connection = await Connection.open(server, nothing)
    with pytest.raises(Exception, match="sockets") as refused:
        await Connection.open(server, nothing)
    assert not isinstance(refused.value, SessionOver)
    assert getattr(refused.value, "retry_after", 0) > 0
    connection.close()


async def test_no_server(remote: Remote, through: Through) -> None:
    """Without a server, or without its answer, a retry may help."""
    proxy = await through(1)
    for url in (f"http://127.0.0.1:{proxy.port}", "http://127.0.0.1:1"):
        with pytest.raises(Unreachable):
            await Connection.open(remote(url), nothing)


async def test_silence(
    remote: Remote,
    http_server: Serving,
    through: Through,
    token_of: TokenOf,
    pair: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request without an answer ends the connection."""
    proxy = await through(http_server.port)
    server = remote(f"http://127.0.0.1:{proxy.port}", token=await token_of(pair[0]))
    connection = await Connection.open(server, nothing)
    proxy.flowing.clear()
    monkeypatch.setattr(clients.connection, "ANSWER_WITHIN", 0.05)
    connection.ask(2, nothing, to=str(pair[1]))
    assert str(await connection.ended) == "the server is silent"
    connection.close()


async def test_giving_up_while_it_opens(
    remote: Remote, http_server: Serving, through: Through, token_of: TokenOf, pair: tuple[int, int]
) -> None:
    """A socket that opens after its caller has given up is closed, so that Tornado does not warn of it."""
    proxy = await through(http_server.port)
    server = remote(f"http://127.0.0.1:{proxy.port}", token=await token_of(pair[0]))
    proxy.flowing.clear()
    opening = asyncio.create_task(Connection.open(server, nothing))
    await until(lambda: proxy.opened)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    assert opening.cancelled()
    proxy.flowing.set()
    await until(lambda: proxy.closed)
