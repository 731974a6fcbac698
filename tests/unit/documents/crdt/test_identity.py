"""Whose Yjs clients are whose, and what may be said in the name of somebody else's."""

from collections.abc import Callable
from typing import Final

import pytest
from pycrdt import Text

from roomkey.documents.crdt.identity import MAX_INTRODUCED, Binding, Bindings, Source
from roomkey.documents.crdt.replica import Forgery, PoisonUpdate, Replica
from roomkey.documents.crdt.updates import MAX_CLOCK, MAX_PARTS, clients_of
from roomkey.ports import DocumentUpdate
from roomkey.wire.lib0 import EMPTY_UPDATE, number
from tests.support.forgeries import deletion, erased, gc, put_together, section, skip, to_the_end, words
from tests.support.open_documents import ALICE, BOB, Writer, text_of
from tests.support.sockets import NOON

KNOWN: Final = 4
"""How much the victim has written."""


class Scene:
    """A document in which Alice has written four letters over a connection of her own, and Bob nothing."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.writer = Writer()
        self.alice, self.bob = Source("alice"), Source("bob")
        self.replica.identities.enter(self.alice)
        self.replica.identities.enter(self.bob)
        self.replica.apply(self.writer.type("abcd"), self.alice)

    @property
    def victim(self) -> int:
        return self.writer.doc.client_id

    @property
    def text(self) -> str:
        return text_of(self.replica.doc)

    def of_alice(self, clock: int, *blocks: bytes) -> bytes:
        return put_together(section(self.victim, clock, *blocks))

    def alice_goes_on(self) -> None:
        """She types, as if nothing had happened: her library knows nothing of changed ids."""
        self.replica.apply(self.writer.type("!"), self.alice)

    def alice_leaves(self) -> None:
        self.replica.identities.leave(self.alice)


FORBIDDEN: Final[dict[str, Callable[[int], bytes]]] = {
    "a GC to the end": lambda it: put_together(section(it, KNOWN, gc(to_the_end(KNOWN)))),
    "a short GC": lambda it: put_together(section(it, KNOWN, gc(2))),
    "a GC that begins in what is known": lambda it: put_together(section(it, 0, gc(KNOWN + 1))),
    "a GC beyond a gap": lambda it: put_together(section(it, KNOWN + 2, gc(3))),
    "a GC behind a text": lambda it: put_together(section(it, KNOWN, words("x"), gc(3))),
    "a Skip": lambda it: put_together(section(it, KNOWN, skip(3))),
    "a Skip and a text": lambda it: put_together(section(it, KNOWN, skip(3), words("x"))),
    "a text beyond a gap": lambda it: put_together(section(it, KNOWN + 1, words("xyz"))),
    "a deletion of what comes": lambda it: put_together(deletions=(deletion(it, KNOWN, 100),)),
    "a deletion that reaches into it": lambda it: put_together(deletions=(deletion(it, KNOWN - 1, 2),)),
    "a GC among honest blocks": lambda it: put_together(
        section(it, KNOWN, gc(2)), section(5, 0, words("bob was here"))
    ),
}


@pytest.mark.parametrize("forged", FORBIDDEN.values(), ids=FORBIDDEN.keys())
@pytest.mark.parametrize("is_here", [True, False], ids=["connected", "away"])
def test_nobody_else_moves_the_clock_of_a_client_ahead(forged: Callable[[int], bytes], *, is_here: bool) -> None:
    scene = Scene()
    if not is_here:
        scene.alice_leaves()

    with pytest.raises(Forgery, match=f"client {scene.victim} is somebody else's"):
        scene.replica.apply(forged(scene.victim), scene.bob)

    scene.alice_goes_on()
    assert scene.text == "abcd!"
    assert scene.replica.waiting == []


def test_who_has_no_user_moves_no_clock_ahead_either() -> None:
    scene = Scene()

    with pytest.raises(Forgery):
        scene.replica.apply(scene.of_alice(KNOWN, gc(2)), Source(None))

    scene.alice_goes_on()
    assert scene.text == "abcd!"


def test_a_client_that_was_only_shown_is_its_users_too() -> None:
    replica, writer, alice = Replica(), Writer(), Source("alice")
    replica.identities.introduce(writer.doc.client_id, alice)

    with pytest.raises(Forgery):
        replica.apply(put_together(section(writer.doc.client_id, 0, gc(9))), Source("bob"))
    replica.apply(writer.type("hello"), alice)

    assert text_of(replica.doc) == "hello"


def test_a_client_that_was_shown_is_its_users_still_when_they_are_away() -> None:
    replica, writer, alice = Replica(), Writer(), Source("alice")
    replica.identities.introduce(writer.doc.client_id, alice)
    replica.identities.leave(alice)

    with pytest.raises(Forgery):
        replica.apply(put_together(section(writer.doc.client_id, 0, gc(9))), Source("bob"))


def test_nobody_becomes_somebody_else_by_showing_their_client() -> None:
    scene = Scene()

    scene.replica.identities.introduce(scene.victim, scene.bob)

    with pytest.raises(Forgery):
        scene.replica.apply(scene.of_alice(KNOWN, gc(2)), scene.bob)


def test_the_client_under_which_the_server_writes_is_nobodys() -> None:
    scene = Scene()
    server = scene.replica.doc.client_id

    with pytest.raises(Forgery):
        scene.replica.apply(put_together(section(server, 0, gc(to_the_end(0)))), scene.bob)

    scene.replica.edit(lambda doc: doc.get("content", type=Text).insert(0, "server: "), lambda _: None)
    assert scene.text == "server: abcd"


def test_the_server_is_another_client_once_somebody_wrote_as_it_and_that_is_nobodys_too() -> None:
    replica, made = Replica(), list[bytes]()
    replica.apply(put_together(section(replica.doc.client_id, 0, gc(to_the_end(0)))))

    replica.copy().edit(lambda doc: doc.get("content", type=Text).insert(0, "server"), made.append)

    ((client, _, _),) = [(units.client, units.clock, units.end) for units in clients_of(made[0])]
    assert client != replica.doc.client_id
    assert replica.identities.is_foreign(client, Source("bob"))


# --- what goes on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_connection", [True, False])
def test_ones_own_client_may_do_all_of_it(*, same_connection: bool) -> None:
    scene = Scene()
    source = scene.alice if same_connection else Source("alice")

    scene.replica.apply(scene.of_alice(KNOWN, gc(2), skip(3), words("x")), source)
    scene.replica.apply(scene.of_alice(KNOWN + 2, words("new", behind=(scene.victim, 3))), source)

    assert scene.text == "xabcdnew"


def test_a_document_whose_clients_nobody_has_bound_may_be_full_of_gc() -> None:
    replica = Replica()
    foreign = put_together(section(11, 0, gc(5), words("kept")), section(12, 0, gc(3)), section(13, 0, erased(2)))

    replica.apply(foreign, Source(None))

    assert text_of(replica.doc) == "kept"


def test_a_client_that_an_api_key_has_brought_is_its_owners_when_it_comes() -> None:
    replica, writer, alice = Replica(), Writer(), Source("alice")
    replica.apply(writer.type("abcd"), Source(None))
    replica.identities.introduce(writer.doc.client_id, alice)

    replica.apply(put_together(section(writer.doc.client_id, KNOWN, gc(2))), alice)

    with pytest.raises(Forgery):
        replica.apply(put_together(section(writer.doc.client_id, KNOWN + 2, gc(2))), Source("bob"))


def test_a_peer_brings_what_somebody_wrote_who_is_away() -> None:
    scene = Scene()
    scene.alice_leaves()
    scene.writer.type(" and more")
    peer = Writer()
    peer.doc.apply_update(scene.writer.doc.get_update())
    peer.type(", says bob")

    scene.replica.apply(peer.doc.get_update(scene.replica.state()), scene.bob)

    assert scene.text == "abcd and more, says bob"


def test_a_peer_brings_what_somebody_wrote_who_was_never_here_and_who_is_no_stranger_later() -> None:
    replica, alice, bob = Replica(), Source("alice"), Source("bob")
    hers, his = Writer(), Writer()
    his.doc.apply_update(hers.type("hers, "))
    his.type("his")
    replica.identities.introduce(his.doc.client_id, bob)
    replica.apply(his.doc.get_update(), bob)

    replica.identities.introduce(hers.doc.client_id, alice)
    replica.apply(put_together(section(hers.doc.client_id, 6, gc(2))), alice)

    assert text_of(replica.doc) == "hers, his"
    with pytest.raises(Forgery):
        replica.apply(put_together(section(hers.doc.client_id, 8, gc(2))), bob)


def test_a_peer_repeats_everything_that_is_known() -> None:
    scene = Scene()
    scene.replica.apply(scene.of_alice(KNOWN, gc(3)), scene.alice)
    everything = scene.replica.since()
    scene.alice_leaves()

    scene.replica.apply(everything, scene.bob)

    assert scene.text == "abcd"


def test_a_peer_repeats_what_waits_for_its_author() -> None:
    scene = Scene()
    first, second = scene.writer.type("12"), scene.writer.type("34")
    scene.replica.apply(second, scene.alice)
    scene.alice_leaves()

    scene.replica.apply(second, scene.bob)
    elsewhere = scene.replica.apply(scene.of_alice(KNOWN, skip(2), words("34")), scene.bob)

    assert elsewhere == EMPTY_UPDATE
    scene.replica.apply(first, scene.alice)
    assert scene.text == "abcd1234"


def test_nobody_else_says_what_waits_for_its_author() -> None:
    scene = Scene()
    first, second = scene.writer.type("12"), scene.writer.type("34")
    scene.replica.apply(second, scene.alice)
    scene.alice_leaves()

    with pytest.raises(Forgery):
        scene.replica.apply(scene.of_alice(KNOWN + 1, gc(4)), scene.bob)
    scene.replica.apply(scene.of_alice(KNOWN, words("forged", behind=(scene.victim, 3))), scene.bob)

    scene.replica.apply(first, scene.alice)
    assert scene.text == "abcd1234"


def test_everybody_deletes_what_is_there() -> None:
    scene = Scene()

    scene.replica.apply(put_together(deletions=(deletion(scene.victim, 1, 2),)), scene.bob)

    assert scene.text == "ad"


# --- while the owner is here ------------------------------------------------------------------------------


def test_what_comes_next_of_a_client_only_its_connection_brings() -> None:
    scene = Scene()
    forged = put_together(
        section(scene.victim, KNOWN, words("?", behind=(scene.victim, 3))), section(5, 0, words("bob, "))
    )

    taken = scene.replica.apply(forged, scene.bob)

    scene.alice_goes_on()
    assert scene.text == "bob, abcd!"
    assert taken == put_together(section(5, 0, words("bob, ")))


def test_a_peer_may_be_faster_than_the_owner_and_nothing_is_lost() -> None:
    scene = Scene()
    peer = Writer()
    peer.doc.apply_update(scene.writer.doc.get_update())
    ahead = [scene.writer.type(key) for key in "12"]
    for update in ahead:
        peer.doc.apply_update(update)
    his = peer.type("3")

    forwarded = [scene.replica.apply(update, scene.bob) for update in ahead]
    scene.replica.apply(his, scene.bob)
    for update in ahead:
        scene.replica.apply(update, scene.alice)

    assert forwarded == [EMPTY_UPDATE] * 2
    assert scene.text == "abcd123"


def test_a_request_of_the_owner_holds_nothing_so_that_peers_may_bring_what_follows() -> None:
    replica, hers, his = Replica(), Writer(), Writer()
    replica.apply(hers.type("hello"), Source("alice"))
    hers.type(" from offline")
    his.doc.apply_update(hers.doc.get_update())

    replica.apply(his.doc.get_update(), Source("bob"))

    assert text_of(replica.doc) == "hello from offline"


def test_another_connection_of_the_owner_takes_the_client_over() -> None:
    scene = Scene()
    again = Source("alice")
    scene.replica.identities.enter(again)
    scene.replica.apply(scene.writer.type("e"), again)

    scene.replica.identities.leave(scene.alice)
    scene.replica.apply(scene.of_alice(KNOWN + 1, words("?")), scene.bob)
    scene.replica.apply(scene.writer.type("f"), again)

    assert scene.text == "abcdef"


# --- the range --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [gc, skip, erased])
def test_nobody_goes_beyond_the_range_not_even_with_their_own_client(block: Callable[[int], bytes]) -> None:
    scene = Scene()

    with pytest.raises(PoisonUpdate):
        scene.replica.apply(scene.of_alice(KNOWN, block(MAX_CLOCK - KNOWN + 1)), scene.alice)

    scene.alice_goes_on()
    assert scene.text == "abcd!"


def test_an_update_of_more_parts_than_honest_ones_have_is_refused_unread() -> None:
    scene = Scene()
    deletions = b"\x00\x01\x07" + number(MAX_PARTS + 1) + b"\x00\x01" * (MAX_PARTS + 1)

    with pytest.raises(PoisonUpdate, match="too many"):
        scene.replica.apply(deletions, scene.alice)

    scene.replica.apply(deletions)  # from storage, or from a node that has accepted it in parts
    scene.alice_goes_on()


# --- what is remembered -----------------------------------------------------------------------------------


def test_a_client_belongs_to_whom_brought_it_first() -> None:
    bindings = Bindings()
    mine = put_together(section(7, 0, words("hello")))

    bindings.learn(DocumentUpdate(mine, ALICE, NOON))
    bindings.learn(DocumentUpdate(mine, BOB, NOON))

    assert bindings.find(7) == Binding("alice", firm=False)


def test_a_client_is_firmly_that_of_whoever_goes_on_as_it() -> None:
    bindings = Bindings()
    bindings.learn(DocumentUpdate(put_together(section(7, 0, words("hello"))), ALICE, NOON))

    bindings.learn(DocumentUpdate(put_together(section(7, 5, words(" world"))), ALICE, NOON))
    bindings.learn(DocumentUpdate(put_together(section(7, 11, words("!"))), BOB, NOON))

    assert bindings.find(7) == Binding("alice", firm=True)


def test_who_comes_first_after_a_crash_with_what_another_wrote_does_not_become_the_other() -> None:
    scene = Scene()
    carol, hers = Source("carol"), put_together(section(9, 0, words("hers")))
    more = put_together(section(9, 4, words(" too", behind=(9, 3))))
    scene.replica.identities.enter(carol)

    scene.replica.apply_and_tell(hers, scene.bob)
    scene.replica.apply(more, carol)

    assert scene.replica.identities.owner(9) == Binding("carol", firm=True)
    assert not carol.was_cut


def test_who_brings_several_clients_may_have_carried_them() -> None:
    bindings = Bindings()
    bindings.learn(DocumentUpdate(put_together(section(8, 0, words("b")), section(7, 0, words("a"))), ALICE, NOON))

    bindings.learn(DocumentUpdate(put_together(section(7, 1, words("a"))), ALICE, NOON))

    assert (bindings.find(7), bindings.find(8)) == (Binding("alice", firm=True), Binding("alice", firm=False))


def test_of_those_who_only_showed_themselves_the_latest_are_remembered() -> None:
    replica = Replica()
    here = Source("alice")
    replica.identities.enter(here)
    replica.identities.introduce(1, here)
    for client in range(2, MAX_INTRODUCED + 3):
        source = Source("crowd")
        replica.identities.introduce(client, source)
        replica.identities.leave(source)

    owners = [replica.identities.owner(client) for client in (1, 2, 3, MAX_INTRODUCED + 2)]

    assert owners == [Binding("alice", firm=True), None, None, Binding("crowd", firm=True)]


def test_the_keystroke_of_a_stranger_is_looked_at() -> None:
    scene = Scene()
    key = scene.writer.type("x")

    assert scene.replica.apply(key, scene.bob) == EMPTY_UPDATE
    assert scene.replica.apply(key, scene.alice) == key
