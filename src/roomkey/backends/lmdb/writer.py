"""
The one thread that writes: everything that waits goes into one transaction, one fsync, one answer.

While one batch waits for the disk, the next one collects. Filling a transaction takes many short calls, each
of which gives the interpreter's lock away; a busy event loop would take it every time and give it back after
five milliseconds. So the loop stands still for the moment it takes to fill a transaction, and works while
the writer waits for the disk. It is told what became of a batch when it is asked to stand still for the next
one, or at once when nothing follows. All writers of a loop share one budget of standing still.
"""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import lmdb
import structlog

from roomkey.backends.lmdb.file import FileSystemSettings, MappedFile, Transaction, reason_of
from roomkey.backends.lmdb.write_batch import Changes
from roomkey.errors import RoomkeyError, Storage

T = TypeVar("T")
FileT = TypeVar("FileT", bound=MappedFile[Any])
ChangesT = TypeVar("ChangesT", bound=Changes[Any])

READER_CHECK_SECONDS: Final = 60.0
"""How often the traces of processes that died while reading are removed; they keep old pages from being reused."""

STANDSTILL_SECONDS: Final = 0.02
"""
The longest that the loop stands still for its writers before it has a turn for everybody else, and that a writer waits
for it. Filling a transaction takes one or two milliseconds.
"""

PING_SECONDS: Final = 1.0
"""A commit that is as recent as this shows that writing works."""

ROOM_AFTER_TROUBLE: Final = 1024 * 1024
"""So many bytes must fit on the disk again before a storage that failed calls itself healthy."""

_log = structlog.get_logger("roomkey.storage")


class _Waiting(NamedTuple):
    """A change, and the future of whoever asked for it."""

    future: "asyncio.Future[Any]"
    change: Callable[[Any], Any]


class _Answer(NamedTuple):
    """What became of a change, for whoever asked for it."""

    future: "asyncio.Future[Any]"
    result: Any
    error: Exception | None = None


class _Pause:
    """The loop stands still from ``begun`` to ``over``; both are locked until it is so."""

    __slots__ = ("begun", "over")

    def __init__(self) -> None:
        self.begun = Lock()
        self.over = Lock()
        self.begun.acquire()
        self.over.acquire()


class _Commits(NamedTuple):
    """
    What is known of the commits to a file: those of ``others``, up to ours with the number ``ours``.

    LMDB numbers all commits, whoever makes them. One value, because the loop looks at it while the writer goes on.
    """

    others: int
    ours: int

    def and_ours(self, number: int) -> "_Commits":
        """The same with a commit of ours; nobody else can commit until it is made."""
        return _Commits(self.others_at(number - 1), number)

    def others_at(self, last: int) -> int:
        """How many others there are when ``last`` is the last of all."""
        return self.others + max(0, last - self.ours)


