"""A chat on the terminal, or in a pipe:

    python -m clients.chat --user NAME

It signs in, opens the outbox, and starts the screen or the line mode.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from clients.client import Client
from clients.commands import COMMANDS
from clients.lines import Lines
from clients.outbox import UNSURE, Outbox, carry_over, path_of, state_directory
from clients.screen import Screen
from clients.server import ClientError, Peer, Refused, Server
from clients.text import visible

__all__ = ["given_password", "main", "make_parser"]

DEFAULT_SERVER = "http://127.0.0.1:3000"
INTERRUPTED, TERMINATED = 130, 143  # exit statuses, as in a shell
PASSWORD = "TANDEM_PASSWORD"  # noqa: S105  # the name of a variable
DESCRIPTION = """\
Chats with the users of a Tandem server. What was written is kept below $XDG_STATE_HOME/tandem (~/.local/state/tandem)
until the server has acknowledged it, and is sent again after whatever happened.

On a terminal it fills the screen: Enter sends, Alt-Enter begins another line, PageUp and PageDown scroll, Tab
completes. Behind a message stands · while it is on its way, ✓ once it is stored, ✓✓ once it was received, and the
same in colour once it was read. With NO_COLOR in the environment there are no colours.

When standard input or output is no terminal, each line of the input is a message or a command, messages of others
are lines of the output, and it ends when all messages are acknowledged:

    echo hi | python -m clients.chat --user xiaoming --to xiaohong
"""
EPILOG = """\
Commands:
{commands}
anything else is a message to the open conversation; // at its start stands for one /

The password is asked for, unless it is in the file of --password-file or in the environment as {password}. None is
needed if the server believes user names (--auth=open, or for requests from its own machine).

Exit status: 0 for success; 2 for wrong usage; 1 for a wrong password, a session that the server has ended, or, in
line mode, a command or message that failed.
"""


class UsageError(Exception):
    """The program was started with wrong arguments. The text says how to start it."""


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the client and return the exit status. Raises SystemExit for --help and wrong usage."""
    parser = make_parser()
    given = parser.parse_args(argv)
    if urlsplit(given.server).scheme not in ("http", "https") or not urlsplit(given.server).hostname:
        parser.error(f"--server: {given.server} is not a URL like {DEFAULT_SERVER}")
    try:
        return asyncio.run(_run(given, environment))
    except UsageError as error:
        parser.error(str(error))
    except (ClientError, OSError, sqlite3.Error) as error:
        parser.exit(1, f"{parser.prog}: {visible(str(error))}\n")
    except (KeyboardInterrupt, EOFError):
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED


async def _run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    server = Server(given.server, ca_file=given.cacert)
    try:
        user, max_content = await _sign_in(server, given, environment)
        owner = (state_directory(environment), server.url, server.log, user.id)
        if carry_over(*owner):
            sys.stderr.write(f"an older outbox: {UNSURE}\n")
        outbox = Outbox(path_of(*owner), time.time)
        try:
            terminal = sys.stdin.isatty() and sys.stdout.isatty() and environment.get("TERM") != "dumb"
            view = Screen() if terminal else Lines(sys.stdin.fileno(), sys.stdout, sys.stderr)
            client = Client(server, user, outbox, view.heard, max_content=max_content)
            _cancel_on_signals()
            status = await view.run(client, given.to or "")
            if len(outbox):
                sys.stderr.write(f"{len(outbox)} not sent: kept for the next start\n")
            return status
        finally:
            outbox.close()
    finally:
        server.close()


def _cancel_on_signals() -> None:
    """Cancel this task when the process is told to end, so that the terminal is restored."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _sign_in(server: Server, given: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Peer, int]:
    """Sign in. Return the user, and the maximum characters of a message. Raises ClientError, UsageError and OSError."""
    session = await server.session()
    password = given_password(given, environment)
    if given.register is not None:
        password = password or _ask("New password: ", again="The same again: ")
        await server.register(given.user, given.register, password)
    elif password is None and session.believes:
        user = await server.believed(given.user, session)
        if user is None:
            raise Refused(404, f"there is no user {given.user}; --register NICK makes one")
        return user, session.max_content
    return await server.sign_in(given.user, password or _ask("Password: ")), session.max_content


def given_password(given: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    """Return the password in the file or in the environment, None if there is none. Raises UsageError and OSError."""
    if given.password_file is not None:
        try:
            text = Path(given.password_file).read_text("utf-8-sig")  # without a byte order mark
        except UnicodeDecodeError:
            raise UsageError(f"--password-file: {given.password_file}: not UTF-8") from None
        return text.split("\n")[0].removesuffix("\r")
    return environment.get(PASSWORD) or None


def _ask(prompt: str, *, again: str = "") -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"a password is needed: --password-file, or {PASSWORD} in the environment")
    # asyncio's handler would only note a Ctrl-C, and nothing checks that during the input.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        password = getpass.getpass(prompt)
        if again and getpass.getpass(again) != password:
            raise UsageError("the two passwords are different")
    finally:
        signal.signal(signal.SIGINT, before)
    return password


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the program's arguments."""
    commands = "\n".join(f"  {name:9} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "python -m clients.chat",
        description=DESCRIPTION,
        epilog=EPILOG.format(commands=commands, password=PASSWORD),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--user", required=True, metavar="NAME", help="the name to sign in with")
    parser.add_argument("--server", default=DEFAULT_SERVER, metavar="URL", help="the server (default: %(default)s)")
    parser.add_argument("--to", metavar="NAME", help="the user to chat with first")
    parser.add_argument("--register", metavar="NICK", help="create the account first, with this nickname")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="a file with the password in its first line")
    parser.add_argument("--cacert", metavar="FILE", help="certificates to trust instead of the usual ones (PEM)")
    return parser


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # where it is a TextIOWrapper
    sys.exit(main(sys.argv[1:], os.environ))
