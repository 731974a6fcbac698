"""
Fan-out on this node: channels, bounded outboxes, and what happens when one is full.

Publishing costs the same for any number of members: a frame goes into its channel's queue, and once per turn of
the loop every member is given what is new to it. Nothing here waits. What one outbox is given is in the order in
which it was published in each channel, and with what was sent to it alone in between at its place.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Final, Protocol

from msgspec import Struct

from roomkey.realtime.transport import HIGH_WATER_BYTES, Socket
from roomkey.wire.frame import Frame

CHUNK_BYTES: Final = 256 * 1024
"""A reader that catches up is given so much at a time, so that what is unsent stays bounded in the transport, too."""


SHORTEST_REST_SECONDS: Final = 0.0005
"""Timers of the loop count milliseconds; what is less is no rest."""

LONGEST_REST_SECONDS: Final = 0.005

DEAR_MEMBERS: Final = 32
"""A channel with so many members has a pace of its own: what is published in it waits for more of the same."""

LONGEST_WAIT_SECONDS: Final = 0.016
"""For so long at most, the time of one picture on a screen."""

SHARE_OF_TIME: Final = 0.1
"""Handing out what one publication brings takes no more than this share of the time, as far as the wait allows."""


class Traffic(Struct):
    """Counters of what left this node since it started."""

    messages: int = 0
    bytes: int = 0
    cursors_collapsed: int = 0
    """Cursors that were not sent because a newer one of the same session replaced them."""
    dropped: int = 0
    """Messages that were waiting for a connection when it was closed."""
    slow_closes: int = 0


class Backlog(Protocol):
    """
    What a connection missed while its socket was full, where that can be told more briefly than message by message.

    Documents know what a replica lacks, so nothing that is published has to wait for a reader that is behind.
    """

    def begin(self) -> None:
        """The connection has been given everything up to now, and will miss what comes."""
        ...

    def missed(self, size: int) -> None:
        """Count ``size`` bytes that were published and not given to the connection."""
        ...

    def is_hopeless(self, limit: int) -> bool:
        """Whether more than ``limit`` bytes would be needed to make up for what was missed."""
        ...

    def make_up(self) -> Sequence[Frame]:
        """What stands for everything that was missed; nothing is missed then."""
        ...


class Outbox:
    """
    What waits for one connection.

    ``frames`` is a tuple while it is what many are given, and a list once it is this one's own. While
    ``behind`` the socket is full: cursors then wait apart, and only the newest of each sender. With a
    ``backlog`` nothing that is published waits then.
    """

    __slots__ = ("backlog", "behind", "cursors", "dirty", "frames", "members", "overflowed", "size", "socket")

    def __init__(self, overflowed: Callable[[], None], backlog: Backlog | None = None) -> None:
        """``overflowed`` is called, in the turn in which it happens, when this one reads too slowly."""
        self.overflowed = overflowed
        self.backlog = backlog
        self.socket: Socket | None = None
        self.frames: Sequence[Frame] = ()
        self.cursors: dict[tuple[Channel, Outbox], Frame] | None = None
        self.size = 0
        self.behind = False
        self.dirty = False
        self.members: dict[Channel, Member] | None = None

    def add(self, frames: Sequence[Frame], size: int) -> None:
        """Let ``frames`` of together ``size`` bytes wait behind the others."""
        waiting = self.frames
        if not waiting:
            self.frames = frames
        elif isinstance(waiting, list):
            waiting.extend(frames)
        else:
            self.frames = [*waiting, *frames]
        self.size += size


class Channel:
    """What its members are all given: who they are, and what was published since it was handed out last."""

    __slots__ = ("cursors", "members", "moved", "pending", "rest_until", "size")

    def __init__(self) -> None:
        self.members: dict[Outbox, Member] = {}
        self.pending: list[Frame] = []
        self.size = 0
        self.cursors: dict[Outbox, Frame] = {}
        self.moved = False
        self.rest_until = 0.0


class Member:
    """One connection in one channel. ``seen`` says how much of the pending frames it needs no more."""

    __slots__ = ("box", "channel", "seen")

    def __init__(self, box: Outbox, channel: Channel, seen: int) -> None:
        self.box = box
        self.channel = channel
        self.seen = seen


class Hub:
    """Hands out what is published in channels, and what is sent to single connections. One per node."""

    def __init__(
        self,
        *,
        max_outbox_size: int,
        schedule: Callable[[Callable[[], None]], object] | None = None,
        later: Callable[[float, Callable[[], None]], object] | None = None,
        seconds: Callable[[], float] = perf_counter,
    ) -> None:
        """
        Args:
            max_outbox_size: Bytes that may wait for one connection, as of the end of a turn.
            schedule: Calls a function once, soon; by default at the ``FlushScheduler`` of the running loop.
            later: Calls a function once, after so many seconds; by default the running loop does.
        """
        self.traffic = Traffic()
        self._max_outbox_size = max_outbox_size
        self._schedule = schedule or FlushScheduler()
        self._later = later or _call_later
        self._seconds = seconds
        self._scheduled = False
        self._moved: list[Channel] = []
        self._dirty: list[Outbox] = []

    # --- in and out -----------------------------------------------------------------------------------

    def join(self, box: Outbox, channel: Channel) -> None:
        """Give ``box`` everything that is published in ``channel`` from now on."""
        if box.members is None:
            box.members = {}
        if channel not in box.members:
            box.members[channel] = channel.members[box] = Member(box, channel, len(channel.pending))

    def leave(self, box: Outbox, channel: Channel) -> None:
        """Stop giving ``box`` what is published in ``channel``."""
        if box.members is None or channel not in box.members:
            return
        self._catch_up(box.members.pop(channel))
        channel.cursors.pop(box, None)
        del channel.members[box]

    # --- what is said ---------------------------------------------------------------------------------

    def publish(self, channel: Channel, frame: Frame, sender: Outbox | None = None) -> None:
        """Give ``frame`` to everyone in ``channel``, except its sender."""
        pending = channel.pending
        if sender is not None and (member := channel.members.get(sender)) is not None:
            self._catch_up(member)
            member.seen = len(pending) + 1
        pending.append(frame)
        channel.size += frame.size
        if not channel.moved:
            self._mark(channel)

    def point(self, channel: Channel, frame: Frame, sender: Outbox) -> None:
        """Give a cursor to everyone else in ``channel``, unless the sender's next one comes in the same turn."""
        if channel.cursors.pop(sender, None) is not None:
            self.traffic.cursors_collapsed += 1
        channel.cursors[sender] = frame
        if not channel.moved:
            self._mark(channel)

    def send(self, box: Outbox, frame: Frame) -> None:
        """Give ``frame`` to one connection, behind everything that was published before."""
        if box.members is not None:
            for member in box.members.values():
                if member.seen < len(member.channel.pending):
                    self._catch_up(member)
        box.add([frame], frame.size)
        self.traffic.messages += 1
        self.traffic.bytes += frame.size
        self._touch(box)

    def hold_back(self, box: Outbox) -> None:
        """Stop queueing for ``box``: its backlog makes up for everything once its socket has room, maybe at once."""
        for member in (box.members or {}).values():
            self._catch_up(member)
        self._fall_behind(box)
        self._touch(box)

    def writable(self, box: Outbox) -> None:
        """The socket of ``box`` takes more."""
        if box.behind and box.socket is not None:
            self._catch_up_socket(box, box.socket)

    def flush(self) -> None:
        """Hand out what this turn has brought: to the members, then to their sockets."""
        self._scheduled = False
        moved, self._moved = self._moved, []
        dear: list[tuple[Channel, int]] = []
        begun = 0.0
        for channel in moved:
            if len(channel.members) >= DEAR_MEMBERS:
                begun = begun or self._seconds()
                dear.append((channel, len(channel.pending) + len(channel.cursors)))
            self._spread(channel)
        dirty, self._dirty = self._dirty, []
        for box in dirty:
            box.dirty = False
            socket = box.socket
            if socket is None or box.behind or socket.buffered() > HIGH_WATER_BYTES:
                self._write(box)
            elif frames := box.frames:
                # What _write would do, without the call: this is the loop that all deliveries go through.
                box.frames, box.size = (), 0
                socket.send(frames)
        if dear:
            done = self._seconds()
            each = (done - begun) / max(len(dirty), 1)
            for channel, published in dear:
                self._let_rest(channel, each * len(channel.members) / max(published, 1), done)

    def flush_box(self, box: Outbox) -> None:
        """Hand out now what waits for ``box``, because it is about to be closed."""
        if box.members is not None:
            for member in box.members.values():
                self._catch_up(member)
        self._write(box)

    def discard(self, box: Outbox) -> None:
        """Drop what waits for ``box``, whose connection is gone."""
        waiting = len(box.frames) + len(box.cursors or ())
        self.traffic.dropped += waiting
        self.traffic.messages -= waiting
        self.traffic.bytes -= box.size
        box.frames, box.cursors, box.size = (), None, 0

    # --- the turn of the loop -------------------------------------------------------------------------

    def _mark(self, channel: Channel) -> None:
        channel.moved = True
        if channel.rest_until and (rest := channel.rest_until - self._seconds()) > 0.0:
            self._later(rest, partial(self._rested, channel))
        else:
            self._rested(channel)

    def _rested(self, channel: Channel) -> None:
        channel.rest_until = 0.0
        self._moved.append(channel)
        self._wake()

    def _let_rest(self, channel: Channel, cost: float, now: float) -> None:
        """``cost`` are the seconds that it takes to hand out one publication."""
        rest = min(cost / SHARE_OF_TIME - cost, LONGEST_WAIT_SECONDS)
        channel.rest_until = now + rest if rest > SHORTEST_REST_SECONDS else 0.0

    def _touch(self, box: Outbox) -> None:
        if not box.dirty:
            box.dirty = True
            self._dirty.append(box)
            self._wake()

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

    def _spread(self, channel: Channel) -> None:
        pending, cursors = channel.pending, channel.cursors
        # One tuple for all who get the same: a transport recognises it when it writes it to many sockets.
        shared = (*pending, *cursors.values())
        size = channel.size + sum(frame.size for frame in cursors.values())
        channel.pending, channel.cursors, channel.size, channel.moved = [], {}, 0, False
        dirty = self._dirty
        common = 0
        for box, member in channel.members.items():
            if member.seen or box.behind or (cursors and box in cursors):
                self._spread_specially(member, pending, cursors)
                continue
            if box.frames:
                box.add(shared, size)
            else:
                box.frames = shared
                box.size += size
            common += 1
            if not box.dirty:
                box.dirty = True
                dirty.append(box)
        self.traffic.messages += common * len(shared)
        self.traffic.bytes += common * size

    def _spread_specially(self, member: Member, pending: list[Frame], cursors: dict[Outbox, Frame]) -> None:
        """To one who is not given what all are: it has seen a part, is the sender of a part, or is behind."""
        box, channel = member.box, member.channel
        frames = pending[member.seen :]
        member.seen = 0
        if box.behind and box.backlog is not None:
            box.backlog.missed(sum(frame.size for frame in frames))
            self._touch(box)
            return
        others = [(sender, frame) for sender, frame in cursors.items() if sender is not box]
        if not box.behind:
            frames.extend(frame for _, frame in others)
        self._give(box, frames)
        if box.behind:
            for sender, frame in others:
                self._keep_newest(box, channel, sender, frame)
        if frames or others:
            self._touch(box)

    def _catch_up(self, member: Member) -> None:
        pending, box = member.channel.pending, member.box
        if member.seen == len(pending):
            return
        if box.behind and box.backlog is not None:
            box.backlog.missed(sum(frame.size for frame in pending[member.seen :]))
        else:
            self._give(box, pending[member.seen :])
        member.seen = len(pending)
        self._touch(box)

    def _give(self, box: Outbox, frames: list[Frame]) -> None:
        if frames:
            size = sum(frame.size for frame in frames)
            box.add(frames, size)
            self.traffic.messages += len(frames)
            self.traffic.bytes += size

    def _keep_newest(self, box: Outbox, channel: Channel, sender: Outbox, frame: Frame) -> None:
        if box.cursors is None:
            box.cursors = {}
        replaced = box.cursors.pop((channel, sender), None)
        box.cursors[channel, sender] = frame
        growth = frame.size
        if replaced is None:
            self.traffic.messages += 1
        else:
            self.traffic.cursors_collapsed += 1
            growth -= replaced.size
        box.size += growth
        self.traffic.bytes += growth

    def _write(self, box: Outbox) -> None:
        socket = box.socket
        if socket is None:
            return
        has_room = socket.buffered() <= HIGH_WATER_BYTES
        if not has_room:
            self._fall_behind(box)
        if not box.behind:
            frames = box.frames
            box.frames, box.size = (), 0
            if frames:
                socket.send(frames)
        elif self._is_too_slow(box):
            self.traffic.slow_closes += 1
            self.discard(box)
            box.overflowed()
        elif has_room and box.backlog is not None:
            self._catch_up_socket(box, socket)

    def _fall_behind(self, box: Outbox) -> None:
        if not box.behind:
            box.behind = True
            if box.backlog is not None:
                box.backlog.begin()

    def _is_too_slow(self, box: Outbox) -> bool:
        most = self._max_outbox_size
        return box.size > most or (box.backlog is not None and box.backlog.is_hopeless(most))

    def _catch_up_socket(self, box: Outbox, socket: Socket) -> None:
        # The transport calls again once it had more than the high-water mark and has little again. So there is
        # no stopping in between: either it has more, or nothing is left.
        while socket.buffered() <= HIGH_WATER_BYTES and self._refill(box):
            chunk, size = _chunk(box.frames)
            box.frames = box.frames[len(chunk) :]
            box.size -= size
            socket.send(chunk)
        box.behind = bool(box.frames or box.cursors) or socket.buffered() > HIGH_WATER_BYTES

    def _refill(self, box: Outbox) -> bool:
        """Let what was kept apart wait in line when the line is empty; whether anything waits."""
        if not box.frames and box.cursors:
            box.frames, box.cursors = list(box.cursors.values()), None
        if not box.frames and box.backlog is not None:
            frames = box.backlog.make_up()
            self._give(box, list(frames))
        return bool(box.frames)


