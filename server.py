"""The server, in the order of its life: settings, databases, stores, chat, listeners; wait; drain; close.

    python server.py --port=3000

An exit stack closes what was opened, in reverse order.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import secrets
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
import uvloop
from tornado.netutil import bind_sockets
from tornado.web import Application

from common.signals import ending, heed_hangups, heed_nothing_else, on_hangup
from common.tasks import end, every
from common.token_bucket import Buckets
from config import Settings, SettingsError, load, secrets_of
from config.logs import configure_logging
from config.open_files import SPARE_FILES, TooFewFilesError, fitting
from config.redaction import Redactor, masked
from config.secret_files import UnsafeFileError, require_safe
from config.version import VERSION
from handlers.http.metrics import Metrics
from handlers.http.page import PageError, read_page
from handlers.http.request_policy import RequestPolicy, is_loopback
from handlers.http.server import LimitedHTTPServer, read_certificate_again, tls_context
from handlers.routes import Collaborators, make_app, make_metrics_app
from handlers.websocket.handler import ChatSocket
from handlers.websocket.heartbeats import keep_checking_pongs
from models.accounts.authentication import Access, Mode
from models.accounts.service import Accounts, Registration
from models.accounts.session_reaper import SessionReaper
from models.chat.history import History
from models.chat.service import Chat
from models.errors import StorageUnavailable
from models.records import new_keys
from storage.embedded.supervisor import KEY_FILE, Addresses, DatabaseStartError, EmbeddedDatabases
from storage.mongo.messages import UnsuitableMongoError
from storage.mysql.schema import SchemaError
from storage.redis.client import UnsuitableRedisError
from storage.security.keys import Key, KeyFileError, generated_keys, key_of_secret, keys_in, require_distinct
from storage.security.tokens import SignedTokens
from storage.stores import DatabasesUnavailable, Stores, UnusableAddressError, open_stores

__all__ = ["Server", "StartError", "main", "serving"]

CLOSE_WITHIN = 2.0  # seconds for clients to answer a close frame
LOOK_EVERY = 1.0  # seconds between two checks for clients that do not answer pings, or do not read
SWITCH_AFTER = 0.0005  # seconds until the event loop's thread yields to a driver's; Python's default is 0.005
COLLECT_AFTER = (5_000, 50, 100)  # objects, then younger generations' collections; Python's defaults are 700, 10, 10
LOOPBACK = "127.0.0.1"
WEB = Path(__file__).parent / "web"  # the chat page

_log = structlog.get_logger("server")


class StartError(Exception):
    """The server cannot start. The text says why, and what to do."""


UNSUITABLE = (SchemaError, UnsuitableMongoError, UnsuitableRedisError)
CANNOT_START = (StartError, PageError, DatabaseStartError, *UNSUITABLE, KeyFileError, UnsafeFileError)


class Server(NamedTuple):
    """A listening server: its URL, its port and its parts."""

    url: str
    port: int
    access: Access
    chat: Chat
    history: History
    stores: Stores


def main(argv: Sequence[str]) -> int:
    """Run the server until a signal ends it. Return the exit status."""
    redact = Redactor([])
    try:
        settings = load(argv)
        redact = Redactor(secrets_of(settings))
        configure_logging(settings.log, redact)
        _log.info("starting", version=VERSION)
        heed_hangups()
        heed_nothing_else()
        settings = _with_open_files(settings)
        # A missing page or a port in use is reported before a database is started.
        read_page(WEB)
        for listening in _bind(settings.server.address, settings.server.port, "--address and --port"):
            listening.close()
        with ExitStack() as stack:
            addresses, embedded = _databases(settings, stack)
            uvloop.run(_run(settings, addresses, embedded))
    except (SettingsError, TooFewFilesError) as error:
        print(redact(f"server.py: {error}"), file=sys.stderr)
        return 2
    except CANNOT_START as error:
        print(redact(f"server.py: cannot start: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _with_open_files(settings: Settings) -> Settings:
    """Raise the limit on open files to what connections need. Return the settings, with fewer connections if needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = settings.limits
    if hard != resource.RLIM_INFINITY:
        limits, warning = fitting(limits, hard)
        if warning:
            _log.warning("fewer_connections", reason=warning)
    if soft != resource.RLIM_INFINITY:
        wanted = limits.max_connections + limits.max_http_connections + SPARE_FILES
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return msgspec.structs.replace(settings, limits=limits)


def _databases(settings: Settings, stack: ExitStack) -> tuple[Addresses, EmbeddedDatabases | None]:
    """Return the configured addresses, or start embedded databases that the stack stops, and return theirs."""
    given = Addresses(settings.engines.mongo, settings.engines.redis, settings.engines.mysql)
    if all(given):
        return given, None
    embedded = EmbeddedDatabases(Path(settings.server.data_dir), settings.timeouts.start_timeout)
    stack.callback(embedded.stop)
    return embedded.start(), embedded


