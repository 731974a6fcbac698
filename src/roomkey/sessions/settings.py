"""Settings of what is done with sessions in the background."""

from datetime import timedelta

from msgspec import Struct


class JanitorSettings(Struct, frozen=True, kw_only=True):
    """Pace of the janitor, and how long ended sessions and events are kept."""

    interval: timedelta = timedelta(seconds=5)
    """Time between two rounds."""
    batch: int = 500
    """Maximum number of sessions that are loaded at a time."""
    keep_ended: timedelta = timedelta(days=7)
    """Time that ended sessions stay readable before their records are deleted."""
    event_retention: timedelta = timedelta(days=90)
    """Time that events stay in the log."""
