"""
Sending to one endpoint what waits for it: on one node at a time, at least once, in the order of each lane.

What is to be sent is read from the outbox into a window of a bounded size, lane by lane, in a circle, so that none is
overlooked. Whatever was answered goes from the store together with the record of its delivery: if the process is killed
between, the message is sent again, under the same id. A message that fails is put off, and its lane with it; to an
endpoint that is away one message at a time is sent, with growing pauses. When it is back, everything is tried at once.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Final, Literal, Protocol

import msgspec
import structlog
from msgspec import Struct

from roomkey.errors import Conflict, RoomkeyError
from roomkey.hooks.backlog import Backlog, EndpointFigures
from roomkey.hooks.contents import Contents
from roomkey.hooks.deliveries import Delivery, Records
from roomkey.hooks.events import AnyHookEvent, message
from roomkey.hooks.outbox import (
    SPACE,
    Entry,
    Outbox,
    decode_entry,
    encode,
    figures_of,
    is_replaced,
    out_of,
)
from roomkey.hooks.pace import LONGEST_WAIT_SECONDS, Pace, pause_after
from roomkey.hooks.posting import Answer, NoAnswer
from roomkey.hooks.settings import WebhookEndpoint, WebhookSettings
from roomkey.leasing import Chore
from roomkey.ports import Clock, NamedObject, ObjectStore
from roomkey.security.signatures import headers

WINDOW: Final = 2_000
"""Messages that are in memory at a time."""

READ_AT_ONCE: Final = 500
SETTLED_AT_ONCE: Final = 400

MAX_PUT_OFF: Final = 20_000
"""Lanes of which it is remembered how often they failed; the oldest of further ones are tried too soon."""

POLL_SECONDS: Final = 0.5
"""How often it is looked for what other nodes have put in."""

IDLE_SHARE: Final = 10
"""Looking through everything that waits takes at most one part in so many of the time."""

OTHERS_SECONDS: Final = 2.0
"""Seconds after which a node asks again whether it is its turn."""

CENSUS_SECONDS: Final = 2.0
"""How often what waits is counted."""

_log = structlog.get_logger("roomkey.hooks")


class Posting(Protocol):
    """Posts messages to an endpoint."""

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post one. Raises ``NoAnswer``."""
        ...

    def close(self) -> None:
        """Close the connections that are kept: they belong to this event loop."""
        ...


GONE: Final = 410

_BUSY: Final = frozenset({429, 503})
"""What somebody answers who may say when to come back."""

LINGER_SECONDS: Final = 0.02
"""Time for which what is done with waits for more, because a commit costs what one costs."""

LONGEST_REST_SECONDS: Final = 5.0


class _Waiting(Struct, frozen=True):
    """A message that waits, as it was read."""

    name: str
    revision: int
    entry: Entry


class _PutOff(Struct, frozen=True):
    """How often the first message of a lane has failed, and until when it is not tried again."""

    failures: int
    until: float


class Sender:
    """
    Sends to one endpoint, whenever no other node does. ``run`` works until it is cancelled.

    ``figures`` say how the endpoint stood when that was last looked at here; ``None`` if it is another node's turn.
    """

    def __init__(  # noqa: PLR0913  # each is a part that it works with
        self,
        endpoint: WebhookEndpoint,
        settings: WebhookSettings,
        *,
        node: str,
        objects: ObjectStore,
        outbox: Outbox,
        contents: Contents,
        posting: Posting,
        clock: Clock,
        chore: Chore,
    ) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.node = node
        self.objects = objects
        self.outbox = outbox
        self.contents = contents
        self.posting = posting
        self.clock = clock
        self._chore = chore
        self._turn: _Turn | None = None
        self._is_failing = False

    @property
    def figures(self) -> EndpointFigures | None:
        """How the endpoint stands; ``None`` if another node sends to it."""
        return None if self._turn is None else self._turn.figures()

    def put_in(self) -> None:
        """There is something new for it."""
        if self._turn is not None:
            self._turn.put_in.set()

    async def run(self) -> None:
        """Send whenever no other node does, until cancelled."""
        try:
            while True:
                try:
                    await self._chore.attempt(self._work)
                except RoomkeyError as error:
                    if not self._is_failing:
                        _log.warning("webhooks_not_sent", endpoint=self.endpoint.name, reason=str(error))
                    self._is_failing = True
                await asyncio.sleep(OTHERS_SECONDS)
        finally:
            await self._chore.release()

    async def _work(self, _token: int) -> None:
        # No fence: what two nodes might send is the same message under the same id, and what they take out is that.
        self._is_failing = False
        turn = self._turn = _Turn(self)
        try:
            await turn.run()
        finally:
            self._turn = None


