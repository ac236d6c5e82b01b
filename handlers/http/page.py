"""The chat page: files of one directory, read once at start and served below the digest of them all.

A browser keeps a file for a year, and asks again as soon as anything has changed: the digest is part of the path. It
is one for the whole directory, so that a module finds those that it imports beside itself, under the same path.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tornado.web import HTTPError

from handlers.http.base import A_YEAR, BaseHandler

__all__ = ["ASSET_PATH", "AssetHandler", "Page", "PageError", "PageHandler", "accepts_gzip", "read_page"]

INDEX = "index.html"
PLACEHOLDER = b"/web/DIGEST/"  # in the index, stands for the path of the other files
DIGITS = 12  # of the digest, in a path
NAME = "[a-z0-9_.-]+"
ASSET_PATH = rf"/web/([0-9a-f]{{{DIGITS}}})/({NAME})"
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page's own scripts, styles, pictures and sockets, and no text that becomes HTML or code on its way.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_CODING = re.compile(r"\s*(gzip|\*)\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE)


class PageError(Exception):
    """The page cannot be read; the text says which file, and why."""


class File(NamedTuple):
    """What is sent for a file: its content type, its bytes, and these compressed by gzip."""

    content_type: str
    plain: bytes
    compressed: bytes


class Page:
    """The index, and the other files by name; `contents` is what is in each file of the directory, by its name.

    Raises PageError when there is no index.
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        if INDEX not in contents:
            raise PageError(f"{INDEX} is missing")
        self.digest = _digest(contents)
        self.index = _file(INDEX, contents[INDEX].replace(PLACEHOLDER, f"/web/{self.digest}/".encode()))
        self._assets = {name: _file(name, content) for name, content in contents.items() if name != INDEX}

    def asset(self, digest: str, name: str) -> File | None:
        """The file of that name, unless it or the digest is another page's."""
        return self._assets.get(name) if digest == self.digest else None


def read_page(directory: Path) -> Page:
    """The page in a directory; what has no name or no suffix of a file of a page is left out. Raises PageError."""
    try:
        contents = {
            path.name: path.read_bytes()
            for path in directory.iterdir()
            if re.fullmatch(NAME, path.name) and path.suffix in TYPES and path.is_file()
        }
        return Page(contents)
    except OSError as error:
        raise PageError(f"the page cannot be read: {error.filename}: {error.strerror}") from None
    except PageError as error:
        raise PageError(f"the page cannot be read: {directory}: {error}") from None


def _digest(contents: Mapping[str, bytes]) -> str:
    """The digest of names and contents; each length is in it, so that nothing can move from one to the other."""
    whole = sha256()
    for name in sorted(contents):
        for part in (name.encode(), contents[name]):
            whole.update(b"%d:" % len(part) + part)
    return whole.hexdigest()[:DIGITS]


def _file(name: str, content: bytes) -> File:
    # Without a time of its own the same content is the same bytes, in each process.
    return File(f"{TYPES[Path(name).suffix]}; charset=utf-8", content, gzip.compress(content, mtime=0))


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding allows gzip, by its name or by `*` (RFC 9110, section 12.5.3)."""
    found = [match for each in header.split(",") if (match := _CODING.fullmatch(each))]
    weights = {match[1].lower(): float(match[2] or 1) for match in found}
    return weights.get("gzip", weights.get("*", 0.0)) > 0


class _FileHandler(BaseHandler):
    """What the page and its files have in common."""

    def initialize(self, page: Page) -> None:
        """Takes the collaborators."""
        self._page = page

    def answer_file(self, file: File) -> None:
        """Finishes the request with a file, compressed if whoever asks can take that."""
        self.set_header("Content-Type", file.content_type)
        self.set_header("Vary", ", ".join([*self._headers.get_list("Vary"), "Accept-Encoding"]))
        if accepts_gzip(self.request.headers.get("Accept-Encoding", "")):
            self.set_header("Content-Encoding", "gzip")
            self.finish(file.compressed)
        else:
            self.finish(file.plain)


class PageHandler(_FileHandler):
    """GET /"""

    linked = True

    def get(self) -> None:
        """The page's HTML, which a browser asks for each time."""
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-cache")
        self.answer_file(self._page.index)

    head = get


class AssetHandler(_FileHandler):
    """GET /web/DIGEST/NAME"""

    def get(self, digest: str, name: str) -> None:
        """A file of the page, which never changes under this path."""
        file = self._page.asset(digest, name)
        if file is None:
            raise HTTPError(404, "no such file")
        self.set_header("Cache-Control", f"public, max-age={A_YEAR}, immutable")
        self.answer_file(file)

    head = get
