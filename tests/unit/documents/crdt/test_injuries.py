"""Documents that were hurt before anything kept them from it: they are read, and it is found what is wrong."""

from datetime import timedelta

from roomkey.documents.crdt.injuries import Injury, injuries_of
from roomkey.documents.loading import assemble
from roomkey.documents.maintenance import Maintenance
from roomkey.ports import DocumentUpdate, StoredDocument
from tests.support.forgeries import deletion, erased, gc, put_together, section, skip, to_the_end, words
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, BOB, FaultyStore, House, Writer, text
from tests.support.sockets import NOON


async def hurt(store: FaultyStore, *updates: bytes) -> StoredDocument:
    """A document in which these updates are stored, as an older version took them."""
    record = await store.create("d", "lineage of d", NOON)
    await store.append("d", record.lineage, [DocumentUpdate(update, BOB, NOON) for update in updates])
    found = await store.load("d")
    assert found is not None
    return found


@in_no_time
async def test_a_client_whose_clock_is_used_up_is_found() -> None:
    for number, block in enumerate((gc(to_the_end(4)), erased(to_the_end(4)), gc(2**31))):
        stored = await hurt(FaultyStore(), put_together(section(7, 0, words("abcd"), block)))

        assert injuries_of(await assemble(stored)) == [Injury(7, 4)], number


@in_no_time
async def test_what_waits_for_something_missing_is_found_with_where_it_begins() -> None:
    stored = await hurt(
        FaultyStore(),
        put_together(section(7, 0, words("abcd"))),
        put_together(section(7, 9, gc(3))),
        put_together(section(7, 4, skip(2), words("x")), section(8, 1, words("y"))),
    )

    assert injuries_of(await assemble(stored)) == [Injury(7, 6, waits=True), Injury(8, 1, waits=True)]


@in_no_time
async def test_nothing_is_wrong_with_a_document_full_of_deleted_things() -> None:
    writer = Writer()
    writer.type("hello")
    writer.erase(3)
    ahead = put_together(deletions=(deletion(writer.doc.client_id, 100, 5),))
    stored = await hurt(FaultyStore(), *writer.updates, put_together(section(7, 0, gc(1_000_000))), ahead)

    assert injuries_of(await assemble(stored)) == []


@in_no_time
async def test_a_document_that_was_hurt_opens_takes_changes_and_is_compacted() -> None:
    store, silenced, other = FaultyStore(), Writer(), Writer()
    client = silenced.doc.client_id
    await hurt(
        store,
        silenced.type("abcd"),
        put_together(section(client, 4, gc(to_the_end(4)))),
        put_together(section(9, 5, gc(1))),
    )

    async with House(store, compact_updates=1, sweep_interval=timedelta(seconds=1)) as house:
        document = await house.document()
        document.take_update(silenced.type("lost"), ALICE, NOON)
        document.take_update(other.type("here"), BOB, NOON)
        await house.settle()
        record = await store.find("d")
        assert record is not None
        await Maintenance(house.open_documents).compact(record)

        assert sorted(text(document)) == sorted("abcdhere")
        assert sorted(await store.text("d")) == sorted("abcdhere")
        assert set(injuries_of(await store.content("d"))) == {Injury(client, 4), Injury(9, 5, waits=True)}
