"""Looks into an LMDB file of documents from outside of the store: every table against every record."""

from itertools import groupby
from pathlib import Path

import lmdb

from roomkey.backends.document_records import DocumentEntry, decode_batch, decode_document, decode_version
from roomkey.backends.lmdb.documents import names
from roomkey.backends.lmdb.documents.layout import (
    BACKLOG,
    DOCUMENT,
    EVERYTHING,
    PIECE,
    ROW,
    VERSION,
    DocumentTables,
    Measure,
    Part,
    size_class,
)
from roomkey.ports import CHECKSUMMED_RECORDS, RecordCodec, RecordKind

Contents = dict[str, dict[bytes, bytes]]


def contents_of(directory: Path) -> Contents:
    """Every row of every table."""
    fields = DocumentTables._fields
    with lmdb.Environment(str(directory), max_dbs=len(fields), readonly=True, map_size=2**34) as environment:
        tables = [environment.open_db(name.encode(), create=False) for name in fields]
        with environment.begin() as transaction:
            return {
                name: dict(transaction.cursor(table).iternext()) for name, table in zip(fields, tables, strict=True)
            }


def document_faults(directory: Path, codec: RecordCodec = CHECKSUMMED_RECORDS) -> list[str]:
    """Rows that belong to nothing, and what records say that is not there."""
    contents = _decoded(contents_of(directory), codec)
    entries = {DOCUMENT.unpack(key)[0]: decode_document(value) for key, value in contents["documents"].items()}
    swept = [ROW.unpack(key) for key in contents["orphans"]]
    faults = _names(contents, entries, codec) + _backlog(contents, entries)
    for number, entry in entries.items():
        faults += [f"{entry.name!r}: {fault}" for fault in _document(contents, number, entry)]
    for table, shape in (("updates", ROW), ("pieces", PIECE), ("versions", VERSION)):
        strangers = {shape.unpack(key)[0] for key in contents[table]} - entries.keys()
        faults += [f"{table} has rows of {number}" for number in strangers if (number, EVERYTHING) not in swept]
    faults += [
        f"updates has a row of {number} from {first} on"
        for number, first in map(ROW.unpack, contents["updates"])
        if number in entries
        and first <= entries[number].upto
        and not any(owner == number and first <= upto for owner, upto in swept)
    ]
    return faults


def _decoded(contents: Contents, codec: RecordCodec) -> Contents:
    """The contents with their records as they were before they were encoded."""
    kinds = {"documents": RecordKind.DOCUMENT, "updates": RecordKind.UPDATES, "versions": RecordKind.VERSION}
    decoded = contents | {
        table: {key: codec.decode(kind, key, 0, value) for key, value in contents[table].items()}
        for table, kind in kinds.items()
    }
    pieces = contents["pieces"].items()
    uptos = {DOCUMENT.unpack(key)[0]: decode_document(value).upto for key, value in decoded["documents"].items()}
    decoded["pieces"] = {
        key: codec.decode(RecordKind.CONTENT, key, _age(PIECE.unpack(key), uptos), value)
        for key, value in pieces
        if PIECE.unpack(key)[0] in uptos  # what is left of a deleted document is not read any more
    }
    return decoded


def _age(piece: tuple[int, int, int, int], uptos: dict[int, int]) -> int:
    """The version that a piece was encoded with."""
    number, part, _, _ = piece
    return 0 if part == Part.VERSION else uptos[number]


def _names(contents: Contents, entries: dict[int, DocumentEntry], codec: RecordCodec) -> list[str]:
    table = contents["names"]
    reached: set[bytes] = set()
    for number, entry in entries.items():
        rest, branch = entry.name.encode(), names.ROOT
        while len(rest) > names.CUT:
            reached.add(key := branch + rest[: names.CUT] + b"\0")
            branch, rest = names.branch_of(codec, key, table[key]), rest[names.CUT :]
        reached.add(branch + rest)
        if table.get(branch + rest) != DOCUMENT.pack(number):
            return [f"{entry.name!r} is not found by its name"]
    return [f"names has {key!r}, which leads nowhere" for key in table.keys() - reached]


def _backlog(contents: Contents, entries: dict[int, DocumentEntry]) -> list[str]:
    expected = {
        BACKLOG.pack(measure, size_class(size), number)
        for number, entry in entries.items()
        for measure, size in ((Measure.UPDATES, entry.log_updates), (Measure.BYTES, entry.log_bytes))
        if size
    }
    return [f"backlog and records differ in {key!r}" for key in contents["backlog"].keys() ^ expected]


def _document(contents: Contents, number: int, entry: DocumentEntry) -> list[str]:
    faults: list[str] = []
    log = {ROW.unpack(key)[1]: value for key, value in contents["updates"].items() if ROW.unpack(key)[0] == number}
    batches = {first: decode_batch(value, {}) for first, value in log.items() if first > entry.upto}
    expected = entry.upto + 1
    for first in sorted(batches):
        if first != expected:
            faults.append(f"the log has a hole before {first}")
        expected = first + len(batches[first])
    if expected != entry.sequence + 1:
        faults.append(f"the log ends at {expected - 1} instead of {entry.sequence}")
    if sum(len(update.data) for batch in batches.values() for update in batch) != entry.log_bytes:
        faults.append("the log has another size")
    return faults + _contents(contents, number, entry)


def _contents(contents: Contents, number: int, entry: DocumentEntry) -> list[str]:
    expected = {(Part.SNAPSHOT, 0): entry.snapshot_bytes, (Part.AUTHORSHIP, 0): entry.authorship_bytes or 0}
    for key, value in contents["versions"].items():
        owner, version = VERSION.unpack(key)
        if owner == number:
            expected[Part.VERSION, version] = decode_version(value).size
    pieces = sorted((PIECE.unpack(key), len(value)) for key, value in contents["pieces"].items())
    found = {
        (Part(part), version): sum(size for _, size in group)
        for (owner, part, version), group in groupby(pieces, lambda piece: piece[0][:3])
        if owner == number
    }
    expected = {key: size for key, size in expected.items() if size}
    return [] if found == expected else [f"there are pieces of {found} instead of {expected}"]