def _call_later(seconds: float, function: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, function)


def _chunk(frames: Sequence[Frame]) -> tuple[Sequence[Frame], int]:
    size = 0
    for count, frame in enumerate(frames):
        size += frame.size
        if size >= CHUNK_BYTES:
            return frames[: count + 1], size
    return frames, size


class FlushScheduler:
    """
    When the hub is flushed: in the next turn of the loop, or, after a long flush, once a rest of its length is over.

    So flushing takes half of the time at most. In the rest the loop reads what others have sent meanwhile, and
    it leaves together, in one write for each member instead of many: what is busy gets faster, and what is not
    is not delayed.
    """

    def __init__(self, seconds: Callable[[], float] = perf_counter) -> None:
        self._seconds = seconds
        self._rest_until = 0.0

    def __call__(self, flush: Callable[[], None]) -> None:
        """Have ``flush`` called once."""
        loop = asyncio.get_running_loop()
        rest = self._rest_until - self._seconds()
        if rest < SHORTEST_REST_SECONDS:
            loop.call_soon(self._run, flush)
        else:
            loop.call_later(rest, self._run, flush)

    def _run(self, flush: Callable[[], None]) -> None:
        begun = self._seconds()
        flush()
        done = self._seconds()
        self._rest_until = done + min(done - begun, LONGEST_REST_SECONDS)
