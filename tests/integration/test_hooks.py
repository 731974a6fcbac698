"""What happens to documents and sessions is told, in process and by webhooks, and administrators see how that goes."""

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from pycrdt import Doc, Text
from websockets.exceptions import InvalidStatus

import roomkey
from roomkey import DocumentChanged, DocumentEvent, RoomkeyApp, errors
from roomkey.cli import main
from roomkey.cli.outcome import Exit
from roomkey.config import describe, load
from roomkey.domain.access import Role
from roomkey.security.narrowing import Narrowing
from roomkey.settings import SourcedValue
from tests.support.documents import REFUSED, STEP1, Site, a_site, hocuspocus_client, token_message, y_client
from tests.support.editor import editing
from tests.support.receiver import SECRET, Message, Receiver, a_receiver

SOON = {"debounce": "50ms", "max_wait": "1s"}
OTHER_SECRET = "whsec_" + b64encode(b"another secret, of thirty-two by").decode()


@asynccontextmanager
async def a_watched_site(receiver: Receiver, **endpoint: Any) -> AsyncGenerator[Site]:
    async with a_site(hooks=SOON, webhooks={"endpoints": [receiver.endpoint(**endpoint)]}) as site:
        yield site


def verifies(message: Message, secret: str) -> bool:
    signed = f"{message.id}.{message.headers['webhook-timestamp']}.".encode() + message.body
    key = b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + b64encode(hmac.digest(key, signed, sha256)).decode()
    return expected in message.headers["webhook-signature"].split(" ")


async def shown(site: Site, path: str, field: str) -> Any:
    """What the interface says there, when it says anything."""
    async with asyncio.timeout(10):
        while not (value := (await site.caller.http.get(path)).json()[field]):  # noqa: ASYNC110  # it is a server
            await asyncio.sleep(0.02)
    return value


# --- by webhook -----------------------------------------------------------------------------------------


async def test_everything_that_happens_is_told_with_who_did_it_and_when() -> None:
    async with a_receiver() as receiver, a_watched_site(receiver) as site:
        http = site.caller.http
        id, token = await site.session("alice", ("**", "admin"))
        as_alice = {"authorization": f"Bearer {token}"}
        await http.put("/documents/plan", json={"content": "one"}, headers=as_alice)
        await receiver.until(lambda messages: any(each.type == "document.changed" for each in messages))
        async with editing(site.address("/ws"), token) as editor:
            await editor.subscribe("plan")
        await http.post("/documents/plan/versions", json={"label": "first"}, headers=as_alice)
        await http.delete("/documents/plan", headers=as_alice)
        await http.put(f"/sessions/{id}/invalidate", json={"reason": "done"})
        messages = await receiver.until(lambda messages: len({each.type for each in messages}) == 8)

    told = {each.type: each.data for each in messages}
    assert all(verifies(each, SECRET) for each in messages)
    documents = {type: data for type, data in told.items() if type != "session.ended"}
    assert {data["document"] for data in documents.values()} == {"plan"}
    assert {data["actor"] for data in documents.values()} == {"user:alice"}
    assert {data["session_id"] for data in told.values()} == {id}
    assert len({data["lineage"] for data in documents.values()}) == 1
    assert told["document.changed"]["version"] == 1
    assert (told["document.version_kept"]["number"], told["document.version_kept"]["label"]) == (1, "first")
    assert (told["session.ended"]["how"], told["session.ended"]["reason"]) == ("invalidated", "done")
    assert all(each.content["timestamp"].endswith("Z") for each in messages)


async def test_an_endpoint_is_told_of_what_it_asks_for_with_the_content_and_by_every_secret() -> None:
    wanted = {"events": ["document.changed"], "documents": ["notes/*"], "secrets": [OTHER_SECRET, SECRET]}
    async with a_receiver() as receiver, a_watched_site(receiver, **wanted, content="text") as site:
        for name in ("else", "notes/deep/down", "notes/plan"):
            await site.caller.http.put(f"/documents/{name.replace('/', '%2F')}", json={"content": "Hello"})
        (message,) = await receiver.count(1)

    assert (message.type, message.data["document"]) == ("document.changed", "notes/plan")
    assert message.data["content"] == "Hello"
    assert verifies(message, SECRET)
    assert verifies(message, OTHER_SECRET)


