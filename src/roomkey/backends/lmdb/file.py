"""The data file: opening it, its size, one moment of it, and what its errors mean."""

import errno
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import lmdb
from msgspec import Struct

from roomkey.backends.damage import DamageNotes
from roomkey.backends.lmdb.layout import FORMAT, FORMAT_KEY, PLAIN_FORMAT
from roomkey.errors import Storage, advice_on, explain
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, RecordCodec, SealingCodec

# The stubs give it no public name.
Table: TypeAlias = "lmdb._Database"  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Cursor: TypeAlias = "lmdb.Cursor[bytes]"

DATA_FILE: Final = "data.mdb"


class FileSystemSettings(Struct, frozen=True, kw_only=True):
    """
    How a ``FileSystemSessionStorage`` works, or a ``FileSystemDocumentStore``.

    ``map_size`` is the address space that is reserved first, in bytes; it doubles when it is used up, and
    takes no space on the disk. ``max_readers`` is how many processes may have the file open at a time; the
    first one decides. ``max_waiting`` bounds the writes that wait for the disk, beyond it callers wait for
    room; ``max_batch`` bounds those that share one commit. ``timeout`` is how long the disk may take.
    ``flush_interval`` is how long the touch of a session may be visible before it is durable. Without
    ``durable`` nothing is forced to the disk: a crash of the process loses nothing, one of the machine may lose
    everything, so that is for tests and data of no value.
    """

    map_size: int = 64 * 1024 * 1024
    max_readers: int = 126
    max_waiting: int = 4096
    max_batch: int = 512
    timeout: timedelta = timedelta(seconds=30)
    flush_interval: timedelta = timedelta(seconds=1)
    durable: bool = True


class AnyTables(Protocol):
    """The tables of some file. Each has one for what is no data, which the mark of its format is in."""

    @property
    def meta(self) -> Table: ...


class StoreTables(AnyTables, Protocol):
    """The tables of a store, which puts aside what is damaged."""

    @property
    def aside(self) -> Table: ...


class Format(NamedTuple):
    """
    What a file is, as its mark says; a file with another mark is not touched.

    ``content`` is what it keeps. The mark is ``plain_mark`` if its records have no checksums, where there may be such.
    """

    mark: bytes
    content: str
    plain_mark: bytes | None = None


TablesT = TypeVar("TablesT", bound=AnyTables)
StoreTablesT = TypeVar("StoreTablesT", bound=StoreTables)


