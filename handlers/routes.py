"""The route tables: of the server's own port, and of the port for metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tornado.web import Application, RequestHandler

from config.settings import Settings
from handlers.http.base import NotFoundHandler, log_request
from handlers.http.blocks import BlockHandler, BlocksHandler
from handlers.http.export import ExportHandler
from handlers.http.health import ApiHandler, Check, HealthHandler, PingHandler, Readiness, ReadyHandler
from handlers.http.messages import ConversationsHandler, HistoryHandler
from handlers.http.metrics import Metrics, MetricsHandler
from handlers.http.page import ASSET_PATH, AssetHandler, Page, PageHandler
from handlers.http.request_policy import RequestPolicy
from handlers.http.sessions import (
    LoginHandler,
    LogoutEverywhereHandler,
    LogoutHandler,
    PasswordHandler,
    SessionHandler,
    TicketHandler,
)
from handlers.http.users import FindHandler, MeHandler, RegisterHandler
from handlers.websocket.handler import PATH, ChatSocket
from models.accounts.service import Accounts
from models.chat.history import History
from models.chat.ports import Users
from models.chat.service import Chat

__all__ = ["Collaborators", "make_app", "make_metrics_app"]


class Collaborators(NamedTuple):
    """What the handlers need. `api` is the OpenAPI file, `log` is the id of the log.

    `checks` has one readiness check for each database. `restarting` names the embedded databases that end again and
    again.
    """

    settings: Settings
    chat: Chat
    history: History
    users: Users
    accounts: Accounts
    policy: RequestPolicy
    metrics: Metrics
    checks: Mapping[str, Check]
    restarting: Callable[[], Mapping[str, str]]
    version: str
    api: bytes
    page: Page
    log: str


def make_app(with_: Collaborators) -> Application:
    """Return the application of the server's own port. Without a `metrics_token` it has no metrics."""
    settings = with_.settings
    timeout = settings.timeouts.answer_timeout
    reading = {"history": with_.history, "users": with_.users, "timeout": timeout}
    session = {"accounts": with_.accounts, "token_lifetime": settings.auth.token_lifetime}
    blocks = {"blocks": with_.chat.blocks}
    listed = blocks | {"acquaintances": with_.chat.acquaintances, "users": with_.users}
    socket = {
        "chat": with_.chat,
        "history": with_.history,
        "users": with_.users,
        "settings": settings,
        "metrics": with_.metrics,
        "log": with_.log,
    }
    routes: list[tuple[str, type[RequestHandler]] | tuple[str, type[RequestHandler], dict[str, Any]]] = [
        (r"/", PageHandler, {"page": with_.page}),
        (ASSET_PATH, AssetHandler, {"page": with_.page}),
        (
            r"/session",
            SessionHandler,
            {
                "users": with_.users,
                "max_content": settings.limits.max_content,
                "log": with_.log,
                "accounts": with_.accounts,
            },
        ),
        (r"/ping", PingHandler),
        (PATH, ChatSocket, socket),
        (r"/ws/ticket", TicketHandler),
        (r"/conversations", ConversationsHandler, reading),
        (r"/messages", HistoryHandler, reading),
        (r"/user/register", RegisterHandler, {"accounts": with_.accounts}),
        (r"/user/login", LoginHandler, session),
        (r"/user/logout", LogoutHandler, session),
        (r"/user/logout/everywhere", LogoutEverywhereHandler, session),
        (r"/user/password", PasswordHandler, session),
        (r"/user/me", MeHandler, {"accounts": with_.accounts, "users": with_.users}),
        (r"/user/export", ExportHandler, {"history": with_.history, "users": with_.users, "running": set()}),
        (r"/user/blocks", BlocksHandler, listed),
        (r"/user/blocks/([^/]+)", BlockHandler, blocks),
        (r"/users", FindHandler, {"users": with_.users}),
        (r"/openapi\.yaml", ApiHandler, {"api": with_.api}),
        (r"/healthz", HealthHandler, {"version": with_.version}),
        (r"/readyz", ReadyHandler, {"readiness": Readiness(with_.checks, timeout, with_.restarting)}),
    ]
    if token := settings.server.metrics_token:
        routes.append((r"/metrics", MetricsHandler, {"metrics": with_.metrics, "token": token}))
    return _application(routes, with_)


def make_metrics_app(with_: Collaborators) -> Application:
    """Return the application of a port for metrics, which are readable without a token there."""
    return _application([(r"/metrics", MetricsHandler, {"metrics": with_.metrics, "token": ""})], with_)


def _application(routes: Any, with_: Collaborators) -> Application:
    return Application(
        routes,
        default_handler_class=NotFoundHandler,
        log_function=lambda handler: log_request(handler, with_.metrics.requests),
        cross_origin_protection=True,
        policy=with_.policy,
    )
