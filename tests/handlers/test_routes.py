"""The route table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from handlers.routes import Collaborators, make_app
from handlers.websocket.limits import SocketLimits


def test_what_is_always_on() -> None:
    """Cross-origin protection, and the envelope for unknown paths."""
    nobody: Any = None
    collaborators = Collaborators(*[nobody] * len(Collaborators._fields))
    chat = SimpleNamespace(acquaintances=nobody, blocks=nobody)
    app = make_app(collaborators._replace(chat=chat), SocketLimits(*[1] * len(SocketLimits._fields)))
    assert app.settings["cross_origin_protection"]
    assert app.settings["default_handler_class"]
    assert not app.settings.get("debug")
