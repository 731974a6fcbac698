"""Somebody speaks in another one's name inside a document, over real sockets: that ends their own, and hurts nobody."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from roomkey.documents.service import Bundle
from roomkey.domain.session import AnyEvent, ViolationRecorded
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from tests.support.documents import (
    APPLIED,
    AWARENESS,
    DENIED,
    EMPTY_STEP2,
    REFUSED,
    STEP1,
    UPDATE,
    FrameClient,
    Headers,
    Site,
    YClient,
    a_site,
    entries_of,
    hocuspocus_client,
    reason_of,
    shown,
    text_of,
    y_client,
)
from tests.support.forgeries import gc, put_together, section, skip, to_the_end, words
from tests.support.open_documents import Writer
from tests.support.rawsocket import TRANSPORTS, until

both = pytest.mark.parametrize("transport", TRANSPORTS)

DOCUMENTS: Final = ("yjs", "hocuspocus")

FORGED: Final[Mapping[str, Callable[[int, int], bytes]]] = {
    "a GC to the end": lambda client, known: put_together(section(client, known, gc(to_the_end(known)))),
    "a short GC": lambda client, known: put_together(section(client, known, gc(3))),
    "a Skip": lambda client, known: put_together(section(client, known, skip(3))),
    "a text beyond a gap": lambda client, known: put_together(section(client, known + 2, words("?"))),
}


class Door:
    """A way into the document ``plan``: what the protocol puts around messages."""

    def __init__(self, client: FrameClient, address: bytes) -> None:
        self.client = client
        self.address = address

    async def say(self, message: bytes) -> None:
        await self.client.send(self.address + message)

    async def hear(self, beginning: bytes) -> bytes:
        return await self.client.next(self.address + beginning)


@asynccontextmanager
async def door(kind: str, site: Site, token: str) -> AsyncGenerator[Door]:
    """Somebody in the document, in step with it."""
    if kind == "yjs":
        async with y_client(site, token) as client:
            await client.next(STEP1)
            yield Door(client, b"")
        return
    async with hocuspocus_client(site) as client:
        await client.show("plan", token)
        yield Door(client, yjs.address("plan"))


async def type_in(door: Door, writer: Writer, text: str) -> None:
    """Type, and wait for the echo."""
    await door.say(yjs.update(writer.type(text)))
    await door.hear(UPDATE)


class Violations:
    """What is counted against sessions, from now on: their ids and the causes."""

    def __init__(self, site: Site) -> None:
        self.counted: list[tuple[str, str | None]] = []
        site.node.sessions.on_events(self._note)

    def _note(self, events: Sequence[AnyEvent]) -> None:
        self.counted += [(event.session, event.reason) for event in events if isinstance(event, ViolationRecorded)]

    async def are(self, *expected: tuple[str, str]) -> None:
        await until(lambda: len(self.counted) >= len(expected))
        assert self.counted == list(expected)


def bearer(token: str, content_type: str = "application/x-yjs-update") -> Headers:
    return {"authorization": f"Bearer {token}", "content-type": content_type}


# --- blocks ---------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
async def test_who_moves_the_clock_of_another_is_closed_and_the_other_types_on(
    forged: Callable[[int, int], bytes], kind: str, transport: str
) -> None:
    async with a_site(transport) as site:
        hers, (id, his) = await site.token("alice"), await site.session("mallory")
        alice, violations = Writer(), Violations(site)
        async with door("yjs", site, hers) as victim, door(kind, site, his) as attacker:
            await type_in(victim, alice, "hello")
            await attacker.say(yjs.update(forged(alice.doc.client_id, 5)))
            ended = await attacker.client.end()
            await type_in(victim, alice, " world")
            async with y_client(site, hers) as reader:
                read = text_of(await reader.missing())

        await violations.are((id, "forged"))

    assert ended == (4400, "forged")
    assert read == "hello world"


@both
@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
async def test_of_what_a_page_brings_back_the_forged_is_left_out(
    forged: Callable[[int, int], bytes], kind: str, transport: str
) -> None:
    async with a_site(transport) as site:
        hers, his = await site.token("alice"), await site.token("mallory")
        alice = Writer()
        async with door("yjs", site, hers) as victim, door(kind, site, his) as attacker:
            await type_in(victim, alice, "hello")
            await attacker.say(yjs.sync_step2(forged(alice.doc.client_id, 5)))
            await type_in(victim, alice, " world")
            async with y_client(site, hers) as reader:
                read = text_of(await reader.missing())

    assert read == "hello world"


@both
@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_somebody_who_was_only_seen_in_awareness_is_not_silenced_either(kind: str, transport: str) -> None:
    async with a_site(transport) as site:
        hers, his = await site.token("alice"), await site.token("mallory")
        alice = Writer()
        async with door("yjs", site, his) as attacker:
            async with door(kind, site, hers) as victim:
                await victim.say(shown((alice.doc.client_id, 1, b"{}")))
                await attacker.hear(AWARENESS)
            await attacker.hear(AWARENESS)  # and she is gone
            await attacker.say(yjs.update(put_together(section(alice.doc.client_id, 0, gc(to_the_end(0))))))
            ended = await attacker.client.end()
        async with door(kind, site, hers) as victim:
            await type_in(victim, alice, "hello")
            async with y_client(site, hers) as reader:
                read = text_of(await reader.missing())

    assert (ended, read) == ((4400, "forged"), "hello")


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
async def test_over_rest_a_forged_update_is_a_problem_that_says_what_is_wrong(
    forged: Callable[[int, int], bytes],
) -> None:
    async with a_site() as site:
        hers, (id, his) = await site.token("alice"), await site.session("mallory")
        alice, violations = Writer(), Violations(site)
        async with door("yjs", site, hers) as victim:
            await type_in(victim, alice, "hello")
            update = forged(alice.doc.client_id, 5)
            session = await site.caller.http.put("/documents/plan", content=update, headers=bearer(his))
            key = await site.caller.http.put("/documents/plan", content=update, headers={"content-type": YJS})
            await type_in(victim, alice, " world")
            async with y_client(site, hers) as reader:
                read = text_of(await reader.missing())
        await violations.are((id, "forged_update"))

    assert read == "hello world"
    for answer in (session, key):
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "forged_update")
        assert str(alice.doc.client_id) in problem["detail"]
        assert "somebody else's" in problem["detail"]


async def test_a_message_that_is_none_counts_as_a_violation_on_every_socket() -> None:
    async with a_site() as site:
        violations = Violations(site)
        id, token = await site.session("mallory")
        for kind in DOCUMENTS:
            async with door(kind, site, token) as attacker:
                await attacker.say(UPDATE + lib0.sized(b"\x01\x01\x01"))
                assert await attacker.client.end() == (4400, "malformed")
            await violations.are(*[(id, "malformed")] * (1 + DOCUMENTS.index(kind)))


async def test_who_is_who_is_known_after_a_restart(tmp_path: Path) -> None:
    storage, alice = f"lmdb://{tmp_path}", Writer()
    async with a_site(storage=storage) as site:
        hers, his = await site.token("alice"), await site.token("mallory")
        async with y_client(site, hers, status="1") as victim:
            for letters in ("hel", "lo"):
                await victim.send(yjs.update(alice.type(letters)))
                await victim.next(b"\x08")

    async with a_site(storage=storage) as site:
        async with door("yjs", site, his) as attacker:
            await attacker.say(yjs.update(FORGED["a short GC"](alice.doc.client_id, 5)))
            ended = await attacker.client.end()
        again = await site.token("alice")
        async with door("yjs", site, again) as victim:
            await type_in(victim, alice, " world")
            read = text_of(await YClient(victim.client.socket).missing())

    assert (ended, read) == ((4400, "forged"), "hello world")


# --- what goes on ---------------------------------------------------------------------------------------------


@both
async def test_a_peer_brings_what_another_wrote_offline_and_the_other_goes_on(transport: str) -> None:
    async with a_site(transport) as site:
        hers, his = await site.token("alice"), await site.token("bob")
        alice, bob = Writer(), Writer()
        async with door("yjs", site, hers) as first:
            await type_in(first, alice, "hello")
        alice.type(" from offline")
        bob.doc.apply_update(alice.doc.get_update())
        bob.type(", says bob")
        async with door("yjs", site, his) as peer:
            await peer.say(yjs.sync_step2(bob.doc.get_update()))
            await peer.hear(UPDATE)

        alice.type("!")
        alice.map["new"] = 1
        del alice.map["new"]
        async with door("hocuspocus", site, hers) as second:
            await second.say(yjs.sync_step2(alice.doc.get_update()))
            await second.hear(APPLIED)
            async with y_client(site, hers) as reader:
                read = text_of(await reader.missing())

    assert sorted(read) == sorted("hello from offline, says bob!")


@both
async def test_another_tab_of_the_same_user_may_bring_everything_of_the_first(transport: str) -> None:
    async with a_site(transport) as site:
        alice = Writer()
        async with door("yjs", site, await site.token("alice")) as first:
            await type_in(first, alice, "hello")
            ahead = put_together(section(alice.doc.client_id, 5, gc(2), skip(1), words("!")))
            async with door("yjs", site, await site.token("alice")) as second:
                await second.say(yjs.sync_step2(ahead))
                await second.say(yjs.update(put_together(section(alice.doc.client_id, 7, words("?")))))
                await second.hear(UPDATE)
                read = text_of(await YClient(second.client.socket).missing())

    assert sorted(read) == sorted("hello!?")


async def test_a_page_that_has_moved_here_is_its_owners_and_nobody_elses() -> None:
    alice = Writer()
    foreign = put_together(section(11, 0, gc(5), words("kept, ")), section(12, 0, gc(3)))
    async with a_site() as site:
        (hers, his), headers = (await site.token("alice"), await site.token("mallory")), {"content-type": YJS}
        alice.doc.apply_update(foreign)
        brought = await site.caller.http.put("/documents/plan", content=foreign, headers=headers)
        again = await site.caller.http.put("/documents/plan", content=alice.type("hello"), headers=headers)
        exported = (await site.caller.http.get("/documents/plan/export")).content
        assert (brought.status_code, again.status_code) == (201, 200)

    async with a_site() as site:
        hers, his = await site.token("alice"), await site.token("mallory")
        moved = await site.caller.http.post(
            "/documents/plan/import", content=exported, headers={"content-type": BUNDLE}
        )
        own = put_together(section(alice.doc.client_id, 5, gc(2)))
        async with door("yjs", site, hers) as victim:
            await victim.say(shown((alice.doc.client_id, 1, b"{}")))
            await victim.say(yjs.update(own))
            await victim.hear(UPDATE)
            async with door("yjs", site, his) as attacker:
                await attacker.say(yjs.update(put_together(section(alice.doc.client_id, 7, gc(2)))))
                ended = await attacker.client.end()
            read = text_of(await YClient(victim.client.socket).missing())

    assert moved.status_code == 201
    assert (ended, read) == ((4400, "forged"), "kept, hello")


async def test_exported_authors_say_nothing_about_who_somebody_is_here() -> None:
    alice = Writer()
    async with a_site() as site:
        async with door("yjs", site, await site.token("alice at the old place")) as first:
            await type_in(first, alice, "hello")
        exported = (await site.caller.http.get("/documents/plan/export")).content
    damaged = msgspec.structs.replace(msgspec.msgpack.decode(exported, type=Bundle), authorship=b"\x01none")

    async with a_site() as site:
        headers = {"content-type": BUNDLE}
        wrong = await site.caller.http.post(
            "/documents/wrong/import", content=msgspec.msgpack.encode(damaged), headers=headers
        )
        no_text = await site.caller.http.post(
            "/documents/no_text/import", content=exported.replace(b"plan", b"pla\xff"), headers=headers
        )
        await site.caller.http.post("/documents/plan/import", content=exported, headers=headers)
        async with door("yjs", site, await site.token("alice")) as victim:
            await victim.say(yjs.update(put_together(section(alice.doc.client_id, 5, gc(2)))))
            await victim.hear(UPDATE)
        blame = (await site.caller.http.get("/documents/plan/blame?root=content")).json()["ranges"]

    assert (wrong.status_code, no_text.status_code) == (422, 422)
    assert [each["user_id"] for each in blame] == ["alice at the old place"]


YJS: Final = "application/x-yjs-update"
BUNDLE: Final = "application/vnd.roomkey.document"


# --- awareness ------------------------------------------------------------------------------------------------


def state(**user: Any) -> bytes:
    return json.dumps({"user": user, "cursor": 5}).encode()


@both
@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_awareness_shows_the_user_of_the_session_whatever_the_client_says(kind: str, transport: str) -> None:
    async with a_site(transport) as site:
        _, hers = await site.caller.session("alice", metadata={"name": "Alice"})
        async with door("yjs", site, await site.token("bob")) as reader, door(kind, site, hers) as writer:
            await writer.say(shown((7, 1, state(id="bob", name="Bob", color="#fff"))))
            stamped = entries_of(await reader.hear(AWARENESS))
            right = json.dumps({"user": {"name": "Alice", "id": "alice"}}, indent=1).encode()
            await writer.say(shown((7, 2, right)))
            same = entries_of(await reader.hear(AWARENESS))

    assert json.loads(stamped[0][2]) == {"user": {"id": "alice", "name": "Alice", "color": "#fff"}, "cursor": 5}
    assert same == [(7, 2, right)]


@both
async def test_checked_awareness_of_somebody_else_is_refused_with_a_reason(transport: str) -> None:
    async with a_site(transport, realtime={"awareness_identity": "check"}) as site:
        hers = await site.token("alice")
        async with door("yjs", site, await site.token("bob")) as reader:
            async with door("yjs", site, hers) as writer:
                await writer.say(shown((7, 1, state(id="alice"))))
                await writer.say(shown((7, 2, state(id="bob"))))
                told = reason_of(await writer.hear(DENIED))
                shown_first = entries_of(await reader.hear(AWARENESS))
                await writer.say(shown((7, 3, state(color="#fff"))))
                shown_then = entries_of(await reader.hear(AWARENESS))
                await reader.say(shown((7, 4, state(id="alice")), (8, 1, state(id="bob"))))  # clients repeat others
                repeated = entries_of(await reader.hear(AWARENESS))
            async with door("hocuspocus", site, hers) as writer:
                await writer.say(shown((9, 1, state(id="bob"))))
                denied = reason_of(await writer.hear(REFUSED))
                await writer.say(EMPTY_STEP2)
            unheard = [frame for frame in await YClient(reader.client.socket).heard() if frame.startswith(DENIED)]

    assert (told, denied) == ("foreign_user", "foreign_user")
    assert shown_first == [(7, 1, state(id="alice"))]
    assert shown_then == [(7, 3, state(color="#fff"))]
    assert repeated == [(8, 1, state(id="bob"))]
    assert unheard == []


async def test_switched_off_awareness_passes_as_it_came() -> None:
    async with (
        a_site(realtime={"awareness_identity": "off"}) as site,
        door("yjs", site, await site.token("bob")) as reader,
        door("yjs", site, await site.token("alice")) as writer,
    ):
        await writer.say(shown((7, 1, state(id="bob"))))

        assert entries_of(await reader.hear(AWARENESS)) == [(7, 1, state(id="bob"))]
