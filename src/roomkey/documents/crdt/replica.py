"""One live copy of a Yjs document: what goes in is checked, what comes out are updates in the V1 encoding."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import structlog
from pycrdt import Doc, TransactionEvent, merge_updates

from roomkey.documents.crdt.identity import Admission, Forged, Identities, Source
from roomkey.documents.crdt.nesting import Nesting
from roomkey.documents.crdt.updates import (
    MAX_PARTS,
    ClockRange,
    Keystroke,
    MalformedUpdate,
    Structs,
    clients_of,
    joined,
    read_update,
    validate,
    without,
)
from roomkey.wire.lib0 import EMPTY_STATE, EMPTY_UPDATE, read_state

T = TypeVar("T")

_log = structlog.get_logger("roomkey.documents")

MAX_WAITING: Final = 100
"""Changes that wait for others in one document. An honest client sends nothing before what it builds on."""

MAX_WAITING_BYTES: Final = 2 * 1024 * 1024
"""What they are together at most."""


class PoisonUpdate(Exception):
    """An update that cannot be applied: malformed, or made to hurt. The replica is as it was before."""


class Forgery(PoisonUpdate):
    """An update that speaks for a Yjs client of somebody else. The replica is as it was before."""


class ReplicaLost(Exception):
    """The native library gave up in the middle of an update; this copy must not be used any more."""


class Replica:
    """
    A document in memory. All on one thread.

    ``doc`` is for reading and for ``edit``; any other change to it would not be passed on or stored.
    ``waiting`` are updates that build on what is not here yet: they are part of the document, and can be seen
    when what they need has come. The native library has them, too, but does not give them away again.
    ``revision`` is another one after each change. ``identities`` are the Yjs clients in it.
    """

    __slots__ = (
        "_clocks",
        "_edited_to",
        "_editor",
        "_needs",
        "_nesting",
        "_state",
        "doc",
        "identities",
        "revision",
        "waiting",
    )

    def __init__(self, doc: Doc[Any] | None = None) -> None:
        self.doc: Doc[Any] = Doc() if doc is None else doc
        self.waiting: list[bytes] = []
        self._needs: dict[bytes, _Needs] = {}
        self.revision = 0
        self.identities = Identities(self.doc.client_id)
        self._state = EMPTY_STATE
        self._clocks = _Clocks()
        self._nesting = Nesting()
        self._editor = self.doc.client_id
        self._edited_to = 0

    def apply(
        self, update: bytes, source: Source | None = None, *, is_typed: bool = True, is_lenient: bool = False
    ) -> bytes:
        """
        Take in an update; if it builds on what is not here yet, it waits for that.

        From a ``source`` it is taken as far as that may bring it; ``is_typed`` says that it was made there just now,
        and not carried here; ``is_lenient``, that what may not be brought is left out. Returns what was taken: hardly
        ever anything else than ``update``.

        Raises:
            PoisonUpdate, Forgery, ReplicaLost: As they say.
        """
        admission: Admission | None = None
        try:
            content = validate(update) if source is None else validate(update, source.own, MAX_PARTS)
            if source is not None and not isinstance(content, Keystroke):
                clocks = self._clocks.read(self._state)
                admission = self.identities.admit(content, source, clocks, self.waiting, is_lenient=is_lenient)
                if admission.left_out:
                    source.was_cut = True
                    update = without(update, admission.left_out)
                    if update == EMPTY_UPDATE:
                        return update
                    content = read_update(update)
            if not isinstance(content, Keystroke):
                self._nesting.admit(update, self.since)
        except Forged as error:
            raise Forgery(str(error)) from None
        except MalformedUpdate as error:
            raise PoisonUpdate(str(error)) from None
        if self._is_full_of_waiting(update) and not self._would_be_here(update):
            raise PoisonUpdate("too many changes wait for others")
        self._look_for_what_waits(update, content, self._apply(update))
        if admission is not None and source is not None:
            self.identities.taken(admission, source, is_typed=is_typed)
        return update

    def load(self, update: bytes, *, whole: bool) -> None:
        """
        Like ``apply`` for what was applied before and comes from storage. Raises as ``apply``.

        ``whole`` says that nothing in it waits for anything.
        """
        state = self._apply(update)
        if whole:
            self._state = state
            self._clocks.passed(None)
        else:
            self._look_for_what_waits(update, read_update(update), state)

    def _look_for_what_waits(self, update: bytes, content: Structs | Keystroke, state: bytes) -> None:
        before, self._state = self._state, state
        has_changed = state != before
        # The entries of a state vector may stand in another order without anything being new. The sum of its bytes does
        # not depend on that, and one text that was typed changes it. If something waits, that may be what has moved.
        # What waits may also make an entry with clock 0, for a client of whom nothing is here: it is longer then.
        is_as_long = len(state) == len(before)
        has_moved = has_changed and is_as_long and not self.waiting and sum(state) != sum(before)
        if has_changed:
            self._clocks.passed(update if has_moved and isinstance(content, Keystroke) else None)
        # A text that moved a clock is here. A deletion may have come before what it deletes.
        is_here = content is Keystroke.TYPED and has_moved
        if not is_here and not self._is_here(read_update(update) if isinstance(content, Keystroke) else content):
            if update not in self.waiting:
                self.waiting.append(update)
        elif has_changed and self.waiting:
            self._try_again()

    def _try_again(self) -> None:
        """Forget what does not wait any more. The native library may leave something behind whose time has come."""
        while True:
            clocks = self._clocks.read(self._state)
            self.waiting = [other for other in self.waiting if not _reached(self._needs_of(other).ends, clocks)]
            self._needs = {other: self._needs[other] for other in self.waiting}
            before = self._state
            for other in self.waiting:
                if _reached(self._needs[other].begins, self._clocks.read(self._state)):
                    self._state = self._apply(other)
                    self._clocks.passed(None)
            if self._state == before:
                return

    def _is_here(self, structs: Structs) -> bool:
        clocks = self._clocks.read(self._state)
        return all(block.end <= clocks.get(block.client, 0) for block in structs.blocks) and all(
            end <= clocks.get(client, 0) for client, ranges in structs.deleted.items() for _, end in ranges
        )

    def _needs_of(self, waiting: bytes) -> "_Needs":
        """Read once: it is asked for with each change, and may be long."""
        needs = self._needs.get(waiting)
        if needs is None:
            needs = self._needs[waiting] = _needs(waiting)
        return needs

    def _is_full_of_waiting(self, update: bytes) -> bool:
        waiting = self.waiting
        return bool(waiting) and (
            len(waiting) >= MAX_WAITING or sum(map(len, waiting)) + len(update) > MAX_WAITING_BYTES
        )

    def _would_be_here(self, update: bytes) -> bool:
        """Whether nothing of ``update`` would wait: neither blocks, nor deletions of what it does not bring itself."""
        clocks = dict(self._clocks.read(self._state))
        for units in clients_of(update):
            if units.clock > clocks.get(units.client, 0):
                return False
            clocks[units.client] = max(units.end, clocks.get(units.client, 0))
        deleted = read_update(update).deleted
        return all(end <= clocks.get(client, 0) for client, ranges in deleted.items() for _, end in ranges)

    def _apply(self, update: bytes) -> bytes:
        """Give ``update`` to the native library; returns the state vector behind it."""
        self.revision += 1
        try:
            return _apply_natively(self.doc, update)
        except ValueError as error:
            raise PoisonUpdate("the update cannot be decoded") from error
        except RuntimeError:
            # Something in it, or in what waited for it, cannot be used, and is dropped. The rest was applied.
            _log.warning("update_partly_dropped")
            return self.doc.get_state()
        except BaseException as error:
            if not _is_panic(error):
                raise
            raise ReplicaLost from error

    def apply_and_tell(
        self, update: bytes, source: Source | None = None, *, is_lenient: bool = False
    ) -> tuple[bytes, bytes | None]:
        """Like ``apply``; and what was new in it, or ``None`` if there was nothing that could be used now."""
        news: list[bytes] = []
        taken = self._observed(lambda: self.apply(update, source, is_typed=False, is_lenient=is_lenient), news.append)
        return taken, news[0] if news else None

    def edit(self, change: Callable[[Doc[Any]], None], tell: Callable[[bytes], None]) -> None:
        """
        Let ``change`` edit the document in one transaction, and ``tell`` know the update that this made, if any.

        What ``change`` raises is raised here. What it did before is done, and told.

        Raises:
            ReplicaLost: As it says.
        """

        def change_at_once() -> None:
            with self.doc.transaction():
                change(self.doc)

        self.revision += 1
        try:
            self._observed(change_at_once, tell)
        except BaseException as error:
            if not _is_panic(error):
                self._note_edit()
                raise
            raise ReplicaLost from error
        self._note_edit()

    def _note_edit(self) -> None:
        self._state = self.doc.get_state()
        self._clocks.passed(None)

    def copy(self) -> "Replica":
        """
        Another replica with the same content, for a change that may not be made after all.

        It edits under the same Yjs id, so that many copies do not make a document large: what was changed in one that
        is given up must not get anywhere, and of what was changed in any other, ``landed`` is told. Once somebody else
        has written under that id, on another node, it is another one: two that write under one clock lose a change.
        """
        if self._edited() != self._edited_to:
            self._editor, self._edited_to = Doc[Any]().client_id, 0
            self.identities.protect(self._editor)
        copy = Replica(Doc(client_id=self._editor))
        copy.identities = self.identities  # what may be said in whose name is the same in both
        copy.load(self.snapshot(), whole=True)
        for update in self.waiting:
            copy.load(update, whole=False)
        return copy

    def may_edit_as(self, copy: "Replica") -> bool:
        """Whether a new copy would edit under the same Yjs id as ``copy``."""
        return self._edited() == self._edited_to and copy.doc.client_id == self._editor

    def landed(self) -> None:
        """What was changed in a copy is here now, and nothing was taken in since."""
        self._edited_to = self._edited()

    def _edited(self) -> int:
        return self._clocks.read(self._state).get(self._editor, 0)

    def state(self) -> bytes:
        """The state vector: what this copy has, for those who have something else."""
        return self.doc.get_state()

    def since(self, state: bytes = EMPTY_STATE) -> bytes:
        """
        Everything that is missing where ``state`` is, as one update; what waits is part of it.

        Raises:
            ValueError: If ``state`` is no state vector.
        """
        update = self.doc.get_update(state)
        return merge_updates(update, *self.waiting) if self.waiting else update

    def snapshot(self) -> bytes:
        """Everything that can be seen, and nothing that waits, as one update."""
        return self.doc.get_update()

    def clients_of(self, update: bytes) -> list[ClockRange]:
        """
        Whose units ``update`` brings.

        Raises:
            PoisonUpdate: If it cannot be read.
        """
        try:
            return clients_of(update)
        except MalformedUpdate as error:
            raise PoisonUpdate(str(error)) from None

    def contains(self, update: bytes) -> bool:
        """
        Whether there is nothing in ``update`` that is not here: neither blocks nor deletions.

        Raises:
            PoisonUpdate: If it cannot be read.
        """
        try:
            structs = read_update(update)
        except MalformedUpdate as error:
            raise PoisonUpdate(str(error)) from None
        state = self.state()
        clocks = self._clocks.read(state)
        if any(block.end > clocks.get(block.client, 0) for block in structs.blocks):
            return False
        if not structs.deleted:
            return True
        # Every update names all deletions, even one from the very state that is here.
        deleted = read_update(self.doc.get_update(state)).deleted
        return all(_covers(deleted.get(client, ()), ranges) for client, ranges in structs.deleted.items())

    def _observed(self, action: Callable[[], T], tell: Callable[[bytes], None]) -> T:
        # Only when it is needed: with an observer every update is encoded once more.
        def note(event: TransactionEvent) -> None:
            tell(event.update)

        subscription = self.doc.observe(note)
        try:
            return action()
        finally:
            self.doc.unobserve(subscription)


class _Needs(NamedTuple):
    """What an update needs: by client, the clock at which its last range of blocks begins, and where all of it ends."""

    begins: Mapping[int, int]
    ends: Mapping[int, int]


def _needs(update: bytes) -> _Needs:
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for units in clients_of(update):
        begins[units.client] = max(units.clock, begins.get(units.client, 0))
        ends[units.client] = max(units.end, ends.get(units.client, 0))
    for client, ranges in read_update(update).deleted.items():
        ends[client] = max([ends.get(client, 0), *(end for _, end in ranges)])
    return _Needs(begins, ends)


def _reached(needs: Mapping[int, int], clocks: Mapping[int, int]) -> bool:
    return all(needed <= clocks.get(client, 0) for client, needed in needs.items())


class _Clocks:
    """
    The clock of each Yjs client, decoded on first use.

    State vectors have an entry for everyone who ever wrote, so they are not decoded for each keystroke.
    """

    __slots__ = ("_clocks", "_passed")

    def __init__(self) -> None:
        self._clocks: dict[int, int] = {}
        self._passed: list[bytes] | None = []

    def passed(self, typed: bytes | None) -> None:
        """The state has changed: by one typed text, or by anything."""
        if typed is None or self._passed is None or len(self._passed) >= _MAX_PASSED:
            self._passed = None
        else:
            self._passed.append(typed)

    def read(self, state: bytes) -> dict[int, int]:
        """The clocks in ``state``, which is the current one."""
        if self._passed is None:
            self._clocks = read_state(state)
        else:
            for typed in self._passed:
                for units in clients_of(typed):
                    self._clocks[units.client] = max(units.end, self._clocks.get(units.client, 0))
        self._passed = []
        return self._clocks


_MAX_PASSED: Final = 256


def _apply_natively(doc: Doc[Any], update: bytes) -> bytes:
    """
    ``Doc.apply_update`` and ``Doc.get_state`` in one transaction, and without their wrappers.

    These take longer than a keystroke does inside. pycrdt is bounded, and a test names what is used of it here.
    """
    native = doc._doc  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    transaction = native.create_transaction()
    try:
        native.apply_update(transaction, update)
        return native.get_state(transaction)
    finally:
        try:
            transaction.commit()
        finally:
            transaction.drop()


def _covers(ranges: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    """Whether every clock of ``others`` is in one of ``ranges``, which may touch one another."""
    whole = joined(ranges)
    begins = [begin for begin, _ in whole]
    for begin, end in others:
        place = bisect_right(begins, begin) - 1
        if begin < end and (place < 0 or whole[place][1] < end):
            return False
    return True


def _is_panic(error: BaseException | None) -> bool:
    """
    Whether the native library gave up, or could not go on because it had.

    A panic is no ``Exception``, so that no handler catches it by accident, and pyo3 gives it no importable name.
    """
    while error is not None:
        if type(error).__name__ == "PanicException":
            return True
        error = error.__context__
    return False