async def _run(settings: Settings, addresses: Addresses, embedded: EmbeddedDatabases | None) -> None:
    """Serve until a signal ends the server."""
    told_to_end = ending()
    async with AsyncExitStack() as stack:
        restarting: Callable[[], Mapping[str, str]] = dict
        if embedded is not None:
            supervisor = asyncio.create_task(embedded.supervise())
            stack.callback(supervisor.cancel)
            restarting = embedded.restarting
        server = await stack.enter_async_context(
            serving(settings, addresses, article_users=embedded is not None, restarting=restarting)
        )
        _tune_python()
        print(f"Tandem is ready: {server.url} ({_why(settings, server.access.mode)})", flush=True)
        await told_to_end.wait()
        # The signal may have gone to the databases too, so those that end from now on are not started again.
        if embedded is not None:
            supervisor.cancel()


def _tune_python() -> None:
    """Tune the interpreter for one busy event loop; docs/performance.md has the figures."""
    gc.collect()
    gc.freeze()  # permanent objects need no further garbage collection
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_AFTER)


@asynccontextmanager
async def serving(
    settings: Settings,
    addresses: Addresses,
    *,
    article_users: bool,
    restarting: Callable[[], Mapping[str, str]] = dict,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Server]:
    """Serve on running databases; drain when the context ends.

    Args:
        settings: The server's settings.
        addresses: The databases' URLs.
        article_users: Whether to put the article's two users into an empty user table.
        restarting: Returns the embedded databases that keep ending, each with a description.
        clock: Returns seconds since the epoch.

    Raises StartError, SettingsError, PageError, UnsafeFileError, and the stores' errors for unsuitable databases.
    """
    async with AsyncExitStack() as stack:
        stores = await _open_stores(settings, addresses, stack, clock, article_users=article_users)
        tokens = SignedTokens(
            _keys(settings), audience=settings.auth.token_audience, lifetime=settings.auth.token_lifetime, clock=clock
        )
        access = Access(_mode(settings), stores.users, stores.sessions, tokens, stores.tickets, clock=clock)
        reaper = SessionReaper(access, ChatSocket.hub, settings.auth.session_check)
        metrics = Metrics()
        chat = Chat(
            stores.messages,
            stores.messages.directory,
            stores.counters,
            ChatSocket.hub,
            stores.broker,
            stores.messages.blocks,
            clock=clock,
            new_key=new_keys(clock, secrets.token_bytes(6)),
            active=stores.users.active,
            account_changed=reaper.sweep.mark_dirty,
            observe=metrics.outcomes,
            offline_after=settings.timeouts.offline_after,
        )
        metrics.sockets.set_function(lambda: ChatSocket.hub.count)
        metrics.conversations.set_function(lambda: len(chat.conversations))
        loop = asyncio.get_running_loop()
        metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        history = History(chat, stores.messages, stores.messages.directory, settings.timeouts.answer_timeout)
        try:
            await stores.broker.start(chat)
        except StorageUnavailable as error:
            raise StartError(f"redis at {masked(addresses.redis)}: {error}") from None
        stack.push_async_callback(stores.broker.close)
        stack.push_async_callback(chat.close)

        def changed(user: int) -> None:
            reaper.sweep.mark_dirty(user)
            stores.broker.publish_account_change(user)

        accounts = Accounts(
            stores.accounts,
            access,
            stores.sessions,
            stores.attempts,
            changed,
            Registration(settings.auth.registration),
        )
        collaborators = Collaborators(
            settings=settings,
            chat=chat,
            history=history,
            users=stores.users,
            accounts=accounts,
            policy=_request_policy(settings, access),
            metrics=metrics,
            checks={
                "mongodb": stores.messages.ping,
                "redis": partial(stores.redis.ping, stores.redis_prefix),
                "mysql": stores.mysql.ping,
            },
            restarting=restarting,
            version=VERSION,
            api=(Path(__file__).parent / "docs" / "openapi.yaml").read_bytes(),
            page=read_page(WEB),
            log=stores.messages.log,
        )
        tls = _tls(settings, stack)
        listening = _bind(settings.server.address, settings.server.port, "--address and --port")
        _listen(settings, make_app(collaborators), listening, stack, tls)
        if settings.server.metrics_port:
            metrics_sockets = _bind(LOOPBACK, settings.server.metrics_port, "--metrics-port")
            _listen(settings, make_metrics_app(collaborators), metrics_sockets, stack)
        sweep = chat.sweep(settings.timeouts.sweep_interval)
        renewing = stores.messages.peers.run()
        for work in (sweep, reaper.sweep.run(), chat.blocks.sweep.run(), renewing, keep_checking_pongs(LOOK_EVERY)):
            stack.push_async_callback(end, asyncio.create_task(work))

        ChatSocket.hub.start()
        host, port = listening[0].getsockname()[:2]
        url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"
        yield Server(url, port, access, chat, history, stores)

        _log.info("draining", sockets=ChatSocket.hub.count)
        ChatSocket.hub.start_draining()
        drain = settings.timeouts.drain_timeout
        await asyncio.gather(chat.drain(drain), collaborators.policy.drain(drain))
        await ChatSocket.hub.close_all(CLOSE_WITHIN)


