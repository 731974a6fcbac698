"""What a replica knows of the updates that it was given: which are here, and which wait for others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.documents.crdt.replica import MAX_WAITING, MAX_WAITING_BYTES, PoisonUpdate, Replica
from roomkey.wire import lib0
from tests.support.effort import examples
from tests.support.open_documents import Writer


def test_what_is_typed_behind_something_missing_waits_though_nothing_of_its_client_is_known() -> None:
    alice, bob = Writer(), Writer()
    replica = Replica()
    replica.apply(alice.type("alice"))
    bob.doc.apply_update(alice.updates[-1])
    first = bob.insert(0, "first ")
    second = bob.insert(8, "second")  # between letters that are here

    replica.apply(second)

    assert replica.waiting == [second]
    assert not replica.contains(first)
    assert not replica.contains(second)
    replica.apply(first)
    assert replica.waiting == []
    assert replica.contains(first)
    assert replica.contains(second)


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_an_update_is_here_or_waits_whatever_the_order(data: st.DataObject) -> None:
    """Several people type into a text that all of them have."""
    base = Writer()
    base.type("what all have")
    replica = Replica()
    replica.apply(base.updates[0])
    updates: dict[int, list[bytes]] = {}
    for who in range(3):
        writer = Writer()
        writer.doc.apply_update(base.updates[0])
        count, length = data.draw(st.integers(0, 4)), len(base.text.to_py() or "")
        updates[who] = [writer.insert(data.draw(st.integers(0, length)), f"{number} ") for number in range(count)]
    order = data.draw(st.permutations([(who, at) for who, typed in updates.items() for at in range(len(typed))]))
    known = set[tuple[int, int]]()

    for who, at in order:
        replica.apply(updates[who][at])
        known.add((who, at))
        for other, typed in updates.items():
            reach = next((number for number in range(len(typed)) if (other, number) not in known), len(typed))
            for number, update in enumerate(typed):
                assert replica.contains(update) == (number < reach)
                assert (update in replica.waiting) == ((other, number) in known and number >= reach)


def deletion_of_what_is_not_here(client: int, ranges: int = 1) -> bytes:
    listed = b"".join(lib0.number(3 * each) + b"\x01" for each in range(ranges))
    return b"\x00\x01" + lib0.number(client) + lib0.number(ranges) + listed


def test_only_so_many_deletions_wait_for_what_they_delete() -> None:
    replica = Replica()
    for client in range(1, MAX_WAITING + 1):
        replica.apply(deletion_of_what_is_not_here(client))

    with pytest.raises(PoisonUpdate, match="too many"):
        replica.apply(deletion_of_what_is_not_here(MAX_WAITING + 1))

    writer = Writer()
    writer.type("what waits for nothing is taken")
    replica.apply(writer.updates[0])
    assert replica.contains(writer.updates[0])
    assert len(replica.waiting) == MAX_WAITING


def test_what_waits_has_only_so_many_bytes() -> None:
    replica = Replica()
    long = [deletion_of_what_is_not_here(client, 250_000) for client in (1, 2, 3)]
    assert sum(map(len, long[:2])) < MAX_WAITING_BYTES < sum(map(len, long))
    for update in long[:2]:
        replica.apply(update)

    with pytest.raises(PoisonUpdate, match="too many"):
        replica.apply(long[2])
