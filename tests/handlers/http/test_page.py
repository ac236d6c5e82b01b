"""Tests of the chat page: its files, their digest, and the headers for browsers."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from handlers.http.page import Page, PageError, accepts_gzip, read_page
from server import Server
from tests.conftest import Ask
from tests.support.patience import PATIENCE
from tests.support.processes import ROOT
from tests.support.sockets import RawSocket

INDEX = '<!doctype html><script type="module" src="/web/DIGEST/a.js"></script><link href="/web/DIGEST/b.css">ü'
FILES = {"index.html": INDEX, "a.js": 'import "./b-1.js"; // ü', "b-1.js": "1", "b.css": "p {}", "icon.svg": "<svg/>"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a page, which the server of the test serves."""
    directory = tmp_path / "web"
    directory.mkdir()
    for name, text in FILES.items():
        (directory / name).write_text(text, "utf-8")
    monkeypatch.setattr("composition.WEB", directory)
    return directory


@pytest.fixture
def digest(directory: Path) -> str:
    """The digest of that page."""
    return read_page(directory).digest


def test_the_digest_covers_all_files(directory: Path) -> None:
    """Any change of a file's content or name, and any new or removed file, changes the digest; nothing else does."""
    contents = {name: text.encode() for name, text in FILES.items()}
    digest = read_page(directory).digest
    assert [len(digest), int(digest, 16) >= 0] == [12, True]
    others = [contents | {name: content + b" "} for name, content in contents.items()]
    for name in contents.keys() - {"index.html"}:
        rest = {each: content for each, content in contents.items() if each != name}
        renamed = [rest | {other: contents[name]} for other in (f"z{name}", name.replace(".", "-."))]
        others += [rest, *renamed]  # one of these also changes the order
    others += [contents | {"z.js": b""}, contents | {"a.js": contents["b-1.js"], "b-1.js": contents["a.js"]}]
    assert len({digest, *(Page(other).digest for other in others)}) == 1 + len(others)
    assert digest == Page(dict(reversed(contents.items()))).digest
    (directory / "a.js").touch()
    assert digest == read_page(directory).digest


def test_a_name_is_no_part_of_a_content() -> None:
    """Bytes that move between a name and a content change the digest."""
    one, other = {"a.js": b"b.js", "index.html": b""}, {"a.js": b"", "b.js": b"", "index.html": b""}
    assert Page(one).digest != Page(other).digest


def test_what_is_compressed_has_no_time(directory: Path) -> None:
    """The same content gives the same compressed bytes in each process and after each start (RFC 1952, MTIME)."""
    page = read_page(directory)
    asset = page.asset(page.digest, "a.js")
    assert asset
    assert [file.compressed[4:8] for file in (page.index, asset)] == [bytes(4)] * 2


def test_what_is_no_file_of_a_page_is_left_out(directory: Path) -> None:
    """Other suffixes, names that no path here can have, and directories are left out."""
    digest = read_page(directory).digest
    for name in ("notes.txt", "a.js~", ".#a.js", "A.js", "a b.js", "index.html.swp"):
        (directory / name).write_text("x")
    (directory / "deeper.js").mkdir()
    page = read_page(directory)
    assert digest == page.digest
    assert page.asset(digest, "a.js")
    assert [page.asset(digest, name) for name in ("notes.txt", "A.js", "deeper.js", "index.html")] == [None] * 4


def test_a_page_that_cannot_be_read(directory: Path, tmp_path: Path) -> None:
    """The error names the missing file."""
    with pytest.raises(PageError, match=f"{tmp_path}/nowhere: No such file or directory"):
        read_page(tmp_path / "nowhere")
    (directory / "index.html").unlink()
    with pytest.raises(PageError, match=f"{directory}: index.html is missing"):
        read_page(directory)


def test_the_server_does_not_start_without_a_page(tmp_path: Path) -> None:
    """The server says in one line what is missing, and starts no database."""
    code = "import sys, pathlib, server; server.WEB = pathlib.Path(sys.argv[1]); sys.exit(server.main(sys.argv[2:]))"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            f"{tmp_path}/nowhere",
            "--port=0",
            "--log-level=warning",
            f"--data-dir={tmp_path}/data",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    expected = f"server.py: cannot start: the page cannot be read: {tmp_path}/nowhere: No such file or directory\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert not (tmp_path / "data").exists()


ENCODINGS = {
    "gzip": True, "GZIP": True, "br, gzip": True, "deflate,gzip;q=0.001": True, "gzip ; q=1.0": True, "*": True,
    "br;q=1, *;q=0.1": True, "gzip, *;q=0": True,
    "": False, "br": False, "identity": False, "gzip;q=0": False, "gzip; q=0.000, *": False, "*;q=0": False,
    "gzip;q=x": False, "gzip;q=-1": False, "gzip;q=9": False, "gzipped": False, "gzip gzip": False,
}  # fmt: skip


@pytest.mark.parametrize(("header", "accepted"), ENCODINGS.items(), ids=lambda each: str(each) or "nothing")
def test_what_accepts_gzip(header: str, accepted: bool) -> None:
    """Accept-Encoding is read as in RFC 9110; a malformed one accepts nothing."""
    assert accepted == accepts_gzip(header)


