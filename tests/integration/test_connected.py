"""Who is in a document, on all three protocols; and disconnecting them, with a reason that reaches the page."""

import asyncio
from typing import Any

import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit
from tests.support.documents import REFUSED, Site, a_site, edit, hocuspocus_client, reason_of, y_client
from tests.support.editor import JsonEditor, editing

REASON = "the meeting is over"
TOLD = f"disconnected: {REASON}"


def editor(site: Site, token: str) -> Any:
    return editing(site.address("/ws"), token)


async def connected(site: Site, document: str = "plan", **query: str) -> dict[str, Any]:
    answer = await site.caller.http.get(f"/documents/{document}/sessions", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["silent_nodes"] == []
    return answer.json()


async def disconnect(site: Site, path: str, reason: str | None = REASON, **headers: str) -> tuple[int, Any]:
    params = {} if reason is None else {"reason": reason}
    answer = await site.caller.http.delete(path, params=params, headers=headers)
    return answer.status_code, answer.json().get("disconnected", answer.json().get("code"))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def subscribed(client: JsonEditor, *documents: str) -> JsonEditor:
    for document in documents:
        await client.subscribe(document)
    return client


async def test_everybody_with_a_socket_in_the_document_is_listed_by_protocol_and_access() -> None:
    async with a_site() as site:
        ada = await site.session("ada", ("plan", "read"))
        bob = await site.session("bob", ("**", "admin"))
        cyd = await site.session("cyd")
        async with editor(site, ada[1]) as reader, y_client(site, bob[1]) as yjs, hocuspocus_client(site) as provider:
            await subscribed(reader, "plan")
            await yjs.heard()
            await provider.show("plan", cyd[1])
            await provider.show("plan\0again", cyd[1])
            await provider.show("other", cyd[1])

            page = await connected(site)
            elsewhere = await connected(site, "nobody/is/here".replace("/", "%2F"))

        found = {
            (each["id"], each["user_id"], each["access"], *(one["protocol"] for one in each["connections"]))
            for each in page["sessions"]
        }
        assert found == {
            (ada[0], "ada", "read", "ws"),
            (bob[0], "bob", "admin", "yjs"),
            (cyd[0], "cyd", "write", "hocuspocus"),
        }
        assert all(each["since"] == each["connections"][0]["since"] for each in page["sessions"])
        assert {one["node"] for each in page["sessions"] for one in each["connections"]} == {site.node.id}
        assert elsewhere["sessions"] == []


async def test_pages_are_in_the_order_of_ids_and_one_session_stands_once() -> None:
    async with a_site() as site:
        sessions = [await site.session(f"user-{number}") for number in range(3)]
        async with (
            editor(site, sessions[0][1]) as one,
            editor(site, sessions[1][1]) as two,
            editor(site, sessions[2][1]) as three,
            editor(site, sessions[2][1]) as again,
        ):
            for client in (one, two, three, again):
                await client.subscribe("plan")

            first = await connected(site, limit="2")
            second = await connected(site, limit="2", cursor=first["next_cursor"])

        assert [each["id"] for each in first["sessions"] + second["sessions"]] == sorted(id for id, _ in sessions)
        assert second["next_cursor"] is None
        counts = {each["id"]: len(each["connections"]) for each in first["sessions"] + second["sessions"]}
        assert counts == {sessions[0][0]: 1, sessions[1][0]: 1, sessions[2][0]: 2}
        wrong = await site.caller.http.get("/documents/plan/sessions", params={"cursor": "b"})
        assert (wrong.status_code, wrong.json()["code"]) == (404, "unknown_cursor")


async def test_who_leaves_or_goes_is_listed_no_more() -> None:
    async with a_site() as site:
        async with editor(site, await site.token()) as client, editor(site, await site.token()) as other:
            await subscribed(client, "plan")
            await subscribed(other, "plan", "more")
            await client.ask("unsubscribe", {"document": "plan"})
            left = await connected(site)
            gone = await site.caller.put((await connected(site, "more"))["sessions"][0]["id"], "invalidate")
            after = await connected(site, "more")

        assert len(left["sessions"]) == 1
        assert gone["state"] == "invalidated"
        assert after["sessions"] == []


async def test_on_ws_a_disconnected_page_is_told_why_and_stays_in_its_other_documents() -> None:
    async with a_site() as site:
        id, token = await site.session()
        async with editor(site, token) as client:
            await subscribed(client, "plan", "more")

            done = await disconnect(site, f"/documents/plan/sessions/{id}")
            told = await client.next("unsubscribed")
            out = (await client.ask("realtime_edit", {"document": "plan"}))["payload"]
            stays = await client.edit("more", text="still here")
            back = await client.subscribe("plan")

            assert done == (200, 1)
            assert (told["document"], told["error"]["code"]) == ("plan", "DISCONNECTED")
            assert told["error"]["details"] == {"reason": REASON}
            assert out["code"] == "NOT_SUBSCRIBED"
            assert stays["position"]["offset"] == 1
            assert back["document"] == "plan"


async def test_on_yjs_the_socket_is_closed_with_a_final_code_and_the_reason() -> None:
    async with a_site() as site:
        id, token = await site.session()
        async with y_client(site, token) as client, y_client(site, token, "more") as other:
            await client.heard()

            done = await disconnect(site, f"/documents/plan/sessions/{id}")

            assert done == (200, 1)
            assert await client.end() == (4420, TOLD)
            await other.send(edit("still here"))
            await other.heard()
        async with y_client(site, token) as back:
            await back.heard()


async def test_on_hocuspocus_the_document_is_denied_with_the_reason_and_the_others_stay() -> None:
    async with a_site() as site:
        id, token = await site.session()
        async with hocuspocus_client(site) as client:
            await client.show("plan", token)
            await client.show("more", token)

            done = await disconnect(site, f"/documents/plan/sessions/{id}")
            denied = reason_of(await client.hear("plan", REFUSED))
            stays = await client.missing("more")

            assert (done, denied, stays) == ((200, 1), TOLD, b"\0\0")
            assert await client.show("plan", token) == "read-write"


async def test_everybody_is_put_out_of_a_document_at_once() -> None:
    async with (
        a_site() as site,
        editor(site, await site.token("ada")) as one,
        editor(site, await site.token("bob")) as two,
        y_client(site, await site.token("cyd")) as three,
    ):
        await subscribed(one, "plan", "more")
        await subscribed(two, "more")
        await three.heard()

        done = await disconnect(site, "/documents/plan/sessions", None)

        assert done == (200, 2)
        assert (await one.next("unsubscribed"))["error"]["details"] is None
        assert await three.end() == (4420, "disconnected")
        assert (await connected(site))["sessions"] == []
        assert len((await connected(site, "more"))["sessions"]) == 2


async def test_a_session_is_disconnected_from_everything_and_is_as_good_as_before() -> None:
    async with a_site() as site:
        id, token = await site.session()
        async with editor(site, token) as ws, y_client(site, token) as yjs, hocuspocus_client(site) as provider:
            await subscribed(ws, "plan")
            await yjs.heard()
            await provider.show("plan", token)

            done = await disconnect(site, f"/sessions/{id}/connections")
            last = await ws.next("session_disconnected")

            assert done == (200, 3)
            assert (last["close_code"], last["code"]) == (4420, "disconnected")
            assert (last["reason"], last["retry"]) == (REASON, False)
            assert (await ws.end())[:2] == (4420, TOLD)
            assert await yjs.end() == (4420, TOLD)
            assert reason_of(await provider.hear("plan", REFUSED)) == TOLD
        assert (await site.caller.show(id))["state"] == "active"
        async with editor(site, token) as back:
            await back.subscribe("plan")


async def test_readers_see_who_is_there_and_only_who_administers_the_document_disconnects() -> None:
    async with a_site() as site:
        id, token = await site.session("ada", ("plan", "read"))
        _, keeper = await site.session("bob", ("plan", "admin"))
        _, stranger = await site.session("cyd", ("else", "admin"))
        async with editor(site, token) as client:
            await subscribed(client, "plan")
            path = f"/documents/plan/sessions/{id}"
            seen = await site.caller.http.get("/documents/plan/sessions", headers=bearer(token))
            unseen = await site.caller.http.get("/documents/plan/sessions", headers=bearer(stranger))

            assert [each["id"] for each in seen.json()["sessions"]] == [id]
            assert unseen.status_code == 404
            assert await disconnect(site, path, **bearer(token)) == (403, "forbidden")
            assert await disconnect(site, path, **bearer(stranger)) == (404, "document_not_found")
            assert await disconnect(site, f"/sessions/{id}/connections", **bearer(keeper)) == (404, "not_found")
            assert len((await connected(site))["sessions"]) == 1
            assert await disconnect(site, path, **bearer(keeper)) == (200, 1)


async def test_a_key_that_is_narrowed_to_users_sees_and_disconnects_no_others() -> None:
    async with a_site() as site:
        only = {"users": ["a"]}
        made = await site.caller.http.post("/keys", json={"name": "narrow", "role": "service", "only": only})
        headers = bearer(made.json()["secret"])
        async with (
            editor(site, await site.token("ada")) as ada,
            editor(site, (bob := await site.session("bob"))[1]) as other,
        ):
            await subscribed(ada, "plan")
            await subscribed(other, "plan")

            seen = await site.caller.http.get("/documents/plan/sessions", headers=headers)

            assert [each["user_id"] for each in seen.json()["sessions"]] == ["ada"]
            assert await disconnect(site, f"/documents/plan/sessions/{bob[0]}", **headers) == (200, 0)
            assert await disconnect(site, "/documents/plan/sessions", **headers) == (200, 1)
            assert [each["user_id"] for each in (await connected(site))["sessions"]] == ["bob"]


async def test_a_reason_is_text_that_people_may_be_shown() -> None:
    async with a_site() as site:
        assert await disconnect(site, "/documents/plan/sessions", "a\u202eb") == (422, "invalid_input")
        assert await disconnect(site, "/documents/plan/sessions", "x" * 201) == (422, "invalid_input")


async def test_the_command_line_shows_who_is_connected_and_kicks_them(capsys: pytest.CaptureFixture[str]) -> None:
    async with a_site() as site:
        id, token = await site.session("ada")
        where = ("--url", f"http://127.0.0.1:{site.port}")
        async with editor(site, token) as client:
            await subscribed(client, "plan", "more")

            codes = [
                await asyncio.to_thread(main, command)
                for command in (
                    ("documents", "sessions", "plan", *where),
                    ("documents", "disconnect", "plan", id, "--reason", REASON, *where),
                    ("sessions", "disconnect", id, *where),
                )
            ]

            said = capsys.readouterr().out
            assert codes == [Exit.DONE] * 3
            assert id in said
            assert "ada" in said
            assert (await client.next("unsubscribed"))["error"]["details"] == {"reason": REASON}
            assert (await client.end())[:2] == (4420, "disconnected")


def test_a_storage_does_not_know_who_is_connected(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("documents sessions plan", "documents disconnect plan", "sessions disconnect 3a")

    codes = [main((*command.split(), "--storage", "memory")) for command in commands]

    assert codes == [Exit.USAGE] * 3
    assert capsys.readouterr().err.count("only a running server knows who is connected") == 3