async def _open_stores(
    settings: Settings,
    addresses: Addresses,
    stack: AsyncExitStack,
    clock: Callable[[], float],
    *,
    article_users: bool,
) -> Stores:
    """Open the stores. Raises StartError, which names each database that is unavailable."""
    try:
        return await open_stores(addresses, settings, stack, clock, article_users=article_users)
    except UnusableAddressError as error:
        raise SettingsError(f"--{error.database}: {error}") from None
    except DatabasesUnavailable as error:
        urls = addresses._asdict()
        raise StartError("; ".join(f"{e.database} at {masked(urls[name])}: {e}" for name, e in error.away)) from None


# Authentication


def _mode(settings: Settings) -> Mode:
    """Return the mode of authentication: the configured one, or by default the one that suits the address."""
    if settings.auth.auth != "auto":
        return Mode(settings.auth.auth)
    return Mode.LOCAL if is_loopback(_unbracketed(settings.server.address)) else Mode.TOKEN


def _why(settings: Settings, mode: Mode) -> str:
    """Return the mode in force and its reason, for the ready line."""
    given = settings.auth.auth != "auto"
    what = {
        Mode.LOCAL: "uid is trusted, but only from this machine",
        Mode.OPEN: "uid is trusted from everywhere",
        Mode.TOKEN: "tokens are required",
    }[mode]
    reach = "on loopback" if mode is Mode.LOCAL else "beyond loopback"
    why = f"--auth={mode}" if given else f"--auth is not given, and --address is {reach}"
    return f"{what}: {why}"


def _keys(settings: Settings) -> list[Key]:
    """Return the keys of tokens: those that are configured, or one that is generated in the data directory."""
    keys: list[Key] = []
    if settings.auth.token_secret:
        keys.append(key_of_secret(settings.auth.token_secret))
    if settings.auth.token_keys:
        path = Path(settings.auth.token_keys)
        require_safe(path, secret=False)
        found = keys_in(path)
        require_safe(path, secret=any(key.signs for key in found))
        keys += found
    if not keys:
        directory = Path(settings.server.data_dir)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"--data-dir: {directory} cannot be used: {error.strerror}") from None
        require_safe(directory / KEY_FILE, secret=True)
        keys += generated_keys(directory / KEY_FILE)
    require_distinct(keys, "--token-secret and --token-keys")
    return keys


def _request_policy(settings: Settings, access: Access) -> RequestPolicy:
    limits = settings.limits
    requests = Buckets(limits.request_rate, limits.request_burst, time.monotonic)
    unasked = Buckets(limits.address_request_rate, limits.address_request_burst, time.monotonic)
    local = access.mode is Mode.LOCAL
    return RequestPolicy(
        access,
        requests,
        unasked,
        local=local,
        proxies=settings.server.trusted_proxies,
        origins=settings.auth.trusted_origins,
    )


# Listeners


def _tls(settings: Settings, stack: AsyncExitStack) -> ssl.SSLContext | None:
    """Return the TLS context, which reads the certificate again on SIGHUP; None without TLS."""
    certificate, key = settings.server.certfile, settings.server.keyfile
    if bool(certificate) != bool(key):
        raise SettingsError("--certfile and --keyfile: set both of them, or none")
    if not certificate:
        return None
    require_safe(Path(certificate), secret=False)
    require_safe(Path(key), secret=True)
    try:
        context = tls_context(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise StartError(
            f"--certfile, --keyfile: {certificate}, {key}: {error.strerror or error}; expected a certificate and its "
            "key, both in PEM, the key without a passphrase"
        ) from None
    on_hangup(lambda: read_certificate_again(context, certificate, key), stack)
    return context


def _listen(
    settings: Settings,
    app: Application,
    listening: list[socket.socket],
    stack: AsyncExitStack,
    tls: ssl.SSLContext | None = None,
) -> None:
    http = LimitedHTTPServer(app, settings, app.settings["policy"].unasked, tls)
    stack.push_async_callback(http.close_all_connections)
    stack.callback(http.stop)
    http.add_sockets(listening)
    time = asyncio.get_running_loop().time
    checking = asyncio.create_task(every(LOOK_EVERY, lambda: http.close_stalled(time())))
    stack.push_async_callback(end, checking)


def _unbracketed(address: str) -> str:
    return address.removeprefix("[").removesuffix("]")


def _bind(address: str, port: int, flags: str) -> list[socket.socket]:
    try:
        # "::" stands for all addresses here, even where the system would take it for all IPv6 addresses only.
        return bind_sockets(port, None if address == "::" else _unbracketed(address))
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with a label of more than 63 characters
        raise StartError(
            f"cannot listen on {address}, port {port}: {getattr(error, 'strerror', None) or error}; see {flags}"
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
