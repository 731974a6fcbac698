"""
Who is who inside a document: to which user each Yjs client belongs, and what others may say in its name.

Yjs takes every block as that of the client that it names, and takes each clock of a client once. So whoever moves
somebody else's clock ahead has what that one types next dropped by every replica, in silence. A client is therefore
bound to the user who brought it first. Everybody else may bring

- what is known of the client already, and what waits for something missing,
- what follows that without a gap, since peers who were offline together bring each other's changes; but no ``GC``
  and no ``SKIP``, which say of any number of units that they were something once.

Whoever says something else just now is parted from. In the answer to a step 1 it is left out: a page that comes back
has what another one deleted of a third one's, and these may not have come back yet.

While a connection of the owner is this client, it brings what is new itself: what others bring of it is left out of
their update, and nothing is lost by that. Of two that type under one clock, one would lose the text.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from roomkey.documents.crdt.updates import (
    MAX_CLOCK,
    Block,
    BlockKind,
    MalformedUpdate,
    Structs,
    clients_of,
    joined,
    read_update,
)
from roomkey.ports import DocumentUpdate
from roomkey.wire import lib0

MAX_INTRODUCED: Final = 10_000
"""Clients of one document that have shown themselves, wrote nothing, and are remembered: the latest ones."""


class Forged(MalformedUpdate):
    """Somebody speaks for a client of somebody else."""


class Source:
    """
    Where updates come from: a ``user``, or ``None`` for who has none; over one connection that ``is_open``, or once.

    ``own`` are the encoded ids of clients under which it may write without a closer look. ``was_cut`` says that
    something was left out of what it brought; whoever looks at that sets it back.
    """

    __slots__ = ("clients", "is_open", "own", "user", "was_cut")

    def __init__(self, user: str | None) -> None:
        self.user = user
        self.is_open = False
        self.was_cut = False
        self.own: set[bytes] = set()
        self.clients: set[int] = set()
        """Clients that it has shown in awareness or written under, of its user."""


class Binding(NamedTuple):
    """
    To whom a client belongs. ``user`` is ``None`` for the server itself.

    It is ``firm`` if the user wrote or showed itself as this client. Who brought a client among others may have been
    a peer that carried it: if another one shows itself as the client, it is bound anew.
    """

    user: str | None
    firm: bool


class Bindings:
    """The clients of one document that belong to somebody, as far as blocks of them are there."""

    __slots__ = ("_bound",)

    def __init__(self, bound: Mapping[int, Binding] | None = None) -> None:
        self._bound = dict(bound or {})

    def __iter__(self) -> Iterator[tuple[int, Binding]]:
        return iter(self._bound.items())

    def __contains__(self, client: int) -> bool:
        return client in self._bound

    def find(self, client: int) -> Binding | None:
        """To whom the client belongs; ``None`` if that is not known."""
        return self._bound.get(client)

    def set(self, client: int, binding: Binding) -> None:
        """Whatever it was before, now it is this."""
        self._bound[client] = binding

    def brought(
        self, clients: Sequence[int], user: str | None, *, is_typed: bool = False, is_carrier: bool = False
    ) -> None:
        """
        A user has brought something of ``clients`` in one update: those that belong to nobody are the user's now.

        ``is_typed`` says that it was made just now, so that it is of the user's own page; then, or when the same user
        brings more of it, the binding is firm. What else is brought may be that of others, which the page carries;
        ``is_carrier`` says that it does, for it is known to be another client.
        """
        is_alone = len(clients) == 1 and not is_carrier
        for client in clients if user is not None else ():
            known = self._bound.get(client)
            if known is None or (not known.firm and is_alone and (is_typed or known.user == user)):
                self._bound[client] = Binding(user, firm=is_alone and (is_typed or known is not None))

    def learn(self, update: DocumentUpdate) -> None:
        """
        An update that was taken before.

        Raises:
            MalformedUpdate: If it is none.
        """
        user = update.author.user
        if user is None:
            return
        clients = dict.fromkeys(units.client for units in clients_of(update.data))
        self.brought(list(clients), user)
        if update.own in clients and not self._bound[update.own].firm:
            self._bound[update.own] = Binding(user, firm=True)


class Admission(NamedTuple):
    """
    What may be taken of an update: all of it, but of the clients in ``left_out`` nothing beyond the clock there.

    ``brought`` are the clients of which there is something new in it.
    """

    left_out: Mapping[int, int]
    brought: Sequence[int]


class Identities:
    """The clients of one open document: to whom they belong, and which connection holds them now."""

    __slots__ = ("_held", "_introduced", "_nameless", "_offered", "_servers", "_told", "bindings")

    def __init__(self, server: int) -> None:
        """``server`` is the client under which this node itself writes."""
        self._held: dict[int, Source] = {}
        self._introduced: dict[int, str] = {}
        self._nameless: dict[str, set[Source]] = {}
        """Connections of each user that have not said yet which client they are: they may be any of the user's."""
        self._offered: dict[int, int] = {}
        """How far others have brought what the holder has to bring itself."""
        self._told: set[int] = set()
        """Clients of which the log is told whose they are."""
        self._servers: set[int] = set()
        self.bindings = Bindings()
        self.protect(server)

    def protect(self, server: int) -> None:
        """This node itself writes under the client ``server``, and is the only one to do so."""
        self._servers.add(server)
        self.bindings.set(server, Binding(None, firm=True))

    def adopt(self, bindings: Bindings) -> None:
        """What storage knows."""
        for client, binding in bindings:
            if client not in self.bindings:
                self.bindings.set(client, binding)

    def learn(self, update: DocumentUpdate) -> None:
        """Another process has taken ``update``."""
        self.bindings.learn(update)

    # --- who is who -----------------------------------------------------------------------------------

    def owner(self, client: int) -> Binding | None:
        """To whom a client belongs, if that is known."""
        binding = self.bindings.find(client)
        user = self._introduced.get(client)
        if binding is None and user is not None:
            return Binding(user, firm=True)
        return binding

    def introduce(self, client: int, source: Source) -> None:
        """``source`` shows itself as ``client``, in awareness."""
        user, owner = source.user, self.owner(client)
        if user is None or (owner is not None and owner.firm and owner.user != user):
            return
        if client in self.bindings:
            self.bindings.set(client, Binding(user, firm=True))
        else:
            self._introduced.pop(client, None)
            self._introduced[client] = user
            if len(self._introduced) > MAX_INTRODUCED:
                self._forget_introduced()
        self._hold(client, source)

    def _forget_introduced(self) -> None:
        for client in self._introduced:
            if client not in self._held:
                del self._introduced[client]
                return

    def _hold(self, client: int, source: Source) -> None:
        if not source.is_open:
            return
        encoded = lib0.number(client)
        former = self._held.get(client)
        if former is not None:
            former.clients.discard(client)
            former.own.discard(encoded)
        self._held[client] = source
        source.clients.add(client)
        source.own.add(encoded)
        self._name(source)

    def _name(self, source: Source) -> None:
        nameless = self._nameless.get(source.user or "")
        if nameless is not None:
            nameless.discard(source)
            if not nameless:
                del self._nameless[source.user or ""]

    def release(self, client: int, source: Source) -> None:
        """``source`` is this client no more."""
        if self._held.get(client) is source:
            del self._held[client]
            source.clients.discard(client)
            source.own.discard(lib0.number(client))
            self._offered.pop(client, None)

    def enter(self, source: Source) -> None:
        """A connection is new."""
        source.is_open = True
        if source.user is not None:
            self._nameless.setdefault(source.user, set()).add(source)

    def leave(self, source: Source) -> None:
        """The connection is gone."""
        source.is_open = False
        for client in source.clients:
            self._held.pop(client, None)
        self._name(source)
        for client in tuple(self._offered):
            if not self._is_held(client):
                del self._offered[client]
        source.clients.clear()
        source.own.clear()

    def taken(self, admission: Admission, source: Source, *, is_typed: bool) -> None:
        """What was admitted is in the document now. ``is_typed``: it was made just now, and not carried here."""
        if source.user is None:
            return
        for client in admission.brought:
            if (user := self._introduced.pop(client, None)) is not None and client not in self.bindings:
                self.bindings.set(client, Binding(user, firm=True))
        is_carrier = bool(source.clients.difference(admission.brought))
        is_own = is_typed and not is_carrier
        self.bindings.brought(admission.brought, source.user, is_typed=is_own, is_carrier=is_carrier)
        if is_own and len(admission.brought) == 1 and not self.is_foreign(admission.brought[0], source):
            self._hold(admission.brought[0], source)

    def own_client(self, update: bytes, source: Source) -> int | None:
        """
        A client in an ``update`` that was taken which is for certain one of the user of ``source``; each is named once.

        It is for ``DocumentUpdate.own``: from the update alone nobody can tell later who typed and who carried it.
        """
        if source.user is None or (source.clients and source.clients <= self._told):
            return None
        mine = Binding(source.user, firm=True)
        for client in {units.client for units in clients_of(update)} - self._told:
            if self.owner(client) == mine:
                self._told.add(client)
                self._introduced.pop(client, None)
                self.bindings.set(client, mine)
                return client
        return None

    # --- what may be said -----------------------------------------------------------------------------

    def admit(
        self,
        structs: Structs,
        source: Source,
        clocks: Mapping[int, int],
        waiting: Iterable[bytes],
        *,
        is_lenient: bool = False,
    ) -> Admission:
        """
        What of an update may be taken. ``clocks`` is how much of each client is here; ``waiting`` is not used yet.

        Raises:
            Forged: If it says of somebody else's client what only its owner can. Unless ``is_lenient``: then that is
                left out.
        """
        known = _Known(waiting)
        left_out: dict[int, int] = {}
        brought: list[int] = []
        reaches: dict[int, int] = {}
        for client, blocks in groupby(structs.blocks, key=_client):
            here = clocks.get(client, 0)
            news = [block for block in blocks if block.end > here]
            if news and self.is_foreign(client, source):
                reach = max(here, self._offered.get(client, 0))
                try:
                    reaches[client], has_waited = _follow(client, news, reach, known)
                except Forged:
                    if not is_lenient:
                        raise
                    left_out[client] = here
                    continue
                if self._is_held(client) or (has_waited and not known.agrees(news)):
                    left_out[client] = here
                    continue
            if any(block.kind is not BlockKind.SKIP for block in news):
                brought.append(client)
        self._check_deletions(structs, source, clocks, reaches, known, left_out, is_lenient=is_lenient)
        for client in left_out.keys() & reaches.keys():
            if self._is_held(client):
                self._offered[client] = reaches[client]
        return Admission(left_out, brought)

    def _check_deletions(
        self,
        structs: Structs,
        source: Source,
        clocks: Mapping[int, int],
        reaches: Mapping[int, int],
        known: "_Known",
        left_out: dict[int, int],
        *,
        is_lenient: bool,
    ) -> None:
        """What is not there cannot be deleted, or it would be gone as soon as it is typed."""
        for client, ranges in structs.deleted.items():
            here, last = clocks.get(client, 0), max((end for _, end in ranges), default=0)
            if last <= here or not self.is_foreign(client, source):
                continue
            reach = max(here, reaches.get(client, 0), self._offered.get(client, 0))
            is_forged = last > reach and not known.deletes(client, last)
            if is_forged and not is_lenient:
                raise Forged(f"client {client} is somebody else's, and has not written what is deleted of it")
            if is_forged or self._is_held(client):
                left_out[client] = here

    def is_foreign(self, client: int, source: Source) -> bool:
        """Whether the client belongs to somebody else than ``source``."""
        owner = self.owner(client)
        return owner is not None and owner.firm and (owner.user is None or owner.user != source.user)

    def _is_held(self, client: int) -> bool:
        """Whether a connection of the owner is, or may be, this client, or this node itself is."""
        owner = self.owner(client)
        if client in self._servers:
            return True
        return owner is not None and owner.firm and (client in self._held or owner.user in self._nameless)


