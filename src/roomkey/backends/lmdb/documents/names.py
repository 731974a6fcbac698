"""
The table of names, which is longer than a key can be and still in the order of bytes.

A key is a branch followed by the rest of a name. A name with a rest longer than ``CUT`` goes on in another branch:
the key of its first ``CUT`` bytes with a zero byte behind them has that branch for a value. Nothing that is not
longer can stand between the two, so a branch lies exactly where its names belong.
"""

from collections.abc import Callable, Iterator
from typing import Final

from roomkey.backends.lmdb.documents.layout import DocumentTables
from roomkey.backends.lmdb.file import Table, Transaction
from roomkey.backends.lmdb.write_batch import Changes

CUT = 500
"""With a branch and a zero byte within LMDB's 511 bytes for a key; a name has three parts at most."""

ROOT: Final = bytes(4)
_MORE: Final = b"\0"


def find(get: Callable[[bytes], bytes | None], name: bytes) -> bytes | None:
    """The document of this name, as ``get`` reads the table."""
    branch = ROOT
    while len(name) > CUT:
        following = get(branch + name[:CUT] + _MORE)
        if following is None:
            return None
        branch, name = following, name[CUT:]
    return get(branch + name)


def enter(changes: Changes[DocumentTables], name: bytes, document: bytes, new_branch: Callable[[], bytes]) -> None:
    """Give a document a name that no other one has."""
    table = changes.tables.names
    branch = ROOT
    while len(name) > CUT:
        key = branch + name[:CUT] + _MORE
        following = changes.get(table, key)
        if following is None:
            following = new_branch()
            changes.put(table, key, following)
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
        branch, name = following, name[CUT:]
    changes.remove(table, branch + name)
    while keys and _is_empty(changes.transaction, table, branch):
        key = keys.pop()
        changes.remove(table, key)
        branch = key[: len(ROOT)]


def _is_empty(transaction: Transaction, table: Table, branch: bytes) -> bool:
    with transaction.cursor(table) as cursor:
        return not (cursor.set_range(branch) and cursor.key().startswith(branch))


def walk(transaction: Transaction, table: Table, start: bytes, branch: bytes = ROOT) -> Iterator[tuple[bytes, bytes]]:
    """Names from ``start`` on in the order of their bytes, each with its document."""
    with transaction.cursor(table) as cursor:
        if not cursor.set_range(branch + start[:CUT]):
            return
        for key, value in cursor.iternext():
            if not key.startswith(branch):
                return
            rest = key[len(branch) :]
            if len(rest) > CUT:
                part = rest[:CUT]
                beyond = start[CUT:] if start.startswith(part) else b""
                for name, document in walk(transaction, table, beyond, value):
                    yield part + name, document
            elif rest >= start:
                yield rest, value
