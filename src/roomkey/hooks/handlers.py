"""
Functions of the application that are told of events, in its process.

Whatever a function does harms nobody: what it raises is logged and counted, one that takes longer than
``hooks.timeout`` is cancelled, and what waits is bounded. Events of one document (or, without one, of one session) are
told one after the other, in their order; those of different ones at the same time. Nothing is kept on disk: events that
wait when the process is killed are lost.
"""

import asyncio
import inspect
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.access import matches
from roomkey.errors import InvalidInput, RoomkeyError
from roomkey.hooks.contents import Contents
from roomkey.hooks.events import EVERY_TYPE, LATEST_ONLY, AnyHookEvent, ContentForm, DocumentEvent, EventType
from roomkey.ports import Clock

AT_A_TIME: Final = 32
"""Maximum number of functions that are running."""

FLUSH_SECONDS: Final = 5.0
"""Maximum time that shutdown waits for functions."""

ALARM: Final = timedelta(minutes=2)
"""How long health stays degraded after a function failed, or events were dropped."""

LOG_INTERVAL: Final = timedelta(seconds=10)

_log = structlog.get_logger("roomkey.hooks")

HookFunction = Callable[[Any], Awaitable[object]]
"""An async function that is given an event."""


class HandlerStatistics(Struct, frozen=True, kw_only=True):
    """What functions of the application were told since the process started, and what waits."""

    told: int
    failed: int
    """Calls that raised, or were cancelled because they took too long."""
    dropped: int
    """Events that nobody was told, because too many waited."""
    waiting: int


class _Subscription(Struct, frozen=True, eq=False):
    function: HookFunction
    documents: str
    content: ContentForm | None

    def wants(self, event: AnyHookEvent) -> bool:
        return not isinstance(event, DocumentEvent) or matches(self.documents, event.document)


