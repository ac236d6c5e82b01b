"""Logging to standard error: structlog over the standard library, so that all libraries' lines look the same."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from config.redaction import Redactor
from config.settings import Log

__all__ = ["configure_logging"]


KEPT = frozenset("\n\t")  # not escaped in values of several lines
OF_LINES = ("exception", "stack")  # the keys of such values


def escaped(text: str, keep: frozenset[str] = frozenset()) -> str:
    """Escape all characters that are not printable, apart from those in `keep`.

    These are control, format, private and unassigned characters, lone surrogates and separators. A terminal would obey
    some of them (ESC and U+009B begin commands); others would begin a new line or reverse the line's direction.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def escape_values(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Escape an event's values, so that what clients sent reaches the terminal as text only. A structlog processor."""
    for key, value in event.items():
        if key in OF_LINES:
            event[key] = escaped(str(value), KEPT)
        elif isinstance(value, str):
            event[key] = escaped(value)
        elif key != "exc_info" and not (shown := repr(value)).isprintable():  # Python's own types are escaped by repr
            event[key] = escaped(shown)
    return event


def write_traceback(file: TextIO, error: ExcInfo) -> None:
    """Write a traceback without local variables, since these hold passwords and messages."""
    shown = io.StringIO()
    structlog.dev.plain_traceback(shown, error)
    file.write(escaped(shown.getvalue(), KEPT))


def _json(event: object, **options: Any) -> str:
    """Encode an object as ASCII. DEL, a control character that JSON does not escape, is escaped too."""
    return json.dumps(event, ensure_ascii=True, **options).replace("\x7f", "\\u007f")


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """A formatter that removes secrets from lines."""

    def __init__(self, redact: Redactor, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _Unquoted(logging.Filter):
    """A filter for Tornado's log.

    Tornado quotes the request line that it cannot parse, which may hold a token or a ticket: that part is dropped. It
    also warns of each client that does not use TLS on a TLS port: that is logged at level debug only.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("SSL Error"):
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        if str(record.msg).startswith("Malformed HTTP message") and isinstance(record.args, tuple):
            record.msg, record.args = "Malformed HTTP message from %s", record.args[:1]
        return True


def configure_logging(settings: Log, redact: Redactor) -> None:
    """Set up the root logger. Call it once."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Without this filter, events below the level are processed all the same, which takes as long.
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
        if settings.log_format == "json"
        else [
            escape_values,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=write_traceback),
        ]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        _Formatter(
            redact,
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    logging.getLogger("tornado.general").addFilter(_Unquoted())
    logging.getLogger("pymongo").setLevel(logging.WARNING)
