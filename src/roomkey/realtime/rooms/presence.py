"""Who is here: what sessions say about themselves in a document, under leases, until they go."""

from collections.abc import Hashable
from datetime import datetime, timedelta

from msgspec import Raw

from roomkey.domain.session import SessionId


class _Entry:
    """One session in one document. It stays while one of its holders has a lease."""

    __slots__ = ("leases", "shown")

    def __init__(self, shown: bytes) -> None:
        self.shown = shown
        self.leases: dict[Hashable, datetime] = {}


class Presence:
    """
    What joiners are shown, and when others must be told that someone is gone.

    A session is present in a document from its first ``announce`` on, through one or more holders (its
    connections); the last thing that any of them announced is shown. A lease that is not renewed lapses,
    so that whoever vanished without a word does not stay as a ghost.
    """

    def __init__(self, *, lease: timedelta, max_document_size: int) -> None:
        """
        Args:
            max_document_size: Bytes of everything that is shown in one document.
        """
        self._lease = lease
        self._max_document_size = max_document_size
        self._documents: dict[str, dict[SessionId, _Entry]] = {}
        self._sizes: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._documents.values())

    def announce(self, document: str, session: SessionId, holder: Hashable, shown: bytes, now: datetime) -> bool:
        """Show ``shown`` for the session. ``False``, and nothing changed, if the document has no room for it."""
        entries = self._documents.get(document, {})
        entry = entries.get(session)
        size = self._sizes.get(document, 0) + len(shown) - (len(entry.shown) if entry else 0)
        if size > self._max_document_size:
            return False
        if entry is None:
            entry = self._documents.setdefault(document, entries)[session] = _Entry(shown)
        entry.shown = shown
        entry.leases[holder] = now + self._lease
        self._sizes[document] = size
        return True

    def attend(self, document: str, session: SessionId, holder: Hashable, shown: bytes, now: datetime) -> bool:
        """Be there, too: ``shown`` counts only if the session shows nothing yet. Whether the others must be told."""
        entry = self._documents.get(document, {}).get(session)
        if entry is None:
            return self.announce(document, session, holder, shown, now)
        entry.leases[holder] = now + self._lease
        return False

    def here(self, document: str) -> list[Raw]:
        """What a joiner is shown, the first to come first."""
        return [Raw(entry.shown) for entry in self._documents.get(document, {}).values()]

    def leave(self, document: str, session: SessionId, holder: Hashable) -> bool:
        """The holder goes. Whether the session is gone with it, so that the others must be told."""
        entry = self._documents.get(document, {}).get(session)
        if entry is None or entry.leases.pop(holder, None) is None or entry.leases:
            return False
        self._remove(document, session)
        return True

    def shown(self, document: str, session: SessionId, holder: Hashable) -> bytes | None:
        """What is shown of the session, if this holder has a part in it."""
        entry = self._documents.get(document, {}).get(session)
        return entry.shown if entry is not None and holder in entry.leases else None

    def renew(self, document: str, session: SessionId, holder: Hashable, now: datetime) -> None:
        """The holder is alive."""
        entry = self._documents.get(document, {}).get(session)
        if entry is not None and holder in entry.leases:
            entry.leases[holder] = now + self._lease

    def lapse(self, now: datetime) -> list[tuple[str, bytes]]:
        """End the leases that are over. Returns from where who is gone, and what was shown of it, for the others."""
        gone: list[tuple[str, SessionId, bytes]] = []
        for document, entries in self._documents.items():
            for session, entry in entries.items():
                for holder in [holder for holder, until in entry.leases.items() if until <= now]:
                    del entry.leases[holder]
                if not entry.leases:
                    gone.append((document, session, entry.shown))
        for document, session, _ in gone:
            self._remove(document, session)
        return [(document, shown) for document, _, shown in gone]

    def _remove(self, document: str, session: SessionId) -> None:
        entries = self._documents[document]
        self._sizes[document] -= len(entries.pop(session).shown)
        if not entries:
            del self._documents[document]
            del self._sizes[document]
