"""Logging: structlog over the standard library's, to standard error; other libraries' lines look the same."""

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


KEPT = frozenset("\n\t")  # in a traceback, which is of several lines
OF_LINES = ("exception", "stack")  # the keys of what is


def escaped(text: str, keep: frozenset[str] = frozenset()) -> str:
    """The text with everything escaped that is not shown as itself, but for what is to be kept.

    That is control, format, private and unassigned characters, lone surrogates and separators: what a terminal would
    obey (ESC and U+009B begin commands), or what would turn a line round or begin another one.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def escape_values(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """A processor: nothing that a client has sent reaches the terminal as anything but text."""
    for key, value in event.items():
        if key in OF_LINES:
            event[key] = escaped(str(value), KEPT)
        elif isinstance(value, str):
            event[key] = escaped(value)
        elif key != "exc_info" and not (shown := repr(value)).isprintable():  # Python's own types escape by themselves
            event[key] = escaped(shown)
    return event


def write_traceback(file: TextIO, error: ExcInfo) -> None:
    """A traceback as text: without local variables, which hold passwords and messages."""
    shown = io.StringIO()
    structlog.dev.plain_traceback(shown, error)
    file.write(escaped(shown.getvalue(), KEPT))


def _json(event: object, **options: Any) -> str:
    """An object in ASCII. JSON lets DEL stand, which is a control character as well."""
    return json.dumps(event, ensure_ascii=True, **options).replace("\x7f", "\\u007f")


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """A formatter whose lines hold no secrets."""

    def __init__(self, redact: Redactor, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _Unquoted(logging.Filter):
    """Tornado quotes the line of a request that it cannot read, and in that may stand a token or a ticket.

    And it warns of everybody who does not speak TLS to a port that does.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("SSL Error"):
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        if str(record.msg).startswith("Malformed HTTP message") and isinstance(record.args, tuple):
            record.msg, record.args = "Malformed HTTP message from %s", record.args[:1]
        return True


def configure_logging(settings: Log, redact: Redactor) -> None:
    """Sets up the root logger, once for the process."""
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
        # Else what is not shown costs as much as what is.
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