async def exchange(
    server: Server, method: str, path: str, headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, str], bytes]:
    """Return an answer as it was sent: headers by lower-case name, with the status as "", and the body."""
    raw = await RawSocket.open(server.port)
    lines = {"Host": "127.0.0.1", "Connection": "close", **headers}
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    raw.writer.write(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())
    head, _, body = (await raw.reader.read()).partition(b"\r\n\r\n")
    raw.abort()
    status, *rest = head.decode().split("\r\n")
    named = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in rest)}
    return {"": status.split()[1], **named}, body


async def test_the_page(http_server: Server, digest: str) -> None:
    """The page names its files below the digest, is revalidated each time, and may load only its own files."""
    head, body = await exchange(http_server, "GET", "/")
    assert body.decode() == INDEX.replace("DIGEST", digest)
    del head["date"], head["connection"]
    assert head == {
        "": "200",
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
        "vary": "Accept-Encoding",
        "content-length": str(len(body)),
    }


KINDS = {"a.js": "text/javascript", "b-1.js": "text/javascript", "b.css": "text/css", "icon.svg": "image/svg+xml"}


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=KINDS)
async def test_a_file_of_the_page(name: str, kind: str, ask: Ask, digest: str) -> None:
    """A file of the page may be cached by all and for good; as a document of its own it may do nothing."""
    answer = await ask("GET", f"/web/{digest}/{name}")
    assert (answer.status, answer.body.decode()) == (200, FILES[name])
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_gzip_and_identity(http_server: Server, digest: str) -> None:
    """With and without gzip the content is the same, with its own Content-Encoding and length."""
    for path, text in (("/", INDEX.replace("DIGEST", digest)), (f"/web/{digest}/a.js", FILES["a.js"])):
        for accepted, coding in ((None, None), ("gzip, br", "gzip"), ("gzip;q=0", None)):
            head, body = await exchange(http_server, "GET", path, {"Accept-Encoding": accepted} if accepted else {})
            assert (head.get("content-encoding"), head["vary"]) == (coding, "Accept-Encoding")
            assert int(head["content-length"]) == len(body)
            assert text == (gzip.decompress(body) if coding else body).decode()


async def test_head(http_server: Server, digest: str) -> None:
    """HEAD has the headers of the answer to GET, without the body."""
    for path in ("/", f"/web/{digest}/a.js", f"/web/{digest}/no.js", f"/web/{'0' * 12}/a.js"):
        for headers in ({}, {"Accept-Encoding": "gzip"}):
            whole, content = await exchange(http_server, "GET", path, headers)
            head, nothing = await exchange(http_server, "HEAD", path, headers)
            del whole["date"], head["date"]
            assert (head, nothing, bool(content)) == (whole, b"", True)


MISSING = ("/web/{other}/a.js", "/web/{digest}/no.js", "/web/{digest}/index.html", "/web/{digest}/A.js",
           "/web/{digest}", "/web/{digest}/", "/web/a.js", "/a.js", "/index.html", "/web/{upper}/a.js",
           "/web/{digest}/..", "/web/{digest}/../a.js", "/web/{digest}/../../server.py", "/web/{digest}/%2e%2e/a.js",
           "/web/{digest}/..%2fweb%2fa.js", "/web/{digest}/..%5ca.js", "/web/{digest}//a.js", "/web/{digest}/./a.js",
           "/web/{digest}/a.js%00", "/web/{digest}/a.js%0a", "/web/../web/{digest}/a.js", "//web/{digest}/a.js",
           "/web/DIGEST/a.js")  # fmt: skip


@pytest.mark.parametrize("path", MISSING)
async def test_no_other_path_is_anything(path: str, http_server: Server, digest: str) -> None:
    """Other digests, other names and ways out of the directory are answered with an uncacheable 404 in the envelope."""
    other = f"{int(digest, 16) ^ 1:012x}"
    head, body = await exchange(
        http_server, "GET", path.format(digest=digest, other=other, upper=digest.upper()), {"Accept-Encoding": "gzip"}
    )
    assert (head[""], head["cache-control"], head.get("content-encoding")) == ("404", "no-store", None)
    assert body.startswith(b'{"status":404,"data":null,"msg":"fail",')


async def test_only_this_machine_is_served(http_server: Server, digest: str) -> None:
    """If `uid` is believed from this machine only, other names and sites get neither the page nor its files."""
    for path in ("/", f"/web/{digest}/a.js"):
        for headers, status in (
            ({}, "200"),
            ({"Sec-Fetch-Site": "same-origin"}, "200"),
            ({"Host": "chat.example"}, "403"),
            ({"X-Forwarded-For": "9.9.9.9"}, "403"),
            ({"Sec-Fetch-Site": "cross-site"}, "403"),
        ):
            head, _ = await exchange(http_server, "GET", path, headers)
            assert (path, headers, status) == (path, headers, head[""])


@pytest.mark.parametrize("flags", [["--auth=token", "--trusted-origins=https://app.example"]])
async def test_caches_that_know_several_origins(ask: Ask, digest: str) -> None:
    """Caches keep answers apart by origin and by encoding."""
    for path in ("/", f"/web/{digest}/a.js"):
        answer = await ask("GET", path, Origin="https://app.example")
        assert (answer.status, answer.headers["Vary"]) == (200, "Origin, Accept-Encoding")


async def test_another_method(ask: Ask) -> None:
    """The answer to another method lists the supported ones."""
    answer = await ask("DELETE", "/")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