class Standstill:
    """
    How long a loop may still stand still. Two writers that ask one after the other get no more than one would.

    Once it has begun, everything that waits for the loop has a turn before the budget is whole again.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._left = STANDSTILL_SECONDS

    def spend(self, wait: Callable[[float], object]) -> None:
        """Call ``wait``, which blocks the loop, with the seconds that are left."""
        if self._left == STANDSTILL_SECONDS:
            loop = asyncio.get_running_loop()
            # Not in the next turn: in that, a writer that asks meanwhile comes before what arrives from outside.
            loop.call_soon(loop.call_soon, self._renew)
        began = self._clock()
        wait(self._left)
        self._left = max(0.0, self._left - (self._clock() - began))

    def _renew(self) -> None:
        self._left = STANDSTILL_SECONDS


_standstills: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Standstill]] = WeakKeyDictionary()
"""One for each loop, because its writers belong to stores that do not know each other."""


class _Spoiled(Exception):  # nobody's error: the others of the batch start over without it
    """A change failed after it had begun to write."""

    def __init__(self, waiting: _Waiting, error: Exception) -> None:
        super().__init__()
        self.waiting = waiting
        self.error = error


class Writer(Generic[FileT, ChangesT]):
    """
    Carries changes from the event loop to the file.

    Its methods are called on the loop's thread; ``open_file`` and ``begin``, which makes of a transaction what
    changes are given, are called on the writer's. ``trouble`` says why a commit failed, until a ``ping`` succeeds.
    """

    def __init__(
        self,
        directory: Path,
        settings: FileSystemSettings,
        *,
        open_file: Callable[[Path, FileSystemSettings], FileT],
        begin: Callable[[Transaction, FileT], ChangesT],
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._open_file = open_file
        self._begin = begin
        self._timeout = settings.timeout.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._standstill = _standstills.setdefault(self._loop, Standstill())
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._answered_at = monotonic()
        self._watch: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._opened: asyncio.Future[FileT] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._closing = False
        self._answers: list[_Answer] = []
        self._checked_readers_at = monotonic()
        self._thread = Thread(target=self._run, name="roomkey-lmdb-writer", daemon=True)
        self._committed_at = 0.0
        self._commits = _Commits(0, 0)
        self.trouble: str | None = None

    async def open(self) -> FileT:
        """
        Open the file and begin to work.

        Raises:
            Storage: If the directory cannot be used, or another process does not let go of it.
        """
        self._thread.start()
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(self._opened)
        except TimeoutError:
            self._queue.put(None)
            raise Storage(f"{self._directory}: another process does not let go of it") from None

    async def submit(self, change: Callable[[ChangesT], T]) -> T:
        """
        The result of ``change`` once it is durable. Waits for room when too many wait already.

        A caller that is cancelled does not know whether its change was made.

        Raises:
            Storage: If the disk refuses, or does not answer in time; the change may then still be made.
        """
        while len(self._unanswered) >= self._settings.max_waiting:
            await self._wait_for_room()
        return await self.enqueue(change)

    def enqueue(self, change: Callable[[ChangesT], T]) -> "asyncio.Future[T]":
        """Like ``submit`` for a change that cannot wait for room. Nobody needs to look at the future."""
        if self._closing:
            raise Storage("the storage is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        if self._watch is None:
            self._answered_at = monotonic()
            self._watch = self._loop.call_later(self._timeout / 8, self._check_progress)
        self._unanswered.add(future)
        self._queue.put(_Waiting(future, change))
        return future

    async def ping(self) -> None:
        """
        Return when something could be written a moment ago, or can be now.

        Raises:
            Storage: As ``submit``.
        """
        if self.trouble is not None:
            # On a full disk small changes still find room in pages that others left: that is no recovery.
            await self.submit(partial(_probe, size=ROOM_AFTER_TROUBLE))
            self.trouble = None
        elif monotonic() - self._committed_at < PING_SECONDS:
            return
        await self.submit(partial(_probe, size=0))

    def degradations(self) -> Mapping[str, str]:
        """What health says while commits fail."""
        return {} if self.trouble is None else {f"disk of {self._directory.name}": self.trouble}

    def commits_of_others(self) -> int:
        """How many commits other processes have made since the file was opened here. A look takes a microsecond."""
        # In this order: the other way round a commit of ours in between would count as one of others.
        last = self._file.environment.info()["last_txnid"]
        return self._commits.others_at(last)

    async def close(self) -> None:
        """Finish what waits, close the file, end the thread. Nobody may read any more."""
        self._closing = True
        self._queue.put(None)
        try:
            async with asyncio.timeout(self._timeout):
                await self._ended.wait()
        except TimeoutError:
            raise Storage(f"{self._directory}: the disk does not answer") from None
        finally:
            if self._watch is not None:
                self._watch.cancel()

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout(self._timeout):
                await self._room.wait()
        except TimeoutError:
            raise Storage(f"{self._directory}: the disk does not answer") from None

    def _check_progress(self) -> None:
        self._watch = None
        if not self._unanswered:
            return
        self._watch = self._loop.call_later(self._timeout / 8, self._check_progress)
        if monotonic() - self._answered_at > self._timeout:
            self.trouble = "the disk does not answer"
            # They stay in the set, which bounds the queue, until the thread has got rid of them.
            for future in self._unanswered:
                if not future.done():
                    _fail(future, Storage(f"{self._directory}: the disk does not answer"))

    def _settle(self, answers: list[_Answer]) -> None:
        self._answered_at = monotonic()
        for future, result, error in answers:
            self._unanswered.discard(future)
            if future.done():  # cancelled, or given up
                continue
            if error is None:
                future.set_result(result)
            else:
                _fail(future, error)
        self._room.set()

    def _stand_still(self, answers: list[_Answer], pause: "_Pause") -> None:
        self._settle(answers)
        pause.begun.release()
        self._standstill.spend(partial(pause.over.acquire, True))  # Lock takes no keyword for it

    # --- on the writer's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._file = self._open_file(self._directory, self._settings)
            self._commits = _Commits(0, self._file.environment.info()["last_txnid"])
        except Exception as error:  # noqa: BLE001  # it is raised where somebody can act on it
            self._on_loop_soon(self._opened.set_exception, error)
            return
        self._on_loop_soon(self._opened.set_result, self._file)
        running = True
        while running:
            batch, running = self._collect(wait=not self._answers)
            if batch:
                answers = self._write(batch)  # replaces the list of answers
                self._answers.extend(answers)
            else:
                self._tell()
        self._tell()
        self._file.close()
        self._on_loop_soon(self._ended.set)

    def _collect(self, *, wait: bool) -> tuple[list[_Waiting], bool]:
        """What waits, and whether to go on after it."""
        batch: list[_Waiting] = []
        take = self._queue.get_nowait
        try:
            waiting = self._queue.get() if wait else take()
            while waiting is not None:
                batch.append(waiting)
                if len(batch) == self._settings.max_batch:
                    return batch, True
                waiting = take()
        except Empty:
            return batch, True
        return batch, False

    def _write(self, batch: list[_Waiting]) -> list[_Answer]:
        """Commit the batch, whatever that takes; what became of each change."""
        failed: list[_Answer] = []
        try:
            while True:
                try:
                    return failed + self._attempt(batch)
                except _Spoiled as spoiled:
                    failed.append(_Answer(spoiled.waiting.future, None, spoiled.error))
                    batch = [waiting for waiting in batch if waiting is not spoiled.waiting]
                except lmdb.MapFullError:
                    self._while_nobody_reads(self._file.grow)
                except lmdb.MapResizedError:
                    self._while_nobody_reads(self._file.adopt_size)
        except lmdb.Error as error:
            self.trouble = reason_of(error)
        except Storage as error:
            self.trouble = str(error)
        except Exception:  # noqa: BLE001
            # A defect. The thread must go on, or everybody would wait for ever.
            self.trouble = "the changes could not be written down"
            _log.exception("storage_writer_failed")
        _log.error("storage_write_failed", reason=self.trouble, changes=len(batch))
        message = f"{self._directory}: {self.trouble}"
        return failed + [_Answer(future, None, Storage(message)) for future, _ in batch]

    def _attempt(self, batch: list[_Waiting]) -> list[_Answer]:
        transaction = self._file.environment.begin(write=True)
        before, self._commits = self._commits, self._commits.and_ours(transaction.id())
        committed = False
        try:
            with self._while_the_loop_stands_still():
                commit = self._begin(transaction, self._file)
                answers = [_apply(commit, waiting) for waiting in batch]
                if commit.writes:
                    commit.close()
            if commit.writes:
                transaction.commit()
                committed = True
                self._committed_at = monotonic()
        finally:
            if not committed:
                self._commits = before
            transaction.abort()  # does nothing after a commit
        self._check_readers()
        return answers

    @contextmanager
    def _while_the_loop_stands_still(self) -> Generator[None]:
        pause = _Pause()
        answers, self._answers = self._answers, []
        self._on_loop_soon(self._stand_still, answers, pause)
        # A loop that is busy with something else for so long is not waited for.
        pause.begun.acquire(timeout=STANDSTILL_SECONDS)
        try:
            yield
        finally:
            pause.over.release()

    def _check_readers(self) -> None:
        now = monotonic()
        if now - self._checked_readers_at > READER_CHECK_SECONDS:
            self._checked_readers_at = now
            self._file.environment.reader_check()

    def _while_nobody_reads(self, function: Callable[[], None]) -> None:
        """
        Run ``function`` on the loop's thread and wait for it.

        No read is in progress there between two callbacks, because none awaits.
        """
        done = Event()
        errors: list[Exception] = []

        def run() -> None:
            try:
                function()
            except (lmdb.Error, Storage) as error:
                errors.append(error)
            finally:
                done.set()

        self._on_loop_soon(run)
        if not done.wait(self._timeout):
            raise Storage("the event loop does not answer")
        if errors:
            raise errors[0]

    def _tell(self) -> None:
        if self._answers:
            answers, self._answers = self._answers, []
            self._on_loop_soon(self._settle, answers)

    def _on_loop_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # asyncio then does not complain if nobody else looks at it


def _probe(commit: Changes[Any], size: int) -> None:
    commit.probe(size)


def _apply(commit: Changes[Any], waiting: _Waiting) -> _Answer:
    future, change = waiting
    before = commit.writes
    try:
        return _Answer(future, change(commit))
    except RoomkeyError as error:
        if commit.writes == before:
            return _Answer(future, None, error)
        raise _Spoiled(waiting, error) from error
    except lmdb.BadValsizeError as error:
        raise _Spoiled(waiting, Storage("a key is longer than LMDB allows")) from error
    except lmdb.Error:
        raise
    except Exception as error:
        # A defect, of one change: the others must not suffer from it.
        _log.exception("storage_change_failed")
        raise _Spoiled(waiting, Storage("the change could not be written down")) from error
