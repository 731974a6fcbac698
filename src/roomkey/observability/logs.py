"""Logs: one line per event on standard error, for people or for machines, and never a secret in them."""

import asyncio
import logging
import re
import sys
from contextlib import suppress
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from roomkey.observability.settings import LogFormat, LogLevel, LogSettings


def configure(settings: LogSettings, stream: TextIO | None = None, *, node: str | None = None) -> None:
    """
    Send this process's logs, those of the standard library included, to ``stream`` (default: standard error).

    Every line says which ``node`` it is of, if that is given. Calling it again replaces what was configured before.
    """
    configure_events(settings, stream, node=node)
    level = _number(settings.level)
    forward = _Forward()
    root = logging.getLogger()
    root.handlers = [forward]
    root.setLevel(max(level, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    # Its greetings say nothing that our own lines do not.
    logging.getLogger("uvicorn").setLevel(level if level < logging.INFO else logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if settings.access else logging.CRITICAL)


def configure_events(settings: LogSettings, stream: TextIO | None = None, *, node: str | None = None) -> None:
    """Only what Roomkey itself logs: in an application of somebody else the rest is not ours to change."""
    output: TextIO = stream or sys.stderr
    structlog.configure(
        processors=[_of_node(node), *_processors(settings.format, output)],
        wrapper_class=structlog.make_filtering_bound_logger(_number(settings.level)),
        logger_factory=lambda *_: _Lines(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


_SECRETS = re.compile(
    r"\b([0-9a-f]{2}[a-z2-7]{26})\.[A-Za-z0-9_-]{43}"  # a session's token: its id may stay
    r"|\b(rkey_)[A-Za-z0-9_-]+"
)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """
    Hide what looks like a session's token or an API key, wherever it stands.

    Nobody logs them on purpose: this is for the texts of other people's errors.
    """
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = without_secrets(value)
    return event


def without_secrets(text: str) -> str:
    """``text`` with what looks like a session's token or an API key hidden; of a token the session's id stays."""
    return _SECRETS.sub(_hidden, text) if "." in text or "rkey_" in text else text


def _of_node(node: str | None) -> Processor:
    def name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if node is not None:
            event.setdefault("node", node)
        return event

    return name


def _number(level: LogLevel) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _hidden(match: re.Match[str]) -> str:
    return f"{match[1]}.<hidden>" if match[1] else f"{match[2]}<hidden>"


def _processors(style: LogFormat, stream: TextIO) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # A traceback as text, without the values of variables: tokens live in them.
        structlog.processors.format_exc_info,
        redact,
    ]
    if style is LogFormat.JSON or (style is LogFormat.AUTO and not stream.isatty()):
        return [*shared, structlog.processors.JSONRenderer(default=str)]
    return [
        *shared,
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


class _Lines(structlog.WriteLogger):
    """Writes one line per event. What cannot be written is lost: a full disk must not stop what is logged."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Forward(logging.Handler):
    """Hands the records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        try:
            if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
                client, method, target, _version, status = record.args
                path = str(target).partition("?")[0]
                logger.info("request", client=client, method=method, path=path, status=status)
            elif record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
                # Somebody's decision and nobody's mistake: the server ends, and requests with it.
                logger.warning("request_cut_off")
            else:
                logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001  # the contract of logging handlers: they report, they do not raise
            self.handleError(record)
