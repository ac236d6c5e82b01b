"""Two pairs who chat about a secret during an attack: one in protocol v1, one in protocol v2 with an inbox socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

from tornado.websocket import WebSocketClosedError

from common.tasks import end
from tests.fuzz.watch import Findings
from tests.support.sockets import Client, Client2

__all__ = ["Bystanders"]

HISTORY_EVERY = 20  # rounds between two requests for history
PAUSE = 0.01  # seconds between two rounds, to leave the server time for the attackers
TROUBLE = (AssertionError, TimeoutError, WebSocketClosedError, OSError, KeyError, ValueError, TypeError)


class Bystanders:
    """Two chatting pairs, as an asynchronous context; `users` are four, the first two one pair."""

    sockets = 4  # the number of their sockets

    def __init__(self, port: int, users: Sequence[int], marker: str, findings: Findings) -> None:
        self._port = port
        self._users = users
        self._marker = marker
        self._findings = findings
        self._clients: list[Client | Client2] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False
        self.rounds = [0, 0]  # of each pair; in a round each user sends a message that the other one receives

    async def __aenter__(self) -> Bystanders:
        """Open their sockets and let them chat."""
        a, b, c, d = self._users
        one, two = await Client.open(self._port, a, b), await Client.open(self._port, b, a)
        self._clients += [one, two]
        for client in (one, two):
            await client.receive(50002)
        three, four = await Client2.open(self._port, c, d), await Client2.open(self._port, d)
        self._clients += [three, four]
        rounds = (lambda number: self._round1(one, two, number), lambda number: self._round2(three, four, number))
        self._tasks = [asyncio.create_task(self._talk(pair, each)) for pair, each in enumerate(rounds)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let them finish their round, and close their sockets."""
        self._ending = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        await end(*self._tasks)
        for client in self._clients:
            client.close()

    async def ended(self) -> None:
        """Wait until no pair can chat any more."""
        await asyncio.wait(self._tasks)

    async def _talk(self, pair: int, talk: Callable[[int], Awaitable[None]]) -> None:
        for number in count():
            if self._ending:
                break
            try:
                await talk(number)
            except TROUBLE as error:
                self._findings.report("bystanders who cannot chat any more", f"pair {pair}, round {number}: {error!r}")
                break
            self.rounds[pair] += 1
            await asyncio.sleep(PAUSE)

    def _secret(self, number: int, sender: int) -> str:
        return f"{self._marker} {number} of {sender}"

    async def _round1(self, one: Client, two: Client, number: int) -> None:
        """Chat in protocol v1: each message is acknowledged as delivered, and is the next one that arrives."""
        for sender, recipient, name in ((one, two, 1), (two, one, 2)):
            text = self._secret(number, name)
            code = await sender.say(text)
            assert code == 50004 or (number == 0 and code == 50005), f"{text} was answered with {code}"
            await recipient.receive(50001, text)
        if number % HISTORY_EVERY == HISTORY_EVERY - 1:
            await one.send(2)
            for back in range(4, -1, -1):
                await one.receive(50002, self._secret(number - back, 1), "me")
                await one.receive(50002, self._secret(number - back, 2), "you")

    async def _round2(self, three: Client2, four: Client2, number: int) -> None:
        """Chat in protocol v2: the same, at the next seq each, and history has the last messages in order."""
        c, d = self._users[2:]
        seq = 2 * number
        for sender, recipient, name, to in ((three, four, c, None), (four, three, d, str(c))):
            seq += 1
            text, fields = self._secret(number, name), {"to": to} if to else {}
            answer = await self._asked(sender, 1, id=text, content=text, **fields)
            assert (answer["code"], answer["seq"]) == (50004, seq), f"{text} was answered with {answer}"
            got = await self._received(recipient, str(name))
            assert (got["content"], got["id"], got["seq"]) == (text, text, seq), f"{text} came as {got}"
        if number % HISTORY_EVERY == HISTORY_EVERY - 1:
            await self._asked(three, 4, read=seq)
            answer = await self._asked(four, 2, limit=10, to=str(c))
            expected = [self._secret(number - back, name) for back in range(4, -1, -1) for name in (c, d)]
            assert [message["content"] for message in answer["messages"]] == expected, answer
            answer = await self._asked(three, 6, after=seq - 1)
            assert [message["seq"] for message in answer["messages"]] == [seq], answer

    async def _asked(self, client: Client2, kind: int, **fields: Any) -> dict[str, Any]:
        """Return the answer to a request; keep earlier frames, unless other users sent them."""
        name = fields.pop("id", None) or f"{self._marker} asks {next(_numbers)}"
        await client.connection.write_message(json.dumps({"type": kind, "id": name, **fields}))
        return await client.answer(name)

    async def _received(self, client: Client2, sender: str) -> dict[str, Any]:
        """Return the peer's next message. Other users may also write to an inbox socket, and come and go."""
        while True:
            frame = await client.read()
            if frame["code"] == 50001 and frame["from"] == sender:
                return frame


_numbers = count()
