"""Whatever connections say about clients, in whatever order: each speaks for its user, and all stay within bounds."""

from hypothesis import given, settings

from roomkey.documents.crdt.awareness import SHARE, Awareness, Owner
from roomkey.wire.lib0 import AwarenessEntry
from tests.support.effort import examples
from tests.support.steps import History, Pick, histories, live

MAX_STATE, MAX_SIZE, MAX_CLIENTS = 8, 60, 3
MAX_SHARE = max(MAX_STATE, MAX_SIZE // SHARE)
USERS = ("user:alice", "user:bob")
CONNECTIONS = 6
CLIENTS = range(10)
STATES = (b"null", b"{}", b'"a"', b'"abcdef"', b'"abcdefg"', b"1")


class Replica:
    """What somebody knows who hears everything that is passed on, by the rules of y-protocols."""

    def __init__(self) -> None:
        self.shown: dict[int, AwarenessEntry] = {}
        self._clocks: dict[int, int] = {}

    def clock(self, client: int) -> int:
        return self._clocks.get(client, 0)

    def hear(self, entries: list[AwarenessEntry]) -> None:
        for entry in entries:
            clock = self._clocks.get(entry.client, -1)
            if entry.clock > clock or (entry.clock == clock and entry.is_gone):
                self._clocks[entry.client] = entry.clock
                self.shown.pop(entry.client, None)
                if not entry.is_gone:
                    self.shown[entry.client] = entry


class Owners:
    """Connections of two users that come and go, and somebody who listens."""

    def __init__(self) -> None:
        self.awareness = Awareness(max_state=MAX_STATE, max_size=MAX_SIZE, max_clients=MAX_CLIENTS)
        self.listener = Replica()
        self.owners = [Owner(number, USERS[number % 2]) for number in range(CONNECTIONS)]
        self.whose: dict[int, Owner] = {}
        self._next = CONNECTIONS

    def say(self, pick: Pick) -> None:
        owner = pick(self.owners)
        before, whose = self._shown(), dict(self.whose)
        entries = [self._entry(pick) for _ in range(pick(range(1, 4)))]

        outcome = self.awareness.apply(entries, owner)

        self._hear(list(outcome.news), owner)
        after = self._shown()
        for client, entry in before.items():
            if whose[client].user != owner.user:
                assert after[client] == entry
        assert {entry.client for entry in outcome.news} <= {entry.client for entry in entries}
        for reminder in outcome.reminders:
            assert reminder.is_gone
            self._do_as_reminded(reminder, owner)

    def _entry(self, pick: Pick) -> AwarenessEntry:
        client = pick(CLIENTS)
        return AwarenessEntry(client, max(0, self.listener.clock(client) + pick((-1, 0, 1, 2))), pick(STATES))

    def _do_as_reminded(self, reminder: AwarenessEntry, owner: Owner) -> None:
        """A client that takes the next clock is seen again, if there is room for it."""
        shown = self._shown()
        if reminder.client in shown:
            return
        again = AwarenessEntry(reminder.client, reminder.clock + 1, b"1")
        is_full = sum(len(entry.state) for entry in shown.values()) + len(again.state) > MAX_SIZE
        is_full = is_full or self._size_of(owner.user) + len(again.state) > MAX_SHARE

        outcome = self.awareness.apply([again], owner)

        self._hear(list(outcome.news), owner)
        assert outcome.news or is_full or self._count(owner) >= MAX_CLIENTS

    def part(self, pick: Pick) -> None:
        """A connection goes, and another one of its user comes."""
        place = pick(range(CONNECTIONS))
        owner = self.owners[place]
        others = {client: entry for client, entry in self._shown().items() if not self._is_of(client, owner)}

        self._hear(self.awareness.leave(owner.connection), owner)

        assert self._shown() == others
        self.owners[place] = Owner(self._next, owner.user)
        self._next += 1

    def check(self) -> None:
        entries = self.awareness.entries()
        assert self.listener.shown == {entry.client: entry for entry in entries}
        assert sum(len(entry.state) for entry in entries) <= MAX_SIZE
        assert all(len(entry.state) <= MAX_STATE and not entry.is_gone for entry in entries)
        assert all(self._count(owner) <= MAX_CLIENTS for owner in self.owners)
        assert all(self._size_of(user) <= MAX_SHARE for user in USERS)

    def _size_of(self, user: str) -> int:
        return sum(len(entry.state) for client, entry in self._shown().items() if self.whose[client].user == user)

    def _shown(self) -> dict[int, AwarenessEntry]:
        return {entry.client: entry for entry in self.awareness.entries()}

    def _hear(self, news: list[AwarenessEntry], owner: Owner) -> None:
        self.listener.hear(news)
        for entry in news:
            self.whose.pop(entry.client, None)
            if not entry.is_gone:
                self.whose[entry.client] = owner

    def _is_of(self, client: int, owner: Owner) -> bool:
        return self.whose[client].connection == owner.connection

    def _count(self, owner: Owner) -> int:
        return sum(self._is_of(client, owner) for client in self.whose)


@settings(max_examples=examples(150))
@given(histories("say", "say", "say", "say", "say", "say", "say", "part", max_size=60))
def test_everyone_speaks_for_their_own_clients_and_all_hear_the_same(history: History) -> None:
    owners = Owners()

    live(owners, history)

    for owner in owners.owners:
        owners.listener.hear(owners.awareness.leave(owner.connection))
    assert len(owners.awareness) == 0
    assert owners.listener.shown == {}
