"""The order of one conversation as a client is given it: ascending, without a gap or a repeat.

Messages come live, in acknowledgements of own ones, and in answers to a resume or history request. While an answer
is awaited, live messages wait, since the answer may have them and what is before them too. No I/O: whoever owns a
timeline asks what it says is to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["MOST_WAITING", "Message", "Timeline"]

MOST_WAITING = 1000  # live messages kept while an answer is awaited; history has those beyond


class Message(NamedTuple):
    """A stored message; `time` in milliseconds since the epoch, `id` empty if it was given none."""

    seq: int
    time: int
    sender: int
    content: str
    id: str

    @classmethod
    def of(cls, frame: dict[str, Any]) -> Message:
        """The message in a live frame, or in an answer."""
        return cls(frame["seq"], frame["time"], int(frame["from"]), frame["content"], frame.get("id", ""))


class Timeline:
    """Tells which messages are next. `held` is the `seq` up to which all of them were given out."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.asking = True  # nothing was asked so far, so nothing is known of what came after
        self._seen = 0  # the highest `seq` that came live
        self._asked_upto = 0  # what had come live when the question was put
        self._waiting: dict[int, Message] = {}

    @property
    def gap(self) -> bool:
        """Whether something is missing that nobody has asked for."""
        return not self.asking and self._seen > self.held

    def suspend(self) -> None:
        """The connection is new: live messages wait until there is an answer."""
        self.asking = True

    def ask(self) -> int:
        """A question is put now; the `seq` after which to ask."""
        self.asking = True
        self._asked_upto = self._seen
        return self.held

    def live(self, message: Message) -> list[Message]:
        """Takes a message that came by itself; returns those that are next now."""
        self._seen = max(self._seen, message.seq)
        if message.seq > self.held and len(self._waiting) < MOST_WAITING:
            self._waiting[message.seq] = message
        return [] if self.asking else self._next(0)

    def answered(self, messages: Iterable[Message], *, complete: bool) -> list[Message]:
        """Takes an answer, ascending, `complete` if it has all there is; returns the messages that are next now.

        A `seq` that had come live before a complete answer was asked for, and that the answer passes over, is not
        missing: what was before it has expired.
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
        """The server knows less than was held: it was brought back from an old copy."""
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
