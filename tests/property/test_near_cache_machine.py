"""
Nothing that was overtaken by what a node has heard is ever answered by its near-cache.

Reads of storage are on their way as long as the machine likes; so is what the node hears of commits on others, in any
order and more than once.
"""

from collections.abc import Awaitable, Coroutine, Generator
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import AnyEvent, IssuedSession, SessionId, UserRevoked, partition_of_id
from roomkey.errors import InvalidState
from roomkey.ports import Secret
from roomkey.sessions import near_cache
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.near_cache import NearCache
from roomkey.testing.clock import ManualClock
from tests.support.effort import examples
from tests.support.sessions import NOON, Session

T = TypeVar("T")
NUMBERS = st.integers(0, 3)


class Pause:
    """Where a read waits until the machine sends it on."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SlowStorage(MemorySessionStorage):
    """A storage whose answers are on their way for as long as the machine likes."""

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        found = await super().get_with_secret(id)
        await Pause()
        return found


class Read(NamedTuple):
    id: SessionId
    work: Coroutine[Any, Any, object]


def done(work: Awaitable[T]) -> T:
    """The result of what does not wait, but for reads, which are sent on at once."""
    steps = work.__await__()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class NearCacheMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(NOON)
        self.storage = SlowStorage()
        self.cache = NearCache(self.storage, capacity=3, now=lambda: self.clock.now().timestamp())
        self.here = SessionManager(self.storage, clock=self.clock, cache=self.cache)
        self.elsewhere = SessionManager(self.storage, clock=self.clock)
        self.unheard: list[AnyEvent] = []
        self.heard: list[AnyEvent] = []
        self.reads: list[Read] = []
        self.least: dict[SessionId, int] = {}
        """The versions of sessions that this node has heard of."""
        self.read_at: dict[SessionId, float] = {}
        self.ended_by: dict[int, dict[SessionId, int]] = {}
        """What versions a revocation of a user led to, by the epoch and user."""
        self.here.on_events(self.note)
        self.elsewhere.on_events(self.unheard.extend)
        self.issued: list[IssuedSession] = [
            done(self.elsewhere.create_session(user, activate=True)) for user in ("alice", "alice", "bob", "bob")
        ]
        self.unheard.clear()

    # --- what happens elsewhere and here ----------------------------------------------------------------

    def change(self, manager: SessionManager, number: int, command: str) -> None:
        id = self.issued[number].id
        try:
            match command:
                case "suspend":
                    done(manager.suspend_session(id))
                case "resume":
                    done(manager.resume_session(id))
                case "invalidate":
                    done(manager.invalidate_session(id))
                case "grant":
                    done(manager.change_grants(id, [Grant("a", Access.READ), Grant(str(len(self.heard)), Access.READ)]))
                case "rotate":
                    self.issued[number] = done(manager.rotate_token(id))
                case _:
                    self.revoke(manager, self.issued[number].user_id)
        except InvalidState:
            pass

    def revoke(self, manager: SessionManager, user: str) -> None:
        of_user = [each.id for each in self.issued if each.user_id == user]
        before = self.versions(of_user)
        unheard = len(self.unheard)
        heard = len(self.heard)
        done(manager.revoke_user(user))
        after = self.versions(of_user)
        ended = {id: version for id, version in after.items() if version != before[id]}
        for event in (*self.unheard[unheard:], *self.heard[heard:]):
            if isinstance(event, UserRevoked):
                self.ended_by[id_of(event)] = ended
        for event in self.heard[heard:]:
            self.note_versions(event)

    def versions(self, ids: list[SessionId]) -> dict[SessionId, int]:
        return {id: session.version for id in ids if (session := done(self.storage.get(id))) is not None}

    COMMANDS = st.sampled_from(["suspend", "resume", "invalidate", "grant", "rotate", "revoke"])

    @rule(number=NUMBERS, command=COMMANDS)
    def change_elsewhere(self, number: int, command: str) -> None:
        self.change(self.elsewhere, number, command)

    @rule(number=NUMBERS, command=COMMANDS)
    def change_here(self, number: int, command: str) -> None:
        self.change(self.here, number, command)

    # --- what this node hears ---------------------------------------------------------------------------

    def note(self, events: Any) -> None:
        for event in events:
            self.heard.append(event)
            self.note_versions(event)

    def note_versions(self, event: AnyEvent) -> None:
        if isinstance(event, UserRevoked):
            for id, version in self.ended_by.get(id_of(event), {}).items():
                self.least[id] = max(self.least.get(id, 0), version)
        else:
            self.least[event.session] = max(self.least.get(event.session, 0), event.version)

    @rule(which=st.sampled_from([-1, -2, -3, 0]), again=st.booleans())
    def hear(self, which: int, *, again: bool) -> None:
        pool = self.heard if again else self.unheard
        if pool:
            event = pool[which % len(pool)]
            if not again:
                self.unheard.remove(event)
            self.cache.forget([event])
            self.note([event])

    @rule(number=NUMBERS)
    def miss(self, number: int) -> None:
        """A gap of the log: everything in it is heard of by what storage says now."""
        partition = partition_of_id(self.issued[number].id)
        self.cache.forget_partition(partition)
        for id, version in self.versions([each.id for each in self.issued]).items():
            if partition_of_id(id) == partition:
                self.least[id] = max(self.least.get(id, 0), version)

    # --- what is asked ----------------------------------------------------------------------------------

    @rule(number=NUMBERS)
    def begin_to_read(self, number: int) -> None:
        id = self.issued[number].id
        work = self.cache.read(id)
        work.send(None)
        self.reads.append(Read(id, work))

    @rule(number=NUMBERS)
    def read_at_once(self, number: int) -> None:
        done(self.cache.read(self.issued[number].id))

    @rule(which=st.integers(0, 20))
    def end_a_read(self, which: int) -> None:
        if self.reads:
            read = self.reads.pop(which % len(self.reads))
            with pytest.raises(StopIteration):
                read.work.send(None)

    @rule(seconds=st.sampled_from([0.1, 0.4, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @rule()
    def be_blind_for_a_moment(self) -> None:
        self.cache.turn_blind()
        for issued in self.issued:
            assert self.cache.opened_by(issued.token, issued.id, self.clock.now()) is None
        self.cache.see()

    # --- what must hold ---------------------------------------------------------------------------------

    @invariant()
    def nothing_that_was_overtaken_is_answered(self) -> None:
        for issued in self.issued:
            found = self.cache.opened_by(issued.token, issued.id, self.clock.now())
            if found is not None:
                assert found[0].version >= self.least.get(issued.id, 0)
                assert found[0].state in near_cache.USABLE

    @invariant()
    def there_is_room_for_three(self) -> None:
        assert self.cache.statistics().entries <= 3

    def teardown(self) -> None:
        for read in self.reads:
            read.work.close()


def id_of(event: UserRevoked) -> int:
    return hash((event.user, event.epoch))


def test_the_near_cache_answers_nothing_that_was_overtaken() -> None:
    run_state_machine_as_test(NearCacheMachine, settings=settings(max_examples=examples(100), stateful_step_count=40))


HISTORIES: dict[str, list[str]] = {
    "_Reading.may_enter": ["begin_to_read", "suspend", "hear", "end_a_read"],
    "NearCache._forget_session": ["read_at_once", "suspend", "hear"],
    "NearCache._forget_user": ["read_at_once", "revoke", "hear"],
    "NearCache.forget_partition": ["read_at_once", "suspend", "miss"],
}
"""The shortest history in which each guard is needed."""


def passes_everything(*_: object) -> bool:
    return True


def live(history: list[str]) -> None:
    machine = NearCacheMachine()
    machine.begin()
    for step in history:
        match step:
            case "hear":
                machine.hear(0, again=False)
            case "suspend" | "revoke":
                machine.change_elsewhere(0, step)
            case _:
                getattr(machine, step)(0)
    machine.nothing_that_was_overtaken_is_answered()


@pytest.mark.parametrize("guard", HISTORIES)
def test_the_machine_notices_when_a_guard_is_missing(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live(HISTORIES[guard])

    monkeypatch.setattr(f"roomkey.sessions.near_cache.{guard}", passes_everything)

    with pytest.raises(AssertionError):
        live(HISTORIES[guard])
