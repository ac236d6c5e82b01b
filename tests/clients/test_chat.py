"""Tests of the program itself, in pipes and on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

import clients.chat
from clients.commands import COMMANDS
from clients.outbox import Outbox, path_of
from server import Server
from tests.clients.conftest import Open, Through
from tests.clients.device import Device, Proxy
from tests.conftest import Ask
from tests.support.patience import PATIENCE
from tests.support.processes import ROOT
from tests.support.sockets import until

PASSWORD = "long enough"


class Program:
    """`python -m clients.chat` with its input and output in pipes, or on a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int | None = None) -> None:
        self.process = process
        self.terminal = terminal
        self.shown = b""
        if terminal is not None:
            asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.terminal or 0, 65536)
        except OSError:  # the program has ended
            data = b""
        self.shown += data
        if not data:
            asyncio.get_running_loop().remove_reader(self.terminal or 0)

    @property
    def text(self) -> str:
        """Return what was drawn so far, without escape sequences for the cursor and colours."""
        return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", self.shown.decode(errors="replace"))

    def type(self, text: str) -> None:
        os.write(self.terminal or 0, text.encode())

    async def done(self, given: str | None = None) -> tuple[int, str, str]:
        """End the input and wait for the end. Return the status, output and errors."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate(None if given is None else given.encode())
        return self.process.returncode or 0, (out or b"").decode(), (err or b"").decode()


Start = Callable[..., Awaitable[Program]]


@pytest.fixture
def start(io_loop: IOLoop, tmp_path: Path, http_server: Server) -> Iterator[Start]:
    """Return a function that starts programs with flags. All are ended with the test."""
    programs: list[Program] = []
    open_files: list[int] = []

    async def run(*flags: str, tty: bool = False, port: int = http_server.port, **environment: str) -> Program:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        command = [sys.executable, "-m", "clients.chat", f"--server=http://127.0.0.1:{port}", *flags]
        streams: dict[str, int] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        terminal = None
        if tty:
            terminal, end = pty.openpty()
            fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
            streams = dict.fromkeys(streams, end)
            open_files.append(terminal)
        variables = {**kept, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm-256color", **environment}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=variables, start_new_session=True, **streams
        )
        if tty:
            os.close(end)
        programs.append(Program(process, terminal))
        return programs[-1]

    yield run

    async def end() -> None:
        for program in programs:
            if program.terminal is not None:
                asyncio.get_running_loop().remove_reader(program.terminal)
            if program.process.returncode is None:
                program.process.kill()
            await program.process.communicate()

    io_loop.run_sync(end)
    for file in open_files:
        os.close(file)


@pytest.fixture
def two(io_loop: IOLoop, http_server: Server, device: Open, names: list[str]) -> Device:
    """A user to chat with."""
    return io_loop.run_sync(lambda: device(http_server.port, names[1]))


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> list[str]:
    return getattr(request, "param", [])


def given(device: Device, sender: int) -> list[str]:
    conversation = device.client.conversations.get(sender)
    return [each.content for each in conversation.messages] if conversation else []


def new_name(names: list[str]) -> str:
    return "u" + names[0].replace("-", "")[:14]


async def test_in_a_pipe(start: Start, two: Device, names: list[str]) -> None:
    """`echo hi | …` sends, waits until the message is stored, and ends; there are no escape sequences."""
    program = await start(f"--user={names[0]}", f"--to={names[1]}")
    assert await program.done("hi\nthere\n") == (0, "", "")
    await until(lambda: [message.content for c in two.client.conversations.values() for message in c.messages])
    assert [m.content for c in two.client.conversations.values() for m in c.messages] == ["hi", "there"]


async def test_what_is_refused(start: Start, two: Device, names: list[str]) -> None:
    """The status is 1; the output has the reason, and says that the message is kept."""
    program = await start(f"--user={names[0]}", f"--to={names[1]}")
    assert await program.done("1\n2\n3\n4\n") == (
        1,
        "",
        "4: refused: you can send three messages to a user who has not answered\n1 not sent: kept for the next start\n",
    )


async def test_a_file_as_input(start: Start, two: Device, names: list[str], tmp_path: Path) -> None:
    """A file as input works as a pipe does."""
    lines = tmp_path / "lines"
    lines.write_text("from a file\n")
    with lines.open() as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clients.chat", f"--server={two.client.server.url}", f"--user={names[0]}",
            f"--to={names[1]}", cwd=ROOT, stdin=file, env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )  # fmt: skip
        assert await process.wait() == 0
    await until(lambda: any(c.messages for c in two.client.conversations.values()))


async def test_killed_before_the_acknowledgement(
    start: Start, two: Device, through: Through, names: list[str], tmp_path: Path, http_server: Server
) -> None:
    """After SIGKILL while the server does not answer, the next start sends the old message first, once."""
    proxy: Proxy = await through(http_server.port)
    program = await start(f"--user={names[0]}", f"--to={names[1]}", port=proxy.port)
    user = (await two.client.find(names[0])).id
    path = path_of(tmp_path / "tandem", f"http://127.0.0.1:{proxy.port}", http_server.stores.messages.log, user)

    assert program.process.stdin is not None
    program.process.stdin.write(b"one\n")
    await until(lambda: given(two, user) == ["one"])
    two.client.send(user, "an answer")
    await until(lambda: not len(two.client.outbox))
    proxy.flowing.clear()
    program.process.stdin.write(b"two\nthree\n")
    await until(lambda: len(waiting(path)) == 2)
    program.process.send_signal(signal.SIGKILL)
    assert (await program.done())[0] == -signal.SIGKILL
    assert waiting(path) == ["two", "three"]

    proxy.flowing.set()
    again = await start(f"--user={names[0]}", f"--to={names[1]}", port=proxy.port)
    assert await again.done("four\n") == (0, "", "")
    await until(lambda: len(given(two, user)) == 5)
    assert given(two, user) == ["one", "an answer", "two", "three", "four"]
    assert waiting(path) == []


def waiting(path: Path) -> list[str]:
    """Return the messages in an outbox."""
    outbox = Outbox(path, lambda: 0.0)
    try:
        return [pending.content for pending in outbox]
    finally:
        outbox.close()


@pytest.mark.parametrize("flags", [["--auth=token"]], indirect=True)
async def test_passwords(start: Start, names: list[str], tmp_path: Path) -> None:
    """A password comes from a file or the environment; a wrong one gives status 1, and none is wrong usage."""
    name = new_name(names)
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    program = await start(f"--user={name}", "--register=Nick", f"--password-file={file}")
    assert await program.done("/list\n") == (0, "", "no conversations so far: /chat NAME begins one\n")
    program = await start(f"--user={name}", TANDEM_PASSWORD=PASSWORD)
    assert (await program.done(""))[0] == 0
    program = await start(f"--user={name}", TANDEM_PASSWORD="wrong one")
    status, out, err = await program.done("")
    assert (status, out, "the user name or the password is wrong" in err) == (1, "", True)
    program = await start(f"--user={name}")
    status, out, err = await program.done("")
    assert (status, out, "--password-file" in err) == (2, "", True)
    program = await start(f"--user={name}", "--register=Nick", TANDEM_PASSWORD=PASSWORD)
    assert (await program.done(""))[0] == 1  # the name exists


FILES = {
    "a mark first": "\ufeffa long secret\n".encode(),
    "lines as in Windows": b"a long secret\r\nanother line\r\n",
    "no end of the line": b"a long secret",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_password_files(content: bytes, tmp_path: Path) -> None:
    """The password is the first line, with all line ends and byte order marks of editors."""
    file = tmp_path / "password"
    file.write_bytes(content)
    given = clients.chat.make_parser().parse_args(["--user=a", f"--password-file={file}"])
    assert clients.chat.given_password(given, {}) == "a long secret"


async def test_a_password_file_that_is_no_text(start: Start, tmp_path: Path) -> None:
    """A password file that is not text is wrong usage, with one line that names it."""
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe\x00")
    status, out, err = await (await start("--user=a", f"--password-file={file}")).done("")
    assert (status, out, f"--password-file: {file}: not UTF-8" in err, "Traceback" in err) == (2, "", True, False)


@pytest.mark.parametrize("flags", [["--auth=token"]], indirect=True)
async def test_the_first_ctrl_c_at_the_password(start: Start, names: list[str]) -> None:
    """Ctrl-C at the password ends the program, and restores the terminal."""
    program = await start(f"--user={names[0]}", tty=True)
    await until(lambda: "Password: " in program.text)
    program.process.send_signal(signal.SIGINT)
    assert (await program.done())[0] == 130


@pytest.mark.parametrize("flags", [["--auth=token"]], indirect=True)
async def test_a_password_that_is_typed(start: Start, names: list[str]) -> None:
    """A typed password is not shown; a screen follows, and the terminal is restored afterwards."""
    name = new_name(names)
    program = await start(f"--user={name}", "--register=Nick", tty=True)
    await until(lambda: "New password: " in program.text)
    program.type(PASSWORD + "\n")
    await until(lambda: "The same again: " in program.text)
    program.type(PASSWORD + "\n")
    await until(lambda: "no conversations so far" in program.text)
    assert PASSWORD not in program.text
    program.type("/quit\r")
    assert (await program.done())[0] == 0
    assert program.shown.rindex(b"\x1b[?1049h") < program.shown.rindex(b"\x1b[?1049l")


async def test_on_a_terminal(start: Start, two: Device, names: list[str]) -> None:
    """A conversation has colours, and control characters of the other user have no effect."""
    program = await start(f"--user={names[0]}", f"--to={names[1]}", tty=True)
    await until(lambda: names[0] in program.text)
    program.type("hello there\r")
    await until(lambda: "hello there" in program.text and "✓" in program.text)
    user = (await two.client.find(names[0])).id
    await until(lambda: given(two, user) == ["hello there"])
    two.client.send(user, "look\x1b]0;owned\x07\x1b[31mred\u202e")
    await until(lambda: "␛]0;owned␇␛[31mred<U+202E>" in program.text)
    assert b"\x1b]0;owned" not in program.shown
    assert re.search(rb"\x1b\[[0-9;]*3[0-7]", program.shown)  # a colour
    program.type("\x04")
    assert (await program.done())[0] == 0


async def test_no_color(start: Start, two: Device, names: list[str]) -> None:
    """With NO_COLOR in the environment there are no colours."""
    program = await start(f"--user={names[0]}", f"--to={names[1]}", tty=True, NO_COLOR="1")
    await until(lambda: names[0] in program.text)
    program.type("hello there\r")
    await until(lambda: "hello there" in program.text and "✓" in program.text)
    program.type("/quit\r")
    assert (await program.done())[0] == 0
    assert not re.search(rb"\x1b\[([0-9]+;)*([34][0-8]|9[0-7])[;m]", program.shown)


async def test_told_to_end(start: Start, names: list[str]) -> None:
    """SIGTERM restores the terminal."""
    program = await start(f"--user={names[0]}", tty=True)
    await until(lambda: "/help" in program.text)
    program.process.terminate()
    assert (await program.done())[0] == clients.chat.TERMINATED
    await until(lambda: b"\x1b[?1049l" in program.shown)


@pytest.mark.parametrize("flags", [["--auth=token"]], indirect=True)
async def test_a_session_that_the_server_ends(start: Start, names: list[str], ask: Ask) -> None:
    """The status is 1, and the output has the reason."""
    name = new_name(names)
    program = await start(f"--user={name}", "--register=Nick", TANDEM_PASSWORD=PASSWORD)
    assert program.process.stdin and program.process.stderr
    program.process.stdin.write(b"/list\n")
    assert b"no conversations" in await program.process.stderr.readline()
    body = {"user_name": name, "password": PASSWORD}
    token = (await ask("POST", "/user/login", body=body)).data["token"]
    assert (await ask("POST", "/user/logout/everywhere", token=token, body="")).status == 200
    async with asyncio.timeout(PATIENCE):
        assert await program.process.wait() == 1
    assert b"the session has ended: signed out" in await program.process.stderr.read()


@pytest.mark.parametrize(
    ("flags_given", "complaint"),
    [
        ([], "--user"),
        (["--user=a", "--server=ftp://x"], "--server"),
        (["--user=a", "--server=localhost:3000"], "--server"),
        (["--user=a", "--password=secret"], "unrecognized"),
    ],
)
def test_wrong_usage(flags_given: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage gives status 2; there is no flag for a password."""
    with pytest.raises(SystemExit) as ended:
        clients.chat.main(flags_given, {})
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


async def test_no_server(start: Start) -> None:
    """Without a server the status is 1, and the output names its address."""
    program = await start("--user=a", port=1)
    status, _, err = await program.done("")
    assert (status, "127.0.0.1:1" in err) == (1, True)


async def test_unknown_names(start: Start, http_server: Server, names: list[str]) -> None:
    """Unknown names of the user and of the peer are reported."""
    program = await start("--user=nobody-there")
    status, _, err = await program.done("hi\n")
    assert (status, "--register" in err) == (1, True)
    program = await start(f"--user={names[0]}", "--to=nobody-there")
    status, _, err = await program.done("hi\n")
    assert (status, err) == (1, "python -m clients.chat: no user of that name\n")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help has every flag and every command."""
    with pytest.raises(SystemExit) as ended:
        clients.chat.main(["--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    flags = ("--user", "--server", "--to", "--register", "--password-file", "--cacert", clients.chat.PASSWORD)
    assert all(word in text for word in (*flags, *COMMANDS, "NO_COLOR", "XDG_STATE_HOME", "Exit status"))
