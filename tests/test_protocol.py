"""Tests of protocol v2 beside a model of it, as a state machine on real sockets and databases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop

from server import Server
from tests.support.clocks import Clock
from tests.support.sockets import Client2, until

SIDES = st.sampled_from([0, 1])
SEQS = st.integers(0, 12)
LIMITS = st.integers(1, 7)


class Stored(NamedTuple):
    """A message, as the model has it."""

    side: int
    name: str
    content: str
    seq: int
    time: int


def conversation(server: Server, clock: Clock, io_loop: IOLoop, people: Callable[[int], list[int]]) -> type:
    """The state machine, each run of which is a conversation between two new users."""
    names = itertools.count()

    class Conversation(RuleBasedStateMachine):
        """Two users write, resend, mark, page, disconnect and reconnect."""

        def __init__(self) -> None:
            super().__init__()
            clock.offset = 0
            self.users = people(2)
            self.messages: list[Stored] = []
            self.marks = [[0, 0], [0, 0]]  # received, read
            self.sockets = [self.run(self.opened(side)) for side in (0, 1)]
            self.run(until(lambda: server.chat.presence.idle))  # so no pending event reaches later sockets
            for side in (0, 1):
                self.send(side)

        def run(self, work: Coroutine[Any, Any, Any]) -> Any:
            return io_loop.run_sync(lambda: work)

        def teardown(self) -> None:
            for socket in self.sockets:
                socket.close()

        async def opened(self, side: int) -> Client2:
            return await Client2.open(server.port, self.users[side], self.users[1 - side])

        def ask(self, side: int, kind: int, **fields: Any) -> dict[str, Any]:
            return self.run(self.sockets[side].ask(kind, **fields))

        def receive(self, side: int, code: int, **fields: Any) -> None:
            self.run(self.sockets[side].receive(code, **{"from": str(self.users[1 - side]), **fields}))

        def shown(self, answer: dict[str, Any]) -> list[Stored]:
            """Return the messages of an answer in the model's form."""
            assert answer["code"] == 50002
            return [
                Stored(self.users.index(int(m["from"])), m["id"], m["content"], m["seq"], m["time"])
                for m in answer["messages"]
            ]

        @rule(side=SIDES)
        def send(self, side: int) -> None:
            name = f"m{next(names)}"
            answer = self.ask(side, 1, id=name, content=f"content of {name}")
            message = Stored(side, name, f"content of {name}", len(self.messages) + 1, answer["time"])
            assert (answer["code"], answer["seq"], answer.get("dup")) == (50004, message.seq, None)
            assert not self.messages or message.time >= self.messages[-1].time
            self.messages.append(message)
            self.receive(1 - side, 50001, id=name, content=message.content, seq=message.seq, time=message.time)

        @rule(data=st.data())
        def resend(self, data: st.DataObject) -> None:
            first = data.draw(st.sampled_from(self.messages))
            answer = self.ask(first.side, 1, id=first.name, content=first.content)
            assert (answer["seq"], answer["time"], answer["dup"]) == (first.seq, first.time, True)
            assert self.ask(first.side, 1, id=first.name, content="other content")["code"] == 400

        @rule(side=SIDES, received=SEQS, read=SEQS)
        def mark(self, side: int, received: int, read: int) -> None:
            answer = self.ask(side, 4, received=received, read=read)
            if max(received, read) > len(self.messages):
                assert answer["code"] == 400
                return
            before = self.marks[side]
            now = [max(before[0], received, read), max(before[1], read)]
            assert (answer["code"], answer["received"], answer["read"]) == (50002, *now)
            self.marks[side] = now
            if now != before:
                self.receive(1 - side, 50007, received=now[0], read=now[1])

        @rule(side=SIDES, seq=SEQS, limit=LIMITS)
        def page_before(self, side: int, seq: int, limit: int) -> None:
            if seq:
                answer = self.ask(side, 2, before=seq, limit=limit)
                expected = [message for message in self.messages if message.seq < seq]
                assert self.shown(answer) == expected[-limit:]
                assert answer["complete"] == (len(expected) <= limit)

        @rule(side=SIDES, seq=SEQS, limit=LIMITS)
        def page_after(self, side: int, seq: int, limit: int) -> None:
            answer = self.ask(side, 2, after=seq, limit=limit)
            expected = self.messages[seq:]
            assert self.shown(answer) == expected[:limit]
            assert answer["complete"] == (len(expected) <= limit)

        @rule(side=SIDES, seq=SEQS)
        def come_back(self, side: int, seq: int) -> None:
            # The new socket opens before the old one closes, so presence does not change.
            old, self.sockets[side] = self.sockets[side], self.run(self.opened(side))
            old.close()
            answer = self.ask(side, 6, after=seq)
            if seq > len(self.messages):
                assert answer["code"] == 400
            else:
                assert self.shown(answer) == self.messages[seq:]
                assert answer["complete"]

        @rule(hours=st.sampled_from([-1, 24]))
        def move_the_clock(self, hours: int) -> None:
            clock.offset += hours * 3600

        @invariant()
        def unread_is_what_the_peer_wrote_and_was_not_read(self) -> None:
            for side in (0, 1):
                unread = [m for m in self.messages if m.side != side and m.seq > self.marks[side][1]]
                assert self.shown(self.ask(side, 3)) == unread
                url = f"{server.url}conversations?uid={self.users[side]}"
                (entry,) = json.loads(self.run(AsyncHTTPClient().fetch(url)).body)["data"]
                assert (entry["unread"], entry["last"]["seq"]) == (len(unread), len(self.messages))
                assert [entry["received"], entry["read"]] == self.marks[1 - side]
                assert not self.sockets[side].unread  # there is no other frame

    return Conversation


def test_conversations(http_server: Server, clock: Clock, io_loop: IOLoop, people: Callable[[int], list[int]]) -> None:
    """Whatever two users do, the server agrees with the model."""
    run_state_machine_as_test(
        conversation(http_server, clock, io_loop, people),
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
