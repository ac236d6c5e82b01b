"""The fuzzer's frames: valid requests of both protocols, changed ones, and odd or broken frames."""

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

__all__ = ["ASKED", "Batch", "Endpoint", "Mutator"]

FRAMES = 50  # the maximum of frames in an ordinary batch
FORGIVING = 7  # possibly invalid frames in a row before a valid one: the tenth would close the socket
STORM = (1000, 3000)  # minimum and maximum of frames in a storm
ASKED = "good "  # the prefix of ids of requests that must be answered
STORMS = 0.001  # the share of batches
EDGES = (8191, 8192, 8193, 16_000)  # characters, around --max-content
LETTERS = "abcdefghijklmnopqrstuvwxyz 字👩‍👩‍👧‍👦é\u2028\u202e"

# Of a hundred frames. Most are changed requests. Frames that close a connection are rare, so that most live long.
WEIGHTS = {"good": 10, "changed JSON": 77, "changed bytes": 8, "odd": 4.5, "broken": 0.25, "not UTF-8": 0.25}


class Endpoint(NamedTuple):
    """A user, the peer (None: an inbox socket), the protocol version and the language of a socket."""

    user: int
    peer: int | None
    version: int
    language: str = "zh"

    @property
    def path(self) -> str:
        """The URL's path."""
        peer = "" if self.peer is None else f"&toUid={self.peer}"
        return f"/ws?uid={self.user}{peer}&v={self.version}&lang={self.language}"


@dataclass
class Batch:
    """Frames that are written together, and the expected answers."""

    data: list[bytes] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    owed: dict[str, int] = field(default_factory=dict)  # valid requests that must be answered: their types by id
    messages: int = 0  # in protocol v1 each is answered at least once
    end: wire.Broken | None = None  # the last bytes, which end the connection

    @property
    def frames(self) -> int:
        """The number of frames."""
        return self.kinds.total()


class Mutator:
    """Makes the batches of one connection. `names` are the ids of users for `to` and `after`."""

    _asked = itertools.count()

    def __init__(self, chance: Random, endpoint: Endpoint, names: Sequence[int]) -> None:
        self._chance = chance
        self._endpoint = endpoint
        self._names = names
        self._changes = Changes(chance, names)
        self._invalid = 0  # possibly invalid frames in a row

    def batch(self, most: int) -> Batch:
        """Return the next frames, at most `most`; bytes that end the connection come last."""
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
        """Write thousands of frames at once, a few of them repeated; enough are valid for the socket to stay open."""
        count = min(most, self._chance.randrange(*STORM))
        forgiving = wire.frame(self._forgiving())
        few = [forgiving, forgiving, forgiving, wire.frame(b"x", wire.PING)]
        few += [wire.frame(text) for _ in range(6) if len(text := self._changes.changed(self._template())) < 300]
        batch.data += self._chance.choices(few, k=count)
        batch.kinds["storm"] += count

    # Valid requests

    def _text(self) -> bytes:
        return text_of(self._template()).encode()

    def _template(self) -> Pairs:
        """Return a valid request, mostly of the socket's own protocol."""
        chance = self._chance
        version = self._endpoint.version if chance.random() < 0.85 else 3 - self._endpoint.version
        if version == 1:
            kind = chance.choices((1, 2, 3), (10, 1, 1))[0]
            return [("type", kind), ("content", chance.choice(TIMES) if kind == 2 else self._content())]
        kind = chance.choices((1, 2, 3, 4, 5, 6), (10, 4, 1, 3, 2, 2))[0]
        return self._request2(kind, f"m{chance.randrange(10_000)}")

    def _request2(self, kind: int, name: str) -> Pairs:
        chance, inbox = self._chance, self._endpoint.peer is None
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
        """Return a request that must be answered; in protocol v1, which has no ids, by at least one frame."""
        if self._endpoint.version == 1:
            kind = self._chance.choices((1, 2, 3), (16, 1, 1))[0]
            content = self._content() if kind == 1 else ""
            self._put(batch, "good", json.dumps({"type": kind, "content": content}).encode())
            return
        name = f"{ASKED}{next(self._asked)}"
        kind = self._chance.choices((1, 2, 3, 4, 6), (12, 4, 1, 6, 1))[0]
        pairs = self._request2(kind, name)
        if kind == 1:  # longer content may be refused
            pairs = [("content", value[:8000]) if key == "content" else (key, value) for key, value in pairs]
        batch.owed[name] = kind
        self._put(batch, "good", text_of(pairs).encode())

    def _forgiving(self) -> bytes:
        """Return the cheapest valid request."""
        if self._endpoint.version == 1:
            return b'{"type":2,"content":"0"}'
        return text_of([("type", 5), *([("to", str(self._name()))] if self._endpoint.peer is None else [])]).encode()

    def _content(self) -> str:
        chance = self._chance
        if chance.random() < 0.002:
            return chance.choice(LETTERS) * chance.choice(EDGES)
        return "".join(chance.choices(LETTERS, k=chance.randrange(12)))

    def _name(self) -> int:
        """Return another user's id."""
        while (name := self._chance.choice(self._names)) == self._endpoint.user:
            pass
        return name