class MappedFile(Generic[TablesT]):
    """
    An open data file. ``grow`` and ``adopt_size`` may only be called while nobody reads or writes.

    ``codec`` is what its records go through; whoever reads or writes one sees to that. Where many are read or
    written, ``PLAIN_RECORDS`` is not even called: that would take a tenth of the time. ``names`` are those of its
    tables, of which ``tables`` makes one value. ``readahead`` is for values of many pages.

    A file whose records have no checksums keeps them so: it decides which of ``PLAIN_RECORDS`` and
    ``CHECKSUMMED_RECORDS`` is its codec, whichever of the two it was given, and through which of them a
    ``SealingCodec`` reads what is not sealed. ``damage`` is told of every record that
    cannot be read.

    Raises:
        Storage: On construction, if the directory cannot be used; the message says why in one line.
    """

    def __init__(
        self,
        directory: Path,
        settings: FileSystemSettings,
        codec: RecordCodec,
        *,
        names: Sequence[str],
        tables: Callable[..., TablesT],
        format: Format,
        readahead: bool = False,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self.codec = codec
        self.damage = DamageNotes(format.content)
        self._names = names
        self._make_tables = tables
        self._format = format
        self._readahead = readahead
        self._is_plain = False
        with clear_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open(settings.map_size)

    def _open(self, map_size: int) -> None:
        self.environment = lmdb.Environment(
            os.fsencode(self._directory),  # given text, LMDB fails for what the locale cannot spell
            map_size=map_size,
            mode=0o700,  # LMDB makes the files with the same mode less the execute bits
            max_readers=self._settings.max_readers,
            max_dbs=len(self._names),
            max_spare_txns=1,
            sync=self._settings.durable,
            # Where small values are read in no order, reading ahead would only fill the memory.
            readahead=self._readahead,
        )
        try:
            self._check_length()
            self.environment.reader_check()
            self.tables = self._open_tables()
        except BaseException:
            self.environment.close()
            raise

    def _open_tables(self) -> TablesT:
        while True:
            try:
                with self.environment.begin(write=True) as transaction:
                    tables = self._make_tables(
                        *(self.environment.open_db(name.encode(), transaction) for name in self._names)
                    )
                    mark = transaction.get(FORMAT_KEY, db=tables.meta)
                    if mark is None:
                        mark = self._new_mark()
                        transaction.put(FORMAT_KEY, mark, db=tables.meta)
            except lmdb.MapResizedError:
                self.adopt_size()
                continue
            self._heed(mark)
            return tables

    def _new_mark(self) -> bytes:
        mark, _, plain_mark = self._format
        return mark if self.codec is not PLAIN_RECORDS or plain_mark is None else plain_mark

    @property
    def has_checksums(self) -> bool:
        """Whether its records carry checksums, as far as they are not sealed."""
        return not self._is_plain and self.codec is not PLAIN_RECORDS

    def _heed(self, found: bytes) -> None:
        mark, _, plain_mark = self._format
        if found not in (mark, plain_mark):
            raise Storage(f"{self._directory} was written by another version of Roomkey, or is damaged")
        if plain_mark is None:
            return
        self._is_plain = found == plain_mark
        unsealed = PLAIN_RECORDS if self._is_plain else CHECKSUMMED_RECORDS
        if isinstance(self.codec, SealingCodec):
            self.codec = self.codec.reading(unsealed)
        elif self.codec in (PLAIN_RECORDS, CHECKSUMMED_RECORDS):
            self.codec = unsealed

    def _check_length(self) -> None:
        # Pages are read from a memory map: one that is not there would end the process with SIGBUS.
        pages = self.environment.info()["last_pgno"] + 1
        size = pages * self.environment.stat()["psize"]
        if (self._directory / DATA_FILE).stat().st_size < size:
            raise Storage(f"{self._directory / DATA_FILE} is damaged: its end is missing")

    def grow(self) -> None:
        """Double the map. Costs address space only."""
        self._resize(self.environment.info()["map_size"] * 2)

    def _resize(self, size: int) -> None:
        before = self.environment.info()["map_size"]
        try:
            self.environment.set_mapsize(size)
        except lmdb.Error:
            # LMDB has already given up the old map.
            self.environment.close()
            self._open(before)
            raise

    def adopt_size(self) -> None:
        """Take over the size of the map that another process has made larger."""
        self.environment.set_mapsize(0)

    def close(self) -> None:
        """Close the file; every transaction must have ended."""
        self.environment.close()


class Tables(NamedTuple):
    """The tables of ``layout``."""

    sessions: Table
    users: Table
    epochs: Table
    deadlines: Table
    ended: Table
    events: Table
    slots: Table
    meta: Table
    aside: Table


class DataFile(MappedFile[Tables]):
    """The file that sessions are in."""

    def __init__(self, directory: Path, settings: FileSystemSettings, codec: RecordCodec) -> None:
        super().__init__(directory, settings, codec, names=Tables._fields, tables=Tables, format=_FORMAT)


_FORMAT: Final = Format(FORMAT, "sessions", PLAIN_FORMAT)


class ReadTransaction(Generic[TablesT]):
    """
    A file as it is at one moment. Used as a context manager, inside which LMDB's errors become ``Storage``.

    Nothing inside may await: the map may change its size between two turns of the event loop.
    """

    __slots__ = ("_file", "_get", "_transaction")

    def __init__(self, file: MappedFile[TablesT]) -> None:
        self._file = file

    def __enter__(self) -> Self:
        try:
            self._transaction = self._begin()
        except lmdb.Error as error:
            raise Storage(reason_of(error)) from error
        self._get = self._transaction.get
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.abort()
        if isinstance(error, lmdb.Error):
            raise Storage(reason_of(error)) from error

    def _begin(self) -> Transaction:
        try:
            return self._file.environment.begin()
        except lmdb.MapResizedError:
            self._file.adopt_size()
            return self._file.environment.begin()

    def _keys(self, table: Table, start: bytes) -> Iterator[bytes]:
        with self._transaction.cursor(table) as cursor:
            if cursor.set_range(start) if start else cursor.first():
                yield from cursor.iternext(keys=True, values=False)


def step_before(cursor: Cursor, key: bytes) -> bool:
    """Place ``cursor`` at the last key before ``key``; whether there is one."""
    return cursor.prev() if cursor.set_range(key) else cursor.last()


@contextmanager
def clear_errors(directory: Path) -> Generator[None]:
    """Turn what LMDB and the system raise into ``Storage`` with one line that says what is wrong."""
    try:
        yield
    except lmdb.Error as error:
        raise Storage(f"{directory}: {reason_of(error)}{advice_on(error.code)}") from error
    except OSError as error:
        raise Storage(f"{directory}: {explain(error)}") from error


def check(directory: Path) -> None:
    """Raise ``Storage`` if ``directory`` has a data file that cannot be opened. Changes nothing, and takes no lock."""
    if os.path.exists(directory / DATA_FILE):  # noqa: PTH110  # unlike Path.exists it never raises
        with clear_errors(directory):
            lmdb.Environment(os.fsencode(directory), readonly=True, lock=False, create=False).close()


def reason_of(error: lmdb.Error) -> str:
    """What ``error`` means to whoever operates the machine."""
    for kinds, meaning in _MEANINGS.items():
        if isinstance(error, kinds):
            return meaning
    if error.code == errno.EIO:
        # LMDB's word for a write that ended early, which is how the first one ends on a full disk.
        return "the disk is full or does not work"
    if error.code > 0:
        return os.strerror(error.code).lower()
    return "it is already open in this process" if "already open" in str(error) else str(error)


_MEANINGS: Final[Mapping[tuple[type[lmdb.Error], ...], str]] = {
    (lmdb.InvalidError, lmdb.VersionMismatchError): "it has a data file that is not Roomkey's, or is damaged",
    (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError): "the data file is damaged",
    (lmdb.ReadersFullError,): "too many processes have the data file open",
    (lmdb.MapFullError, lmdb.MemoryError): "no address space is left for the memory map",
}
