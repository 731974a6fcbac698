"""A document whose log has lost something is served without it, and what its clients still have comes back."""

# The log is damaged where it lies.
# pyright: reportPrivateUsage=false

from pathlib import Path

from pycrdt import Doc, Text

from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.lmdb.documents.layout import ROW
from roomkey.documents.loading import assemble
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.open_documents import OpenDocuments
from roomkey.ports import DocumentUpdate, StoredDocument
from roomkey.testing.clock import ManualClock
from roomkey.testing.documents.suite import ALICE, NOON, make

QUICK = FileSystemSettings(durable=False)


async def test_changes_of_others_are_there_and_the_lost_ones_come_back_with_whoever_has_them(tmp_path: Path) -> None:
    async with FileSystemDocumentStore(tmp_path, QUICK) as store:
        whole = await a_document_with_a_torn_row(store)

        torn = await loaded(store)
        without = await text_of(torn)
        await store.append("notes", "first", [DocumentUpdate(whole, ALICE, NOON)])

        assert torn.lost == 1
        assert without == "bob "
        assert await text_of(await loaded(store)) in ("alice bob ", "bob alice ")


async def test_it_is_compacted_and_keeps_what_could_be_read(tmp_path: Path) -> None:
    async with FileSystemDocumentStore(tmp_path, QUICK) as store:
        await a_document_with_a_torn_row(store)
        maintenance = Maintenance(OpenDocuments(store, clock=ManualClock(NOON)))

        assert await maintenance.compact((await loaded(store)).record)

        compacted = await loaded(store)
        assert (compacted.lost, compacted.upto, compacted.record.sequence) == (0, 2, 2)
        assert await text_of(compacted) == "bob "


async def a_document_with_a_torn_row(store: FileSystemDocumentStore) -> bytes:
    """Two clients wrote a word each, and the row of the first is damaged; returns everything as an update."""
    alice, bob, both = Doc[Text](client_id=7), Doc[Text](client_id=8), Doc[Text]()
    await make(store)
    for doc, word in ((bob, "bob "), (alice, "alice ")):
        doc.get("text", type=Text).insert(0, word)
        both.apply_update(doc.get_update())
        await store.append("notes", "first", [DocumentUpdate(doc.get_update(), ALICE, NOON)])
    file = store._file
    assert file is not None
    with file.environment.begin(write=True) as transaction:
        transaction.put(ROW.pack(1, 2), b"damaged", db=file.tables.updates)
    return both.get_update()


async def loaded(store: FileSystemDocumentStore) -> StoredDocument:
    document = await store.load("notes")
    assert document is not None
    return document


async def text_of(stored: StoredDocument) -> str:
    replica = await assemble(stored)
    copy = Doc[Text]()
    copy.apply_update(replica.since())
    return str(copy.get("text", type=Text))
