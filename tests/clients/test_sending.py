"""Tests of sending one message of each conversation at a time, with a fake connection for rare outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import clients.backoff
from clients.connection import TOO_BIG, Frame
from clients.outbox import Outbox, Pending
from clients.sending import Sender
from tests.support.sockets import until


class Recorder:
    """A fake connection that records requests, and answers when a test tells it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._then: dict[str, Callable[[Frame], None]] = {}

    def ask(self, kind: int, then: Callable[[Frame], None], *, name: str, **fields: Any) -> None:
        self.asked.append({"type": kind, "id": name, **fields})
        self._then[name] = then

    def answer(self, pending: Pending, code: int, **fields: Any) -> None:
        frame = {"from": "", "code": code, "content": "so it is", "id": pending.id}
        self._then[pending.id](frame | fields)

    @property
    def contents(self) -> list[str]:
        return [each["content"] for each in self.asked]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "state" / "outbox", lambda: 1.0)
    yield outbox
    outbox.close()


@pytest.fixture
def told() -> list[Pending]:
    return []


@pytest.fixture
def sender(outbox: Outbox, told: list[Pending]) -> Sender:
    return Sender(outbox, lambda pending, frame: told.append(pending), Random(1))


def connected(sender: Sender, *peers: int) -> Recorder:
    connection = Recorder()
    sender.connected(connection)  # type: ignore[arg-type]
    for peer in peers:
        sender.ready(peer)
    return connection


async def test_one_at_a_time(sender: Sender, outbox: Outbox) -> None:
    """One message of each conversation is sent at a time, in order; one that is not resumed yet waits."""
    first, other, second = outbox.add(2, "one"), outbox.add(3, "other"), outbox.add(2, "two")
    connection = connected(sender)
    sender.look(2)
    assert connection.asked == []
    sender.ready(2)
    assert connection.asked == [{"type": 1, "id": first.id, "to": "2", "content": "one"}]
    sender.look(2)
    sender.ready(3)
    assert connection.contents == ["one", "other"]
    connection.answer(first, 50005)
    assert connection.contents == ["one", "other", "two"]
    connection.answer(other, 50004)
    connection.answer(second, 50004)
    assert len(outbox) == 0


@pytest.mark.parametrize("code", [40001, 500, 429])
async def test_an_outcome_that_is_not_known(
    code: int, sender: Sender, outbox: Outbox, told: list[Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message with an unknown outcome is resent with the same id before anything else is sent."""
    monkeypatch.setattr(clients.backoff, "BASE", 0.001)
    first, second = outbox.add(2, "one"), outbox.add(2, "two")
    connection = connected(sender, 2)
    for count in (2, 3, 4):
        connection.answer(first, code, retry_after=0.001)
        sender.look(2)
        assert len(connection.asked) == count - 1
        await until(lambda count=count: len(connection.asked) == count)
    assert {each["id"] for each in connection.asked} == {first.id}
    assert told == []
    connection.answer(first, 50004)
    assert connection.contents[-1] == "two"
    assert list(outbox) == [second]


async def test_an_acknowledgement_that_comes_by_itself(sender: Sender, outbox: Outbox, told: list[Pending]) -> None:
    """After a late acknowledgement nothing is resent, and the next message is sent at once."""
    first, second = outbox.add(2, "one"), outbox.add(2, "two")
    connection = connected(sender, 2)
    connection.answer(first, 40001)
    assert sender.stored(first.id)
    assert connection.contents == ["one", "two"]
    assert told == [first]
    connection.answer(first, 50004, dup=True)
    assert not sender.stored(first.id)
    assert told == [first]
    assert list(outbox) == [second]


@pytest.mark.parametrize("code", [50006, 400, 403, 404, 418])
async def test_a_refusal(code: int, sender: Sender, outbox: Outbox, told: list[Pending]) -> None:
    """A refused message is kept with its reason, and the messages after it have outcomes of their own."""
    first, second = outbox.add(2, "one"), outbox.add(2, "two")
    connection = connected(sender, 2)
    connection.answer(first, code)
    assert connection.contents == ["one", "two"]
    assert [(pending.id, pending.failed[:7]) for pending in told] == [(first.id, "refused")]
    assert list(outbox) == [*told, second]
    connection.answer(second, 50004)
    sender.look(2)
    assert connection.contents == ["one", "two"]
    outbox.mark(first.id, "")
    sender.look(2)
    assert connection.contents == ["one", "two", "one"]


async def test_another_connection(sender: Sender, outbox: Outbox) -> None:
    """Messages without an answer are resent with their ids; answers over the old connection do not arrive."""
    first = outbox.add(2, "one")
    outbox.add(2, "two")
    connected(sender, 2)
    sender.disconnected()
    again = connected(sender)
    sender.look(2)
    assert again.asked == []
    sender.ready(2)
    assert [each["id"] for each in again.asked] == [first.id]


async def test_a_message_that_closes_the_connection(sender: Sender, outbox: Outbox, told: list[Pending]) -> None:
    """After 1009 the largest message without an answer has failed; otherwise it would close each connection."""
    small, large = outbox.add(2, "xx"), outbox.add(3, "你好")
    connection = connected(sender, 2, 3)
    connection.close_code = TOO_BIG
    sender.disconnected()
    assert [pending.id for pending in told] == [large.id]
    assert connected(sender, 2, 3).asked[0]["id"] == small.id


async def test_what_the_server_says_of_a_refusal(sender: Sender, outbox: Outbox, told: list[Pending]) -> None:
    """The server's text is kept and shown without control characters."""
    connection = connected(sender, 2)
    pending = outbox.add(2, "hi")
    sender.look(2)
    connection.answer(pending, 77, content="\x1b[2J")
    assert told[-1].failed == "refused (77): ␛[2J"
