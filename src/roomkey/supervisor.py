"""
One supervisor and its workers, which serve one socket: both ends of the pipes between them. Knows nothing of Roomkey.

A worker inherits the listening socket. Not one socket each with SO_REUSEPORT: there the system gives a connection to
one of them before it is accepted, so those that wait for a worker that is killed are lost with it; a port that is
taken would not be noticed, because the two servers would share it; and macOS does not share it out.

What a worker is told comes through its standard input: first a brief, later orders. The end of that input tells it
that the supervisor is gone, however it went. What it has to say itself goes through a pipe, whose number is its first
argument; that of the socket is the second.
"""

import json
import os
import random
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

FORCED: Final = 1
"""The exit code after a second signal, and if a worker did not end well."""

_LENGTH_BYTES: Final = 8


class Order(Enum):
    """What a worker is told to do."""

    STOP = b"s"
    """Send clients away, finish requests, and end."""
    END = b"e"
    """End at once."""
    RELOAD = b"r"
    """Read anew what is read from files."""
    ORPHANED = b""
    """The supervisor is gone: as ``STOP``, and leave the port to its successor now."""


class Refused(Exception):
    """No worker can start, as one of them has found out; ``problems`` are the reasons."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class NeverReady(Exception):
    """Every worker has died several times, and none was ever ready."""


@dataclass(frozen=True, kw_only=True)
class SupervisorSettings:
    """How many workers there are, and how patient their supervisor is; times are in seconds."""

    workers: int
    stop_seconds: float
    """Time that workers have to end when they are told to stop; then they are killed."""
    end_seconds: float = 5.0
    """The same when they are told to end at once."""
    start_seconds: float = 60.0
    """Time that a worker has until it is ready; then it is killed."""
    tries: int = 4
    """How often each worker is started before the supervisor gives up, if none was ever ready."""
    first_pause: float = 0.25
    """Pause before a dead worker is started again. It doubles with each death, and a random part of up to half is left
    out, so that workers that died together do not come back together."""
    longest_pause: float = 30.0
    passes_hangup: bool = False
    """Whether SIGHUP tells workers to read their files anew; otherwise it does what it does to every process."""
    settled_after: float = 60.0
    """A worker that was ready for so long begins with the first pause again when it dies."""


Ready = Callable[[Sequence[Mapping[str, Any]]], None]
"""Called once, with what each worker has said that is ready, when the server can be announced."""

Warn = Callable[..., None]
"""Reports an event, by its name and with fields."""


@dataclass
class _Worker:
    """A process, from its start until it is buried."""

    process: "subprocess.Popen[bytes]"
    orders: int
    """The end of a pipe: its standard input is the other one."""
    report: int
    """The same for what it has to say."""
    begun_at: float
    ready_at: float | None = None
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problems: Sequence[str] = ()
    heard: bytes = b""
    dismissed: bool = False

    def tell(self, order: Order) -> None:
        """Give it an order; nobody hears it if the worker is dead."""
        with suppress(OSError):
            os.write(self.orders, order.value)

    def dismiss(self) -> None:
        """End it while it starts, when it does not listen to orders yet."""
        self.dismissed = True
        self.process.terminate()


@dataclass
class _Place:
    """One of the workers that there should be."""

    number: int
    due: float
    worker: _Worker | None = None
    deaths: int = 0
    """In a row, without having settled in between."""


class Supervisor:
    """Starts workers, starts those anew that die, and ends them all when it is told to end."""

    def __init__(
        self,
        command: Sequence[str],
        brief: bytes,
        *,
        listener: socket.socket,
        settings: SupervisorSettings,
        ready: Ready,
        warn: Warn,
    ) -> None:
        """``command`` starts a worker, which is given the two numbers as further arguments."""
        self._command = command
        self._brief = brief
        self._listener = listener
        self._settings = settings
        self._ready = ready
        self._warn = warn
        self._places = [_Place(number, due=0.0) for number in range(1, settings.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._signals = 0
        self._reloads = 0
        self._announced = False
        self._was_ready = False
        self._stopping = False
        self._forced = False
        self._deadline: float | None = None
        self._ended_badly = False

    def run(self) -> int:
        """
        Supervise until a signal and the end of all workers. Returns the exit code.

        The first SIGTERM or SIGINT lets workers end well, the second at once. Call it in the main thread.

        Raises:
            Refused: If a worker cannot start as it is configured, before any was announced.
            NeverReady: If workers die before one is ready, over and over.
        """
        with self._selector, self._hearing_signals():
            try:
                while not (self._stopping and not self._alive()):
                    self._start_those_due()
                    self._wait()
                    self._hear_signals()
                    self._bury_the_dead()
                    self._announce()
                    self._kill_the_late()
            finally:
                self._end_all()
        return FORCED if self._forced or self._ended_badly else 0

    # --- starting -------------------------------------------------------------------------------------

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.worker is None and not self._stopping and place.due <= now:
                place.worker = self._start()
                self._selector.register(place.worker.report, selectors.EVENT_READ, place.worker)

    def _start(self) -> _Worker:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        ears, orders = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603  # what the operator has started, with other arguments
                [*self._command, str(writing), str(self._listener.fileno())],
                stdin=ears,
                stdout=1,  # by their numbers they are inherited even if they were opened late
                stderr=2,
                pass_fds=(writing, self._listener.fileno()),
                process_group=0,  # an interrupt from the keyboard is for the supervisor, which passes it on once
            )
        finally:
            os.close(writing)
            os.close(ears)
        message = len(self._brief).to_bytes(_LENGTH_BYTES) + self._brief
        with suppress(BrokenPipeError):  # it died already, which is found out like any other death
            while message:
                message = message[os.write(orders, message) :]
        return _Worker(process, orders, reading, time.monotonic())

    def _announce(self) -> None:
        """Say that the server serves, once every worker was ready or has failed to be, and one is ready."""
        ready = [worker for worker in self._alive() if worker.ready_at is not None]
        waited_for = [
            place
            for place in self._places
            if not place.deaths and (place.worker is None or place.worker.ready_at is None)
        ]
        if ready and not waited_for and not self._announced and not self._stopping:
            self._announced = True
            self._ready([worker.said for worker in ready])

    # --- listening ------------------------------------------------------------------------------------

    @contextmanager
    def _hearing_signals(self) -> Generator[None]:
        """Count SIGTERM and SIGINT, and wake up for these and for the end of a worker."""
        ear, mouth = socket.socketpair()

        def count(_number: int, _frame: object) -> None:
            self._signals += 1

        def reload(_number: int, _frame: object) -> None:
            self._reloads += 1

        def wake(_number: int, _frame: object) -> None:
            pass  # what counts is that the system call was interrupted

        handlers = {signal.SIGTERM: count, signal.SIGINT: count, signal.SIGCHLD: wake}
        if self._settings.passes_hangup:
            handlers[signal.SIGHUP] = reload
        before = {number: signal.getsignal(number) for number in handlers}
        with ear, mouth:
            ear.setblocking(False)
            mouth.setblocking(False)
            former = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
            self._selector.register(ear, selectors.EVENT_READ)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(former)

    def _wait(self) -> None:
        """Return when something has happened or is due."""
        starting = [worker for worker in self._alive() if worker.ready_at is None]
        moments = [place.due for place in self._places if place.worker is None and not self._stopping]
        moments += [worker.begun_at + self._settings.start_seconds for worker in starting]
        if self._deadline is not None:
            moments.append(self._deadline)
        timeout = max(min(moments) - time.monotonic(), 0) if moments else None
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, _Worker):
                self._hear(key.data)
            else:
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)

    def _hear(self, worker: _Worker) -> None:
        """Take in what a worker has said."""
        try:
            while part := os.read(worker.report, 65_536):
                worker.heard += part
        except BlockingIOError:
            pass
        else:
            self._forget(worker)  # it is about to end; that it has ended is heard by a signal
        *lines, worker.heard = worker.heard.split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "refused" in said:
                worker.problems = said["refused"]
            else:
                worker.said, worker.ready_at = said["ready"], time.monotonic()
                self._was_ready = True

    def _hear_signals(self) -> None:
        if self._reloads:
            self._reloads = 0
            for worker in self._alive():
                if worker.ready_at is not None:  # one that starts reads them anyway
                    worker.tell(Order.RELOAD)
        if self._signals and not self._stopping:
            self._stopping = True
            self._listener.close()  # those who still serve have it, too
            self._tell_all(Order.STOP)
            self._deadline = time.monotonic() + self._settings.stop_seconds
        if self._signals > 1 and not self._forced:
            self._forced = True
            self._tell_all(Order.END)
            soon = time.monotonic() + self._settings.end_seconds
            self._deadline = soon if self._deadline is None else min(self._deadline, soon)

    def _tell_all(self, order: Order) -> None:
        for worker in self._alive():
            worker.tell(order)
            if worker.ready_at is None:
                worker.dismiss()

    # --- burying --------------------------------------------------------------------------------------

    def _alive(self) -> Sequence[_Worker]:
        return [place.worker for place in self._places if place.worker is not None]

    def _bury_the_dead(self) -> None:
        for place in self._places:
            if place.worker is not None and place.worker.process.poll() is not None:
                self._bury(place, place.worker)

    def _bury(self, place: _Place, worker: _Worker) -> None:
        self._hear(worker)
        self._close(worker)
        place.worker = None
        code = worker.process.returncode
        if self._stopping:
            self._ended_badly |= code != 0 and not worker.dismissed
            return
        if worker.problems and not self._announced:
            raise Refused(worker.problems)
        now = time.monotonic()
        if worker.ready_at is not None and now - worker.ready_at >= self._settings.settled_after:
            place.deaths = 0
        place.deaths += 1
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self._was_ready and min(each.deaths for each in self._places) >= self._settings.tries:
            raise NeverReady(f"no worker was ever ready; the last one ended with {how}, and its own words are above")
        pause = self._pause(place.deaths)
        place.due = now + pause
        self._warn(
            "worker_died",
            worker=place.number,
            pid=worker.process.pid,
            **{key: value for key, value in worker.said.items() if key == "node"},
            **({"problems": worker.problems} if worker.problems else {}),
            how=how,
            again_in_seconds=round(pause, 2),
        )

    def _pause(self, deaths: int) -> float:
        settings = self._settings
        whole = min(settings.first_pause * 2.0 ** min(deaths - 1, 30), settings.longest_pause)
        return whole * random.uniform(0.5, 1.0)  # noqa: S311  # jitter is no secret

    def _kill_the_late(self) -> None:
        now = time.monotonic()
        is_over = self._deadline is not None and now >= self._deadline
        for worker in self._alive():
            late = worker.ready_at is None and now >= worker.begun_at + self._settings.start_seconds
            if late or is_over:
                self._warn("worker_killed", pid=worker.process.pid, reason="it did not end" if is_over else "not ready")
                worker.process.kill()
                worker.process.wait()
        if is_over:
            self._deadline = None

    def _end_all(self) -> None:
        """Leave no process behind, whatever happened here."""
        workers = self._alive()
        for worker in workers:
            worker.tell(Order.END)
            if worker.ready_at is None:
                worker.dismiss()
        deadline = time.monotonic() + self._settings.end_seconds
        for worker in workers:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._close(worker)

    def _forget(self, worker: _Worker) -> None:
        with suppress(KeyError):
            self._selector.unregister(worker.report)

    def _close(self, worker: _Worker) -> None:
        self._forget(worker)
        os.close(worker.report)
        os.close(worker.orders)


# --- the worker's end of the pipes ------------------------------------------------------------------------


def read_brief() -> bytes:
    """What the supervisor wants this worker to know. Raises ``EOFError`` if the supervisor is gone."""
    length = int.from_bytes(_read_exactly(_LENGTH_BYTES))
    return _read_exactly(length)


def hear_orders(obey: Callable[[Order], None], *, orphan_seconds: float) -> None:
    """
    Call ``obey`` with each order, in a thread that lasts as long as the process; the last one is ``ORPHANED``.

    After that the process has ``orphan_seconds`` to end, and is ended then, even if its loop hangs: nobody else would.
    """

    def listen() -> None:
        order = None
        while order is not Order.ORPHANED:
            order = Order(os.read(0, 1))
            obey(order)
        time.sleep(orphan_seconds)
        os._exit(FORCED)

    threading.Thread(target=listen, name="orders", daemon=True).start()


def report_ready(pipe: int, said: Mapping[str, Any]) -> None:
    """Tell the supervisor that this worker serves, and what it has to know of it."""
    _report(pipe, {"ready": said})


def report_refused(pipe: int, problems: Sequence[str]) -> None:
    """Tell the supervisor that no worker can start, and why."""
    _report(pipe, {"refused": problems})


def _report(pipe: int, message: Mapping[str, Any]) -> None:
    with suppress(OSError):  # the supervisor is gone, which is heard as an order
        os.write(pipe, json.dumps(message).encode() + b"\n")


def _read_exactly(length: int) -> bytes:
    content = b""
    while len(content) < length:
        if not (part := os.read(0, length - len(content))):
            raise EOFError
        content += part
    return content