class Handlers:
    """The functions by what they want to be told. ``at_work`` must be entered while anything happens."""

    def __init__(
        self, contents: Contents, clock: Clock, *, timeout: timedelta, max_waiting: int, max_content_bytes: int
    ) -> None:
        self._contents = contents
        self._now = clock.now
        self._timeout = timeout.total_seconds()
        self._max_waiting = max_waiting
        self._max_content = max_content_bytes
        self._subscriptions: dict[EventType, list[_Subscription]] = {}
        self._lanes: OrderedDict[str, deque[AnyHookEvent]] = OrderedDict()
        """What waits, by document or session: the longest waiting first."""
        self._busy: set[str] = set()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._abandoned: set[asyncio.Future[object]] = set()
        self._told = self._failed = self._dropped = 0
        self._trouble: tuple[datetime, str] | None = None
        self._logged_at: datetime | None = None

    def add(
        self,
        types: Iterable[EventType],
        function: HookFunction,
        *,
        documents: str = "**",
        content: ContentForm | None = None,
    ) -> None:
        """
        Tell ``function`` of events of these types from now on.

        Raises:
            InvalidInput: If there is no such type, or it is no coroutine function.
        """
        called = getattr(function, "__call__", None)  # noqa: B004  # objects with an async __call__ count
        if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(called):
            raise InvalidInput("a hook is an async function: one that blocks would stop everybody")
        types = tuple(types)
        for type in types:
            if type not in EVERY_TYPE:
                raise InvalidInput(f"there are no events of the type {type!r}, but {', '.join(EVERY_TYPE)}")
        for type in types:
            self._subscriptions.setdefault(type, []).append(_Subscription(function, documents, content))

    def want(self, type: EventType) -> bool:
        """Whether anybody is told of such events."""
        return type in self._subscriptions

    @property
    def is_used(self) -> bool:
        """Whether anybody is told of anything."""
        return bool(self._subscriptions)

    # --- what waits -----------------------------------------------------------------------------------

    def tell(self, event: AnyHookEvent) -> None:
        """Have everybody told who wants that. Takes a moment; nobody is waited for."""
        if not any(each.wants(event) for each in self._subscriptions.get(event.type, ())):
            return
        name = lane_of(event)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = deque()
        if event.type in LATEST_ONLY:
            for place, waiting in enumerate(lane):
                if waiting.type == event.type:
                    del lane[place]
                    self._waiting -= 1
                    break
        lane.append(event)
        self._waiting += 1
        if self._waiting > self._max_waiting:
            self._drop_oldest()
        self._wake.set()

    def _drop_oldest(self) -> None:
        name, lane = next(iter(self._lanes.items()))
        lane.popleft()
        self._waiting -= 1
        self._dropped += 1
        if not lane:
            del self._lanes[name]
        self._note(f"{self._dropped} events were dropped: functions do not keep up")

    def _next(self) -> tuple[str, AnyHookEvent] | None:
        """The longest waiting event of a document that no function is told of just now."""
        for name, lane in self._lanes.items():
            if name not in self._busy:
                self._busy.add(name)
                event = lane.popleft()
                self._waiting -= 1
                if not lane:
                    del self._lanes[name]
                return name, event
        return None

    # --- telling --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell functions until cancelled."""
        # Anew: those of an earlier run belong to its event loop. Whoever waits already looks again.
        self._idle.set()
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._busy.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            found = self._next()
            if found is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            name, event = found
            try:
                await self._tell_each(event)
            finally:
                self._busy.discard(name)
                self._wake.set()
                self._idle.set()

    async def flush(self) -> None:
        """Wait until everything that waits is told, for a moment at most; ``run`` must be running."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                while self._lanes or self._busy:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            _log.error("hooks_not_told", waiting=self._waiting, running=len(self._busy))

    async def _tell_each(self, event: AnyHookEvent) -> None:
        read: dict[ContentForm, AnyHookEvent] = {}
        for each in self._subscriptions.get(event.type, ()):
            if not each.wants(event):
                continue
            told = event
            if each.content is not None:
                told = read.get(each.content) or await self._with_content(event, each.content)
                read[each.content] = told
            await self._call(each.function, told)

    async def _with_content(self, event: AnyHookEvent, form: ContentForm) -> AnyHookEvent:
        try:
            return await self._contents.attach(event, form, self._max_content)
        except RoomkeyError as error:
            self._note(f"the content of a document could not be read: {error}")
            return replace(event, content_omitted="gone") if isinstance(event, DocumentEvent) else event

    async def _call(self, function: HookFunction, event: AnyHookEvent) -> None:
        # A task of its own: one that does not let itself be cancelled holds up nothing but itself.
        try:
            call = asyncio.ensure_future(function(event))
            done, _ = await asyncio.wait({call}, timeout=self._timeout)
        except Exception as error:  # noqa: BLE001  # whatever the application raises is its own affair
            self._fail(function, event, error)
            return
        if not done:
            call.cancel()
            self._abandoned.add(call)
            call.add_done_callback(self._forget)
            self._fail(function, event, TimeoutError(f"it took longer than {self._timeout:g} s"))
        elif (error := None if call.cancelled() else call.exception()) is not None:
            self._fail(function, event, error)
        else:
            self._told += 1

    def _forget(self, call: "asyncio.Future[object]") -> None:
        self._abandoned.discard(call)
        if not call.cancelled():
            call.exception()  # asyncio then does not complain

    # --- how it does ----------------------------------------------------------------------------------

    def _fail(self, function: HookFunction, event: AnyHookEvent, error: BaseException) -> None:
        self._failed += 1
        name = getattr(function, "__qualname__", type(function).__name__)
        self._note(f"{name} failed: {type(error).__name__}")
        now = self._now()
        if self._logged_at is None or not timedelta() <= now - self._logged_at < LOG_INTERVAL:
            self._logged_at = now
            _log.error("hook_failed", function=name, type=event.type, exc_info=error)

    def _note(self, trouble: str) -> None:
        self._trouble = self._now(), trouble

    def degradations(self) -> dict[str, str]:
        """That functions fail, or do not keep up."""
        if self._trouble is None or self._now() - self._trouble[0] >= ALARM:
            return {}
        at, reason = self._trouble
        return {"hooks": f"at {at:%H:%M:%S}Z: {reason}"}

    def observations(self) -> dict[str, str]:
        """The figures, for health."""
        if not self._subscriptions:
            return {}
        it = self.statistics()
        return {"hooks": f"{it.told} told, {it.waiting} waiting, {it.failed} failed, {it.dropped} dropped"}

    def statistics(self) -> HandlerStatistics:
        """The figures now."""
        return HandlerStatistics(
            told=self._told, failed=self._failed, dropped=self._dropped, waiting=self._waiting + len(self._busy)
        )


def lane_of(event: AnyHookEvent) -> str:
    """What the event is about: those about the same are told one after the other."""
    return f"document {event.document}" if isinstance(event, DocumentEvent) else f"session {event.session_id}"


def types_of(names: EventType | Sequence[EventType]) -> Sequence[EventType]:
    """One type or several."""
    return (names,) if isinstance(names, str) else names
