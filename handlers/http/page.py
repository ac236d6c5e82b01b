"""The chat page: files of one directory, read at start and served below the digest of them all.

A browser keeps a file for a year, and loads it again when anything has changed, since the digest is part of the path.
The whole directory has one digest, so a module finds the modules that it imports under the same path.
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
PLACEHOLDER = b"/web/DIGEST/"  # in the index: the path of the other files
DIGITS = 12  # of the digest, in a path
NAME = "[a-z0-9_.-]+"
ASSET_PATH = rf"/web/([0-9a-f]{{{DIGITS}}})/({NAME})"
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Only the page's own scripts, styles, pictures and sockets, and no text that is turned into HTML or code.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_CODING = re.compile(r"\s*(gzip|\*)\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE)


class PageError(Exception):
    """The page cannot be read. The text says which file, and why."""


class File(NamedTuple):
    """A file as it is sent: its content type, its bytes, and these compressed by gzip."""

    content_type: str
    plain: bytes
    compressed: bytes


class Page:
    """The index, and the other files by name. `contents` has the content of each file of the directory, by name.

    Raises PageError if there is no index.
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        if INDEX not in contents:
            raise PageError(f"{INDEX} is missing")
        self.digest = _digest(contents)
        self.index = _file(INDEX, contents[INDEX].replace(PLACEHOLDER, f"/web/{self.digest}/".encode()))
        self._assets = {name: _file(name, content) for name, content in contents.items() if name != INDEX}

    def asset(self, digest: str, name: str) -> File | None:
        """Return the file of that name, None if there is none or the digest is another."""
        return self._assets.get(name) if digest == self.digest else None


def read_page(directory: Path) -> Page:
    """Read the page in a directory.

    Files whose name or suffix does not belong to a page are left out. Raises PageError.
    """
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
    """Return the digest of names and contents. It includes each length, so that no byte can move to the next."""
    whole = sha256()
    for name in sorted(contents):
        for part in (name.encode(), contents[name]):
            whole.update(b"%d:" % len(part) + part)
    return whole.hexdigest()[:DIGITS]


def _file(name: str, content: bytes) -> File:
    # Without a timestamp, the same content gives the same bytes in each process.
    return File(f"{TYPES[Path(name).suffix]}; charset=utf-8", content, gzip.compress(content, mtime=0))


def accepts_gzip(header: str) -> bool:
    """Return whether an Accept-Encoding allows gzip, by its name or by `*` (RFC 9110, section 12.5.3)."""
    found = [match for each in header.split(",") if (match := _CODING.fullmatch(each))]
    weights = {match[1].lower(): float(match[2] or 1) for match in found}
    return weights.get("gzip", weights.get("*", 0.0)) > 0


class _FileHandler(BaseHandler):
    """The base of the handlers for the page and its files."""

    def initialize(self, page: Page) -> None:
        """Take the collaborators."""
        self._page = page

    def answer_file(self, file: File) -> None:
        """Finish the request with a file, compressed if the client accepts that."""
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
        """Answer with the page's HTML, which a browser requests each time."""
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-cache")
        self.answer_file(self._page.index)

    head = get


class AssetHandler(_FileHandler):
    """GET /web/DIGEST/NAME"""

    def get(self, digest: str, name: str) -> None:
        """Answer with a file of the page, which never changes under this path."""
        file = self._page.asset(digest, name)
        if file is None:
            raise HTTPError(404, "no such file")
        self.set_header("Cache-Control", f"public, max-age={A_YEAR}, immutable")
        self.answer_file(file)

    head = get
