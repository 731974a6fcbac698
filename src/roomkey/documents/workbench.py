"""
A copy of an open document in which changes are computed, kept from one to the next.

Copying takes longer than most changes do. So the copy that a change was made in stays, once the change is stored, and
is brought up to the document before the next one.
"""

from datetime import datetime, timedelta
from typing import Final

from roomkey.documents.crdt.replica import Replica

IDLE: Final = timedelta(minutes=1)
"""After this without a change the copy goes: it takes as much memory as the document."""


class Workbench:
    """The copy of one document. Nothing is awaited between ``take`` and the change in it, but the change itself."""

    __slots__ = ("_copy", "_lent", "_revision", "_used_at")

    def __init__(self) -> None:
        self._copy: Replica | None = None
        self._lent: Replica | None = None
        self._revision = -1
        self._used_at: datetime | None = None

    def take(self, replica: Replica, now: datetime) -> Replica:
        """A copy of ``replica`` as it is now. It is lost unless it is given back: a change in it may not come to be."""
        copy, self._copy = self._copy, None
        if copy is None or replica.waiting or not replica.may_edit_as(copy):
            copy = replica.copy()
        elif self._revision != replica.revision:
            copy.load(replica.doc.get_update(copy.state()), whole=True)
        self._lent, self._revision, self._used_at = copy, replica.revision, now
        return copy

    def unchanged(self) -> None:
        """Nothing was changed in what was taken."""
        self._copy, self._lent = self._lent, None

    def landed(self, replica: Replica, before: int) -> None:
        """What was changed in what was taken is in ``replica`` now, which had the revision ``before`` until then."""
        self.unchanged()
        self._revision = replica.revision if self._revision == before else -1

    def rest(self, now: datetime) -> None:
        """Let go of what is not used any more."""
        if self._used_at is not None and now - self._used_at > IDLE:
            self._copy = self._lent = self._used_at = None
