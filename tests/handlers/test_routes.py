"""Tests of the route table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from config import Settings
from handlers.routes import Collaborators, make_app


def test_what_is_always_on() -> None:
    """Cross-origin protection is on, and unknown paths are answered in the envelope."""
    unused: Any = None
    collaborators = Collaborators(*[unused] * len(Collaborators._fields))
    chat = SimpleNamespace(acquaintances=unused, blocks=unused)
    app = make_app(collaborators._replace(settings=Settings(), chat=chat))
    assert app.settings["cross_origin_protection"]
    assert app.settings["default_handler_class"]
    assert not app.settings.get("debug")