@pytest.mark.parametrize("form", ["json", "yjs", "text"])
async def test_what_is_too_large_or_ambiguous_is_left_out_and_that_is_said(form: str) -> None:
    endpoint = {"events": ["document.changed"], "content": form}
    async with a_receiver() as receiver:
        webhooks = {"endpoints": [receiver.endpoint(**endpoint)], "max_content_bytes": "1KiB"}
        async with a_site(hooks=SOON, webhooks=webhooks) as site:
            await site.caller.http.put("/documents/small", json={"content": "Hello", "other": "texts"})
            await site.caller.http.put("/documents/large", json={"content": "x" * 5_000})
            messages = await receiver.count(2)

    told = {each.data["document"]: each.data for each in messages}
    assert (told["large"].get("content"), told["large"]["content_omitted"]) == (None, "too_large")
    if form == "text":
        assert told["small"]["content_omitted"] == "ambiguous"
    elif form == "json":
        assert told["small"]["content"] == {"content": "Hello", "other": "texts"}
    else:
        doc: Doc[Any] = Doc()
        doc.apply_update(b64decode(told["small"]["content"]))
        assert str(doc.get("content", type=Text)) == "Hello"


async def test_many_changes_are_told_once_and_entering_twice_too() -> None:
    async with a_receiver() as receiver, a_watched_site(receiver) as site:
        token = await site.token("alice")
        async with editing(site.address("/ws"), token) as one, editing(site.address("/ws"), token) as other:
            await one.subscribe("plan")
            await other.subscribe("plan")
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    content = {"content": str(number)}
                    group.create_task(site.caller.http.put("/documents/plan", json=content))
        messages = await receiver.until(
            lambda messages: {"document.changed", "document.left"} <= {each.type for each in messages}
        )

    counts = Counter(each.type for each in messages)
    assert (counts["document.entered"], counts["document.left"], counts["document.created"]) == (1, 1, 1)
    assert counts["document.changed"] <= 2


# --- administrators -------------------------------------------------------------------------------------


async def test_deliveries_are_listed_and_replayed_under_the_same_id() -> None:
    async with a_receiver() as receiver, a_watched_site(receiver, events=["document.changed"]) as site:
        http = site.caller.http
        await http.put("/documents/plan", json={"content": "one"})
        (message,) = await receiver.count(1)
        listed = await shown(site, "/webhooks/receiver/deliveries", "deliveries")
        replayed = await http.post(f"/webhooks/receiver/deliveries/{message.id}/replay")
        first, again = await receiver.count(2)
        unknown = await http.post(f"/webhooks/receiver/deliveries/msg_{'0' * 32}/replay")

    (delivery,) = listed
    assert (delivery["id"], delivery["state"], delivery["status"]) == (message.id, "delivered", 204)
    assert (delivery["type"], delivery["document"]) == ("document.changed", "plan")
    assert (replayed.status_code, replayed.json()["id"]) == (202, message.id)
    assert (first.id, first.data) == (again.id, again.data)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "delivery_not_found")


async def test_410_disables_an_endpoint_health_says_so_and_it_can_be_enabled() -> None:
    async with a_receiver() as receiver, a_watched_site(receiver, events=["document.created"]) as site:
        http = site.caller.http
        receiver.answer = lambda _: 410
        await http.put("/documents/one", json={"content": "x"})
        await shown(site, "/webhooks/receiver", "disabled_at")
        health = (await http.get("/health")).json()
        receiver.answer = lambda _: 204
        enabled = await http.put("/webhooks/receiver/enable")
        messages = await receiver.count(1)

    assert health["status"] == "degraded"
    assert "roomkey webhooks enable receiver" in health["checks"]["webhook receiver"]
    assert (enabled.status_code, enabled.json()["disabled_at"]) == (200, None)
    assert messages[0].data["document"] == "one"


