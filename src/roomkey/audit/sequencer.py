"""
What one node at a time does for the log: it brings recorded entries into the tree.

Leases say who does it, so that nodes do not get in each other's way. That nobody who has lost the lease still
changes anything is ensured by the revision of the tree, under which everything is committed: whoever slept through
his lease finds that the tree has changed, and gets a ``Conflict``.
"""

from typing import Final

from roomkey.audit import merkle
from roomkey.audit.stored import StoredLog, Tree, Versioned, parts_of, readable
from roomkey.audit.tiles import grown, last_tiles, root_of
from roomkey.errors import AuditLogDamaged

MAX_BATCHES: Final = 128
MAX_ENTRIES: Final = 16 * 1024
MAX_BYTES: Final = 8 * 1024 * 1024
"""What one commit integrates; one batch more may come with it. That fits into a commit of every storage."""


class Sequencer:
    """Integrates what was recorded."""

    def __init__(self, stored: StoredLog) -> None:
        self._stored = stored

    async def integrate(self) -> Tree:
        """
        Bring everything that was recorded until now into the tree, in as many commits as that takes.

        Raises:
            Conflict: If another node does it, too.
            AuditLogDamaged: If what is stored does not go together. Nothing was changed.
        """
        target = (await self._stored.recorded()).value.size
        tree = await self._stored.tree()
        while tree.value.size < target:
            await self._integrate_some(tree)
            tree = await self._stored.tree()
        return tree.value

    async def _integrate_some(self, before: Versioned[Tree]) -> None:
        tree = before.value
        entries, batches = await self._next(tree.size)
        tiles = await self._stored.tiles(last_tiles(tree.size))
        try:
            root = root_of(tree.size, tiles)
        except LookupError:
            root = b""
        if root != tree.root:
            raise AuditLogDamaged(f"the hashes of the last entries before number {tree.size} were changed or lost")
        changed = grown(tree.size, tiles, [merkle.leaf_hash(entry) for entry in entries])
        size = tree.size + len(entries)
        parts, last = parts_of(tree, await self._stored.part(tree.part), entries)
        after = Tree(size, root_of(size, {**tiles, **changed}), last)
        await self._stored.integrate(before, after, tiles=changed, parts=parts, batches=batches)

    async def _next(self, first: int) -> tuple[list[bytes], list[int]]:
        """The entries that come next, and the batches that they are in."""
        entries: list[bytes] = []
        batches: list[int] = []
        taken = 0
        for begun, content in await self._stored.batches(MAX_BATCHES):
            if begun != first + len(entries):
                raise AuditLogDamaged(
                    f"entry {first + len(entries)} was recorded and is not there; the next is {begun}"
                )
            entries += readable(content, begun)
            batches.append(begun)
            taken += len(content)
            if len(entries) >= MAX_ENTRIES or taken >= MAX_BYTES:
                break
        if not entries:
            raise AuditLogDamaged(f"entry {first} was recorded and is not there")
        return entries, batches
