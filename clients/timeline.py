"""The order of one conversation as a client is given it: ascending, without a gap or a repeat.

Messages come live, in acknowledgements of own ones, and in answers to a resume or history request. While an answer is
awaited, live messages are kept back, since the answer may have them, and those before them. There is no I/O here: the
owner of a timeline makes the requests that it calls for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["MOST_WAITING", "Message", "Timeline"]

MOST_WAITING = 1000  # live messages kept while an answer is awaited; history has the others


class Message(NamedTuple):
    """A stored message. `time` is in milliseconds since the epoch; `id` is empty if it has none."""

    seq: int
    time: int
    sender: int
    content: str
    id: str

    @classmethod
    def of(cls, frame: dict[str, Any]) -> Message:
        """Return the message in a live frame, or in an answer."""
        return cls(frame["seq"], frame["time"], int(frame["from"]), frame["content"], frame.get("id", ""))


class Timeline:
    """Says which messages are next. All messages up to the seq `held` have been given out."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.asking = True  # there was no request yet, so it is not known what came after `held`
        self._seen = 0  # the highest `seq` that came live
        self._asked_upto = 0  # the highest live `seq` when the request was made
        self._waiting: dict[int, Message] = {}

    @property
    def gap(self) -> bool:
        """Whether a message is missing that has not been requested."""
        return not self.asking and self._seen > self.held

    def suspend(self) -> None:
        """Keep live messages back until there is an answer: the connection is new."""
        self.asking = True

    def ask(self) -> int:
        """Note that a request is made. Return the `seq` after which to ask."""
        self.asking = True
        self._asked_upto = self._seen
        return self.held

    def live(self, message: Message) -> list[Message]:
        """Take a live message. Return the messages that are next."""
        self._seen = max(self._seen, message.seq)
        if message.seq > self.held and len(self._waiting) < MOST_WAITING:
            self._waiting[message.seq] = message
        return [] if self.asking else self._next(0)

    def answered(self, messages: Iterable[Message], *, complete: bool) -> list[Message]:
        """Take an answer, in ascending order.

        Return the messages that are next. `complete` says that there are no more. A `seq` that had come live before the
        request of a complete answer, and that the answer skips, is not missing: the messages before it have expired.
        """
        given: list[Message] = []
        for message in messages:
            if message.seq > self.held:
                self.held = message.seq
                given.append(message)
        if complete:
            self.asking = False
            given += self._next(self._asked_upto)
            self.held = max(self.held, self._asked_upto)
        return given

    def restart(self, held: int) -> None:
        """Forget what the server no longer knows: its data was restored from an old copy."""
        self.held = held
        self._seen = 0
        self._waiting.clear()

    def _next(self, upto: int) -> list[Message]:
        given: list[Message] = []
        for seq in sorted(self._waiting):
            if seq > max(self.held + 1, upto):
                break
            message = self._waiting.pop(seq)
            if seq > self.held:
                self.held = seq
                given.append(message)
        return given
