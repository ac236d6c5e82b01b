"""The route table."""

from __future__ import annotations

from collections.abc import Mapping

from tornado.web import Application

from handlers.base import NotFoundHandler, log_request
from handlers.messages import ConversationsHandler, HistoryHandler
from handlers.ops import Check, HealthHandler, IndexHandler, PingHandler, ReadyHandler
from handlers.socket import ChatSocket, SocketLimits
from handlers.users import RegisterHandler
from models.chat import Chat
from models.ports import Users
from models.reader import Reader

__all__ = ["make_app"]


def make_app(
    chat: Chat, reader: Reader, users: Users, limits: SocketLimits, checks: Mapping[str, Check]
) -> Application:
    """The application; `checks` has one readiness check for each engine."""
    reading = {"reader": reader, "users": users, "timeout": limits.answer_timeout}
    return Application(
        [
            (r"/", IndexHandler),
            (r"/ping", PingHandler),
            (r"/ws", ChatSocket, {"chat": chat, "reader": reader, "users": users, "limits": limits}),
            (r"/conversations", ConversationsHandler, reading),
            (r"/messages", HistoryHandler, reading),
            (r"/user/register", RegisterHandler, {"users": users}),
            (r"/healthz", HealthHandler),
            (r"/readyz", ReadyHandler, {"checks": checks, "timeout": limits.answer_timeout}),
        ],
        default_handler_class=NotFoundHandler,
        log_function=log_request,
        cross_origin_protection=True,
    )
