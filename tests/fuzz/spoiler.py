"""Nearly valid and invalid requests, as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple
from urllib.parse import urlencode

from tests.fuzz.asker import Asker, described, operations

__all__ = ["Operation", "Request", "Spoiler", "described_operations"]

TEXTS = (
    *(b"", b"0", b"1", b"-1", b"01", b"+1", b"1.0", b"1e3", b"%31", b"%201", b"NaN", b"null", b"true", b"[]", b"{}"),
    *(b"100", b"101", b"9007199254740993", b"9223372036854775808", b"9" * 400, b"%D9%A1", b"%EF%BC%91", b"a" * 3000),
    *(b"%", b"%zz", b"%00", b"1%00", b"%0d%0aX-Made-Up:%201", b"%C3%28", b"%ED%A0%80", b"%F0%9F%92%A9", b"%2e%2e%2f"),
    *(b"alice", b"secret password", b"'", b'"', b"' OR 1=1 -- ", b"$ne", b"__proto__", b"..;/", b"a@b", b"http://a"),
)
METHODS = (
    *(b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PROPFIND", b"PRI"),
    *(b"", b"get", b"G E T", b"GET\0", b"\xff", b"A" * 5000, b"GET\t", b"\r\nGET", b"M-SEARCH", b"__init__"),
)
VERSIONS = (
    *(b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 x", b"http/1.1", b"", b"ICY", b"\0"),
)
HOSTS = (
    *(b"", b"localhost", b"LOCALHOST", b"127.0.0.1:0", b"127.1", b"[::1]", b"[::1", b"[v1.x]", b"example.org", b"a b"),
    *(b"localhost@example.org", b"localhost:99999999", b"localhost:x", b"\xff", b"a," * 500, b"0", b"[fe80::1%25e]"),
)
NAMES = (
    *(b"Accept", b"Accept-Encoding", b"Authorization", b"Connection", b"Content-Encoding", b"Content-Length", b"TE"),
    *(b"Content-Type", b"Cookie", b"Expect", b"Forwarded", b"Host", b"If-None-Match", b"Origin", b"Range", b"Trailer"),
    *(b"Sec-Fetch-Site", b"Transfer-Encoding", b"Upgrade", b"Via", b"X-Forwarded-For", b"X-Forwarded-Proto", b"", b" "),
    *(b"X-Http-Method-Override", b"A B", b"\0", b"\xff", b"a" * 5000, b"Host ", b"(", b"_", b":", b"\tX"),
)
CONTENTS = (
    *(b"", b" ", b"\0", b"\xff\xfe", b"a" * 9000, b"a\r\n b", b"a\rb", b"a\nb", b"close", b"keep-alive", b"upgrade"),
    *(b"gzip", b"identity", b"chunked", b"chunked, chunked", b"gzip, chunked", b"100-continue", b"-1", b"0", b"5"),
    *(b"+5", b"0x5", b"5, 5", b"5, 6", b"9" * 30, b"text/plain", b"application/json", b"a/b;" + b"c=d;" * 500),
    *(b"application/x-www-form-urlencoded", b"multipart/form-data", b"multipart/form-data; boundary=", b"cross-site"),
    *(b"null", b"http://localhost", b"https://[", b"file://", b"none", b"127.0.0.1", b"::1, 10.0.0.1, x", b"tandem=x"),
    *(b"tandem=", b'tandem="\\777"', b";;=;=", b"a=b;" * 800, b"Bearer", b"Bearer  ", b"Basic QTpC", b"Bearer a.b.c"),
    *(b"Bearer " + b"a" * 6000, b"bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", b"Bearer \xe2\x82"),
)
PART = b"--x\r\nContent-Disposition: form-data; "
BODIES = (
    *(b"{", b"null", b"[]", b'"x"', b"[" * 30_000, b'{"a":' * 5000, b'{"password":"\\ud800"}', b'{"email":"\xc3\x28"}'),
    *(b'{"user_name":1e400,"password":' + b"9" * 5000 + b"}", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0"),
    *(b'{"user_name":"\\u0000aaaa"}', b'{"user_name":"a","user_name":["b"]}', b"&" * 5000, b"a=" * 3000, b"=&=&%&%%"),
    *(b"password=%ff&user_name=%C3%28", b"--x\r\n\r\n--x--", PART + b'name="password"\r\n\r\n\xff\r\n--x--\r\n'),
    *(PART + b'name="password"; filename=""\r\n\r\na\r\n--x--', PART + b"name*=utf-8''%ff\r\n\r\na\r\n--x--"),
    *(b"--x\r\n" * 3000, b"\x1f\x8b\x08" + b"\0" * 50),
)
FORM, JSON = b"application/x-www-form-urlencoded", b"application/json"
TYPES = (FORM, JSON, b"multipart/form-data; boundary=x", b"text/plain", b"")
FIELDS = {"nick_name": 0.5, "user_name": 0.5, "password": 0.02, "new_password": 0.5, "email": 0.5, "avatar": 0.5}
FRAMES = (b"", b"\x81\x80\0\0\0\0", b"\x81\xfe\x00\x7e\0\0\0\0" + b'{"type":2}' * 12, b"\xff" * 300)
TARGETS = (
    *(b"", b"*", b"//", b"/..", b"http://example.org/", b"http://[/", b"example.org:80", b"/\0", b"/\xff", b"/#"),
    b"/" + b"a" * 10_000,
)
SIZES = (b"0", b"-1", b"ffffffffffffffff", b"5;" + b"a" * 5000, b"", b"zz", b"+5", b"0x5", b"1_0")
TRAILERS = (b"", b"\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 2000, b"1\r\nab\r\n")
CODINGS = (b"chunked", b"chunked", b"Chunked", b"gzip, chunked", b"chunked, identity", b"\x0bchunked", b"xchunked")
CLOSE = (b"Connection", b"close")
HANDSHAKE = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


class Operation(NamedTuple):
    """A method, a path, and the names of the query's parameters."""

    method: str
    path: str
    query: Sequence[str]


