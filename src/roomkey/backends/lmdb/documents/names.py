"""
The table of names, which is longer than a key can be and still in the order of bytes.

A key is a branch followed by the rest of a name. A name with a rest longer than ``CUT`` goes on in another branch:
the key of its first ``CUT`` bytes with a zero byte behind them has that branch for a value. Nothing that is not
longer can stand between the two, so a branch lies exactly where its names belong.
"""

from collections.abc import Callable, Iterator
from typing import Final

from roomkey.backends.lmdb.documents.layout import DOCUMENT, DocumentTables
from roomkey.backends.lmdb.file import Table, Transaction
from roomkey.backends.lmdb.write_batch import Changes
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind

CUT = 500
"""With a branch and a zero byte within LMDB's 511 bytes for a key; a name has three parts at most."""

ROOT: Final = bytes(4)
_MORE: Final = b"\0"
_DEEPEST: Final = 32
"""Branches lead no deeper than a name has parts; a damaged one must not lead in circles."""


def find(get: Callable[[bytes], bytes | None], codec: RecordCodec, name: bytes) -> bytes | None:
    """
    The document of this name, as ``get`` reads the table.

    Raises:
        Serialization: If what leads there is damaged.
    """
    branch = ROOT
    while len(name) > CUT:
        key = branch + name[:CUT] + _MORE
        following = get(key)
        if following is None:
            return None
        branch, name = branch_of(codec, key, following), name[CUT:]
    document = get(branch + name)
    if document is not None and len(document) != DOCUMENT.size:
        raise Serialization("the name of a document leads nowhere")
    return document


def branch_of(codec: RecordCodec, key: bytes, value: bytes) -> bytes:
    """
    The branch that a row leads to.

    Raises:
        Serialization: If it leads nowhere.
    """
    branch = codec.decode(RecordKind.FIGURES, key, 0, value)
    if len(branch) != len(ROOT) or branch == ROOT:
        raise Serialization("the name of a document leads nowhere")
    return branch


def enter(changes: Changes[DocumentTables], name: bytes, document: bytes, new_branch: Callable[[], bytes]) -> None:
    """Give a document a name that no other one has."""
    table = changes.tables.names
    branch = ROOT
    while len(name) > CUT:
        key = branch + name[:CUT] + _MORE
        found = changes.get(table, key)
        if found is None:
            following = new_branch()
            changes.put_figures(table, key, following)
        else:
            following = branch_of(changes.codec, key, found)
        branch, name = following, name[CUT:]
    changes.put(table, branch + name, document)


def leave(changes: Changes[DocumentTables], name: bytes) -> None:
    """Take a name out, with the branches that nothing is left in."""
    table = changes.tables.names
    branch, keys = ROOT, list[bytes]()
    while len(name) > CUT:
        key = branch + name[:CUT] + _MORE
        following = changes.get(table, key)
        if following is None:
            return
        keys.append(key)
        branch, name = branch_of(changes.codec, key, following), name[CUT:]
    changes.remove(table, branch + name)
    while keys and _is_empty(changes.transaction, table, branch):
        key = keys.pop()
        changes.remove(table, key)
        branch = key[: len(ROOT)]


def _is_empty(transaction: Transaction, table: Table, branch: bytes) -> bool:
    with transaction.cursor(table) as cursor:
        return not (cursor.set_range(branch) and cursor.key().startswith(branch))


class Walk:
    """Names in the order of their bytes, each with its document. ``damaged`` is told of what leads nowhere."""

    def __init__(
        self,
        transaction: Transaction,
        table: Table,
        codec: RecordCodec,
        damaged: Callable[[bytes, Serialization], None],
    ) -> None:
        self._transaction = transaction
        self._table = table
        self._codec = codec
        self._damaged = damaged

    def since(self, start: bytes, branch: bytes = ROOT, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """The names from ``start`` on."""
        with self._transaction.cursor(self._table) as cursor:
            if not cursor.set_range(branch + start[:CUT]):
                return
            for key, value in cursor.iternext():
                if not key.startswith(branch):
                    return
                rest = key[len(branch) :]
                if len(rest) > CUT:
                    part = rest[:CUT]
                    beyond = start[CUT:] if start.startswith(part) else b""
                    for name, document in self._inside(key, value, beyond, depth):
                        yield part + name, document
                elif rest >= start:
                    if len(value) == DOCUMENT.size:
                        yield rest, value
                    else:
                        self._damaged(key, Serialization("the name of a document leads nowhere"))

    def _inside(self, key: bytes, value: bytes, start: bytes, depth: int) -> Iterator[tuple[bytes, bytes]]:
        if depth == _DEEPEST:
            self._damaged(key, Serialization("the names of documents lead in circles"))
            return
        try:
            branch = branch_of(self._codec, key, value)
        except Serialization as error:
            self._damaged(key, error)
        else:
            yield from self.since(start, branch, depth + 1)
