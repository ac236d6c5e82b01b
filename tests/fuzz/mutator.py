"""What the fuzzer writes: good requests of both dialects, changed ones, and frames that are odd or broken."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.fuzz import wire
from tests.fuzz.changes import LONE, TIMES, Changes, Pairs, text_of

__all__ = ["ASKED", "Batch", "Door", "Mutator"]

FRAMES = 50  # most frames in an ordinary batch
FORGIVING = 7  # frames in a row that may be invalid before one that is not: the tenth would close the socket
STORM = (1000, 3000)  # frames in a storm, at least and at most
ASKED = "good "  # how the ids of requests begin that have to be answered
STORMS = 0.001  # of all batches
EDGES = (8191, 8192, 8193, 16_000)  # characters, about --max-content
LETTERS = "abcdefghijklmnopqrstuvwxyz 字👩‍👩‍👧‍👦é\u2028\u202e"

# Of a hundred frames. Changed requests are most; what closes a connection is rare, so that most live long.
WEIGHTS = {"good": 10, "changed JSON": 77, "changed bytes": 8, "odd": 4.5, "broken": 0.25, "not UTF-8": 0.25}


class Door(NamedTuple):
    """A way in: who connects, with whom (None: an inbox socket), in which dialect and language."""

    user: int
    peer: int | None
    dialect: int
    language: str = "zh"

    @property
    def path(self) -> str:
        """The URL's path."""
        peer = "" if self.peer is None else f"&toUid={self.peer}"
        return f"/ws?uid={self.user}{peer}&v={self.dialect}&lang={self.language}"


@dataclass
class Batch:
    """What is written at once, and what is to come of it."""

    data: list[bytes] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    owed: dict[str, int] = field(default_factory=dict)  # good requests that have to be answered: their types by id
    messages: int = 0  # each is answered once at least in dialect 1
    end: wire.Broken | None = None  # the last thing, which ends the connection

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.kinds.total()


class Mutator:
    """Makes one connection's batches. `names` are the ids of users who might be named in `to` and `after`."""

    _asked = itertools.count()

    def __init__(self, chance: Random, door: Door, names: Sequence[int]) -> None:
        self._chance = chance
        self._door = door
        self._names = names
        self._changes = Changes(chance, names)
        self._invalid = 0  # frames that may be invalid, in a row

    def batch(self, most: int) -> Batch:
        """The next frames, `most` at most; what ends the connection is the last one."""
        chance, batch = self._chance, Batch()
        forgiving = chance.random() > 0.02
        wanted = min(most, chance.randrange(1, FRAMES))
        for kind in chance.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()), k=wanted):
            if forgiving and self._invalid >= FORGIVING:
                self._put(batch, "forgiving", self._forgiving())
                self._invalid = 0
            else:
                self._one(batch, kind)
            if batch.end is not None:
                return batch
        if chance.random() < STORMS and most > batch.frames:
            self._storm(batch, most - batch.frames)
        return batch

    def _one(self, batch: Batch, kind: str) -> None:
        self._invalid += 1
        match kind:
            case "good":
                self._good(batch)
                self._invalid = 0
            case "changed JSON":
                self._put(batch, kind, self._changes.changed(self._template()))
            case "changed bytes":
                self._put(batch, kind, self._changes.damaged(self._text()))
            case "odd":
                name, messages, data = wire.odd(self._chance, self._text())
                self._write(batch, name, data, messages)
            case "broken":
                batch.end = wire.broken(self._chance)
                self._write(batch, batch.end.name, batch.end.data, 0)
            case _:
                text = self._text()
                at = self._chance.randrange(len(text) + 1)
                self._put(batch, kind, text[:at] + self._chance.choice(LONE) + text[at:])

    def _put(self, batch: Batch, kind: str, payload: bytes) -> None:
        mask = self._chance.randbytes(4) if self._chance.random() < 0.2 else wire.NO_MASK
        self._write(batch, kind, wire.frame(payload, mask=mask), 1)

    def _write(self, batch: Batch, kind: str, data: bytes, messages: int) -> None:
        batch.data.append(data)
        batch.kinds[kind] += 1
        batch.messages += messages

    def _storm(self, batch: Batch, most: int) -> None:
        """Thousands of frames at once, the same few over and over; enough of them valid for the socket to stay open."""
        count = min(most, self._chance.randrange(*STORM))
        forgiving = wire.frame(self._forgiving())
        few = [forgiving, forgiving, forgiving, wire.frame(b"x", wire.PING)]
        few += [wire.frame(text) for _ in range(6) if len(text := self._changes.changed(self._template())) < 300]
        batch.data += self._chance.choices(few, k=count)
        batch.kinds["storm"] += count

    # Good requests

    def _text(self) -> bytes:
        return text_of(self._template()).encode()

    def _template(self) -> Pairs:
        """A good request, mostly of the socket's own dialect."""
        chance = self._chance
        dialect = self._door.dialect if chance.random() < 0.85 else 3 - self._door.dialect
        if dialect == 1:
            kind = chance.choices((1, 2, 3), (10, 1, 1))[0]
            return [("type", kind), ("content", chance.choice(TIMES) if kind == 2 else self._content())]
        kind = chance.choices((1, 2, 3, 4, 5, 6), (10, 4, 1, 3, 2, 2))[0]
        return self._request2(kind, f"m{chance.randrange(10_000)}")

    def _request2(self, kind: int, name: str) -> Pairs:
        chance, inbox = self._chance, self._door.peer is None
        pairs: Pairs = [("type", kind), ("id", name)]
        match kind:
            case 1:
                pairs.append(("content", self._content()))
            case 2:
                pairs.append(("limit", chance.randrange(1, 4)))
                if chance.random() < 0.6:
                    pairs.append((chance.choice(("before", "after")), chance.randrange(100)))
            case 4:
                pairs.append((chance.choice(("received", "read")), 0))
            case 6:
                pairs.append(("after", {str(self._name()): 0} if inbox else 0))
        if kind != 6 and inbox:
            pairs.append(("to", str(self._name())))
        return pairs

    def _good(self, batch: Batch) -> None:
        """A request that has to be answered; in dialect 1, which has no ids, by one frame at least."""
        if self._door.dialect == 1:
            kind = self._chance.choices((1, 2, 3), (16, 1, 1))[0]
            content = self._content() if kind == 1 else ""
            self._put(batch, "good", json.dumps({"type": kind, "content": content}).encode())
            return
        name = f"{ASKED}{next(self._asked)}"
        kind = self._chance.choices((1, 2, 3, 4, 6), (12, 4, 1, 6, 1))[0]
        pairs = self._request2(kind, name)
        if kind == 1:  # longer content is none that has to be taken
            pairs = [("content", value[:8000]) if key == "content" else (key, value) for key, value in pairs]
        batch.owed[name] = kind
        self._put(batch, "good", text_of(pairs).encode())

    def _forgiving(self) -> bytes:
        """The cheapest valid request."""
        if self._door.dialect == 1:
            return b'{"type":2,"content":"0"}'
        return text_of([("type", 5), *([("to", str(self._name()))] if self._door.peer is None else [])]).encode()

    def _content(self) -> str:
        chance = self._chance
        if chance.random() < 0.002:
            return chance.choice(LETTERS) * chance.choice(EDGES)
        return "".join(chance.choices(LETTERS, k=chance.randrange(12)))

    def _name(self) -> int:
        """Somebody else's id."""
        while (name := self._chance.choice(self._names)) == self._door.user:
            pass
        return name