async def test_only_administrators_who_see_everything_see_webhooks() -> None:
    async with a_receiver() as receiver, a_watched_site(receiver) as site:
        keys, answers = site.node.security.keys, dict[str, httpx.Response]()
        for name, role, only in (
            ("all", Role.ADMIN, Narrowing()),
            ("some", Role.ADMIN, Narrowing(documents=("notes/**",))),
            ("backend", Role.SERVICE, Narrowing()),
        ):
            key = (await keys.create(name, role, only=only, actor="test")).secret
            answers[name] = await site.caller.http.get("/webhooks", headers={"authorization": f"Bearer {key}"})

    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == {"all": 200, "some": 403, "backend": 403}
    assert SECRET not in answers["all"].text
    assert "hidden" not in answers["all"].text  # nor the key in the query of the address


def test_secrets_are_in_no_configuration_that_is_shown() -> None:
    endpoint = {"name": "search", "url": "https://app.example.com/?key=hidden", "secrets": [SECRET]}
    config = load(None, {"webhooks.endpoints": SourcedValue([endpoint], "test")}, environment={})

    shown = "\n".join(str(each) for each in describe(config)) + repr(config)

    assert "search:https://app.example.com/" in shown
    assert SECRET not in shown
    assert "key=hidden" not in shown


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"url": "http://app.example.com/"}, "https://"),
        ({"url": "https://user:secret@app.example.com/"}, "no user and password"),
        ({"url": "ftp://app.example.com/"}, "is not a URL"),
        ({"secrets": ["hunter2"]}, "a signing secret is"),
        ({"secrets": []}, "1 to 4 secrets"),
        ({"events": ["document.chnged"]}, "Invalid enum value"),
        ({"name": "Search Index"}, "lower-case"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused_when_the_server_starts(wrong: dict[str, Any], why: str) -> None:
    endpoint = {"name": "search", "url": "https://app.example.com/", "secrets": [SECRET], **wrong}

    with pytest.raises(errors.ConfigurationError, match=why) as refusal:
        load(None, {"webhooks.endpoints": SourcedValue([endpoint], "test")}, environment={})

    assert "hunter2" not in str(refusal.value)
    assert "secret@" not in str(refusal.value)


def test_the_command_line_shows_webhooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint = f'name = "search"\nurl = "https://app.example.com/"\nsecrets = ["{SECRET}"]\n'
    (tmp_path / "roomkey.toml").write_text(f"[[webhooks.endpoints]]\n{endpoint}")
    where = ["--storage", f"lmdb://{tmp_path / 'store'}"]

    codes = [
        main(["webhooks", *command, *where])
        for command in (["list"], ["show", "search"], ["deliveries", "search"], ["enable", "search"], ["show", "else"])
    ]
    output = capsys.readouterr()
    main(["webhooks", "list", "--json", *where])
    listed = json.loads(capsys.readouterr().out)["webhooks"]

    assert codes == [Exit.DONE] * 4 + [Exit.FAILED]
    assert [each["name"] for each in listed] == ["search"]
    assert "https://app.example.com/" in output.out
    assert SECRET not in output.out + output.err


# --- in process -----------------------------------------------------------------------------------------


@asynccontextmanager
async def an_application(**more: Any) -> AsyncGenerator[RoomkeyApp]:
    rooms = roomkey.asgi(storage={"url": "memory"}, server={"dev": True}, hooks=SOON, **more)
    async with rooms.lifespan():
        yield rooms


async def test_a_function_of_the_application_keeps_a_title_column() -> None:
    titles, kept = dict[str, str](), asyncio.Event()
    async with an_application() as rooms:

        @rooms.on("document.changed", documents="notes/*", content="text")
        async def keep_title(event: DocumentChanged) -> None:  # pyright: ignore[reportUnusedFunction]
            titles[event.document] = event.content.partition("\n")[0]
            kept.set()

        ada = await rooms.sessions.create_session("ada", activate=True)
        await rooms.documents.write("notes/plan", {"content": "The plan\nOne."}, session=ada)
        async with asyncio.timeout(5):
            await kept.wait()

    assert titles == {"notes/plan": "The plan"}


async def test_rich_text_comes_as_plain_text() -> None:
    told = asyncio.Queue[DocumentChanged]()
    async with an_application() as rooms:
        rooms.on("document.changed", told.put, content="text")
        await rooms.documents.write_rich("plan", "The plan\n\nFirst, tea.", form="text")
        async with asyncio.timeout(5):
            event = await told.get()

    assert event.content.split() == ["The", "plan", "First,", "tea."]
    assert event.content.startswith("The plan\n")


async def test_what_changed_last_is_told_before_the_application_stops() -> None:
    told = list[DocumentEvent]()

    async def note(event: DocumentEvent) -> None:
        told.append(event)

    async with an_application() as rooms:
        rooms.on(["document.created", "document.changed"], note, content="text")
        await rooms.documents.write("plan", {"content": "late"})

    assert [(type(event), event.content) for event in told][-1] == (DocumentChanged, "late")


def test_hooks_work_again_on_another_event_loop() -> None:
    told, failed = list[str](), set[str]()
    nowhere = {"name": "nowhere", "url": "http://127.0.0.1:9/", "secrets": [SECRET], "allow_private": True}
    rooms = roomkey.asgi(storage={"url": "memory"}, server={"dev": True}, hooks=SOON, webhooks={"endpoints": [nowhere]})

    @rooms.on("document.changed")
    async def note(event: DocumentChanged) -> None:  # pyright: ignore[reportUnusedFunction]
        told.append(event.document)

    async def life(number: int) -> None:
        async with rooms.lifespan():
            await asyncio.sleep(0)  # so that everything waits for something to happen
            await rooms.documents.write(f"plan {number}", {"content": "x"})
            async with asyncio.timeout(5):
                while f"plan {number}" not in told:  # noqa: ASYNC110  # it is a list
                    await asyncio.sleep(0.01)
            checks = (await rooms.health.status()).checks
            failed.update(name for name, why in checks.items() if why.startswith("failed at"))

    for number in range(2):
        asyncio.run(life(number))

    assert failed & {"hooks", "changes", "webhooks", "webhook nowhere", "disabled webhooks", "notes of hooks"} == set()


async def test_a_session_that_ends_is_told() -> None:
    told = asyncio.Queue[Any]()

    async with an_application() as rooms:
        rooms.on("session.ended", told.put)
        ada = await rooms.sessions.create_session("ada")
        await rooms.sessions.invalidate_session(ada.id, reason="left")
        async with asyncio.timeout(5):
            event = await told.get()

    assert (event.session_id, event.user_id, event.how, event.reason) == (ada.id, "ada", "invalidated", "left")


async def test_a_seed_may_be_async_is_called_once_and_its_failure_stores_nothing() -> None:
    asked, may_answer = list[str](), asyncio.Event()

    async def seed(document: str) -> dict[str, str] | None:
        asked.append(document)
        await may_answer.wait()
        if document == "broken":
            raise ZeroDivisionError
        return {"content": f"# {document}"}

    async with an_application(seed=seed) as rooms:
        transport = httpx.ASGITransport(rooms)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://rooms") as http,
            asyncio.TaskGroup() as group,
        ):
            writing = [
                group.create_task(http.put("/documents/plan", json={"other": str(number)})) for number in range(3)
            ]
            may_answer.set()
            for each in writing:
                await each
        async with httpx.AsyncClient(transport=transport, base_url="http://rooms") as http:
            refused = await http.put("/documents/broken", json={"content": "x"})
            missing = await http.get("/documents/broken")
        content = (await rooms.documents.read("plan")).content

    assert asked == ["plan", "broken"]
    assert content["content"] == "# plan"
    assert (refused.status_code, missing.status_code) == (503, 404)


async def test_while_a_seed_fails_whoever_may_write_is_refused_at_the_door_of_every_protocol() -> None:
    is_away = True

    def seed(document: str) -> dict[str, str]:
        if is_away:
            raise ConnectionError
        return {"content": f"# {document}"}

    async with a_site(seed=seed) as site:
        _, token = await site.session("ada")
        _, reader = await site.session("bob", ("**", "read"))
        with pytest.raises(InvalidStatus) as refused:
            async with y_client(site, token):
                pass
        async with hocuspocus_client(site) as many:
            await many.say("plan", token_message(token))
            not_opened = await many.hear("plan", REFUSED)
        async with y_client(site, reader) as empty:
            await empty.next(STEP1)
        missing = (await site.caller.http.get("/documents/plan")).status_code

        is_away = False
        async with y_client(site, token) as writer:
            await writer.next(STEP1)
        content = (await site.caller.http.get("/documents/plan")).json()["content"]

    assert (refused.value.response.status_code, missing) == (503, 404)
    assert not_opened
    assert content == "# plan"
