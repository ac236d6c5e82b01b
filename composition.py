"""The server's parts, put together in the order of its life: stores, accounts, chat, listeners; wait; drain; close.

An exit stack closes what was opened, in reverse order.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from common.tasks import end
from common.token_bucket import Buckets
from config import Settings, SettingsError
from config.redaction import masked
from config.version import VERSION
from handlers.http.listening import bind, listen, tls_of, unbracketed, url_of
from handlers.http.metrics import Metrics
from handlers.http.page import read_page
from handlers.http.request_policy import RequestPolicy, is_loopback
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
from storage.embedded.supervisor import Addresses
from storage.redis.client import UnsuitableRedisError
from storage.security.keys import keys_of
from storage.security.tokens import SignedTokens
from storage.stores import DatabasesUnavailable, Stores, UnusableAddressError, open_stores

__all__ = ["WEB", "Server", "StartError", "serving"]

CLOSE_WITHIN = 2.0  # seconds for clients to answer a close frame
CHECK_PONGS_EVERY = 1.0  # seconds between two checks for clients that do not answer pings, or do not read
LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).parent
WEB = ROOT / "web"  # the chat page

_log = structlog.get_logger("server")


class StartError(Exception):
    """The server cannot start. The text says why, and what to do."""


class Server(NamedTuple):
    """A listening server: its URL, its port and its parts."""

    url: str
    port: int
    access: Access
    chat: Chat
    history: History
    stores: Stores


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

    Raises StartError, ListenError, SettingsError, PageError, KeyFileError, UnsafeFileError, and the stores' errors for
    unsuitable databases.
    """
    async with AsyncExitStack() as stack:
        stores = await _open_stores(settings, addresses, stack, clock, article_users=article_users)
        auth = settings.auth
        keys = keys_of(auth, Path(settings.server.data_dir))
        tokens = SignedTokens(keys, audience=auth.token_audience, lifetime=auth.token_lifetime, clock=clock)
        access = Access(_mode(settings), stores.users, stores.sessions, tokens, stores.tickets, clock=clock)
        reaper = SessionReaper(access, ChatSocket.hub, auth.session_check)
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
            Registration(auth.registration),
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
            api=(ROOT / "docs" / "openapi.yaml").read_bytes(),
            page=read_page(WEB),
            log=stores.messages.log,
        )
        tls = tls_of(settings.server, stack)
        listening = bind(settings.server.address, settings.server.port, "--address and --port")
        listen(make_app(collaborators), settings, listening, stack, tls)
        if settings.server.metrics_port:
            metrics_sockets = bind(LOOPBACK, settings.server.metrics_port, "--metrics-port")
            listen(make_metrics_app(collaborators), settings, metrics_sockets, stack)
        for work in (
            chat.sweep(settings.timeouts.sweep_interval),
            chat.blocks.sweep.run(),
            reaper.sweep.run(),
            stores.messages.peers.run(),
            keep_checking_pongs(CHECK_PONGS_EVERY),
        ):
            stack.push_async_callback(end, asyncio.create_task(work))

        ChatSocket.hub.start(chat)
        url, port = url_of(listening[0], tls=tls is not None), listening[0].getsockname()[1]
        yield Server(url, port, access, chat, history, stores)

        _log.info("draining", sockets=ChatSocket.hub.count)
        ChatSocket.hub.start_draining()
        drain = settings.timeouts.drain_timeout
        await asyncio.gather(chat.pipeline.drain(drain), collaborators.policy.drain(drain))
        await ChatSocket.hub.close_all(CLOSE_WITHIN)


async def _open_stores(
    settings: Settings,
    addresses: Addresses,
    stack: AsyncExitStack,
    clock: Callable[[], float],
    *,
    article_users: bool,
) -> Stores:
    """Open the stores. Raises StartError, which names each database that is unavailable, or an unsuitable Redis."""
    try:
        return await open_stores(addresses, settings, stack, clock, article_users=article_users)
    except UnusableAddressError as error:
        raise SettingsError(f"--{error.database}: {error}") from None
    except UnsuitableRedisError as error:
        raise StartError(f"redis at {masked(addresses.redis)}: {error}") from None
    except DatabasesUnavailable as error:
        urls = addresses._asdict()
        raise StartError("; ".join(f"{e.database} at {masked(urls[name])}: {e}" for name, e in error.away)) from None


def _mode(settings: Settings) -> Mode:
    """Return the mode of authentication: the configured one, or by default the one that suits the address."""
    if settings.auth.auth != "auto":
        return Mode(settings.auth.auth)
    return Mode.LOCAL if is_loopback(unbracketed(settings.server.address)) else Mode.TOKEN


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
