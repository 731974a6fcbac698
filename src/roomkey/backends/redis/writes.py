"""
The writes: what is read for them, what is decided, and the script that carries it out if all is still as it was read.

Each looks for its own traces when an earlier try of the same call may have done it: the events of a write are in the
log under keys that no others have. So what is repeated is done once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha1
from random import uniform
from typing import Any, Final, NamedTuple

from roomkey.backends.redis.connection import Argument
from roomkey.backends.redis.layout import Partition, id_key, id_of, micros, user_prefix
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import AGAIN, Again, Call, RedisServer
from roomkey.backends.redis.stored import Found, Translator
from roomkey.backends.session_changes import Change, Held, UserRevocation, making_room, revoking
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    LIVE_STATES,
    Deleted,
    Evicted,
    Invalidated,
    Session,
    SessionEvent,
    SessionId,
    UserRevoked,
    partition_of,
    partition_of_id,
)
from roomkey.errors import Conflict, InvalidInput, NotFound, OutcomeUnknown, Serialization, Storage
from roomkey.ports import NewSession, Revocation, Secret

MAX_ROUNDS: Final = 400
"""How often a write decides anew because another came first, before it gives up: each time, another has succeeded."""

REVOKED_AT_ONCE: Final = 200
"""Sessions that are ended in one step of a revocation. Those that remain are dead already, by the epoch."""

_CHANGED: Final = "the session was changed by someone else"
_EXISTS: Final = "a session with this id exists"

_DONE, _MISSING, _LOST, _UNKNOWN, _READ_AGAIN = 1, 0, -1, -2, -3
"""What scripts return."""


class _Group(NamedTuple):
    """New sessions of one user, written down."""

    user: str
    prefix: bytes
    newcomers: Sequence[Argument]
    number: int
    day: int


class Writes:
    """The writes of sessions."""

    PURGE: Final = Script("sessions/purge")
    _READ: Final = Script("sessions/read")
    _CREATE: Final = Script("sessions/create")
    _UPDATE: Final = Script("sessions/update")
    _DELETE: Final = Script("sessions/delete")
    _TOUCH: Final = Script("sessions/touch")
    _SWAP: Final = Script("sessions/swap")
    _USER: Final = Script("sessions/user")
    _REVOKE: Final = Script("sessions/revoke")

    def __init__(self, server: RedisServer, partitions: Sequence[Partition], translator: Translator) -> None:
        self._server = server
        self._partitions = partitions
        self._translator = translator

    # --- create ---------------------------------------------------------------------------------------

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        """``SessionStorage.create``: one step per user."""
        per_user: dict[str, list[NewSession]] = {}
        for each in new:
            per_user.setdefault(each.session.user_id, []).append(each)
        groups = [self._group(user, group) for user, group in per_user.items()]
        if len(groups) == 1:
            return await self._settle(groups[0], policy, now, await self._first_try(groups, policy))
        first = await self._server.run_many([self._creation(group, policy) for group in groups], may_repeat=True)
        outcomes = await asyncio.gather(
            *(self._settle(group, policy, now, [reply]) for group, reply in zip(groups, first, strict=True)),
            return_exceptions=True,
        )
        return [event for outcome in outcomes for event in _or_raise(outcome)]

    def _group(self, user: str, new: Sequence[NewSession]) -> _Group:
        prefix = user_prefix(user)
        if prefix is None:
            raise InvalidInput("a user id has 1 to 256 bytes")
        newcomers = [argument for each in new for argument in self._translator.newcomer(each)]
        return _Group(user, prefix, newcomers, len(new), new[0].event.at.toordinal())

    async def _first_try(self, groups: Sequence[_Group], policy: SessionPolicy) -> list[Any]:
        return [await self._run(self._creation(groups[0], policy))]

    def _creation(
        self, group: _Group, policy: SessionPolicy, digest: str = "", evictions: Sequence[Sequence[Argument]] = ()
    ) -> Call:
        arguments: list[Argument | Again] = [
            AGAIN,
            group.prefix,
            policy.cap - group.number,
            digest,
            group.day,
            len(evictions),
            group.number,
            *(argument for eviction in evictions for argument in eviction),
            *group.newcomers,
        ]
        return Call(self._CREATE, self._partitions[partition_of(group.user)].all, arguments)

    async def _settle(self, group: _Group, policy: SessionPolicy, now: datetime, reply: list[Any]) -> list[Evicted]:
        """Make room as often as somebody else comes between, and say what made it."""
        outcome = reply[0]
        evicted: list[Evicted] = []
        for number in range(MAX_ROUNDS):
            if outcome == _DONE:
                return evicted
            if outcome == _LOST:
                raise Conflict(_EXISTS)
            if outcome == _UNKNOWN:
                raise _unknown()
            changes = making_room(self._live(group.user, outcome), group.number, policy, now)
            evicted = [change.event for change in changes if isinstance(change.event, Evicted)]
            await _give_way(number)
            evictions = [self._translator.change(change) for change in changes]
            outcome = await self._run(self._creation(group, policy, _digest(outcome), evictions))
        raise Storage("too many sessions of this user come at once")

    def _live(self, user: str, reply: Sequence[Any]) -> list[Held]:
        """The sessions that a script found live, without those that are dead by the epoch or damaged."""
        epoch, live = reply
        found = self._readable(user, epoch, live)
        return [each.held for each in found if not each.held.is_dead(epoch)]

    def _readable(self, user: str, epoch: int, live: Sequence[bytes]) -> list[Found]:
        partition = partition_of(user)
        pairs = zip(live[::2], live[1::2], strict=True)
        found = [self._translator.readable(id_of(partition, id), value, epoch) for id, value in pairs]
        return [each for each in found if each is not None]

    # --- update ---------------------------------------------------------------------------------------

    async def update(self, session: Session, event: SessionEvent, secret: Secret | None) -> None:
        """``SessionStorage.update``."""
        for number in range(MAX_ROUNDS):
            found = await self._found(session.id)
            if found is None:
                raise NotFound("there is no such session")
            if not _may_become(found, session):
                raise Conflict(_CHANGED)
            await _give_way(number)
            outcome = await self.change(found, Change.of(found.held, session, event, secret))
            if outcome == _DONE:
                return
            if outcome != _READ_AGAIN:
                raise _refusal(outcome)
        raise Storage("the secret of the session changes all the time")

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        """``SessionStorage.update_many``: one round trip to read, one to write."""
        found = await self._readable_many([session.id for session, _ in changes])
        calls: list[Call] = []
        places: list[int] = []
        for place, (each, (session, event)) in enumerate(zip(found, changes, strict=True)):
            if each is not None and _may_become(each, session):
                calls.append(self._update(each, Change.of(each.held, session, event)))
                places.append(place)
        outcomes = [False] * len(changes)
        # Each looks for its traces, see above.
        for place, outcome in zip(places, await self._server.run_many(calls, may_repeat=True), strict=True):
            outcomes[place] = outcome == _DONE or (
                outcome in {_READ_AGAIN, _UNKNOWN} and await self._updated(*changes[place], outcome)
            )
        return outcomes

    async def _updated(self, session: Session, event: SessionEvent, outcome: int) -> bool:
        if outcome == _UNKNOWN:
            raise _unknown()
        try:
            await self.update(session, event, None)
        except (Conflict, NotFound, Serialization):
            return False
        return True

    async def change(self, found: Found, change: Change, *, even_dead: bool = False) -> int:
        """Carry out a change of what was ``found``; what the script returns."""
        call = self._update(found, change, even_dead=even_dead)
        if change.session.state in LIVE_STATES:
            return await self._run(call)
        return await self._server.run_durably(call, may_repeat=True)  # as `_run`

    def _update(self, found: Found, change: Change, *, even_dead: bool = False) -> Call:
        arguments = [AGAIN, found.record, int(even_dead), *self._translator.change(change)]
        return Call(self._UPDATE, self._single(change.session.id), arguments)

    # --- delete, touch, note --------------------------------------------------------------------------

    async def delete(self, event: Deleted) -> bool:
        """``SessionStorage.delete``."""
        id = id_key(event.session)
        if id is None:
            return False
        if await self._found(event.session) is None:  # one that is damaged is not removed, but shown to an operator
            return False
        arguments = [AGAIN, id, event.version - 1, micros(event.at), *self._translator.event(event)]
        outcome = await self._run(Call(self._DELETE, self._single(event.session), arguments))
        if outcome in {_DONE, _MISSING}:
            return outcome == _DONE
        raise _refusal(outcome)

    async def touch(self, id: SessionId, at: datetime) -> None:
        """``SessionStorage.touch``."""
        key = id_key(id)
        if key is not None:
            keys = self._partitions[partition_of_id(id)].read_keys(key)
            # It only moves forward, so that a second time changes nothing.
            value = await self._server.run(self._TOUCH, keys, (key, micros(at)), may_repeat=True)
            if value is not None:
                self._translator.session(id, value, None)  # to say so, should it be damaged

    async def replace_secret(self, id: SessionId, decide: Callable[[Found], Secret | None]) -> None:
        """Replace the secret by what ``decide`` says, unless that is nothing, and nothing else."""
        for number in range(MAX_ROUNDS):
            found = await self._found(id)
            secret = None if found is None else decide(found)
            key = id_key(id)
            if found is None or secret is None or key is None:
                return
            await _give_way(number)
            record = self._translator.record(found.held.session, secret)
            keys = self._partitions[partition_of_id(id)].read_keys(key)
            # It is only done in the place of what was read; the second time finds itself there.
            if await self._server.run(self._SWAP, keys, (key, found.record, record), may_repeat=True):
                return
        raise Storage("the session changes all the time")

    # --- revoke ---------------------------------------------------------------------------------------

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        """``SessionStorage.revoke_user``: the epoch first, with which all of them are dead; then their events."""
        for number in range(MAX_ROUNDS):
            epoch, kept, live = await self._user(user_id, except_session)
            held = [each.held for each in live if not each.held.is_dead(epoch)]
            decided = revoking(
                user_id, held, None if kept is None else kept.held, epoch=epoch, now=now, actor=actor, reason=reason
            )
            await _give_way(number)
            outcome = await self._revoke(user_id, epoch, decided.root, live, decided.changes)
            if outcome == _UNKNOWN:
                raise _unknown()
            if outcome != _LOST:
                listed, outcomes = outcome
                events: list[UserRevoked | Invalidated] = [decided.root, *_done(decided, outcomes)]
                if listed > (decided.root.session is not None):
                    events += await self._end_the_rest(decided)
                return Revocation(decided.epoch, events)
        raise Storage("the user is revoked all the time")

    async def _end_the_rest(self, decided: UserRevocation) -> list[Invalidated]:
        """End what is still listed as live, in steps; whoever is asked about it says already that it is over."""
        root = decided.root
        events: list[Invalidated] = []
        for number in range(MAX_ROUNDS):
            epoch, _, live = await self._user(root.user, None)
            dead = [each for each in live if each.held.is_dead(decided.epoch)]
            rest = revoking(
                root.user,
                [each.held for each in dead],
                None,
                epoch=decided.epoch - 1,
                now=root.at,
                actor=root.actor,
                reason=root.reason,
            )
            if not dead:
                break
            await _give_way(number)
            outcome = await self._revoke(root.user, epoch, None, dead, rest.changes)
            if not isinstance(outcome, int):
                events += _done(rest, outcome[1])
        return events  # should there be more, the janitor gives them theirs

    async def _user(self, user_id: str, kept: SessionId | None) -> tuple[int, Found | None, list[Found]]:
        partition = self._partitions[partition_of(user_id)]
        key = None if kept is None else id_key(kept)
        if key is None or kept is None or partition_of_id(kept) != partition.number:
            key = kept = None  # one of another partition is not this user's
        prefix = user_prefix(user_id)
        if prefix is None:
            raise InvalidInput("a user id has 1 to 256 bytes")
        arguments = (prefix, REVOKED_AT_ONCE, key or b"")
        epoch, value, live = await self._server.run(self._USER, partition.all, arguments, may_repeat=True)  # it reads
        found = None if value is None or kept is None else self._translator.readable(kept, value, epoch)
        return epoch, found, self._readable(user_id, epoch, live)

    async def _revoke(
        self,
        user_id: str,
        epoch: int,
        root: UserRevoked | None,
        live: Sequence[Found],
        changes: Sequence[Change],
    ) -> Any:
        records: Mapping[SessionId, bytes] = {each.held.session.id: each.record for each in live}
        kept = None if root is None or root.session is None else id_key(root.session)
        event = (b"", b"", b"") if root is None else (micros(root.at), *self._translator.event(root))
        arguments: list[Argument | Again] = [
            AGAIN,
            user_prefix(user_id) or b"",
            epoch,
            kept or b"",
            *event,
            len(changes),
        ]
        for change in changes:
            arguments += [records[change.session.id], *self._translator.change(change)]
        keys = self._partitions[partition_of(user_id)].all
        # It looks for its traces, see above.
        return await self._server.run_durably(Call(self._REVOKE, keys, arguments), may_repeat=True)

    # --- parts ----------------------------------------------------------------------------------------

    async def _run(self, call: Call) -> Any:
        # It looks for its traces, see above.
        return await self._server.run_call(call, may_repeat=True)

    def _single(self, id: SessionId) -> Sequence[bytes]:
        key = id_key(id)
        assert key is not None  # noqa: S101  # whoever has a session has found it
        return self._partitions[partition_of_id(id)].single[key[0] >> 4]

    async def _found(self, id: SessionId) -> Found | None:
        (reply,) = await self._read([id])
        return self._translator.found(id, *_both(reply)) if reply else None

    async def _readable_many(self, ids: Sequence[SessionId]) -> list[Found | None]:
        replies = await self._read(ids)
        return [
            self._translator.readable(id, *_both(reply)) if reply else None
            for id, reply in zip(ids, replies, strict=True)
        ]

    async def _read(self, ids: Sequence[SessionId]) -> list[Any]:
        keys = [id_key(id) for id in ids]
        calls = [
            Call(self._READ, self._partitions[partition_of_id(id)].read_keys(key), (key,))
            for id, key in zip(ids, keys, strict=True)
            if key is not None
        ]
        replies = iter(await self._server.run_many(calls, may_repeat=True))  # they change nothing
        return [None if key is None else next(replies) for key in keys]


def _may_become(found: Found, session: Session) -> bool:
    return found.held.session.version == session.version - 1 and not found.held.is_dead(found.epoch)


def _done(decided: UserRevocation, outcomes: Sequence[int]) -> list[Invalidated]:
    """The events of the changes that were carried out."""
    done = [change.event for change, outcome in zip(decided.changes, outcomes, strict=True) if outcome == _DONE]
    return [event for event in done if isinstance(event, Invalidated)]


def _digest(reply: Sequence[Any]) -> str:
    """What tells the script that the live sessions of a user are as they were when it returned them."""
    epoch, live = reply
    return sha1(b"%d" % epoch + b"".join(live), usedforsecurity=False).hexdigest()


def _both(reply: Sequence[Any]) -> tuple[bytes, bytes | None]:
    return reply[0], reply[1] if len(reply) > 1 else None


def _or_raise(outcome: list[Evicted] | BaseException) -> list[Evicted]:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _refusal(outcome: int) -> Exception:
    if outcome == _MISSING:
        return NotFound("there is no such session")
    if outcome == _LOST:
        return Conflict(_CHANGED)
    if outcome == _UNKNOWN:
        return _unknown()
    return Serialization("a session record is damaged")


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown("the log has grown so much that an earlier try is not found in it; look first")


async def _give_way(number: int) -> None:
    """After a few rounds, let those who come between finish."""
    if number > 2:  # races of two or three are over by then
        await asyncio.sleep(uniform(0, 0.001 * min(number, 20)))  # noqa: S311  # spread, not secrecy
