"""
The audit log: entries are recorded, integrated and published, and whoever asks gets a receipt.

*Recorded* is an entry that has a number and is durable. *Integrated* is one whose hash is in the tree. *Published* is
one that a signed checkpoint covers: it can be proven to outsiders.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from random import uniform
from secrets import token_bytes
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from roomkey.audit.checkpoints import Checkpoint
from roomkey.audit.merkle import HASH_BYTES, inclusion_path, leaf_hash, proves_inclusion
from roomkey.audit.notes import Note, VerifierKey
from roomkey.audit.proofs import Receipt
from roomkey.audit.publisher import Publisher
from roomkey.audit.sequencer import Sequencer
from roomkey.audit.settings import AuditSettings
from roomkey.audit.stored import Heads, Retained, StoredLog, head_of, readable
from roomkey.audit.tiles import MAX_ENTRY_BYTES, WIDTH, Tile, bundle_of, width_of
from roomkey.errors import (
    AuditLogDamaged,
    Conflict,
    ContradictingHead,
    InvalidInput,
    NotFound,
    NotPublished,
    NotRetained,
    OutcomeUnknown,
    RoomkeyError,
    Serialization,
    Storage,
)
from roomkey.leasing import Chore
from roomkey.ports import Clock

_log = structlog.get_logger("roomkey.audit")

Alarm = Callable[[str, Mapping[str, str]], None]
"""Is told the stable code of what is wrong with the log, and details."""

MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 8 * 1024 * 1024
"""What one ``append`` takes, and one ``entries`` gives."""

READERS: Final = 8
"""Readers of what is not integrated that may take turns without losing their places."""

TRIES: Final = 20
FIRST_PAUSE_SECONDS: Final = 0.002
LONGEST_PAUSE_SECONDS: Final = 0.1

RECEIPT_PAUSE_SECONDS: Final = 0.05
"""How often it is looked whether an entry is published, while somebody waits for its receipt."""


class AuditStatus(Struct, frozen=True, kw_only=True):
    """
    How far the log is: numbers of entries, as this node has last seen them.

    ``trouble`` says why nothing is published, and what to do; ``None`` if all is well.
    """

    recorded: int
    integrated: int
    published: int
    trouble: str | None
    witnesses: Mapping[str, str]
    """Why witnesses have not signed when they were asked last, by their names."""


class AuditLog:
    """
    The log of a deployment, on one of its nodes.

    Any number of nodes may append at once. ``run`` is what the nodes do in the background, one at a time.
    """

    def __init__(
        self,
        stored: StoredLog,
        publisher: Publisher,
        chore: Chore,
        *,
        clock: Clock,
        settings: AuditSettings,
        alarm: Alarm = lambda _code, _details: None,
    ) -> None:
        self._stored = stored
        self._publisher = publisher
        self._sequencer = Sequencer(stored)
        self._chore = chore
        self._clock = clock
        self._settings = settings
        self._alarm = alarm
        self._appending = asyncio.Lock()
        self._recorded = self._integrated = self._published = 0
        self._read: deque[int] = deque(maxlen=READERS)
        """The batches that were read last of those that are not integrated, by the numbers of their first entries."""
        self._trouble: str | None = None
        self._aged_on: int | None = None
        """The day on which it was looked last what is old."""

    @property
    def keys(self) -> Sequence[VerifierKey]:
        """The keys that sign checkpoints, the current one first."""
        return self._publisher.keys

    # --- recording ----------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[bytes]) -> int:
        """
        Record ``entries`` in this order and without others between them; returns the number of the first.

        When this returns they are durable. They are integrated and published within ``publish_interval`` by the node
        that does that, if nothing is in its way.

        Raises:
            InvalidInput: If there are none, or too many, or one is too long.
            Conflict: If others record so much that it never was this node's turn.
            OutcomeUnknown: If it cannot be told whether they are recorded.
            Storage: If they are not.
        """
        _check(entries)
        async with self._appending:  # those of this node need not race each other
            first = await self._record(entries, token_bytes(8))
        self._recorded = max(self._recorded, first + len(entries))
        return first

    async def _record(self, entries: Sequence[bytes], name: bytes) -> int:
        failure: RoomkeyError | None = None
        for attempt in range(TRIES):
            before = await self._stored.recorded()
            first = before.value.first_of(name)
            if first is not None:  # the answer to an earlier try was lost
                return first
            try:
                await self._stored.record(before, entries, name)
            except (Conflict, OutcomeUnknown) as error:
                failure = error
                await asyncio.sleep(uniform(0, min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)))  # noqa: S311
            else:
                return before.value.size
        raise failure or Conflict("others record all the time")

    # --- reading ------------------------------------------------------------------------------------------

    async def size(self) -> int:
        """How many entries are recorded."""
        return (await self._stored.recorded()).value.size

    async def entries(self, first: int, count: int) -> list[bytes]:
        """
        Up to ``count`` entries from number ``first`` on, also such that are only recorded; empty behind the last.

        At most ``MAX_ENTRIES`` and about ``MAX_BYTES`` of them.

        Raises:
            NotRetained: If ``first`` is below what is shown.
        """
        await self._check_retained(first)
        found: list[bytes] = []
        wanted, taken = min(count, MAX_ENTRIES), 0
        while len(found) < wanted and taken < MAX_BYTES:
            missing = wanted - len(found)
            some = (await self._from(first + len(found), missing))[:missing]
            if not some:
                break
            found += some
            taken += sum(map(len, some))
        return found

    async def _from(self, first: int, wanted: int) -> list[bytes]:
        """The entries from number ``first`` on that are in one bundle, or about so many that are not integrated."""
        while first >= (size := (await self._stored.tree()).value.size):
            if entries := await self._not_integrated(first, wanted):
                return entries
            if (await self._stored.tree()).value.size == size:  # otherwise it was integrated meanwhile
                return []
        bundle, skipped = divmod(first, WIDTH)
        entries = (await self._stored.bundle(bundle))[skipped:]
        if not entries:
            raise AuditLogDamaged(f"entry {first} is integrated and not there")
        return entries

    async def _not_integrated(self, first: int, wanted: int) -> list[bytes]:
        """About as many entries as are ``wanted`` from number ``first`` on, as long as these are in batches."""
        found: list[bytes] = []
        size, last = 0, first
        # Whoever reads one after the other goes on where it was: with many batches the way there is long.
        nearest = max((begun for begun in self._read if begun <= first), default=0)
        async for begun, content in self._stored.every_batch(nearest):
            reached = first + len(found)
            if begun > reached or len(found) >= wanted or size >= MAX_BYTES:
                break
            entries = readable(content, begun)
            if reached < begun + len(entries):
                found += entries[reached - begun :]
                size += len(content)
                last = begun
        if found:
            self._read.append(last)
        return found

    async def bundle(self, index: int, width: int = WIDTH) -> bytes:
        """
        The first ``width`` entries from number ``index`` * 256 on, as a file of the log.

        Raises:
            NotFound: If there are not so many.
            NotRetained: If none of a full bundle is shown any more.
        """
        await self._check_retained((index + 1) * WIDTH - 1)
        entries = await self._stored.bundle(index)
        if len(entries) < width:
            raise NotFound("the log has no such entries")
        return bundle_of(entries[:width])

    async def tile(self, level: int, index: int, width: int = WIDTH) -> bytes:
        """
        The first ``width`` hashes of a tile.

        Raises:
            NotFound: If it has not so many.
        """
        tile = Tile(level, index)
        tree = (await self._stored.tree()).value
        if width_of(tile, tree.size) < width:
            raise NotFound("the log has no such tile")
        content = (await self._stored.tiles((tile,))).get(tile, b"")[: width * HASH_BYTES]
        if len(content) < width * HASH_BYTES:
            raise AuditLogDamaged(f"hashes are missing: {tile}")
        return content

    async def checkpoint(self) -> Note:
        """
        The published head.

        Raises:
            NotPublished: If there is none yet.
        """
        published = await self._stored.published()
        if published is None:
            raise NotPublished("the log has no checkpoint yet")
        return published

    async def receipt(self, index: int, *, within: timedelta = timedelta(), with_entry: bool = True) -> Receipt:
        """
        The proof that entry ``index`` is in the log, as of the published head.

        Args:
            within: How long to wait until the entry is published.
            with_entry: Whether the entry is put into it, if it is still shown.

        Raises:
            NotPublished: If no head covers it, or there is none such.
        """
        signed, head = await self._head_with(index, within)
        leaves = Tile(0, index // WIDTH)
        hashes = await self._stored.proof(inclusion_path(index, head.size))
        content = (await self._stored.tiles((leaves,))).get(leaves, b"")
        leaf = content[index % WIDTH * HASH_BYTES :][:HASH_BYTES]
        if not proves_inclusion(leaf, index, head.size, hashes, head.root):
            raise AuditLogDamaged(f"the hashes above entry {index} do not lead to the root that was signed")
        entry = await self._entry(index, leaf) if with_entry else None
        return Receipt(index=index, hashes=hashes, head=signed, entry=entry)

    async def _head_with(self, index: int, within: timedelta) -> tuple[Note, Checkpoint]:
        now = asyncio.get_running_loop().time
        until = now() + within.total_seconds()
        while True:
            signed = await self._stored.published()
            head = head_of(signed)
            if signed is not None and head is not None and index < head.size:
                return signed, head
            if now() >= until:
                raise NotPublished("there is no such entry, or no checkpoint covers it yet")
            await asyncio.sleep(RECEIPT_PAUSE_SECONDS)

    async def _entry(self, index: int, leaf: bytes) -> bytes | None:
        if index < (await self._stored.retained()).value.first:
            return None
        entry = (await self._stored.bundle(index // WIDTH))[index % WIDTH :][:1]
        if not entry or leaf_hash(entry[0]) != leaf:
            raise AuditLogDamaged(f"entry {index} was changed or lost: its hash is another one")
        return entry[0]

    async def status(self) -> AuditStatus:
        """How far the log is, asked now."""
        recorded, heads = await self._stored.recorded(), await self._stored.heads()
        self._see(recorded.value.size, heads)
        return self.seen

    @property
    def seen(self) -> AuditStatus:
        """How far the log is, as this node has seen last."""
        return AuditStatus(
            recorded=self._recorded,
            integrated=self._integrated,
            published=self._published,
            trouble=self._trouble,
            witnesses=dict(self._publisher.failures),
        )

    def degradations(self) -> Mapping[str, str]:
        """Why the log is not published, and which witnesses do not sign, by name."""
        troubles = {f"audit witness {name}": why for name, why in self._publisher.failures.items()}
        return troubles if self._trouble is None else {"audit log": self._trouble, **troubles}

    # --- retention ----------------------------------------------------------------------------------------

    async def retain(self, first: int) -> None:
        """
        Show no entries below number ``first`` any more. Hashes stay, and so does every proof.

        What was denied by mistake is shown again if a lower number is given.

        Raises:
            InvalidInput: If more are to be denied than are published.
            Conflict: If another one changes that at the same time.
        """
        head = head_of(await self._stored.published())
        if not 0 <= first <= (0 if head is None else head.size):
            raise InvalidInput("only entries that are published can be denied")
        before = await self._stored.retained()
        await self._stored.retain(before, replace(before.value, first=first))

    async def _check_retained(self, index: int) -> None:
        first = (await self._stored.retained()).value.first
        if index < first:
            raise NotRetained(f"entries below number {first} are not shown any more: go on there", first=first)

    async def _retain_by_age(self) -> None:
        """Once a day: note how far the log was, and deny what was there before the time for which it is kept."""
        age, today = self._settings.retention, self._clock.now().toordinal()
        if age is None or self._aged_on == today:
            return
        before = await self._stored.retained()
        head = head_of(await self._stored.published())
        after = aged(before.value, today, 0 if head is None else head.size, age)
        if after != before.value:
            await self._stored.retain(before, after)
        self._aged_on = today

    # --- integrating and publishing -----------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the log integrated and published, until it is cancelled."""
        pause = self._settings.publish_interval.total_seconds()
        try:
            while True:
                await self._look()
                await asyncio.sleep(pause)
        finally:
            await self._chore.release()

    async def _look(self) -> None:
        """Do what is to be done, or see that another node does it; what is wrong is reported once."""
        trouble: RoomkeyError | None = None
        try:
            if await self._is_due():
                await self.integrate()
            else:
                await self._publisher.watch()
        except Conflict:
            return  # another node does it
        except (Storage, Serialization) as error:
            trouble = error
        self._say(trouble)

    async def _is_due(self) -> bool:
        recorded, heads = await self._stored.recorded(), await self._stored.heads()
        self._see(recorded.value.size, heads)
        is_new_day = self._settings.retention is not None and self._aged_on != self._clock.now().toordinal()
        return recorded.value.size > heads.tree.value.size or self._publisher.is_due(heads) or is_new_day

    async def integrate(self) -> bool:
        """
        Integrate and publish what was recorded until now; ``False`` if another node is at it.

        Raises:
            ContradictingHead: If a head that was signed would be contradicted.
            AuditLogDamaged: If what is stored does not go together.
            Storage: If storage, or too many witnesses, are away.
            Conflict: If another node has done the same at the same time.
        """
        return await self._chore.attempt(self._integrate) or False

    async def _integrate(self, _token: int) -> bool:
        # The token is not written: the revision of the tree, which every commit expects, says more (see Sequencer).
        tree = await self._sequencer.integrate()
        self._integrated = tree.size
        self._published = (await self._publisher.publish()).size
        await self._retain_by_age()
        return True

    def _see(self, recorded: int, heads: Heads) -> None:
        published = head_of(heads.published.value)
        self._recorded = recorded
        self._integrated = heads.tree.value.size
        self._published = 0 if published is None else published.size

    def _say(self, trouble: RoomkeyError | None) -> None:
        said, self._trouble = self._trouble, None if trouble is None else str(trouble)
        if trouble is not None and self._trouble != said:
            _log.error("audit_log_not_published", cause=trouble.code, reason=self._trouble)
            if isinstance(trouble, ContradictingHead | AuditLogDamaged):
                self._alarm(trouble.code, {"reason": str(trouble)})
        elif trouble is None and said is not None:
            _log.info("audit_log_published_again", published=self._published)


def aged(before: Retained, today: int, size: int, age: timedelta) -> Retained:
    """
    What is shown today, when ``size`` entries are published: nothing that was published ``age`` ago or earlier.

    A day is noted once; entries that were there on a day are at least as old as the day.
    """
    days = before.days if before.days and before.days[-1][0] >= today else (*before.days, (today, size))
    limit = today - -(-age // timedelta(days=1))
    over = [day for day in days if day[0] <= limit]
    return Retained(max(before.first, over[-1][1]) if over else before.first, tuple(days[len(over) :]))


def _check(entries: Sequence[bytes]) -> None:
    if not entries:
        raise InvalidInput("there is nothing to record")
    if len(entries) > MAX_ENTRIES or sum(map(len, entries)) > MAX_BYTES:
        raise InvalidInput(f"at most {MAX_ENTRIES} entries with {MAX_BYTES} bytes are recorded at once")
    if max(map(len, entries)) > MAX_ENTRY_BYTES:
        raise InvalidInput(f"an entry has at most {MAX_ENTRY_BYTES} bytes")