def _follow(client: int, news: Sequence[Block], reach: int, known: "_Known") -> tuple[int, bool]:
    """
    Look at what is new of somebody else's client, which may follow what is known up to ``reach``, and nothing else.

    Returns how far it is known then, and whether some of it waits here already. That came from the owner: it is
    not to be taken again from anybody else who says something else.
    """
    has_waited = False
    for block in news:
        if block.kind is BlockKind.SKIP:
            is_known = known.has(client, block.end, block.end + 1)
        else:
            is_known = known.has(client, max(block.clock, reach), block.end)
        has_waited = has_waited or is_known or known.touches(client, block.clock, block.end)
        if not is_known and block.kind in _CONTENTLESS:
            raise Forged(f"client {client} is somebody else's, and a block without content moves its clock ahead")
        if not is_known and block.clock > reach:
            raise Forged(f"client {client} is somebody else's, and there is a gap between what it wrote and a block")
        if block.clock <= reach and block.kind is not BlockKind.SKIP:
            reach = max(reach, block.end)
    return reach, has_waited


_CONTENTLESS: Final = frozenset({BlockKind.GC, BlockKind.SKIP})


def _client(block: Block) -> int:
    return block.client


class _Known:
    """What waits in a document for something missing: read when it is asked for, which is hardly ever."""

    def __init__(self, waiting: Iterable[bytes]) -> None:
        self._waiting = waiting
        self._read: list[Structs] | None = None
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def _structs(self) -> list[Structs]:
        if self._read is None:
            self._read = [read_update(update) for update in self._waiting]
            for structs in self._read:
                for block in structs.blocks:
                    if block.kind is not BlockKind.SKIP:
                        self._ranges.setdefault(block.client, []).append((block.clock, block.end))
            self._ranges = {client: joined(ranges) for client, ranges in self._ranges.items()}
        return self._read

    def _behind(self, client: int, clock: int) -> tuple[int, int]:
        """The first range that ends behind ``clock``."""
        self._structs()
        ranges = self._ranges.get(client, [])
        index = bisect_right(ranges, clock, key=_end)
        return ranges[index] if index < len(ranges) else (MAX_CLOCK, MAX_CLOCK)

    def has(self, client: int, clock: int, end: int) -> bool:
        """Whether all units from ``clock`` up to ``end`` are part of what waits."""
        first, behind = self._behind(client, clock)
        return end <= clock or (first <= clock and end <= behind)

    def touches(self, client: int, clock: int, end: int) -> bool:
        """Whether some of these units are part of what waits."""
        return self._behind(client, clock)[0] < end

    def agrees(self, blocks: Iterable[Block]) -> bool:
        """Whether what waits says the same as ``blocks`` where both say something."""
        waiting = [block for structs in self._structs() for block in structs.blocks if block.kind is not BlockKind.SKIP]
        return all(
            _says_the_same(block, other)
            for block in blocks
            for other in waiting
            if block.client == other.client and block.clock < other.end and other.clock < block.end
        )

    def deletes(self, client: int, end: int) -> bool:
        """Whether units up to ``end`` are deleted by what waits."""
        return any(known >= end for structs in self._structs() for _, known in structs.deleted.get(client, ()))


def _says_the_same(one: Block, other: Block) -> bool:
    """Whether two blocks of one client agree where they overlap: neighbours that say a text may be one block or two."""
    if one.kind is not BlockKind.STRING or other.kind is not BlockKind.STRING:
        return one == other
    first, second = sorted((one, other), key=_clock)
    if first.clock == second.clock:
        is_at_the_same_place = _place(first) == _place(second)
    else:
        is_at_the_same_place = second.origin == (second.client, second.clock - 1)
    end = min(one.end, other.end)
    return is_at_the_same_place and _part(one, second.clock, end) == _part(other, second.clock, end)


def _clock(block: Block) -> int:
    return block.clock


def _place(block: Block) -> tuple[object, ...]:
    return block.origin, block.right_origin, block.parent, block.key


def _part(block: Block, begin: int, end: int) -> bytes:
    # Clocks count UTF-16 units, two bytes each.
    text = block.text.encode("utf-16-le", "surrogatepass")
    return text[2 * (begin - block.clock) : 2 * (end - block.clock)]


def _end(range_: tuple[int, int]) -> int:
    return range_[1]
