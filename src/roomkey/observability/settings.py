"""Settings of the log."""

from enum import StrEnum

from msgspec import Struct


class LogLevel(StrEnum):
    """Importance of a line, in rising order."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """``console`` for people, ``json`` for machines; ``auto`` is ``console`` on a terminal."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogSettings(Struct, frozen=True, kw_only=True):
    """Level and format of the log."""

    level: LogLevel = LogLevel.INFO
    """Lowest level that is logged."""
    format: LogFormat = LogFormat.AUTO
    """Format of a line."""
    access: bool = False
    """Whether every HTTP request is logged, without its query string."""