class _Turn:
    """The time in which this node sends to an endpoint."""

    def __init__(self, sender: Sender) -> None:
        self._endpoint = sender.endpoint
        self._settings = sender.settings
        self._node = sender.node
        self._objects = sender.objects
        self._outbox = sender.outbox
        self._contents = sender.contents
        self._posting = sender.posting
        self._now = sender.clock.now
        self._time = asyncio.get_running_loop().time
        self._keys = sender.endpoint.keys()
        self._pace = Pace(self._time)
        self._prefix = out_of(sender.endpoint.name)
        self._lanes: dict[str, deque[_Waiting]] = {}
        """The window: what is read of each lane, in order."""
        self._names: set[str] = set()
        """What is in the window, or was and is not taken out of the store yet."""
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        """Lanes whose first message may be sent: not more than there are in the window."""
        self._put_off: OrderedDict[str, _PutOff] = OrderedDict()
        self._settled: deque[tuple[_Waiting, Delivery]] = deque()
        self._backlog = Backlog(sender.objects, self._prefix)
        self._records = Records(sender.objects, sender.endpoint.name, sender.settings, sender.clock)
        self.put_in = asyncio.Event()
        self._has_settled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._waiting = 0
        self._oldest: datetime | None = None
        self._delivered = self._failed = self._attempts_failed = self._dropped = 0
        self._last_failure: tuple[datetime, str] | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        await self._records.load()
        try:
            async with asyncio.TaskGroup() as crew:
                crew.create_task(self._read())
                crew.create_task(self._settle())
                crew.create_task(self._count())
                for _ in range(self._settings.max_in_flight):
                    crew.create_task(self._deliver())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self._posting.close()

    @property
    def _is_disabled(self) -> bool:
        return self._endpoint.name in self._outbox.disabled

    # --- reading --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read everything that waits, from the first to the last, again and again."""
        after, spent = "", 0.0
        while True:
            if len(self._names) >= WINDOW:
                self._has_room.clear()
                await self._has_room.wait()
            self.put_in.clear()
            begun = self._time()
            found = await self._objects.list(SPACE, prefix=self._prefix, after=after, limit=READ_AT_ONCE)
            lanes = _by_lane(found, self._prefix)
            if len(found) == READ_AT_ONCE and len(lanes) > 1:
                lanes.popitem()  # the rest of it may be behind
            for lane, stored in lanes.items():
                self._take_in(lane, stored)
                after = stored[-1].name
            spent += self._time() - begun
            if len(found) < READ_AT_ONCE:
                await asyncio.sleep(min(spent * IDLE_SHARE, LONGEST_REST_SECONDS))
                await _wait(self.put_in, POLL_SECONDS)
                after, spent = "", 0.0

    def _take_in(self, lane: str, stored: Sequence[NamedObject]) -> None:
        put_off = self._put_off.get(lane)
        if put_off is not None and put_off.until > self._time():
            return
        found = [self._readable(each) for each in stored if each.name not in self._names]
        waiting = sorted((each for each in found if each is not None), key=lambda each: each.entry.order)
        if not waiting:
            return
        self._names.update(each.name for each in waiting)
        if lane in self._lanes:
            self._lanes[lane].extend(waiting)
        else:
            self._lanes[lane] = deque(waiting)
            self._ready.put_nowait(lane)

    def _readable(self, stored: NamedObject) -> _Waiting | None:
        try:
            return _Waiting(stored.name, stored.revision, decode_entry(stored.value))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            _log.error("webhook_unreadable", endpoint=self._endpoint.name, name=stored.name)
            return None

    # --- delivering -----------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            lane = await self._ready.get()
            alone = await self._pace.turn()
            while self._is_disabled:  # noqa: ASYNC110  # any node may enable it
                await asyncio.sleep(POLL_SECONDS)
            await self._deliver_first(lane, alone=alone)

    async def _deliver_first(self, lane: str, *, alone: bool) -> None:
        """Send the first message of the lane, and do what follows; ``alone``: to see if the endpoint is back."""
        waiting = self._lanes[lane][0]
        failures = self._put_off[lane].failures if lane in self._put_off else 0
        begun, answer, reason = self._time(), None, None
        try:
            answer = await self._post(waiting.entry)
        except NoAnswer as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # nothing was sent, and that is not the endpoint's fault
            if alone:
                self._pace.pass_on()
            self._not_made(lane, error)
            self._try_later(lane, self._record(waiting, "failed", failures + 1, 0.0, None, "it could not be made"))
            return
        seconds, status = self._time() - begun, None if answer is None else answer.status
        if status == GONE and await self._disable():
            if alone:
                self._pace.pass_on()
            self._ready.put_nowait(lane)
        elif status is not None and 200 <= status < 300:
            self._succeed(lane, self._record(waiting, "delivered", failures + 1, seconds, status))
        else:
            reason = reason or _reason(status)
            self._fail(answer, reason, alone=alone)
            self._try_later(lane, self._record(waiting, "failed", failures + 1, seconds, status, reason))

    def _try_later(self, lane: str, failure: Delivery) -> None:
        """Put the lane off, or give its first message up if it has failed for too long."""
        if failure.at - failure.event.at >= self._settings.retry_for:
            self._failed += 1
            self._go_on(lane, failure)
        else:
            self._put_lane_off(lane, failure.attempts)

    def _not_made(self, lane: str, error: Exception) -> None:
        if isinstance(error, RoomkeyError):
            self._note(f"the document could not be read: {error}")
            return
        self._note(f"a message could not be made: {type(error).__name__}")
        _log.error("webhook_not_made", endpoint=self._endpoint.name, lane=lane, exc_info=error)

    async def _post(self, entry: Entry) -> Answer:
        event: AnyHookEvent = entry.event
        form = self._endpoint.content
        if form is not None:
            event = await self._contents.attach(event, form, self._settings.max_content_bytes)
        body = message(event)
        return await self._posting.post(headers(self._keys, entry.id, self._now(), body), body)

    def _record(
        self,
        waiting: _Waiting,
        state: Literal["delivered", "failed"],
        attempts: int,
        seconds: float,
        status: int | None,
        reason: str | None = None,
    ) -> Delivery:
        return Delivery(
            id=waiting.entry.id,
            state=state,
            at=self._now(),
            attempts=attempts,
            seconds=round(seconds, 4),
            event=waiting.entry.event,
            status=status,
            reason=reason,
        )

    def _succeed(self, lane: str, delivery: Delivery) -> None:
        self._delivered += 1
        if self._pace.answered():
            _log.info("webhook_answers", endpoint=self._endpoint.name, waiting=self._waiting)
            self._put_off.clear()
            self.put_in.set()
        self._go_on(lane, delivery)

    def _go_on(self, lane: str, delivery: Delivery) -> None:
        """The first message of the lane is done with: the next one has its turn."""
        self._put_off.pop(lane, None)
        messages = self._lanes[lane]
        self._settled.append((messages.popleft(), delivery))
        self._has_settled.set()
        if messages:
            self._ready.put_nowait(lane)
        else:
            del self._lanes[lane]

    def _fail(self, answer: Answer | None, reason: str, *, alone: bool) -> None:
        was_away = self._pace.is_away
        busy = answer is not None and answer.status in _BUSY
        self._pace.failed(alone=alone, retry_after=answer.retry_after if answer is not None and busy else None)
        self._attempts_failed += 1
        self._note(reason)
        if self._pace.is_away and not was_away:
            _log.warning("webhook_away", endpoint=self._endpoint.name, reason=reason)

    def _note(self, reason: str) -> None:
        self._last_failure = self._now(), reason

    def _put_lane_off(self, lane: str, failures: int) -> None:
        """Let go of the lane; it is read again when it is time."""
        self._names.difference_update(each.name for each in self._lanes.pop(lane))
        self._has_room.set()
        until = self._time() + pause_after(failures, LONGEST_WAIT_SECONDS)
        self._put_off[lane] = _PutOff(failures, until)
        self._put_off.move_to_end(lane)
        if len(self._put_off) > MAX_PUT_OFF:
            self._put_off.popitem(last=False)

    async def _disable(self) -> bool:
        """Send nothing more, because the endpoint says that it is gone; whether that could be written down."""
        try:
            await self._outbox.disable(self._endpoint.name, "the endpoint answered 410 Gone")
        except RoomkeyError:
            return False
        _log.warning("webhook_disabled", endpoint=self._endpoint.name, reason="it answered 410 Gone")
        return True

    # --- taking out -----------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Take out of the store what is done with, and keep the record of it."""
        pause = LINGER_SECONDS
        while True:
            if not self._settled:
                self._has_settled.clear()
                await self._has_settled.wait()
            await asyncio.sleep(pause)
            some = [*islice(self._settled, SETTLED_AT_ONCE)]
            try:
                await self._take_out(some)
            except RoomkeyError as error:
                self._note(f"deliveries could not be recorded: {error}")
                pause = min(2 * pause, LONGEST_REST_SECONDS)
                continue
            pause = LINGER_SECONDS
            for waiting, _ in some:
                self._settled.popleft()
                self._names.discard(waiting.name)
            self._has_room.set()

    async def _take_out(self, some: Sequence[tuple[_Waiting, Delivery]]) -> None:
        changes: dict[str, bytes | None] = {each.name: None for each, _ in some if not is_replaced(each.name)}
        changes |= self._records.added([delivery for _, delivery in some])
        latest = {each.name: each.revision for each, _ in some if is_replaced(each.name)}
        while True:
            expected = await self._unchanged(latest)
            try:
                await self._objects.commit(SPACE, changes | dict.fromkeys(expected), expected=expected)
            except Conflict:
                continue  # one of them was replaced at this moment: that one stays
            return

    async def _unchanged(self, revisions: Mapping[str, int]) -> Mapping[str, int]:
        """Those of which nothing newer has come meanwhile."""
        if not revisions:
            return {}
        found = await self._objects.get_many(SPACE, [*revisions])
        pairs = zip(revisions.items(), found, strict=True)
        return {name: revision for (name, revision), now in pairs if now is not None and now.revision == revision}

    # --- counting -------------------------------------------------------------------------------------

    async def _count(self) -> None:
        """Count what waits, drop what is too much, and let others know."""
        while True:
            begun = self._time()
            with suppress(RoomkeyError):  # that the store is away is said by itself
                await self._look_through()
                await self._records.forget_old()
                await self._objects.commit(SPACE, {figures_of(self._endpoint.name): encode(self.figures())})
            spent = self._time() - begun
            await asyncio.sleep(max(CENSUS_SECONDS, spent * IDLE_SHARE))

    async def _look_through(self) -> None:
        count, self._oldest = await self._backlog.count()
        most = self._settings.max_waiting
        if self._is_disabled and self._oldest is not None and self._now() - self._oldest > self._settings.retry_for:
            most = 0
        if count > most:
            if not self._dropped:
                _log.error("webhooks_dropped", endpoint=self._endpoint.name, most=self._settings.max_waiting)
            self._dropped += await self._backlog.drop_oldest(count - most)
        self._waiting = min(count, most)

    def figures(self) -> EndpointFigures:
        """How the endpoint stands."""
        at, reason = self._last_failure or (None, None)
        dropped = self._dropped + self._outbox.dropped.get(self._endpoint.name, 0)
        return EndpointFigures(
            at=self._now(),
            node=self._node,
            waiting=self._waiting,
            oldest=self._oldest,
            delivered=self._delivered,
            failed=self._failed,
            attempts_failed=self._attempts_failed,
            dropped=dropped,
            is_away=self._pace.is_away,
            last_failure=reason,
            last_failure_at=at,
        )


def _by_lane(found: Sequence[NamedObject], prefix: str) -> dict[str, list[NamedObject]]:
    lanes: dict[str, list[NamedObject]] = {}
    for each in found:
        lanes.setdefault(each.name[len(prefix) :].partition("/")[0], []).append(each)
    return lanes


def _reason(status: int | None) -> str:
    redirect = status is not None and 300 <= status < 400
    return f"it answered {status}{', and redirects are not followed' if redirect else ''}"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
