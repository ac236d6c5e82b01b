"""Logging: structlog over the standard library's, to standard error; other libraries' lines look the same."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from config.redaction import Redactor
from config.settings import Log

__all__ = ["configure_logging"]


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
    # Tracebacks without local variables: those hold passwords and messages.
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
