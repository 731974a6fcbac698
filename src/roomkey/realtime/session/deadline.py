"""How long a session holds, as one connection knows it, and when its client must be told."""

from datetime import datetime, timedelta

from roomkey.domain.session import Session
from roomkey.realtime.settings import RealtimeSettings


class SessionDeadline:
    """
    The deadline of a session, moved by what its user does here and by what storage says of elsewhere.

    Past ``deadline`` nothing is certain: only storage knows whether the session was used elsewhere. Activity
    is recorded coarsely, so the deadline may be early by the interval of that, never late.
    """

    __slots__ = ("_active_at", "_next_note", "_next_touch", "_noticed", "_settings", "deadline", "session")

    def __init__(self, session: Session, settings: RealtimeSettings) -> None:
        self._settings = settings
        self.begin(session)

    def begin(self, session: Session) -> None:
        """Keep the deadline of another session from now on."""
        self.session = session
        self._active_at = self._next_note = self._next_touch = session.last_seen_at
        self._noticed: datetime | None = None
        self.deadline = self._ends()

    def learn(self, session: Session) -> None:
        """Take in a later version of the session."""
        self.session = session
        self._active_at = max(self._active_at, session.last_seen_at)
        self.deadline = self._ends()

    def is_open_to_activity(self, now: datetime) -> bool:
        """Whether activity would make a difference: it is recorded coarsely."""
        return now >= self._next_note

    def act(self, now: datetime) -> bool:
        """Note activity of the user (see ``activity``). Whether storage should be told."""
        if now < self._next_note:
            return False
        idle, interval = self.session.idle_timeout, self._settings.activity_interval
        interval = interval if idle is None else min(interval, idle / 20)
        self._next_note = now + interval
        self._active_at = max(self._active_at, now)
        self.deadline = self._ends()
        if idle is None or now < self._next_touch:
            return False
        # It is written down at most once per tenth of the limit, so there is no use in asking often.
        self._next_touch = now + max(interval, idle / 50)
        return True

    @property
    def reason(self) -> str:
        """What will end the session: ``idle`` or ``lifetime``."""
        return "idle" if self.deadline < self.session.expires_at else "lifetime"

    def wants_notice(self, now: datetime) -> bool:
        """Whether the client must be told that the deadline is near. It is told once of each."""
        return not self.is_noticed and now >= self._notice_at()

    def noticed(self) -> None:
        """The client was told."""
        self._noticed = self.deadline

    @property
    def is_noticed(self) -> bool:
        """Whether the client was told that this deadline is near, as far as there was anything to tell it by."""
        return self._noticed == self.deadline

    def next_check(self) -> datetime:
        """When there will be something to do, if nothing happens before."""
        return self.deadline if self.is_noticed else self._notice_at()

    def _ends(self) -> datetime:
        session = self.session
        idle = session.idle_timeout
        return session.expires_at if idle is None else min(session.expires_at, self._active_at + idle)

    def _notice_at(self) -> datetime:
        lead: timedelta = self._settings.expiry_notice
        idle = self.session.idle_timeout
        if idle is not None and self.deadline < self.session.expires_at:
            # Or every pause for thought would be announced as an end.
            lead = min(lead, idle / 2)
        return self.deadline - lead
