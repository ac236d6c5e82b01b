"""Change a valid request once or twice: its JSON, or its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["LONE", "TIMES", "Changes", "Pairs", "text_of"]

NAMES = ("__proto__", "constructor", "prototype", "__class__", "toString", "hasOwnProperty", "_id", "$where", "$ne")
KEYS = ("type", "content", "id", "to", "before", "after", "limit", "received", "read", "from", "code", "seq", "time")
NUMBERS = (
    *("0", "-0", "1", "2", "3", "4", "5", "6", "7", "-1", "42", "100", "101", "255", "1.0", "1.5", "1e0", "1E+2"),
    *("1e-400", "1e400", "-1e400", "01", "+1", ".5", "5.", "0x10", "1_000", "NaN", "Infinity", "-Infinity", "9" * 400),
    *("2147483647", "-2147483649", "4294967296", "9007199254740992", "9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "-9223372036854775808", "18446744073709551615", "18446744073709551616", "9" * 5000),
)
TEXTS = (
    *('""', '"1"', '"0"', '" "', '"a\\u0000b"', '"\\ud800"', '"\\udc00\\ud83d"', '"\\ud83d\\ude00"', '"\\x41"'),
    *('"\\u12"', '"a\0b"', '"a\nb"', '"\\"', '"1->2"', '"1-2"', '"$where"', '"__proto__"', '"\\u005f"', "'a'"),
    *('"\ufffe\uffff"', '"<script>alert(1)</script>"', '"\' OR 1=1 --"', '"../../etc/passwd"', '"%s%n%x"'),
    *('"{{7*7}}"', f'"{"y" * 64}"', f'"{"y" * 65}"'),
)
OTHERS = (
    *("null", "true", "false", "True", "undefined", "[]", "{}", "[1]", '["hi"]', '{"$ne":1}', '{"$gt":""}', "[[], {}]"),
    *('{"$where":"sleep(1000)"}', '{"__proto__":{"type":1}}', '{"constructor":{"prototype":{}}}', '{"a":1,"a":2}'),
)
TIMES = (
    *("", "0", "1700000000", "99999999999", "-5", "1.5", " 12 ", "1e5", "nan", "inf", "-0", "٣", "9" * 400, "0x1f"),
    *("+1", "1.", "1e999", "1,5", "1 2"),
)
IDS = (
    *("", "0", "-1", "+1", "01", "1.0", " 1", "1 ", "٣", "1e3", "9" * 19, "9" * 20, "9223372036854775807", "null"),
    *("1->2", "__proto__", "$ne", "4000000000"),
)
TITLES = ("", "x" * 64, "x" * 65, "字" * 64, "\0", "m0", "m1", 5, None, ["a"], {"$ne": ""})
SEQS = (0, 0, 1, -1, 2**53, 2**53 + 1, None, "0", 1.5)
LONE = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe5\xad", b"\x80")  # invalid UTF-8
SPLINTERS = (b'"', b"\\", b"{", b"}", b"[", b",", b":", b"\\u", b"\\ud800", b"\0", b"e", b"-")


class _Raw(str):
    """JSON, or bytes that replace it."""

    __slots__ = ()


Pairs = list[tuple[str, Any]]  # of an object, in which a key may appear twice


def _dumped(value: Any) -> str:
    return value if isinstance(value, _Raw) else json.dumps(value, ensure_ascii=False)


def text_of(pairs: Pairs) -> str:
    """Return the object as JSON."""
    return "{" + ",".join(f"{_dumped(key)}:{_dumped(value)}" for key, value in pairs) + "}"


class Changes:
    """Random changes. `names` are the ids of users for `to` and `after`."""

    def __init__(self, chance: Random, names: Sequence[int]) -> None:
        self._chance = chance
        self._names = names
        self._all: tuple[Callable[[Pairs], None], ...] = (
            *(self._drop, self._repeat, self._retype, self._retype, self._swap, self._number, self._rename),
            *(self._add, self._point, self._point, self._deepen, self._entitle, self._word),
        )

    def changed(self, pairs: Pairs) -> bytes:
        """Return the object after one to three changes, sometimes with more in its frame."""
        chance = self._chance
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            chance.choice(self._all)(pairs)
        text = text_of(pairs)
        if chance.random() < 0.12:
            text = self._framed(text)
        return text.encode("utf-8", "surrogatepass")

    def _value(self) -> _Raw:
        return _Raw(self._chance.choice(self._chance.choice((NUMBERS, TEXTS, OTHERS))))

    def _at(self, pairs: Pairs) -> int:
        if not pairs:
            pairs.append(("type", 1))
        return self._chance.randrange(len(pairs))

    def _put(self, pairs: Pairs, key: str, value: Any) -> None:
        pairs.insert(self._chance.randrange(len(pairs) + 1), (key, value))

    def _set(self, pairs: Pairs, key: str, value: Any) -> None:
        pairs[:] = [pair for pair in pairs if pair[0] != key]
        self._put(pairs, key, value)

    def _drop(self, pairs: Pairs) -> None:
        del pairs[self._at(pairs)]

    def _repeat(self, pairs: Pairs) -> None:
        """Write the same key twice, sometimes with an escape."""
        key, value = pairs[self._at(pairs)]
        if self._chance.random() < 0.5 and not isinstance(key, _Raw) and key:
            key = _Raw(f'"\\u{ord(key[0]):04x}{key[1:]}"')
        self._put(pairs, key, self._chance.choice((value, self._value())))

    def _retype(self, pairs: Pairs) -> None:
        at = self._at(pairs)
        pairs[at] = (pairs[at][0], self._value())

    def _swap(self, pairs: Pairs) -> None:
        one, other = self._at(pairs), self._at(pairs)
        (key, value), (key2, value2) = pairs[one], pairs[other]
        pairs[one], pairs[other] = (key, value2), (key2, value)

    def _number(self, pairs: Pairs) -> None:
        key = self._chance.choice(("type", "before", "after", "limit", "received", "read"))
        self._set(pairs, key, _Raw(self._chance.choice(NUMBERS)))

    def _rename(self, pairs: Pairs) -> None:
        at = self._at(pairs)
        key = self._chance.choice((*NAMES, *KEYS, "Type", "type ", "", "\0", "typé", "x" * 300))
        pairs[at] = (key, pairs[at][1])

    def _add(self, pairs: Pairs) -> None:
        self._put(pairs, self._chance.choice(self._chance.choice((NAMES, KEYS))), self._value())

    def _point(self, pairs: Pairs) -> None:
        """Put other users into `to` and `after`, or invalid ids."""
        chance = self._chance
        names = [chance.choice(IDS) if chance.random() < 0.4 else str(chance.choice(self._names)) for _ in range(3)]
        match chance.randrange(6):
            case 0 | 1 | 2:
                self._set(pairs, "to", names[0] if chance.random() < 0.8 else _Raw(names[0]))
            case 3 if chance.random() < 0.05:
                start = chance.randrange(1, 10**6)
                self._set(pairs, "after", dict.fromkeys(map(str, range(start, start + chance.choice((200, 201)))), 0))
            case 3 | 4:
                self._set(pairs, "after", {name: chance.choice(SEQS) for name in names})
            case _:
                self._set(pairs, "after", _Raw(f'{{"{names[0]}":0,"{names[0]}":1}}'))

    def _deepen(self, pairs: Pairs) -> None:
        depth = self._chance.choice((3, 30, 300) if self._chance.random() < 0.9 else (1100, 5000))
        before, after = self._chance.choice((("[", "]"), ('{"a":', "}"), ("[", ""), ('{"type":', "}")))
        self._put(pairs, self._chance.choice((*KEYS, "x")), _Raw(before * depth + "1" + after * depth))

    def _entitle(self, pairs: Pairs) -> None:
        self._set(pairs, "id", self._chance.choice(TITLES))

    def _word(self, pairs: Pairs) -> None:
        chance = self._chance
        self._set(pairs, "content", _Raw(chance.choice(TEXTS)) if chance.random() < 0.7 else chance.choice(TIMES))

    def _framed(self, text: str) -> str:
        """Add bytes around the object."""
        chance = self._chance
        at = chance.randrange(len(text) + 1)
        return chance.choice(
            (
                *(f"[{text}]", f"{text}{text}", f"\ufeff{text}", f" {text}\n", text.replace('"', "'"), f"{text} x"),
                *(text[:at], text[at:], json.dumps(text), f"/* */{text}", text.replace(":", ": "), text.upper()),
                *(text.replace("{", "{,"), text.replace("}", ",}"), text.replace(",", ",,"), f"{text}\0"),
                *("null", "", "3", "[" * 20_000),
            )
        )

    def damaged(self, data: bytes) -> bytes:
        """Flip, cut, double and insert bytes; keep most of it UTF-8, since the first other byte ends a socket."""
        chance, out = self._chance, bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(out) + 1)
            end = at + chance.randrange(1, 8)
            match chance.randrange(6):
                case 0 if at < len(out) and out[at] < 0x80:
                    out[at] ^= 1 << chance.randrange(7)
                case 1 if out[at:end].isascii():
                    del out[at:end]
                case 2 if out.isascii():
                    out[at:at] = out[at:end]
                case 3 if at < len(out) and out[at] < 0x80:
                    out[at] = 0
                case 4 if out.isascii():
                    out[at:at] = bytes(chance.choices(range(0x80), k=chance.randrange(1, 6)))
                case 5 if out.isascii():
                    out[at:at] = chance.choice(SPLINTERS)
        return bytes(out)
