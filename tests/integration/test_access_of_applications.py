"""What the application decides holds at every door, and for sockets that are open when it decides anew."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from roomkey.domain.session import Session
from tests.support.access import SECRET, Application, ByUser, a_hook
from tests.support.documents import (
    APPLIED,
    DENIED,
    NOT_APPLIED,
    REFUSED,
    SCOPE,
    STEP1,
    HocuspocusClient,
    Site,
    YClient,
    a_site,
    edit,
    grant,
    hocuspocus_client,
    reason_of,
    token_message,
    y_client,
)
from tests.support.editor import JsonEditor, editing


@asynccontextmanager
async def a_json_editor(site: Site, token: str) -> AsyncGenerator[JsonEditor]:
    async with editing(site.address("/ws"), token) as editor:
        yield editor


@asynccontextmanager
async def in_plan_by_all_protocols(
    site: Site, token: str
) -> AsyncGenerator[tuple[JsonEditor, YClient, HocuspocusClient]]:
    async with (
        a_json_editor(site, token) as json,
        y_client(site, token) as yjs_client,
        hocuspocus_client(site) as many,
    ):
        await json.subscribe("plan")
        await many.show("plan", token)
        await yjs_client.next(STEP1)
        yield json, yjs_client, many


async def recheck(site: Site, path: str) -> dict[str, Any]:
    answer = await site.caller.http.put(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_door_asks_the_application() -> None:
    application = Application({"plan": "read"})
    async with a_site(authorize=application) as site:
        id, token = await site.session("alice")
        http, as_alice = site.caller.http, {"authorization": f"Bearer {token}"}
        await http.put("/documents/plan", json={"content": "x"})
        await http.put("/documents/secret", json={"content": "y"})
        read = await http.get("/documents/plan", headers=as_alice)
        written = await http.put("/documents/plan", json={"content": "z"}, headers=as_alice)
        secret = await http.get("/documents/secret", headers=as_alice)
        listed = (await http.get("/documents", headers=as_alice)).json()
        async with a_json_editor(site, token) as json, hocuspocus_client(site) as many:
            subscribed = await json.subscribe("plan")
            refused = await json.subscribe("secret")
            scope = await many.show("plan", token)
            await many.say("secret", token_message(token))
            denied = reason_of(await many.hear("secret", REFUSED))
            (inside,) = (await http.get("/documents/plan/sessions")).json()["sessions"]
        why = (await http.get("/documents/plan/access", params={"user_id": "alice"})).json()

        assert (read.status_code, read.headers["roomkey-access"]) == (200, "read")
        assert (written.status_code, secret.status_code) == (403, 404)
        assert [document["name"] for document in listed["documents"]] == ["plan"]
        assert subscribed["access"] == inside["access"] == "read"
        assert refused["code"] == "FORBIDDEN"
        assert (scope, denied) == ("readonly", "forbidden")
        assert (why["access"], why["sessions"][0]["session_id"]) == ("read", id)
        assert why["why"] == (
            "the first grant that matches, **, allows write, and the application allows read: both must allow it"
        )


async def test_a_right_that_is_withdrawn_in_mid_word_ends_on_every_socket_before_the_answer() -> None:
    application = Application(ByUser(alice="write", bob="write"))
    async with a_site(authorize=application) as site:
        _, token = await site.session("alice")
        _, bobs = await site.session("bob")
        async with (
            in_plan_by_all_protocols(site, token) as (json, yjs_client, many),
            a_json_editor(site, bobs) as bob,
        ):
            await bob.subscribe("plan")
            before = await json.edit("plan", text="before")
            await many.say("plan", edit("before"))
            await many.hear("plan", APPLIED)
            for number in range(20):
                await json.send("realtime_edit", {"document": "plan", "text": str(number)})

            application.says = ByUser(alice="read", bob="write")
            done = await recheck(site, "/documents/plan/recheck")
            mark = await bob.edit("plan", text="mark")
            refused = [await json.edit("plan", text="late") for _ in range(3)]
            after = await bob.edit("plan", text="mark")
            await yjs_client.send(edit("late"))
            await yjs_client.next(DENIED)
            await many.say("plan", edit("late"))
            await many.hear("plan", NOT_APPLIED)
            text = (await site.caller.http.get("/documents/plan")).json()

        assert done == {"checked": 2, "changed": 1}
        assert [answer["code"] for answer in refused] == ["FORBIDDEN"] * 3
        assert after["position"]["offset"] == mark["position"]["offset"] + 1 > before["position"]["offset"]
        assert text["content"] == "before"


async def test_a_session_that_may_nothing_any_more_is_put_out_of_what_it_has_open() -> None:
    application = Application("write")
    async with a_site(authorize=application) as site:
        id, token = await site.session("alice")
        async with in_plan_by_all_protocols(site, token) as (json, yjs_client, many):
            application.says = None
            await recheck(site, f"/sessions/{id}/recheck")
            out = await json.next("unsubscribed")
            code, reason = await yjs_client.end()
            denied = reason_of(await many.hear("plan", REFUSED))

        assert out["error"]["code"] == "FORBIDDEN"
        assert (code, reason) == (4403, "forbidden")
        assert denied == "forbidden"


async def test_whoever_is_put_out_by_a_recheck_is_told_the_reason_and_whoever_stays_is_not() -> None:
    application = Application(ByUser(alice="write", bob="write"))
    async with a_site(authorize=application) as site:
        _, token = await site.session("alice")
        _, bobs = await site.session("bob")
        async with (
            in_plan_by_all_protocols(site, token) as (json, yjs_client, many),
            a_json_editor(site, bobs) as bob,
        ):
            await bob.subscribe("plan")

            application.says = ByUser(alice=None, bob="write")
            done = await site.caller.http.put("/documents/plan/recheck", json={"reason": "you left the team"})
            out = await json.next("unsubscribed")
            code, said = await yjs_client.end()
            denied = reason_of(await many.hear("plan", REFUSED))
            stays = await bob.edit("plan", text="still here")
            (inside,) = (await site.caller.http.get("/documents/plan/sessions")).json()["sessions"]

        assert done.json() == {"checked": 2, "changed": 1}
        assert (out["error"]["code"], out["error"]["details"]["reason"]) == ("FORBIDDEN", "you left the team")
        assert (code, said) == (4403, "forbidden: you left the team")
        assert denied == "forbidden: you left the team"
        assert "position" in stays
        assert inside["user_id"] == "bob"


async def test_what_was_withdrawn_is_given_back_without_a_new_socket() -> None:
    application = Application("read")
    async with a_site(authorize=application) as site:
        _, token = await site.session("alice")
        async with a_json_editor(site, token) as json, hocuspocus_client(site) as many:
            await json.subscribe("plan")
            await many.show("plan", token)

            application.says = "write"
            await recheck(site, "/documents/plan/recheck")

            assert "position" in await json.edit("plan", text="back")
            assert reason_of(await many.hear("plan", SCOPE)) == "read-write"


async def test_without_an_answer_nobody_new_gets_in_those_inside_go_on_and_health_says_so() -> None:
    async with a_hook((200, b'{"access": "write"}')) as hook:
        access = {"url": hook.url, "secret": SECRET, "timeout": "1s"}
        async with a_site(access=access) as site:
            _, token = await site.session("alice")
            _, bobs = await site.session("bob")
            async with a_json_editor(site, token) as alice, a_json_editor(site, bobs) as bob:
                await alice.subscribe("plan")
                hook.answers = [(500, b"")]

                refused = await bob.subscribe("plan")
                door = await site.caller.http.get("/documents/plan", headers={"authorization": f"Bearer {bobs}"})
                rechecked = await site.caller.http.put("/documents/plan/recheck")
                edited = await alice.edit("plan", text="goes on")
                health = (await site.caller.http.get("/health")).json()

            assert (refused["code"], refused["retry"]) == ("SERVER_ERROR", True)
            assert (door.status_code, door.json()["code"]) == (503, "access_unknown")
            assert (rechecked.status_code, rechecked.json()["code"]) == (503, "access_unknown")
            assert "position" in edited
            assert health["status"] == "degraded"
            assert "the hook answered 500" in health["checks"]["access"]
            assert SECRET not in str(health)


async def test_a_socket_that_another_session_takes_over_may_what_that_one_may() -> None:
    allowed = dict[str, str]()

    async def authorize(session: Session, document: str) -> str | None:
        del document
        return allowed.get(session.id)

    async with a_site(authorize=authorize) as site:
        (writer, token), (reader, another), (_, nobody) = [await site.session("alice") for _ in range(3)]
        allowed.update({writer: "write", reader: "read"})
        async with a_json_editor(site, token) as json:
            await json.subscribe("plan")
            await json.edit("plan", text="x")

            await json.ask("session_refresh", {"token": another})
            refused = await json.edit("plan", text="y")
            await json.ask("session_refresh", {"token": nobody})
            out = await json.next("unsubscribed")

        assert refused["code"] == "FORBIDDEN"
        assert out["error"]["code"] == "FORBIDDEN"


async def in_team(site: Site, user: str) -> str:
    """The token of a session that has what the group has."""
    _, token = await site.caller.session(user, grants=[{"group": "team-7"}])
    return token


async def set_team(site: Site, *grants: dict[str, str]) -> None:
    answer = await site.caller.http.put("/groups/team-7", json={"grants": grants})
    assert answer.status_code in (200, 201), answer.text


async def test_a_right_that_is_given_to_a_team_holds_on_every_socket_and_is_withdrawn_from_all_at_once() -> None:
    async with a_site() as site:
        await set_team(site, grant("**", "write"))
        token, bobs = await in_team(site, "alice"), await in_team(site, "bob")
        async with (
            a_json_editor(site, token) as json,
            y_client(site, bobs) as yjs_client,
            hocuspocus_client(site) as many,
        ):
            subscribed = await json.subscribe("plan")
            scope = await many.show("plan", token)
            await yjs_client.next(STEP1)
            await many.say("plan", edit("before"))
            await many.hear("plan", APPLIED)

            await set_team(site, grant("**", "read"))
            refused = await json.edit("plan", text="late")
            await yjs_client.send(edit("late"))
            await yjs_client.next(DENIED)
            await many.say("plan", edit("late"))
            await many.hear("plan", NOT_APPLIED)
            as_bob = {"authorization": f"Bearer {bobs}"}
            read = await site.caller.http.get("/documents/plan", headers=as_bob)
            listed = (await site.caller.http.get("/documents", headers=as_bob)).json()
            why = (await site.caller.http.get("/documents/plan/access", params={"user_id": "bob"})).json()

            gone = await site.caller.http.delete("/groups/team-7")
            out = await json.next("unsubscribed")
            end = await yjs_client.end()
            denied = reason_of(await many.hear("plan", REFUSED))
            unseen = await site.caller.http.get("/documents/plan", headers=as_bob)

        assert (subscribed["access"], scope) == ("write", "read-write")
        assert (refused["code"], read.json()["content"], read.headers["roomkey-access"]) == (
            "FORBIDDEN",
            "before",
            "read",
        )
        assert [document["name"] for document in listed["documents"]] == ["plan"]
        assert why["why"] == "the first grant that matches, ** of the group team-7, allows read"
        assert why["sessions"][0]["grant"] == {"documents": "**", "access": "read", "group": "team-7"}
        assert (gone.status_code, out["error"]["code"], end, denied) == (
            *(204, "FORBIDDEN"),
            *((4403, "forbidden"), "forbidden"),
        )
        assert unseen.status_code == 404


async def test_group_and_application_must_both_allow_it() -> None:
    async with a_site(authorize=Application("read")) as site:
        await set_team(site, grant("**", "write"))
        token = await in_team(site, "alice")
        async with a_json_editor(site, token) as json:
            assert (await json.subscribe("plan"))["access"] == "read"


async def test_a_key_that_is_narrowed_neither_sees_nor_changes_groups_nor_gives_what_they_have() -> None:
    async with a_site() as site:
        only = {"documents": ["**"]}
        minted = await site.caller.http.post("/keys", json={"name": "narrow", "role": "service", "only": only})
        as_key = {"authorization": f"Bearer {minted.json()['secret']}"}
        await set_team(site, grant("secret/**", "write"))
        about_groups = [
            await site.caller.http.get("/groups", headers=as_key),
            await site.caller.http.get("/groups/team-7", headers=as_key),
            await site.caller.http.put("/groups/team-7", json={"grants": []}, headers=as_key),
            await site.caller.http.delete("/groups/team-7", headers=as_key),
        ]
        given = await site.caller.http.post(
            "/sessions", json={"user_id": "alice", "grants": [{"group": "team-7"}]}, headers=as_key
        )

        assert {answer.status_code for answer in (*about_groups, given)} == {403}
