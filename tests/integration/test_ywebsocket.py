"""y-websocket from the outside, frame by frame, on both transports: what every client of it relies on."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkey.documents.service import DocumentService
from roomkey.node import WELCOME
from roomkey.wire import lib0
from tests.support.documents import (
    ASK,
    AWARENESS,
    DENIED,
    EMPTY_STEP2,
    QUERY_AWARENESS,
    STATUS,
    STEP1,
    STEP2,
    UPDATE,
    FailingStore,
    Site,
    YClient,
    a_site,
    content_of,
    document_of,
    edit,
    entries_of,
    faulty,
    reason_of,
    shown,
    text_of,
    typed,
    y_client,
)
from tests.support.rawsocket import BINARY, TRANSPORTS, Response, connected, frame

both = pytest.mark.parametrize("transport", TRANSPORTS)

ANA, BEN = 2**53 - 1, 7
"""Yjs clients; the first has the largest number there is."""


@asynccontextmanager
async def two_clients(site: Site, *grants: tuple[str, str]) -> AsyncGenerator[tuple[YClient, YClient]]:
    """Alice, who may do what ``grants`` say, and bob, who may write; both have been greeted."""
    alices, bobs = await site.token("alice", *grants), await site.token("bob")
    async with y_client(site, bobs) as bob, y_client(site, alices) as alice:
        await bob.next(STEP1)
        await alice.next(STEP1)
        yield alice, bob


async def refused(site: Site, path: str = "/yjs/plan", **headers: str) -> tuple[Response, dict[str, Any]]:
    """The answer to a handshake that is not accepted, and the problem in it."""
    async with connected(site.port) as client:
        response = await client.upgrade(path, {name.replace("_", "-"): value for name, value in headers.items()})
    assert response.headers["content-type"] == "application/problem+json"
    return response, json.loads(response.body)


# --- who is let in ------------------------------------------------------------------------------------------


@both
async def test_a_token_opens_a_document_as_bearer_as_header_and_as_subprotocol(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        for headers in (
            {"Authorization": f"Bearer {token}"},
            {"X-Session-ID": token},
            {"Sec-WebSocket-Protocol": f"roomkey.v1, roomkey.token.{token}"},
            {"Sec-WebSocket-Protocol": f"roomkey.token.{token}, roomkey.v1"},
        ):
            async with connected(site.port) as client:
                response = await client.upgrade("/yjs/plan", headers)

            assert response.status == 101
            assert token not in str(response.headers)
            chosen = "roomkey.v1" if "Sec-WebSocket-Protocol" in headers else None
            assert response.headers.get("sec-websocket-protocol") == chosen


@both
async def test_a_ticket_opens_one_socket(transport: str) -> None:
    async with a_site(transport) as site:
        bearer = {"Authorization": f"Bearer {await site.token()}"}
        ticket = (await site.caller.http.post("/sessions/me/tickets", headers=bearer)).json()["ticket"]

        async with connected(site.port) as client:
            response = await client.upgrade(f"/yjs/plan?ticket={ticket}")
        again, problem = await refused(site, f"/yjs/plan?ticket={ticket}")

    assert response.status == 101
    assert (again.status, problem["code"]) == (401, "invalid_token")


@both
async def test_nobody_gets_in_without_a_token_that_opens_a_session(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        nothing, missing = await refused(site)
        wrong, invalid = await refused(site, Authorization=f"Bearer {token[:-4]}AAAA")

    assert (nothing.status, missing["code"]) == (401, "credentials_missing")
    assert (wrong.status, invalid["code"]) == (401, "invalid_token")
    assert nothing.headers["www-authenticate"].startswith("Bearer")
    assert wrong.headers["www-authenticate"].startswith("Bearer")


@both
async def test_a_session_that_is_pending_or_has_no_grant_is_forbidden(transport: str) -> None:
    async with a_site(transport) as site:
        pending = (await site.caller.http.post("/sessions", json={"user_id": "alice"})).json()["token"]
        elsewhere = await site.token("alice", ("other/**", "write"))
        first, too_early = await refused(site, Authorization=f"Bearer {pending}")
        second, forbidden = await refused(site, Authorization=f"Bearer {elsewhere}")

    assert (first.status, too_early["code"]) == (403, "session_pending")
    assert (second.status, forbidden["code"]) == (403, "forbidden")


@both
async def test_pages_of_other_origins_are_forbidden_where_origins_are_named(transport: str) -> None:
    async with a_site(transport, security={"allowed_origins": ["https://app.example.com"]}) as site:
        bearer = f"Bearer {await site.token()}"
        foreign, problem = await refused(site, Authorization=bearer, Origin="https://evil.example")
        async with connected(site.port) as client:
            ours = {"Authorization": bearer, "Origin": "https://app.example.com"}
            own = await client.upgrade("/yjs/plan", ours)

    assert (foreign.status, problem["code"]) == (403, "origin_rejected")
    assert own.status == 101


@both
async def test_names_that_no_document_can_have_are_not_found(transport: str) -> None:
    async with a_site(transport) as site:
        bearer = f"Bearer {await site.token()}"
        for name in ("", "a/../b", "..", ".", "%00", "a%09b", "x" * 1025, "%C3%B6" * 513):
            response, problem = await refused(site, f"/yjs/{name}", Authorization=bearer)

            assert (response.status, problem["code"]) == (404, "not_found"), name
        malformed, _ = await refused(site, "/yjs/%ff", Authorization=bearer)

    assert malformed.status == 400


@both
async def test_a_line_break_is_in_no_name_either(transport: str) -> None:
    async with a_site(transport) as site, connected(site.port) as client:
        response = await client.upgrade("/yjs/a%0Ab", {"Authorization": f"Bearer {await site.token()}"})

    assert response.status == 404


@both
async def test_percent_encoding_makes_no_other_document_of_a_name(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        async with y_client(site, token, "n/ö 1") as one, connected(site.port) as other:
            await one.send(edit("same"))
            await one.next(UPDATE)
            response = await other.upgrade("/yjs/n%2F%C3%B6%201", {"Authorization": f"Bearer {token}"})
            names = [document.name for document in site.node.documents]

    assert response.status == 101
    assert names == ["n/ö 1"]


@both
async def test_a_document_that_cannot_be_loaded_lets_nobody_in_until_it_can(transport: str) -> None:
    async with a_site(transport, store=FailingStore) as site:
        store = faulty(site)
        store.loads = False
        token = await site.token()
        response, problem = await refused(site, Authorization=f"Bearer {token}")
        store.loads = True
        async with y_client(site, token) as client:
            document = await client.missing()

    assert response.status == 503
    assert int(response.headers["retry-after"]) > 0
    assert "away" not in json.dumps(problem)
    assert document == lib0.EMPTY_UPDATE


@both
async def test_the_handshake_names_the_lineage_of_the_document(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        reader = await site.token("carol", ("**", "read"))
        lineages: list[str | None] = []
        for each, document in ((reader, "plan"), (token, "plan"), (reader, "plan"), (token, "other")):
            async with connected(site.port) as client:
                response = await client.upgrade(f"/yjs/{document}", {"Authorization": f"Bearer {each}"})
                lineages.append(response.headers.get("roomkey-lineage"))

    assert lineages[0] is None  # nobody has made it yet
    assert lineages[1]
    assert lineages[2] == lineages[1]
    assert lineages[3] not in (None, lineages[1])


# --- synchronisation ----------------------------------------------------------------------------------------


@both
async def test_the_server_asks_first_and_answers_every_question(transport: str) -> None:
    async with a_site(transport) as site, y_client(site, await site.token()) as client:
        first = await client.receive()
        await client.send(ASK, ASK)
        answers = [await client.receive(), await client.receive()]

    assert first == STEP1 + lib0.sized(lib0.EMPTY_STATE)
    assert answers == [EMPTY_STEP2, EMPTY_STEP2]


@both
async def test_an_update_comes_back_to_its_sender_and_to_the_others_as_it_was_one_to_a_frame(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        edits = [edit("one"), edit("two"), edit("three")]

        await alice.send(*edits)

        assert [await alice.receive() for _ in edits] == edits
        assert [await bob.receive() for _ in edits] == edits


@both
async def test_an_answer_brings_what_is_missing_and_nothing_else(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        old, new = typed("old"), typed("new")
        await alice.send(UPDATE + lib0.sized(old), UPDATE + lib0.sized(new))
        await alice.next(UPDATE)
        await alice.next(UPDATE)

        whole = await bob.missing()
        rest = await bob.missing(old)
        nothing = await bob.missing(old, new)

    assert sorted(text_of(whole)) == sorted("oldnew")
    assert rest == new
    assert nothing == lib0.EMPTY_UPDATE


@both
async def test_a_step_2_brings_the_others_only_what_they_lack(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        await alice.send(edit("known "))
        known = content_of(await bob.next(UPDATE))
        await alice.next(UPDATE)

        news = typed("news")
        whole = document_of(known, news).get_update()
        await alice.send(STEP2 + lib0.sized(known), STEP2 + lib0.sized(whole))

        assert content_of(await bob.next(UPDATE)) == news
        assert await bob.heard() == []


# --- awareness ----------------------------------------------------------------------------------------------


@both
async def test_awareness_reaches_everyone_and_is_shown_to_joiners(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        await alice.send(shown((ANA, 1, b'{"user":"ana"}')))
        both_told = [entries_of(await client.next(AWARENESS)) for client in (alice, bob)]
        async with y_client(site, await site.token("carol")) as carol:
            joined = entries_of(await carol.next(AWARENESS))
            await carol.send(QUERY_AWARENESS)
            asked = entries_of(await carol.next(AWARENESS))

    assert both_told == [[(ANA, 1, b'{"user":"ana"}')]] * 2
    assert joined == asked == both_told[0]


@both
async def test_whoever_is_cut_off_disappears_one_clock_further(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        await alice.send(shown((ANA, 5, b"{}"), (BEN, 9, b"{}")))
        await bob.next(AWARENESS)

        alice.socket.transport.abort()

        assert sorted(entries_of(await bob.next(AWARENESS))) == [(BEN, 10, b"null"), (ANA, 6, b"null")]


@both
async def test_nobody_speaks_for_a_client_of_somebody_else(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        await alice.send(shown((ANA, 1, b"1")))
        await bob.next(AWARENESS)

        await bob.send(shown((ANA, 2, b"2")), shown((ANA, 3, b"null")), shown((BEN, 1, b"3")))

        assert entries_of(await alice.next(AWARENESS)) == [(ANA, 1, b"1")]
        assert entries_of(await alice.next(AWARENESS)) == [(BEN, 1, b"3")]


@both
async def test_a_document_in_which_nothing_is_said_says_something(transport: str) -> None:
    """Clients hang up after 30 seconds of silence."""
    async with (
        a_site(transport, documents={"keep_alive": "50ms"}, realtime={"tick": "20ms"}) as site,
        two_clients(site) as (alice, _),
    ):
        question = await alice.receive()
        await alice.send(shown((ANA, 1, b"{}")))
        await alice.next(AWARENESS)
        repeated = entries_of(await alice.next(AWARENESS))

    assert question.startswith(STEP1)
    assert repeated == [(ANA, 1, b"{}")]


# --- reading only -------------------------------------------------------------------------------------------


@both
async def test_what_a_reader_writes_is_denied_and_reaches_nobody(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site, ("plan", "read")) as (alice, bob):
        told = reason_of(await alice.next(DENIED))
        await bob.send(edit("theirs"))
        await alice.next(UPDATE)
        await bob.next(UPDATE)

        await alice.send(edit("mine"), STEP2 + lib0.sized(typed("mine too")))
        reasons = [reason_of(await alice.next(DENIED)) for _ in range(2)]

        assert told == "read-only"
        assert reasons == ["read-only"] * 2
        assert await bob.heard() == []
        assert text_of(await bob.missing()) == text_of(await alice.missing()) == "theirs"


@both
async def test_a_reader_that_has_nothing_new_is_no_writer(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site, ("plan", "read")) as (alice, bob):
        await alice.next(DENIED)
        await bob.send(edit("theirs"))
        known = content_of(await alice.next(UPDATE))

        await alice.send(EMPTY_STEP2, STEP2 + lib0.sized(known), UPDATE + lib0.sized(known), shown((ANA, 1, b"{}")))

        assert [frame[:1] for frame in await alice.heard()] == [AWARENESS]
        assert entries_of(await bob.next(AWARENESS)) == [(ANA, 1, b"{}")]


@both
async def test_changed_grants_stop_a_writer_and_let_it_go_on(transport: str) -> None:
    async with a_site(transport) as site:
        id, token = await site.session()
        async with y_client(site, token) as alice, y_client(site, await site.token("bob")) as bob:
            await alice.next(STEP1)

            await site.change_grants(id, ("plan", "read"))
            told = reason_of(await alice.next(DENIED))
            await alice.send(edit("late"))
            again = reason_of(await alice.next(DENIED))
            await site.change_grants(id, ("plan", "write"))
            await alice.next(STEP1)  # what was refused meanwhile?
            await alice.send(STEP2 + lib0.sized(typed("late")))

            assert told == again == "read-only"
            assert text_of(content_of(await bob.next(UPDATE))) == "late"

            await site.change_grants(id, ("elsewhere", "write"))

            assert await alice.end() == (4403, "forbidden")


# --- what became of it --------------------------------------------------------------------------------------


@both
async def test_status_counts_what_is_durable_and_only_for_who_asked(transport: str) -> None:
    async with a_site(transport, store=FailingStore) as site:
        faulty(site).appends = False
        token = await site.token()
        async with y_client(site, token, status="1") as alice, y_client(site, token) as quiet:
            await alice.send(edit("a"), edit("b"))
            await quiet.next(UPDATE)
            await quiet.next(UPDATE)
            before = await alice.heard()
            faulty(site).appends = True
            counts = [await alice.next(STATUS), await alice.next(STATUS)]

            assert not [frame for frame in before if frame.startswith(STATUS)]
            assert counts == [b"\x01", b"\x02"]
            assert not [frame for frame in await quiet.heard() if frame.startswith(STATUS)]


@both
async def test_an_empty_answer_does_not_make_what_waits_durable(transport: str) -> None:
    """The first n messages are durable: an empty step 2 behind an update that waits is not one of the first."""
    async with a_site(transport, store=FailingStore) as site:
        faulty(site).appends = False
        async with y_client(site, await site.token(), status="1") as alice:
            await alice.next(STEP1)

            await alice.send(edit("waits"), EMPTY_STEP2)
            too_early = [frame for frame in await alice.heard() if frame.startswith(STATUS)]
            faulty(site).appends = True

            assert too_early == []
            while await alice.next(STATUS) != b"\x02":
                pass


@both
async def test_what_was_brought_again_is_not_durable_before_it_is_stored(transport: str) -> None:
    """A client that reconnects while storage is away brings what the server has, and has not saved."""
    async with a_site(transport, store=FailingStore) as site:
        faulty(site).appends = False
        token, update = await site.token(), typed("waits")
        async with y_client(site, token, status="1") as alice:
            await alice.send(UPDATE + lib0.sized(update))
            await alice.next(UPDATE)
        async with y_client(site, token, status="1") as alice:
            await alice.send(STEP2 + lib0.sized(update))

            too_early = [frame for frame in await alice.heard() if frame.startswith(STATUS)]
            faulty(site).appends = True

            assert too_early == []
            assert await alice.next(STATUS) == b"\x01"


@both
async def test_a_refused_message_is_none_of_those_that_are_durable(transport: str) -> None:
    """A count that leaves it out says of the refused message that it is saved."""
    async with a_site(transport) as site:
        id, token = await site.session()
        async with y_client(site, token, status="1") as alice:
            await site.change_grants(id, ("plan", "read"))
            await alice.send(edit("refused"))
            await alice.next(DENIED)
            await site.change_grants(id, ("plan", "write"))
            await alice.send(edit("accepted"))
            await alice.next(UPDATE)
            await alice.send(EMPTY_STEP2)

            assert STATUS + b"\x01" not in await alice.heard()


@both
async def test_a_reader_who_came_first_and_is_let_write_can(transport: str) -> None:
    """Nobody had made the document: readers do not, and it has to be made when the first of them may write."""
    async with a_site(transport) as site:
        id, token = await site.session("alice", ("plan", "read"))
        async with y_client(site, token) as alice:
            await alice.next(DENIED)
            await site.change_grants(id, ("plan", "write"))
            await alice.next(STEP1)
            await alice.send(edit("at last"))

            assert UPDATE + lib0.sized(await alice.missing()) in await alice.heard()


# --- how it ends --------------------------------------------------------------------------------------------


NO_MESSAGES: dict[str | bytes, int] = {
    "text": 1003,
    b"": 4400,
    b"\x63": 4400,  # no such kind
    b"\x00\x07\x00": 4400,  # no such step
    ASK + b"\x00": 4400,  # two in a frame
    b"\x00\x02\x05\x01": 4400,  # cut off
    UPDATE + lib0.sized(b"\x01\x01\x01"): 4400,  # no update
    STEP1 + lib0.sized(b"\xff"): 4400,  # no state vector
    b"\x01" + lib0.sized(b"\x01\x01\x01\x01{"): 4400,  # no JSON
    b"\x02\x00\x00": 4400,  # only servers say so
    STATUS + b"\x01": 4400,
    UPDATE + lib0.sized(bytes(2 * 1024 * 1024)): 1009,
}


@both
async def test_a_message_that_is_none_closes_its_sender_and_nobody_else(transport: str) -> None:
    async with a_site(transport) as site, y_client(site, await site.token("bob")) as bob:
        token = await site.token()
        for message, code in NO_MESSAGES.items():
            async with y_client(site, token) as alice:
                await alice.socket.send(message)

                assert (await alice.end())[0] == code, message[:20]
        await bob.send(edit("still here"))

        assert text_of(await bob.missing()) == "still here"


@both
@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("invalidate", (4401, "session_invalidated")),
        ("suspend", (4503, "session_suspended")),
        ("expire", (4401, "session_expired")),
    ],
)
async def test_a_session_that_ends_takes_its_sockets_with_it(
    transport: str, command: str, end: tuple[int, str]
) -> None:
    async with a_site(transport) as site:
        id, token = await site.session()
        async with y_client(site, token) as alice, y_client(site, await site.token("bob")) as bob:
            await alice.send(shown((ANA, 1, b"{}")))
            await bob.next(AWARENESS)

            await site.caller.put(id, command)

            assert await alice.end() == end
            assert entries_of(await bob.next(AWARENESS)) == [(ANA, 2, b"null")]


@both
async def test_a_drain_sends_everyone_away_to_come_back(transport: str) -> None:
    async with a_site(transport, server={"dev": True, "drain": "100ms"}) as site, two_clients(site) as (alice, bob):
        await site.node.drain()

        assert await alice.end() == await bob.end() == (1012, "draining")
        response, problem = await refused(site, Authorization="Bearer whatever")
        assert (response.status, problem["code"]) == (503, "draining")


@both
async def test_whoever_sends_too_fast_may_come_back(transport: str) -> None:
    hurried = {"messages_per_second": 1.0, "message_burst": 5}
    async with a_site(transport, documents=hurried) as site, y_client(site, await site.token()) as alice:
        await alice.send(*[ASK] * 6)

        assert await alice.end() == (1013, "too_fast")


@both
async def test_whoever_brings_another_history_is_told_to_begin_anew(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token()
        async with y_client(site, token, lineage="of-long-ago") as stranger:
            end = await stranger.end()
        async with y_client(site, token) as alice:
            assert alice.socket.response is not None
            lineage = alice.socket.response.headers["roomkey-lineage"]
        async with y_client(site, token, lineage=lineage) as welcome:
            document = await welcome.missing()

    assert end == (4205, "lineage_mismatch")
    assert stranger.unread == []
    assert document == lib0.EMPTY_UPDATE


@both
async def test_a_page_that_fills_its_own_copy_brings_its_text_a_second_time(transport: str) -> None:
    async with a_site(transport) as site:
        token, texts = await site.token(), list[str]()
        for _ in range(2):
            async with y_client(site, token) as page:
                filled = typed("template.")  # before it has seen what is there
                await page.next(STEP1)
                await page.send(STEP2 + lib0.sized(filled))
                await page.next(UPDATE)
                texts.append(text_of(await page.missing()))
        async with y_client(site, token, lineage="of-the-template") as careful:
            reset = await careful.end()

    assert texts[:2] == ["template.", "template.template."]
    assert reset == (4205, "lineage_mismatch")


@both
async def test_what_the_server_fills_in_is_there_once_for_however_many_pages(transport: str) -> None:
    async with a_site(transport) as site:
        token, texts = await site.token(), list[str]()
        for _ in range(2):
            async with y_client(site, token, "demo/welcome") as page:
                texts.append(text_of(await page.missing()))

    assert texts == [WELCOME.read_text(encoding="utf-8")] * 2


@both
async def test_a_deleted_document_closes_its_sockets_and_is_another_one_afterwards(transport: str) -> None:
    async with a_site(transport) as site, two_clients(site) as (alice, bob):
        await alice.send(edit("gone"))
        await bob.next(UPDATE)
        assert alice.socket.response is not None
        before = alice.socket.response.headers["roomkey-lineage"]

        await DocumentService(site.node.documents).delete("plan")

        assert await alice.end() == await bob.end() == (4410, "document_deleted")
        async with y_client(site, await site.token()) as again:
            assert await again.missing() == lib0.EMPTY_UPDATE
            assert again.socket.response is not None
            assert again.socket.response.headers["roomkey-lineage"] != before


@both
async def test_a_client_that_says_nothing_is_not_closed(transport: str) -> None:
    quiet = {"keep_alive": "20ms"}
    async with (
        a_site(transport, documents=quiet, realtime={"tick": "10ms"}) as site,
        y_client(site, await site.token()) as alice,
    ):
        questions = [await alice.next(STEP1) for _ in range(5)]

    assert questions == [lib0.sized(lib0.EMPTY_STATE)] * 5


async def test_a_connection_that_was_cut_without_a_word_is_over_when_a_ping_stays_unanswered() -> None:
    brisk = {"ping_interval": "300ms", "pong_timeout": "100ms"}
    async with a_site(websocket=brisk) as site, y_client(site, await site.token("bob")) as bob:
        await bob.next(STEP1)
        async with connected(site.port) as cut:
            headers = {"Authorization": f"Bearer {await site.token('alice')}"}
            response = await cut.upgrade("/yjs/plan", headers)
            cut.send(frame(BINARY, shown((ANA, 5, b"{}"))))
            came = entries_of(await bob.next(AWARENESS))
            cut.read_nothing()  # it answers no ping, and no FIN comes either
            went = entries_of(await bob.next(AWARENESS))

    assert response.status == 101
    assert (came, went) == ([(ANA, 5, b"{}")], [(ANA, 6, b"null")])
