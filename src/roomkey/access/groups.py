"""
Groups: grants that many sessions have in common, kept in one place.

Sessions name a group in their grants, and have what it has whenever somebody asks. Every node knows all groups, so that
a frame never waits for one; what one node changes, the others know within a second, as with ``Rechecks``.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from roomkey.access.rechecks import SPACE, Rechecks
from roomkey.access.watch import Subject
from roomkey.domain.access import GrantLike, Grants, check_group, check_group_grants, groups_of
from roomkey.errors import GroupNotFound, RoomkeyError, TooManyGroups
from roomkey.ports import Clock, ObjectStore
from roomkey.ports.objects import MAX_CHANGES, NamedObject

PREFIX: Final = "group/"

MAX_GROUPS: Final = 10_000
"""Each node holds all of them in memory."""

RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger("roomkey.access")


class Group(Struct, frozen=True, kw_only=True):
    """A group as it is stored; ``changed_by`` is an actor, as events of sessions name them."""

    name: str
    grants: Grants
    changed_at: datetime
    changed_by: str


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Group).decode


class Groups:
    """The groups, as this node knows and changes them. ``of`` is what grants are read with."""

    def __init__(
        self,
        objects: ObjectStore,
        rechecks: Rechecks,
        clock: Clock,
        on_change: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        """``on_change`` is told which groups have other grants now, before whoever changed them is answered."""
        self._objects = objects
        self._rechecks = rechecks
        self._on_change = on_change
        self._clock = clock
        self._groups: dict[str, Group] = {}
        self._takings = 0
        self.is_known = False
        """Whether this node knows the groups; until then sessions that name one have no access by it."""
        self._is_in_doubt = True
        """Something could not be read: everything is read again."""
        self._doubt = asyncio.Event()

    # --- what they allow ------------------------------------------------------------------------------

    def of(self, name: str) -> Grants:
        """The grants of the group; none if there is no such group."""
        group = self._groups.get(name)
        return () if group is None else group.grants

    async def know(self) -> None:
        """
        Return when the groups are known.

        Raises:
            Storage: If they are not, and cannot be read.
        """
        if not self.is_known:
            await self._read_all()

    # --- the commands ---------------------------------------------------------------------------------

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[Group]:
        """The groups whose names come behind ``after``, by name. Raises ``Storage``."""
        await self.know()
        return [self._groups[name] for name in sorted(name for name in self._groups if name > after)[:limit]]

    async def get(self, name: str) -> Group:
        """
        The group of this name.

        Raises:
            GroupNotFound: If there is none.
        """
        await self.know()
        group = self._groups.get(name)
        if group is None:
            raise GroupNotFound("there is no such group")
        return group

    async def put(self, name: str, grants: Sequence[GrantLike], *, actor: str = "system") -> tuple[Group, bool]:
        """
        Give the group these grants, and say whether it is a new one. When it returns, the sockets of this node obey.

        Raises:
            InvalidInput: If no group may be called so, or have these grants.
            TooManyGroups: If there are ``MAX_GROUPS``.
            Storage, Conflict: If it was not changed, or perhaps was.
        """
        group = Group(
            name=check_group(name),
            grants=check_group_grants(grants),
            changed_at=self._clock.now(),
            changed_by=actor,
        )
        await self.know()
        is_new = name not in self._groups
        if is_new and len(self._groups) >= MAX_GROUPS:
            raise TooManyGroups(f"there are {MAX_GROUPS} groups: delete those that are not needed")
        await self._commit(name, _encode(group))
        return group, is_new

    async def delete(self, name: str) -> None:
        """Forget the group: whoever is in it has nothing by it any more. Raises as ``get`` and ``put``."""
        await self.get(name)
        await self._commit(name, None)

    async def _commit(self, name: str, value: bytes | None) -> None:
        await self._rechecks.announce(Subject(group=name), {PREFIX + name: value})
        await self.refresh([name])  # and not what was just written: another node may have been faster meanwhile

    # --- what others change ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Read what could not be read, as soon as storage can be asked, until cancelled."""
        self._doubt = asyncio.Event()  # a node may run again, on another event loop
        while True:
            if not self._is_in_doubt:
                self._doubt.clear()
                await self._doubt.wait()
            try:
                await self._read_all()
            except RoomkeyError as error:
                _log.warning("groups_not_read", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def refresh(self, names: Sequence[str] | None = None) -> None:
        """Know what has become of these groups, or of all. What cannot be read now, ``run`` reads later."""
        try:
            if names is None or not self.is_known:
                await self._read_all()
            else:
                await self._read(names)
        except RoomkeyError as error:
            _log.warning("groups_not_read", error=str(error))
            self._is_in_doubt = True
            self._doubt.set()

    async def _read(self, names: Sequence[str]) -> None:
        """These groups; of two who read at a time the one that ends first is taken, and the other reads again."""
        while True:
            takings = self._takings
            stored = await self._objects.get_many(SPACE, [PREFIX + name for name in names])
            if takings == self._takings:
                break
        self._take({name: found and _readable(name, found.value) for name, found in zip(names, stored, strict=True)})

    async def _read_all(self) -> None:
        while True:
            takings, after, found = self._takings, "", dict[str, Group | None]()
            while True:
                listed = await self._objects.list(SPACE, prefix=PREFIX, after=after, limit=MAX_CHANGES)
                found |= {name: _readable(name, value) for name, value in map(_named, listed)}
                if len(listed) < MAX_CHANGES:
                    break
                after = listed[-1].name
            if takings == self._takings:
                break
        self.is_known = True
        self._is_in_doubt = False
        self._take({**dict.fromkeys(self._groups), **found})

    def _take(self, news: "dict[str, Group | None]") -> None:
        """These groups are like this now; the sockets of their sessions obey."""
        self._takings += 1
        changed = set[str]()
        for name, group in news.items():
            if self.of(name) != (() if group is None else group.grants):
                changed.add(name)
            if group is None:
                self._groups.pop(name, None)
            else:
                self._groups[name] = group
        if changed:
            self._on_change(changed)


def _named(entry: NamedObject) -> tuple[str, bytes]:
    return entry.name.removeprefix(PREFIX), entry.value


def _readable(name: str, value: bytes) -> Group | None:
    """A group that cannot be read allows nothing, and harms no other."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        group = _decode(value)
        if group.name == name and not groups_of(group.grants):
            return group
    _log.error("group_unreadable", group=name)
    return None
