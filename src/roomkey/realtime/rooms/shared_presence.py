"""
Presence in one room that other nodes carry, too: who is here by way of any of them.

A session that is here by two nodes is one person. It is shown what was said of it last, by whichever; that somebody
edits, which nobody has said, counts least. It is gone when the last node shows it no more. Pure.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Raw, Struct

from roomkey.domain.session import SessionId
from roomkey.realtime.rooms.presence import Presence


class Shown(Struct, frozen=True, gc=False, tag="shown"):
    """
    What one node shows of a session: ``payload``, as JSON.

    A higher ``version`` is newer. ``said`` is false if nobody said it, but the session edits the document.
    """

    version: int
    said: bool
    payload: bytes


class Versions:
    """Numbers that grow, on this node in any case, and over all nodes as far as they have heard of each other."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now: datetime) -> int:
        """A number that is higher than all before; nearly the milliseconds of now, so that it is on all nodes."""
        self._last = max(int(now.timestamp() * 1000), self._last + 1)
        return self._last

    def seen(self, version: int) -> None:
        """Another node has used this one."""
        self._last = max(self._last, version)


class Difference(Struct, frozen=True):
    """How a session was and is shown; ``None`` if it was or is not."""

    before: bytes | None
    after: bytes | None


class SharedPresence(Presence):
    """
    ``Presence`` of the connections of this node, and beside it what other nodes show.

    What says "whether the others must be told" speaks of everybody: a session that another node shows is still here.
    ``own`` is what the other nodes are to be told; ``changed`` is called when it is another one.
    """

    __slots__ = ("_changed", "_elsewhere", "_revealed", "_versions", "own")

    def __init__(
        self,
        *,
        lease: timedelta,
        max_size: int,
        versions: Versions,
        changed: Callable[[], None],
        revealed: Callable[[bytes], None],
    ) -> None:
        """``revealed`` is called with what another node shows of a session that has left this one."""
        super().__init__(lease=lease, max_size=max_size)
        self.own: dict[SessionId, Shown] = {}
        self._elsewhere: dict[SessionId, dict[str, Shown]] = {}
        self._versions = versions
        self._changed = changed
        self._revealed = revealed

    # --- the connections of this node -----------------------------------------------------------------

    def announce(self, session: SessionId, holder: str, shown: bytes, now: datetime) -> bool:
        """As in a room of this node alone."""
        if not super().announce(session, holder, shown, now):
            return False
        self.own[session] = Shown(self._versions.next(now), True, shown)
        self._changed()
        return True

    def attend(self, session: SessionId, holder: str, shown: bytes, now: datetime) -> bool:
        """As in a room of this node alone; others need not be told if any node shows the session."""
        was_here = self._visible(session) is not None
        if not super().attend(session, holder, shown, now):
            return False
        self.own[session] = Shown(self._versions.next(now), False, shown)
        return not was_here

    def leave(self, session: SessionId, holder: str) -> bool:
        """As in a room of this node alone; others need not be told if another node shows the session."""
        before = self._visible(session)
        return super().leave(session, holder) and self._is_gone(session, before)

    def lapse(self, now: datetime) -> list[bytes]:
        """As in a room of this node alone; whom another node shows is not gone."""
        before = {session: self._visible(session) for session in self.own}
        super().lapse(now)
        return [
            shown.payload
            for session, shown in before.items()
            if session not in self.own and shown is not None and self._is_gone(session, shown)
        ]

    def _is_gone(self, session: SessionId, before: Shown | None) -> bool:
        after = self._visible(session)
        if after is not None and before is not None and after.payload != before.payload:
            self._revealed(after.payload)
        return after is None

    def _remove(self, session: SessionId) -> bytes:
        self.own.pop(session, None)
        self._changed()
        return super()._remove(session)

    # --- everybody ------------------------------------------------------------------------------------

    def here(self) -> list[Raw]:
        """What a joiner is shown: everyone once."""
        sessions = dict.fromkeys((*self.own, *self._elsewhere))
        return [Raw(shown.payload) for session in sessions if (shown := self._visible(session)) is not None]

    def _visible(self, session: SessionId) -> Shown | None:
        own, elsewhere = self.own.get(session), self._elsewhere.get(session)
        if elsewhere is None:
            return own
        return max((*elsewhere.values(), *(() if own is None else (own,))), key=_rank)

    # --- other nodes ----------------------------------------------------------------------------------

    def show(self, node: str, session: SessionId, shown: Shown) -> Difference | None:
        """Another node shows a session; what members must be told, if anything."""
        self._versions.seen(shown.version)
        held = self._elsewhere.get(session, {}).get(node)
        if held is not None and held.version >= shown.version:
            return None
        before = self._visible(session)
        self._elsewhere.setdefault(session, {})[node] = shown
        return self._difference(session, before)

    def hide(self, node: str, session: SessionId, version: int) -> Difference | None:
        """Another node shows a session no more, as of ``version``; what members must be told, if anything."""
        self._versions.seen(version)
        held = self._elsewhere.get(session, {}).get(node)
        if held is None or held.version >= version:
            return None
        before = self._visible(session)
        self._drop(node, session)
        return self._difference(session, before)

    def replace(self, elsewhere: Mapping[tuple[str, SessionId], Shown]) -> Sequence[Difference]:
        """That is all that other nodes show; what members must be told."""
        known = {(node, session) for session, nodes in self._elsewhere.items() for node in nodes}
        sessions = {session for _, session in {*known, *elsewhere}}
        before = {session: self._visible(session) for session in sessions}
        for node, session in known - elsewhere.keys():
            self._drop(node, session)
        for (node, session), shown in elsewhere.items():
            self._versions.seen(shown.version)
            self._elsewhere.setdefault(session, {})[node] = shown
        return self._differences(before)

    def forget(self, nodes: Collection[str] | None = None) -> Sequence[Difference]:
        """These nodes, or all, show nothing any more; what members must be told."""
        gone = [
            (node, session)
            for session, shown in self._elsewhere.items()
            for node in shown
            if nodes is None or node in nodes
        ]
        before = {session: self._visible(session) for _, session in gone}
        for node, session in gone:
            self._drop(node, session)
        return self._differences(before)

    def _drop(self, node: str, session: SessionId) -> None:
        nodes = self._elsewhere[session]
        del nodes[node]
        if not nodes:
            del self._elsewhere[session]

    def _differences(self, before: Mapping[SessionId, Shown | None]) -> Sequence[Difference]:
        found: Iterable[Difference | None] = (self._difference(session, shown) for session, shown in before.items())
        return [difference for difference in found if difference is not None]

    def _difference(self, session: SessionId, before: Shown | None) -> Difference | None:
        after = self._visible(session)
        was, now = (None if shown is None else shown.payload for shown in (before, after))
        return None if was == now else Difference(was, now)


def _rank(shown: Shown) -> tuple[bool, int, bytes]:
    return shown.said, shown.version, shown.payload
