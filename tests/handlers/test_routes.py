"""The route table."""

from __future__ import annotations

from typing import Any

from handlers.routes import make_app
from handlers.socket import SocketLimits


def test_what_is_always_on() -> None:
    """Cross-origin protection, and the envelope for unknown paths."""
    nobody: Any = None
    app = make_app(nobody, nobody, nobody, SocketLimits(*[1] * 9), {})
    assert app.settings["cross_origin_protection"]
    assert app.settings["default_handler_class"]
    assert not app.settings.get("debug")
