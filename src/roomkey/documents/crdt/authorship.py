"""
Who wrote what: the author of every unit of every Yjs client, in ranges of clocks.

The first author to bring a unit stays its author: bringing it again, by any author, changes nothing. Times are kept
to the minute, so that continuous typing is a few ranges, not one range per key.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from roomkey.documents.crdt.identity import Binding, Bindings
from roomkey.documents.crdt.integration_order import Run, in_order
from roomkey.documents.crdt.updates import Block, BlockId, BlockKind, Places, SharedKind, Structs, clients_of
from roomkey.domain.session import SessionId
from roomkey.errors import InvalidInput, Serialization
from roomkey.ports import Author, DocumentUpdate

SCHEMA: Final = 1
"""The first byte of what is packed. What follows is msgpack: a ``_Packed``."""

MAX_BLAME_BLOCKS: Final = 100_000
"""Maximum number of blocks of one document: reading and ordering them takes about a second."""


class Contribution(NamedTuple):
    """Units of one client, from ``clock`` up to ``end``, and who brought them in which minute of the epoch."""

    clock: int
    end: int
    author: Author
    minute: int

    @property
    def at(self) -> datetime:
        """The beginning of the minute."""
        return _EPOCH + timedelta(minutes=self.minute)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BlameRange(Struct, frozen=True, gc=False):
    """
    A part of a text, in code points, and its author in the minute ``at``; ``None`` where that is not known.

    ``path`` is where in the tree of rich text it is, as a JSON pointer (RFC 6901).
    """

    start: int
    end: int
    author: Author | None
    at: datetime | None
    path: str | None = None


class Authorship:
    """The authors of one document. ``bindings`` says to whom its Yjs clients belong."""

    __slots__ = ("_authors", "_clients", "bindings")

    def __init__(self) -> None:
        self.bindings = Bindings()
        # In order and without overlap; neighbours differ in author or minute.
        self._clients: dict[int, list[Contribution]] = {}
        self._authors: dict[Author, Author] = {}

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def record(self, update: DocumentUpdate) -> None:
        """
        Note who brought what is new in ``update``.

        Raises:
            MalformedUpdate: If it is none; nothing was noted.
        """
        author = self._authors.setdefault(update.author, update.author)
        minute = (update.at - _EPOCH) // _MINUTE
        for units in clients_of(update.data):
            self._add(units.client, Contribution(units.clock, units.end, author, minute))
        self.bindings.learn(update)

    def contributions(self, client: int, clock: int, end: int) -> Iterator[Contribution]:
        """What is known of the units of ``client`` from ``clock`` up to ``end``, in order, cut to these bounds."""
        known = self._clients.get(client, [])
        for index in range(max(bisect_right(known, clock, key=_clock) - 1, 0), len(known)):
            found = known[index]
            if found.clock >= end:
                break
            if found.end > clock:
                yield found._replace(clock=max(found.clock, clock), end=min(found.end, end))

    def _add(self, client: int, new: Contribution) -> None:
        known = self._clients.setdefault(client, [])
        if not known or known[-1].end <= new.clock:
            _append(known, new)
            return
        first = max(bisect_right(known, new.clock, key=_clock) - 1, 0)
        last = bisect_right(known, new.end, key=_clock)
        merged: list[Contribution] = []
        clock = new.clock
        for old in known[first:last]:
            if clock < old.clock:
                _append(merged, new._replace(clock=clock, end=old.clock))
            _append(merged, old)
            clock = max(clock, old.end)
        if clock < new.end:
            _append(merged, new._replace(clock=clock))
        known[first:last] = merged

    # --- as bytes -------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """All of it as bytes."""
        indices = {author: index for index, author in enumerate(self._authors)}
        packed = _Packed(
            [(author.actor, author.session, author.user) for author in self._authors],
            {client: _pack(contributions, indices) for client, contributions in self._clients.items()},
            {client: (user, firm) for client, (user, firm) in self.bindings if user is not None},
        )
        return bytes((SCHEMA,)) + msgspec.msgpack.encode(packed)

    @classmethod
    def unpack(cls, packed: bytes | None) -> "Authorship":
        """
        What was packed; of ``None``, one that knows nothing.

        Raises:
            Serialization: If it is damaged, or of a schema that this version does not know.
        """
        authorship = cls()
        if packed is None:
            return authorship
        if packed[:1] != bytes((SCHEMA,)):
            raise Serialization("the authorship of a document is of an unknown schema")
        try:
            found = _decode(packed[1:])
            authors = [
                Author(actor, None if session is None else SessionId(session), user)
                for actor, session, user in found.authors
            ]
            authorship._authors = {author: author for author in authors}
            authorship._clients = {client: _unpack(numbers, authors) for client, numbers in found.clients.items()}
            bound = authorship._guess_bindings() if found.bound is None else found.bound
            authorship.bindings = Bindings({client: Binding(user, firm) for client, (user, firm) in bound.items()})
        except (msgspec.MsgspecError, IndexError, ValueError, RecursionError):
            raise Serialization("the authorship of a document is damaged") from None
        return authorship

    def _guess_bindings(self) -> dict[int, tuple[str, bool]]:
        """What was packed by a version that did not note it: a client belongs to its first author."""
        bound: dict[int, tuple[str, bool]] = {}
        for client, contributions in self._clients.items():
            users = [found.author.user for found in contributions if found.author.user is not None]
            if users:
                bound[client] = users[0], len(set(users)) == 1
        return bound


_MINUTE: Final = timedelta(minutes=1)


class _Packed(Struct, frozen=True, array_like=True):
    # Authors by number; for each client four numbers a contribution: the distance from the one before, its
    # length, its author, and the minutes since the one before. To which user each client belongs, and how firmly.
    authors: list[tuple[str, str | None, str | None]]
    clients: dict[int, list[int]]
    bound: dict[int, tuple[str, bool]] | None = None


_decode = msgspec.msgpack.Decoder(_Packed).decode


def _clock(contribution: Contribution) -> int:
    return contribution.clock


def _append(known: list[Contribution], new: Contribution) -> None:
    """Put ``new`` behind the others, as one with the last if nothing tells them apart."""
    if known:
        last = known[-1]
        if last.end == new.clock and last.minute == new.minute and last.author is new.author:
            known[-1] = last._replace(end=new.end)
            return
    known.append(new)


def _pack(contributions: Sequence[Contribution], indices: dict[Author, int]) -> list[int]:
    numbers: list[int] = []
    clock = minute = 0
    for found in contributions:
        numbers += (found.clock - clock, found.end - found.clock, indices[found.author], found.minute - minute)
        clock, minute = found.end, found.minute
    return numbers


def _unpack(numbers: Sequence[int], authors: Sequence[Author]) -> list[Contribution]:
    contributions: list[Contribution] = []
    clock = minute = 0
    for gap, length, author, minutes in zip(*[iter(numbers)] * 4, strict=True):
        if gap < 0 or length <= 0 or author < 0:
            raise ValueError
        clock, minute = clock + gap, minute + minutes
        contributions.append(Contribution(clock, clock + length, authors[author], minute))
        clock += length
    return contributions


# --- blame --------------------------------------------------------------------------------------------


def blame(structs: Structs, root: str, authorship: Authorship) -> list[BlameRange]:
    """
    Who wrote what of the text ``root``, without gaps. ``structs`` are those of the whole document.

    Embedded things are no code points, so they have no range.

    Raises:
        InvalidInput: If the document has more than ``MAX_BLAME_BLOCKS`` blocks.
    """
    return _blame(structs, root, authorship, within=False)


def blame_tree(structs: Structs, root: str, authorship: Authorship) -> list[BlameRange]:
    """As ``blame``, of all that was typed in a tree of XML, in the order in which it stands there."""
    return _blame(structs, root, authorship, within=True)


def _blame(structs: Structs, root: str, authorship: Authorship, *, within: bool) -> list[BlameRange]:
    if len(structs.blocks) > MAX_BLAME_BLOCKS:
        raise InvalidInput("the document has too many parts to say who wrote them")
    places = Places(structs.blocks)
    lists: dict[str | BlockId, list[Block]] = {}
    for block in structs.blocks:
        place = places.of(block)
        if place is not None and place.key is None and (within or place.parent == root):
            lists.setdefault(place.parent, []).append(block)
    text = _Blame(authorship)
    waiting = [in_order(lists.get(root, ()))]
    while waiting:
        run = next(waiting[-1], None)
        if run is None:
            waiting.pop()
            continue
        living = list(_living(run, structs.deleted.get(run.block.client, ())))
        if run.block.kind is BlockKind.STRING:
            for clock, end in living:
                text.add(run.block, clock, end)
        elif within and living and run.block.shared in _XML_TYPES:
            waiting.append(in_order(lists.get(run.block.id, ())))
    return text.ranges


_XML_TYPES: Final = frozenset({SharedKind.XML_ELEMENT, SharedKind.XML_TEXT})


class _Blame:
    """The ranges so far; neighbours of the same author and minute are one."""

    def __init__(self, authorship: Authorship) -> None:
        self._authorship = authorship
        self.ranges: list[BlameRange] = []

    def add(self, block: Block, clock: int, end: int) -> None:
        """Units of a text block come next."""
        for known in self._authorship.contributions(block.client, clock, end):
            self._extend(_code_points(block, clock, known.clock), None, None)
            self._extend(_code_points(block, known.clock, known.end), known.author, known.at)
            clock = known.end
        self._extend(_code_points(block, clock, end), None, None)

    def _extend(self, length: int, author: Author | None, at: datetime | None) -> None:
        if not length:
            return
        last = self.ranges[-1] if self.ranges else _NOTHING
        if self.ranges and last.author == author and last.at == at:
            self.ranges[-1] = BlameRange(last.start, last.end + length, author, at)
        else:
            self.ranges.append(BlameRange(last.end, last.end + length, author, at))


_NOTHING: Final = BlameRange(0, 0, None, None)


def _living(run: Run, deleted: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts of ``run`` that are not deleted."""
    clock = run.clock
    for begin, end in deleted:
        if clock < end and begin < run.end:
            if clock < begin:
                yield clock, begin
            clock = end
    if clock < run.end:
        yield clock, run.end


def _code_points(block: Block, clock: int, end: int) -> int:
    """How many code points of a text begin in its units from ``clock`` up to ``end``."""
    if len(block.text) == block.length:
        return end - clock
    leading_bytes = block.text.encode("utf-16-be")[2 * (clock - block.clock) : 2 * (end - block.clock) : 2]
    return len(leading_bytes.translate(None, _SECOND_HALVES))


_SECOND_HALVES: Final = bytes(range(0xDC, 0xE0))
"""First bytes of the units that end a pair: low surrogates."""
