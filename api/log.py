"""Logging of a node: structured, to stderr, without secrets."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from engine.config import LogConfig
from engine.errors import InvalidError

SECRET_WORDS = ("password", "passwd", "token", "secret", "authorization", "cookie")
LEVELS = ("debug", "info", "warning", "error")


class Sink:
    """stderr as the log sees it: a line it cannot take (disk full, pipe gone) is lost and counted.

    A dialer that dies because its log is full hangs up its calls; the line is worth less.
    """

    def __init__(self) -> None:
        self.lost = 0

    def write(self, text: str) -> int:
        """Write to whatever stderr is now."""
        try:
            return sys.stderr.write(text)
        except OSError:
            self.lost += 1
            return 0

    def flush(self) -> None:
        """Hand over what is buffered."""
        try:
            sys.stderr.flush()
        except OSError:
            self.lost += 1


SINK = Sink()


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out every value whose name speaks of a secret, however it came to be logged."""
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "***"
    return event


def configure(config: LogConfig) -> None:
    """Set up structlog and the libraries' logging once; raises ``InvalidError`` for a bad level."""
    if config.level not in LEVELS:
        raise InvalidError(f"log.level: one of {', '.join(LEVELS)}", field="log.level")
    level: int = getattr(logging, config.level.upper())
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if config.json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", SINK)),
        cache_logger_on_first_use=True,
    )
    # Quart, Hypercorn and Alembic speak the standard library's logging; their chatter is not ours.
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(name)s: %(message)s"
    )
