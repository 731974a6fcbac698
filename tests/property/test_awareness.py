"""Whatever connections say about clients, in whatever order: each speaks for its user, and all stay within bounds."""

from hypothesis import given, settings

from roomkey.realtime.documents.awareness import MAX_REMEMBERED, Awareness, Owner
from roomkey.realtime.yjs import AwarenessEntry
from tests.support.steps import History, Pick, histories, live

MAX_STATE, MAX_SIZE, MAX_CLIENTS = 8, 60, 3
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


class House:
    """Connections of two users that come and go, and somebody who listens."""

    def __init__(self) -> None:
        self.awareness = Awareness(max_state=MAX_STATE, max_size=MAX_SIZE, max_clients=MAX_CLIENTS)
        self.listener = Replica()
        self.owners = [Owner(number, USERS[number % 2]) for number in range(CONNECTIONS)]
        self._next = CONNECTIONS

    def say(self, pick: Pick) -> None:
        owner = pick(self.owners)
        before = {client: (shown.entry, shown.owner) for client, shown in self.awareness._shown.items()}
        entries = [self._entry(pick) for _ in range(pick(range(1, 4)))]

        outcome = self.awareness.apply(entries, owner)

        self.listener.hear(list(outcome.news))
        after = {entry.client: entry for entry in self.awareness.entries()}
        for client, (entry, its_owner) in before.items():
            if its_owner.user != owner.user:
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
        shown = {entry.client: entry for entry in self.awareness.entries()}
        if reminder.client in shown:
            return
        again = AwarenessEntry(reminder.client, reminder.clock + 1, b"1")
        is_full = sum(len(entry.state) for entry in shown.values()) + len(again.state) > MAX_SIZE

        outcome = self.awareness.apply([again], owner)

        self.listener.hear(list(outcome.news))
        assert outcome.news or is_full or self._count(owner) >= MAX_CLIENTS

    def part(self, pick: Pick) -> None:
        """A connection goes, and another one of its user comes."""
        place = pick(range(CONNECTIONS))
        owner = self.owners[place]
        others = [shown.entry for shown in self.awareness._shown.values() if shown.owner.connection != owner.connection]

        self.listener.hear(self.awareness.leave(owner.connection))

        assert self.awareness.entries() == others
        self.owners[place] = Owner(self._next, owner.user)
        self._next += 1

    def check(self) -> None:
        entries = self.awareness.entries()
        assert self.listener.shown == {entry.client: entry for entry in entries}
        assert sum(len(entry.state) for entry in entries) <= MAX_SIZE
        assert all(len(entry.state) <= MAX_STATE and not entry.is_gone for entry in entries)
        assert all(self._count(owner) <= MAX_CLIENTS for owner in self.owners)
        assert len(self.awareness._left) <= MAX_REMEMBERED

    def _count(self, owner: Owner) -> int:
        return sum(shown.owner.connection == owner.connection for shown in self.awareness._shown.values())


@settings(max_examples=150, deadline=None)
@given(histories("say", "say", "say", "say", "say", "say", "say", "part", max_size=60))
def test_everyone_speaks_for_their_own_clients_and_all_hear_the_same(history: History) -> None:
    house = House()

    live(house, history)

    for owner in house.owners:
        house.listener.hear(house.awareness.leave(owner.connection))
    assert len(house.awareness) == 0
    assert house.listener.shown == {}