def described_operations() -> list[Operation]:
    """Return all described operations."""
    return [
        Operation(each.method.upper(), each.path, [name.name for name in each.query])
        for each in operations(described())
    ]


@dataclass
class Request:
    """A request that can be damaged."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    version: bytes = b"HTTP/1.1"

    def drop(self, name: bytes) -> None:
        """Remove a header."""
        self.headers = [each for each in self.headers if each[0] != name]

    def carry(self, body: bytes, kind: bytes) -> None:
        """Set the body."""
        self.drop(b"Content-Type")
        self.drop(b"Content-Length")
        self.body = body
        self.headers += [(b"Content-Type", kind), (b"Content-Length", str(len(body)).encode())]

    def encoded(self) -> bytes:
        lines = [b" ".join((self.method, self.target, self.version)), *(b": ".join(each) for each in self.headers)]
        return b"\r\n".join([*lines, b"", self.body])


class Spoiler:
    """Makes valid, odd or broken requests, in pieces to be written one after the other."""

    def __init__(self, chance: Random, asker: Asker, operations: Sequence[Operation], *, believes: bool) -> None:
        self._random = chance
        self._one = chance.choice
        self._asker = asker
        self._believes = believes
        self._operations = operations
        self._page_files = asker.page_files()
        names = [name for name in dir(self) if name.startswith("_kind_")]
        self._kinds: list[tuple[str, Callable[[], bytes | list[bytes]]]] = [
            (name.removeprefix("_kind_"), getattr(self, name)) for name in names
        ]

    def make(self) -> tuple[str, list[bytes]]:
        """Return a kind, and the pieces."""
        kind, make = self._one(self._kinds)
        made = make()
        return kind, [made] if isinstance(made, bytes) else made

    def _maybe(self, chance: float = 0.5) -> bool:
        return self._random.random() < chance

    def _value(self, name: str) -> bytes:
        """Return a value for a parameter of the query, mostly an odd one."""
        return str(self._asker.user - 1).encode() if name == "toUid" and self._maybe() else self._one(TEXTS)

    def _good(self) -> Request:
        """Return a well-formed request for an existing path; its values may be odd."""
        method, path, names = self._one(self._operations)
        asker = self._asker
        if "{digest}" in path:
            path = self._one(self._page_files)
        target = path.replace("{id}", str(self._one([asker.user, asker.user - 1, 0]))).encode()
        query = [name.encode() + b"=" + self._value(name) for name in names if name != "uid" and self._maybe()]
        headers = [(b"Host", b"127.0.0.1"), CLOSE]
        # If each request to end the token did so, the user would not be signed in for long.
        who = self._random.random() if not path.startswith("/user/logout") or self._maybe(0.01) else 1.0
        if who < 0.5:
            headers.append((b"Authorization", f"Bearer {asker.token}".encode()))
        elif who < 0.7:
            headers.append((b"Cookie", f"a=b; tandem={asker.token}".encode()))
        elif who < 0.9 and self._believes:
            query.append(f"uid={asker.user}".encode())
        if query:
            target += b"?" + b"&".join(query)
        request = Request(method.encode(), target, headers)
        if method not in ("GET", "HEAD") and not path.startswith("/user/blocks"):
            # Most have no password, since checking one is slow on purpose.
            fields = {name: self._one(TEXTS).decode() for name in FIELDS if self._maybe(FIELDS[name])}
            kind = self._one([FORM, JSON])
            request.carry((json.dumps(fields) if kind == JSON else urlencode(fields)).encode(), kind)
        return request

    def _kind_good(self) -> bytes:
        return self._good().encoded()

    def _kind_method(self) -> bytes:
        return replace(self._good(), method=self._one(METHODS)).encoded()

    def _kind_version(self) -> bytes:
        return replace(self._good(), version=self._one(VERSIONS)).encoded()

    def _kind_target(self) -> bytes:
        good = self._good()
        path, _, query = good.target.partition(b"?")
        several = b"&".join(self._one([b"v", b"lang", b"limit"]) + b"=" + self._one(TEXTS) for _ in range(5))
        odd = [
            *(path + b"/", path + self._one(TEXTS), b"/%2e%2e" + path, path.upper(), b"\\" + path, b"//" + path),
            *(path.replace(b"/", b"%2F"), path + b"?" + b"&".join([query] * 3), path + b"?" + b"a=b&" * 3000 + query),
            *(path + b"?" + self._one(TEXTS) + b"&" + query, path + b"??;=&&" + query, path + b"?" + several),
            *(b"/user/blocks/" + self._one(TEXTS), *TARGETS),
        ]
        return replace(good, target=self._one(odd)).encoded()

    def _kind_header(self) -> bytes:
        good = self._good()
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randint(0, len(good.headers))
            good.headers.insert(at, (self._one(NAMES), self._one(CONTENTS)))
        return good.encoded()

    def _kind_identity(self) -> bytes:
        good = self._good()
        token = self._asker.token.encode()
        at = self._random.randrange(len(token))
        odd = self._one([token[:at], token[:at] + self._one([b".", b"A", b"\0", b"%00"]) + token[at:], token * 2])
        name = self._one([b"Authorization", b"Cookie"])
        good.drop(name)
        good.headers.append((name, self._one([b"Bearer " + odd, b"tandem=" + odd, self._one(CONTENTS)])))
        return good.encoded()

    def _kind_host(self) -> bytes:
        good = self._good()
        good.headers[0:1] = [(b"Host", self._one(HOSTS)) for _ in range(self._one([0, 1, 1, 1, 2]))]
        return good.encoded()

    def _kind_many_headers(self) -> bytes:
        good = self._good()
        name = self._one([b"X", b"Cookie", b"Accept", b"Origin", b"Content-Length", b"Transfer-Encoding"])
        good.headers += [(name, self._one([b"1", b"a=b", b"chunked"]))] * self._one([100, 1000, 5000])
        return good.encoded()

    def _kind_length(self) -> bytes:
        good = self._good()
        good.drop(b"Content-Length")
        length = len(good.body)
        odd = [length + 1, length + 10**6, max(0, length - 1), -1, 2**64, f"{length}, {length}", f"+{length}", ""]
        good.headers += [(b"Content-Length", str(self._one(odd)).encode()) for _ in range(self._one([1, 1, 2]))]
        return good.encoded()

    def _kind_chunks(self) -> bytes:
        good = self._good()
        size = self._one([b"%x" % len(good.body), *SIZES])
        good.body = size + self._one([b"\r\n", b"\n", b""]) + good.body + b"\r\n" + self._one(TRAILERS)
        good.headers.append((b"Transfer-Encoding", self._one(CODINGS)))
        if self._maybe(0.7):
            good.drop(b"Content-Length")
        return good.encoded()

    def _kind_body(self) -> bytes:
        good = self._good()
        good.carry(self._one(BODIES), self._one(TYPES))
        if self._maybe(0.2):
            good.headers.append((b"Content-Encoding", self._one([b"gzip", b"br", b"deflate", b"identity"])))
        return good.encoded()

    def _kind_upgrade(self) -> bytes:
        asker = self._asker
        headers = [(b"Host", b"127.0.0.1"), (b"Authorization", f"Bearer {asker.token}".encode()), *HANDSHAKE]
        for _ in range(self._one([0, 0, 1, 2])):
            at = self._random.randint(2, 5)
            headers[at] = (headers[at][0], self._one([b"", b"x", b"8", b"Upgrade, x", b"x-upgrade", b"websocket, x"]))
        if self._maybe(0.3):
            names = [b"Sec-WebSocket-Extensions", b"Sec-WebSocket-Protocol", b"Origin", b"Sec-Fetch-Site"]
            headers.append((self._one(names), self._one(TEXTS + CONTENTS)))
        peer = self._one([f"&toUid={asker.user - 1}", "", "&toUid=", "&toUid=2&toUid=3"])
        query = f"v={self._one([1, 2, 2, 2, 3])}&lang=en{peer}"
        frames = self._one([*FRAMES, self._random.randbytes(200)])
        return Request(b"GET", b"/ws?" + query.encode(), headers).encoded() + frames

    def _kind_pipelined(self) -> bytes:
        several = [self._good() for _ in range(self._random.randint(2, 30))]
        for each in several[:-1]:
            each.headers.remove(CLOSE)
        return b"".join(each.encoded() for each in several)

    def _kind_pieces(self) -> list[bytes]:
        whole, size = self._kind_good(), self._random.randint(1, 50)
        return [whole[at : at + size] for at in range(0, len(whole), size)]

    def _kind_cut_off(self) -> bytes:
        whole = self._one([self._kind_good, self._kind_pipelined, self._kind_upgrade, self._kind_chunks])()
        return whole[: self._random.randrange(len(whole))]

    def _kind_bytes(self) -> bytes:
        whole = bytearray(self._kind_good())
        for _ in range(self._random.randint(1, 8)):
            at = self._random.randrange(len(whole))
            match self._random.randrange(4):
                case 0:
                    whole[at] ^= 1 << self._random.randrange(8)
                case 1:
                    whole[at:at] = self._random.randbytes(self._random.randint(1, 10))
                case 2:
                    del whole[at : at + self._random.randint(1, 10)]
                case _:
                    whole[at:at] = whole[: self._random.randint(1, 50)]
            whole = whole or bytearray(b"\r\n")
        return bytes(whole)
