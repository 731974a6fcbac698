"""Who is in a room by way of any node: one person each, as it was said last, until the last node shows nobody."""

from datetime import timedelta

from roomkey.domain.session import SessionId
from roomkey.realtime.rooms.shared_presence import Difference, SharedPresence, Shown, Versions
from tests.support.sockets import NOON

ALICE, BOB = SessionId("alice"), SessionId("bob")


class Company:
    """Presence of a room on node n1; ``told`` is what members were told besides answers."""

    def __init__(self) -> None:
        self.changes = 0
        self.told: list[bytes] = []
        self.versions = Versions()
        self.presence = SharedPresence(
            lease=timedelta(seconds=60),
            max_size=1000,
            versions=self.versions,
            changed=self._changed,
            revealed=self.told.append,
        )

    def _changed(self) -> None:
        self.changes += 1

    def announce(self, session: SessionId, shown: bytes, holder: str = "c1") -> bool:
        return self.presence.announce(session, holder, shown, NOON)

    def later(self, shown: bytes, *, said: bool = True) -> Shown:
        return Shown(self.versions.next(NOON), said, shown)

    @property
    def here(self) -> list[bytes]:
        return [bytes(each) for each in self.presence.here()]


def test_a_session_on_two_nodes_is_one_person_that_is_gone_when_both_show_it_no_more() -> None:
    company = Company()
    company.announce(ALICE, b"here")

    arrived = company.presence.show("n2", ALICE, company.later(b"here"))
    once = company.here
    left_here = company.presence.leave(ALICE, "c1")
    left_there = company.presence.hide("n2", ALICE, company.versions.next(NOON))

    assert arrived is None
    assert once == [b"here"]
    assert left_here is False
    assert left_there == Difference(b"here", None)
    assert company.here == []


def test_the_last_word_is_shown_wherever_it_was_said() -> None:
    company = Company()
    company.announce(ALICE, b"here")

    away = company.presence.show("n2", ALICE, company.later(b"away"))
    shown_then = company.here
    company.announce(ALICE, b"back")

    assert away == Difference(b"here", b"away")
    assert shown_then == [b"away"]
    assert company.here == [b"back"]


def test_when_the_last_word_goes_what_another_node_shows_is_shown_again() -> None:
    company = Company()
    company.presence.show("n2", ALICE, company.later(b"there"))
    company.announce(ALICE, b"here")

    gone = company.presence.leave(ALICE, "c1")

    assert gone is False
    assert company.told == [b"there"]


def test_that_somebody_edits_counts_less_than_what_was_said() -> None:
    company = Company()
    company.presence.show("n2", ALICE, company.later(b"busy"))

    told = company.presence.attend(ALICE, "c1", b"edits", NOON)
    there = company.presence.show("n3", ALICE, company.later(b"edits, too", said=False))

    assert told is False
    assert there is None
    assert company.here == [b"busy"]


def test_whoever_edits_first_is_told_of() -> None:
    company = Company()

    assert company.presence.attend(ALICE, "c1", b"edits", NOON) is True
    assert company.presence.own[ALICE].said is False


def test_what_is_older_than_what_is_known_changes_nothing() -> None:
    company = Company()
    old, hidden, new = company.later(b"old"), company.versions.next(NOON), company.later(b"new")
    company.presence.show("n2", ALICE, new)

    assert company.presence.show("n2", ALICE, old) is None
    assert company.presence.hide("n2", ALICE, hidden) is None
    assert company.here == [b"new"]


def test_what_the_store_says_is_all_there_is() -> None:
    company = Company()
    company.announce(ALICE, b"here")
    company.presence.show("n2", ALICE, company.later(b"here"))
    company.presence.show("n2", BOB, company.later(b"bob"))

    differences = company.presence.replace({("n3", SessionId("carol")): company.later(b"carol")})

    assert set(differences) == {Difference(b"bob", None), Difference(None, b"carol")}
    assert set(company.here) == {b"here", b"carol"}


def test_a_node_that_is_gone_takes_with_it_whom_nobody_else_shows() -> None:
    company = Company()
    for node, session in (("n2", ALICE), ("n3", ALICE), ("n2", BOB)):
        company.presence.show(node, session, company.later(session.encode()))

    differences = company.presence.forget(["n2"])

    assert list(differences) == [Difference(b"bob", None)]
    assert company.here == [b"alice"]


def test_a_lease_that_lapses_ends_a_session_that_no_other_node_shows() -> None:
    company = Company()
    company.announce(ALICE, b"alice")
    company.announce(BOB, b"bob")
    company.presence.show("n2", ALICE, company.later(b"alice"))

    gone = company.presence.lapse(NOON + timedelta(seconds=61))

    assert gone == [b"bob"]
    assert company.here == [b"alice"]
    assert company.presence.own == {}


def test_versions_grow_although_clocks_do_not() -> None:
    versions = Versions()
    first = versions.next(NOON)
    versions.seen(first + 1_000_000)

    assert versions.next(NOON - timedelta(hours=1)) > first + 1_000_000
