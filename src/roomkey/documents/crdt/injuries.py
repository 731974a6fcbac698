"""What was done to a document that it does not recover from: clients that cannot write any more, changes that wait."""

from typing import Final

from msgspec import Struct

from roomkey.documents.crdt.replica import Replica
from roomkey.documents.crdt.updates import Block, BlockKind, read_update
from roomkey.wire.lib0 import read_state

USED_UP_CLOCK: Final = 2**31
"""No client gets there: ten keys a second take it seven years, and no document has room for so much."""


class Injury(Struct, frozen=True):
    """
    What is wrong with one Yjs client of a document. Either its clock is used up, and nothing that it writes is taken
    any more; or ``waits`` says that something it wrote waits for what is missing before ``clock``.
    """

    client: int
    clock: int
    waits: bool = False


def injuries_of(replica: Replica) -> list[Injury]:
    """All that can be found, by client."""
    clocks = read_state(replica.state())
    last: dict[int, Block] = {}
    for block in read_update(replica.snapshot()).blocks:
        if block.end <= clocks.get(block.client, 0):
            last[block.client] = block
    found = [
        Injury(client, block.clock)
        for client, block in last.items()
        if block.end >= USED_UP_CLOCK and block.kind in _CONTENTLESS
    ]
    missing: dict[int, int] = {}
    for update in replica.waiting:
        for block in read_update(update).blocks:
            if block.clock > clocks.get(block.client, 0) and block.kind is not BlockKind.SKIP:
                missing[block.client] = min(block.clock, missing.get(block.client, block.clock))
    found += [Injury(client, clock, waits=True) for client, clock in missing.items()]
    return sorted(found, key=lambda injury: (injury.client, injury.waits))


_CONTENTLESS: Final = frozenset({BlockKind.GC, BlockKind.SKIP, BlockKind.DELETED})
