"""Sending the outbox: one message of each conversation at a time, until its outcome is known.

So messages are stored in the order in which they were written, whatever fails in between. A message is resent with its
id after a moment if it is not known to be stored (40001, 500), or if requests come too fast (429). If the connection is
lost, it is resent over the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

from clients.backoff import Backoff, client_backoff
from clients.connection import TOO_BIG, Connection, Frame
from clients.outbox import Outbox, Pending
from clients.text import visible

__all__ = ["STORED", "TAKEN", "Sender"]

SEND = 1  # the type of a message's frame
TAKEN = 50004  # stored, and a socket of the peer got it
STORED = (TAKEN, 50005)
UNKNOWN = (40001, 500)  # it may be stored or not
TOO_FAST = 429
REFUSED = {
    50006: "refused: you can send three messages to a user who has not answered",
    400: "refused: too long, or not text",
    403: "refused: one of you has blocked the other",
    404: "refused: there is no such user",
}


class Sender:
    """Sends the messages of an outbox.

    `told` is called when a message is stored or has failed, with the message as it is then and, if it is stored, the
    server's answer.
    """

    def __init__(self, outbox: Outbox, told: Callable[[Pending, Frame | None], None], chance: Random) -> None:
        self._outbox = outbox
        self._told = told
        self._chance = chance
        self._connection: Connection | None = None
        self._ready: set[int] = set()  # peers whose conversation is caught up
        self._on_way: dict[int, str] = {}  # by peer: the id of the message that is being sent
        self._pauses: dict[int, asyncio.TimerHandle] = {}
        self._backoffs: dict[int, Backoff] = {}

    def connected(self, connection: Connection) -> None:
        """Send messages over this connection from now on, to each peer once `ready` is called."""
        self.disconnected()
        self._connection = connection

    def disconnected(self) -> None:
        """Stop sending. Messages without an answer are resent later, unless they closed the connection."""
        if self._connection is not None and self._connection.close_code == TOO_BIG:
            on_way = [each for each in self._outbox if each.id == self._on_way.get(each.peer)]
            if on_way:
                self._fail(max(on_way, key=lambda each: len(each.content.encode())).id, REFUSED[400])
        self._connection = None
        self._ready.clear()
        self._on_way.clear()
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()

    def ready(self, peer: int) -> None:
        """Allow messages to `peer`: what happened before is known."""
        self._ready.add(peer)
        self.look(peer)

    def look(self, peer: int) -> None:
        """Send the next message to `peer`, if there is one and none is being sent."""
        pending = self._outbox.next(peer)
        if self._connection is None or pending is None:
            return
        if peer in self._ready and peer not in self._on_way and peer not in self._pauses:
            self._on_way[peer] = pending.id
            then = partial(self._answered, pending)
            self._connection.ask(SEND, then, name=pending.id, to=str(peer), content=pending.content)

    def stored(self, message_id: str, frame: Frame | None = None) -> bool:
        """Note that a message is stored, as an answer, a replay or another connection says.

        Return whether the outbox had it.
        """
        pending = self._outbox.get(message_id)
        if pending is None:
            return False
        self._outbox.remove(message_id)
        self._backoffs.pop(pending.peer, None)
        self._told(pending, frame)
        self._settled(pending)
        return True

    def _answered(self, pending: Pending, frame: Frame) -> None:
        code = frame["code"]
        if code in STORED:
            if not self.stored(pending.id, frame):
                self._settled(pending)
        elif code in UNKNOWN or code == TOO_FAST:
            backoff = self._backoffs.setdefault(pending.peer, client_backoff(self._chance))
            wait = frame.get("retry_after", 0.0) if code == TOO_FAST else 0.0
            resume = asyncio.get_running_loop().call_later(wait or backoff.next_pause(), self._again, pending)
            self._pauses[pending.peer] = resume
            self._on_way.pop(pending.peer, None)
        else:
            self._fail(pending.id, REFUSED.get(code, visible(f"refused ({code}): {frame['content']}")))
            self._settled(pending)

    def _fail(self, message_id: str, reason: str) -> None:
        if self._outbox.get(message_id) is not None:
            self._told(self._outbox.mark(message_id, reason), None)

    def _again(self, pending: Pending) -> None:
        self._pauses.pop(pending.peer, None)
        self.look(pending.peer)

    def _settled(self, pending: Pending) -> None:
        if self._on_way.get(pending.peer) == pending.id:
            del self._on_way[pending.peer]
        if (pause := self._pauses.pop(pending.peer, None)) is not None:
            pause.cancel()
        self.look(pending.peer)
