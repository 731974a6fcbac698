"""Hocuspocus from the outside, frame by frame, on both transports: what its provider relies on."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.exceptions import ConnectionClosed

from roomkey.documents.service import DocumentService
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from tests.support.documents import (
    APPLIED,
    ASK,
    AWARENESS,
    EMPTY_STEP2,
    NOT_APPLIED,
    REFUSED,
    SCOPE,
    STEP1,
    STEP2,
    TOKEN_WANTED,
    UPDATE,
    FailingStore,
    HocuspocusClient,
    Site,
    a_site,
    content_of,
    edit,
    entries_of,
    faulty,
    hocuspocus_client,
    reason_of,
    shown,
    text_of,
    token_message,
    typed,
    y_client,
)
from tests.support.rawsocket import TRANSPORTS, connected

both = pytest.mark.parametrize("transport", TRANSPORTS)

MEBIBYTE = 1024 * 1024
STATELESS, BROADCAST, CLOSE = b"\x05", b"\x06", b"\x07"


@asynccontextmanager
async def a_writer(transport: str) -> AsyncGenerator[tuple[Site, HocuspocusClient]]:
    """A client of alice in the document ``plan``, synchronised."""
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        await client.show("plan", await site.token())
        assert await client.missing("plan") == lib0.EMPTY_UPDATE
        await client.hear("plan", STEP1)
        yield site, client


# --- tokens -------------------------------------------------------------------------------------------------


@both
async def test_everything_sent_at_once_is_answered_in_order(transport: str) -> None:
    """Clients send their token, their question, and what they show without waiting for anything."""
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        await client.say("plan", token_message(await site.token()), ASK, shown((7, 1, b"{}")), edit("early"))

        answers = [(await client.receive()).removeprefix(yjs.address("plan")) for _ in range(6)]

        expected = [SCOPE, STEP2, STEP1, AWARENESS, UPDATE, APPLIED]
        assert [answer[: len(kind)] for answer, kind in zip(answers, expected, strict=True)] == expected
        assert text_of(await client.missing("plan")) == "early"


@both
async def test_a_question_may_come_before_the_token(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        await client.say("plan", ASK, edit("first"))
        unanswered = await client.heard()
        await client.say("plan", token_message(await site.token()))

        assert unanswered == []
        assert reason_of(await client.hear("plan", SCOPE)) == "read-write"
        assert await client.hear("plan", STEP2) == lib0.sized(lib0.EMPTY_UPDATE)
        assert text_of(content_of(await client.hear("plan", UPDATE))) == "first"


@both
async def test_many_documents_share_a_socket_and_are_kept_apart(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        token = await site.token()
        names = [f"n/{number} ö" for number in range(20)]
        for name in names:
            await client.say(name, token_message(token), edit(name))
        for name in names:
            await client.hear(name, APPLIED)

        assert [text_of(await client.missing(name)) for name in names] == names


@both
async def test_two_addresses_of_one_document_on_one_socket_hear_each_other(transport: str) -> None:
    async with a_writer(transport) as (site, client):
        token = await site.token("alice")
        second = "plan\0tab-2"
        await client.show(second, token)
        await client.say(second, edit("from the second"))

        assert text_of(content_of(await client.hear("plan", UPDATE))) == "from the second"
        assert text_of(content_of(await client.hear(second, UPDATE))) == "from the second"

        await client.say(second, CLOSE)
        await client.say("plan", edit("alone"))

        assert await client.hear("plan", APPLIED) == b""
        assert not [frame for frame in await client.heard() if frame.startswith(yjs.address(second) + UPDATE)]
        assert [document.name for document in site.node.documents] == ["plan"]


@both
async def test_after_a_wrong_token_the_socket_is_open_and_the_next_one_works(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        token = await site.token()
        await client.say("plan", token_message(token[:-4] + "AAAA"), edit("lost"))
        reason = reason_of(await client.hear("plan", REFUSED))
        await client.heard()

        scope = await client.show("plan", token)

        assert reason == "invalid_token"
        assert scope == "read-write"
        assert await client.missing("plan") == lib0.EMPTY_UPDATE


@both
async def test_after_too_many_wrong_tokens_it_is_not(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        wrong = (await site.token())[:-4] + "AAAA"
        for _ in range(10):
            await client.say("plan", token_message(wrong))
            assert reason_of(await client.hear("plan", REFUSED)) == "invalid_token"

        assert await client.end() == (4401, "bad_tokens")


@both
async def test_a_pending_or_ended_session_is_refused_by_name(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        pending = (await site.caller.http.post("/sessions", json={"user_id": "alice"})).json()["token"]
        id, ended = await site.session()
        await site.caller.put(id, "invalidate")
        reasons: list[str] = []
        for token in (pending, ended):
            await client.say("plan", token_message(token))
            reasons.append(reason_of(await client.hear("plan", REFUSED)))

    assert reasons == ["session_pending", "session_invalidated"]


@both
async def test_a_new_session_of_the_same_user_takes_the_socket_over(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        old, first = await site.session()
        new, second = await site.session()
        await client.show("plan", first)

        scope = await client.show("plan", second)
        await site.caller.put(old, "invalidate")
        await client.say("plan", edit("still here"))

        assert scope == "read-write"
        assert await client.hear("plan", APPLIED) == b""
        await site.caller.put(new, "invalidate")
        assert await client.end() == (4401, "session_invalidated")


@both
async def test_a_token_of_another_user_is_refused_and_the_socket_stays_whose_it_was(transport: str) -> None:
    async with a_writer(transport) as (site, client):
        mallory, token = await site.session("mallory")
        await client.say("plan", token_message(token))
        reason = reason_of(await client.hear("plan", REFUSED))
        await client.say("other", token_message(token))
        elsewhere = reason_of(await client.hear("other", REFUSED))

        scope = await client.show("plan", "")  # what the socket has already

        assert reason == elsewhere == "forbidden"
        assert scope == "read-write"
        await site.caller.put(mallory, "invalidate")
        await client.say("plan", edit("mine"))
        assert await client.hear("plan", APPLIED) == b""


@both
async def test_a_credential_of_the_handshake_counts_for_every_document(transport: str) -> None:
    async with a_site(transport) as site:
        bearer = {"Authorization": f"Bearer {await site.token('alice', ('mine/*', 'write'), ('**', 'read'))}"}
        async with hocuspocus_client(site, headers=bearer) as client:
            scopes = [await client.show(name, "") for name in ("mine/a", "theirs")]
        async with connected(site.port) as stranger:
            response = await stranger.upgrade("/hocuspocus", {"Authorization": "Bearer nonsense"})

    assert scopes == ["read-write", "readonly"]
    assert response.status == 401


@both
async def test_documents_that_are_not_granted_or_cannot_be_are_refused_one_by_one(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        token = await site.token("alice", ("mine", "write"))
        await client.show("mine", token)
        reasons: list[str] = []
        for name in ("theirs", "a/../b", ""):
            await client.say(name, token_message(token))
            reasons.append(reason_of(await client.hear(name, REFUSED)))
        await client.say("mine", edit("mine"))

        assert reasons == ["forbidden", "invalid_document_name", "invalid_document_name"]
        assert await client.hear("mine", APPLIED) == b""


# --- what became of it --------------------------------------------------------------------------------------


@both
async def test_each_change_of_a_writer_is_answered_with_one_status(transport: str) -> None:
    async with a_writer(transport) as (_, client):
        await client.say("plan", edit("a"), edit("b"), STEP2 + lib0.sized(typed("c")), EMPTY_STEP2)

        for _ in range(4):
            assert await client.hear("plan", APPLIED) == b""
        rest = [frame.removeprefix(yjs.address("plan"))[:1] for frame in await client.heard()]

        assert b"\x08" not in rest
        assert rest.count(b"\x00") == 3  # what it wrote comes back


@both
async def test_a_reader_is_told_so_and_its_changes_are_not_applied(transport: str) -> None:
    async with a_writer(transport) as (site, writer), hocuspocus_client(site) as reader:
        scope = await reader.show("plan", await site.token("carol", ("plan", "read")))
        await writer.say("plan", edit("theirs"))
        known = await reader.hear("plan", UPDATE)

        await reader.say("plan", edit("mine"), STEP2 + lib0.sized(typed("mine too")), EMPTY_STEP2, STEP2 + known)

        statuses = [await reader.hear("plan", b"\x08") for _ in range(4)]
        assert scope == "readonly"
        assert statuses == [b"\x00", b"\x00", b"\x01", b"\x01"]
        assert text_of(await writer.missing("plan")) == "theirs"


@both
async def test_grants_change_under_an_open_document(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        id, token = await site.session()
        await client.show("plan", token)
        await site.change_grants(id, ("plan", "read"))
        reading = reason_of(await client.hear("plan", SCOPE))
        await client.say("plan", edit("late"))
        status = await client.hear("plan", b"\x08")
        await site.change_grants(id, ("plan", "write"))
        writing = reason_of(await client.hear("plan", SCOPE))
        await client.hear("plan", STEP1)
        await client.say("plan", STEP2 + lib0.sized(typed("late")))
        balanced = [await client.hear("plan", b"\x08") for _ in range(2)]
        await site.change_grants(id, ("elsewhere", "write"))
        reason = reason_of(await client.hear("plan", REFUSED))

        assert (reading, status, writing) == ("readonly", NOT_APPLIED[1:], "read-write")
        assert balanced == [b"\x01"] * 2  # one for the step 2, and one for what was refused before
        assert reason == "forbidden"
        assert await client.heard() is not None  # the socket is open


@both
async def test_nothing_is_called_applied_before_it_is_durable(transport: str) -> None:
    """Not what was refused before, and not what the server has of an earlier connection but has not saved."""
    async with a_site(transport, store=FailingStore) as site, hocuspocus_client(site) as client:
        id, token = await site.session("alice", ("plan", "write"))
        await client.show("plan", token)
        await site.change_grants(id, ("plan", "read"))
        await client.say("plan", edit("late"))
        await client.hear("plan", NOT_APPLIED)
        await site.change_grants(id, ("plan", "write"))
        await client.hear("plan", STEP1)
        faulty(site).appends = False
        late = STEP2 + lib0.sized(typed("late"))
        await client.say("plan", late, late)
        too_early = [frame for frame in await client.heard() if frame == yjs.address("plan") + APPLIED]
        faulty(site).appends = True

        assert too_early == []
        assert [await client.hear("plan", APPLIED) for _ in range(3)] == [b""] * 3


@both
async def test_a_reader_who_came_first_and_is_let_write_can(transport: str) -> None:
    """Nobody had made the document: readers do not, and it has to be made when the first of them may write."""
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        id, token = await site.session("alice", ("plan", "read"))
        await client.show("plan", token)
        await site.change_grants(id, ("plan", "write"))
        await client.hear("plan", STEP1)
        await client.say("plan", edit("at last"))

        assert await client.hear("plan", b"\x08") == b"\x01"


# --- other messages -----------------------------------------------------------------------------------------


@both
async def test_a_ping_is_answered_with_or_without_a_token(transport: str) -> None:
    async with a_site(transport) as site, hocuspocus_client(site) as client:
        await client.send(yjs.PING)
        stranger = await client.receive()
        await client.show("plan", await site.token())
        await client.send(yjs.PING, yjs.PONG)
        known = await client.next(b"\x0a")

    assert (stranger, known) == (yjs.PONG, b"")


@both
async def test_a_closed_document_is_left_and_can_be_opened_again(transport: str) -> None:
    async with a_writer(transport) as (site, client), y_client(site, await site.token("bob")) as bob:
        await client.say("plan", shown((7, 3, b"{}")))
        await bob.next(AWARENESS)

        await client.say("plan", CLOSE)
        left = entries_of(await bob.next(AWARENESS))
        await bob.send(edit("unheard"))
        await bob.next(UPDATE)
        heard = await client.heard()
        scope = await client.show("plan", "")

        assert left == [(7, 4, b"null")]
        assert not [frame for frame in heard if frame.startswith(yjs.address("plan") + UPDATE)]
        assert yjs.address("plan") + yjs.closed("provider_initiated") in heard
        assert scope == "read-write"
        assert text_of(await client.missing("plan")) == "unheard"


@both
async def test_clients_do_not_broadcast(transport: str) -> None:
    async with a_writer(transport) as (site, client), hocuspocus_client(site) as other:
        await other.show("plan", await site.token("bob"))
        await client.say("plan", STATELESS + lib0.text("for the application"))
        await client.heard()

        await client.say("plan", BROADCAST + lib0.text("for everyone"))

        assert (await client.end())[0] == 4400
        assert not [frame for frame in await other.heard() if b"everyone" in frame or b"application" in frame]


@both
@pytest.mark.parametrize("with_token", [True, False])
async def test_garbage_closes_its_sender(transport: str, *, with_token: bool) -> None:
    garbage = {b"\xff": 4400, b"": 4400, yjs.address("plan") + b"\x63": 4400, b"\x09\x09": 4400, "text": 1003}
    async with a_site(transport) as site:
        token = await site.token()
        for message, code in garbage.items():
            async with hocuspocus_client(site) as client:
                if with_token:
                    await client.show("plan", token)
                await client.socket.send(message)

                assert (await client.end())[0] == code, message


@both
async def test_a_deleted_document_is_taken_away_and_the_socket_stays_open(transport: str) -> None:
    async with a_writer(transport) as (site, client):
        await client.show("other", "")

        await DocumentService(site.node.documents).delete("plan")

        assert reason_of(await client.hear("plan", REFUSED)) == "document_deleted"
        await client.say("other", edit("goes on"))
        assert await client.hear("other", APPLIED) == b""


@both
async def test_silence_is_broken_by_a_ping(transport: str) -> None:
    """A step 1 would be answered with a step 2, whose status the provider takes for one of its changes."""
    async with (
        a_site(transport, documents={"keep_alive": "50ms"}, realtime={"tick": "20ms"}) as site,
        hocuspocus_client(site) as client,
    ):
        await client.show("plan", await site.token())

        assert [await client.next(yjs.PING) for _ in range(2)] == [b"", b""]


@both
async def test_shortly_before_the_end_the_token_is_asked_for_again(transport: str) -> None:
    async with a_site(transport, realtime={"expiry_notice": "1h", "tick": "20ms"}) as site:
        _, token = await site.caller.session("alice", lifetime=60)
        async with hocuspocus_client(site) as client:
            await client.show("plan", token)
            wanted = await client.hear("plan", TOKEN_WANTED)
            _, longer = await site.session()

            assert wanted == b""
            assert await client.show("plan", longer) == "read-write"


@both
async def test_whoever_opens_a_document_shortly_before_the_end_is_asked_for_a_token_too(transport: str) -> None:
    """The time may have come while none was open, so that nobody could be asked."""
    async with a_site(transport, realtime={"expiry_notice": "1h", "tick": "20ms"}) as site:
        _, token = await site.caller.session("alice", lifetime=60)
        async with hocuspocus_client(site) as client:
            await client.show("plan", token)
            await client.hear("plan", TOKEN_WANTED)

            await client.show("other", token)
            wanted = await client.hear("other", TOKEN_WANTED)
            _, longer = await site.session()
            await client.show("plan", longer)
            await client.show("third", longer)

            assert wanted == b""
            assert yjs.address("third") + TOKEN_WANTED not in await client.heard()


# --- unauthenticated ------------------------------------------------------------------------------------


@both
async def test_what_waits_for_a_token_is_bounded(transport: str) -> None:
    excesses = {
        "bytes": [yjs.address("plan") + UPDATE + lib0.sized(bytes(MEBIBYTE - 64))] * 6,
        "messages": [yjs.address("plan") + ASK] * 1_001,
        "documents": [yjs.address(f"plan-{number}") + ASK for number in range(101)],
    }
    async with a_site(transport) as site:
        for what, frames in excesses.items():
            async with hocuspocus_client(site) as client:
                await client.send(*frames[:-1])
                allowed = await client.heard()
                await client.send(frames[-1])

                assert allowed == []
                assert await client.end() == (4205, "queue_full"), what


@both
async def test_a_socket_opens_no_more_documents_than_it_may(transport: str) -> None:
    async with a_site(transport, documents={"max_documents_per_socket": 3}) as site, hocuspocus_client(site) as client:
        token = await site.token()
        for name in "abc":
            await client.show(name, token)
        await client.say("d", token_message(token))
        reason = reason_of(await client.hear("d", REFUSED))
        await client.say("a", CLOSE)

        assert reason == "too_many_documents"
        assert await client.show("d", token) == "read-write"


@both
async def test_a_stranger_that_only_pings_is_sent_away_in_time(transport: str) -> None:
    brisk = {"authentication_deadline": "200ms"}
    async with (
        a_site(transport, documents=brisk, realtime={"tick": "20ms"}) as site,
        hocuspocus_client(site) as client,
        hocuspocus_client(site) as known,
    ):
        await known.show("plan", await site.token())

        with suppress(ConnectionClosed):
            while True:
                await client.send(yjs.PING)
                await client.next(yjs.PONG)

        assert await client.end() == (4408, "not_authenticated")
        assert await known.heard() is not None


@both
async def test_unauthenticated_sockets_are_bounded(transport: str) -> None:
    async with (
        a_site(transport, documents={"max_unauthenticated_sockets": 1}) as site,
        hocuspocus_client(site) as first,
    ):
        async with connected(site.port) as second:
            full = await second.upgrade("/hocuspocus")
        await first.show("plan", await site.token())
        async with connected(site.port) as third:
            room = await third.upgrade("/hocuspocus")

    assert (full.status, room.status) == (503, 101)


@both
async def test_a_drain_sends_unauthenticated_sockets_away_too(transport: str) -> None:
    async with a_writer(transport) as (site, client), hocuspocus_client(site) as stranger:
        await site.node.drain()

        assert await client.end() == await stranger.end() == (1012, "draining")
