"""The providers of y-websocket and Hocuspocus as editors use them, against ``roomkey serve``."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.support.calls import Caller, calling
from tests.support.providers import KINDS, Provider, needs_providers, provider
from tests.support.server import RunningServer, running_server
from tests.support.typist import Typist, typing

pytestmark = needs_providers


class Desk:
    """A server with an operator, who lets clients in."""

    def __init__(self, server: RunningServer, operator: Caller, stack: AsyncExitStack) -> None:
        self.server = server
        self.operator = operator
        self._stack = stack

    @property
    def base(self) -> str:
        return self.server.url.replace("http", "ws", 1)

    async def provider(self, kind: str, user: str = "alice") -> tuple[Provider, str]:
        """A synchronised provider of a user, and the id of its session."""
        id, token = await self.operator.session(user)
        client = await self._stack.enter_async_context(provider(kind, self.base, token))
        await client.until(lambda state: state["synced"])
        return client, id

    async def typist(self) -> Typist:
        _, token = await self.operator.session("pycrdt")
        return await self._stack.enter_async_context(typing(lambda: self.base, token))

    async def grant(self, id: str, access: str) -> None:
        body = {"grants": [{"documents": "plan", "access": access}]}
        answer = await self.operator.http.put(f"/sessions/{id}/grants", json=body)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def a_desk() -> AsyncGenerator[Desk]:
    async with running_server() as server, calling(server) as operator, AsyncExitStack() as stack:
        yield Desk(server, operator, stack)


async def all_say(*clients: Provider, text: str) -> None:
    for client in clients:
        await client.until(lambda state: state["text"] == text)


async def test_both_kinds_and_pycrdt_edit_one_document_and_arrive_at_the_same() -> None:
    async with a_desk() as desk:
        (first, _), (second, _) = [await desk.provider(kind) for kind in KINDS]
        third = await desk.typist()

        first.do("insert", 0, "hello")
        await all_say(first, second, text="hello")
        second.do("append", " wörld 😀")
        await all_say(first, second, text="hello wörld 😀")
        await third.until("hello wörld 😀")
        for number in range(100, 150):
            first.do("insert", 0, f"a{number};")
            second.do("insert", 0, f"b{number};")
            third.type(f"c{number};")

        text = (await first.until(lambda state: state["text"].count(";") == 150))["text"]
        await all_say(second, text=text)
        await third.until(text)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_typed_offline_arrives_when_it_is_back(kind: str) -> None:
    async with a_desk() as desk:
        (away, _), (here, _) = await desk.provider(kind), await desk.provider("ywebsocket", "bob")
        away.do("insert", 0, "before.")
        await all_say(here, text="before.")

        away.do("disconnect")
        await away.event("close")
        away.do("append", "away.")
        here.do("insert", 0, "here.")
        await all_say(here, text="here.before.")
        away.do("connect")

        await all_say(away, here, text="here.before.away.")


async def test_both_kinds_see_each_other_come_and_go() -> None:
    async with a_desk() as desk:
        (alice, _), (bob, _) = await desk.provider("ywebsocket"), await desk.provider("hocuspocus", "bob")

        alice.do("show", "alice")
        bob.do("show", "bob")
        for client in (alice, bob):
            await client.until(lambda state: state["users"] == ["alice", "bob"])
        alice.do("disconnect")
        await bob.until(lambda state: state["users"] == ["bob"])
        alice.do("connect")
        for client in (alice, bob):
            await client.until(lambda state: state["users"] == ["alice", "bob"])
        bob.do("disconnect")
        await alice.until(lambda state: state["users"] == ["alice"])


async def test_y_websocket_is_told_that_it_may_only_read_and_what_it_typed_arrives_later() -> None:
    async with a_desk() as desk:
        (alice, id), (bob, _) = await desk.provider("ywebsocket"), await desk.provider("ywebsocket", "bob")
        alice.do("append", "before.")
        await all_say(bob, text="before.")

        await desk.grant(id, "read")
        told = await alice.event("warning")
        alice.do("append", "meanwhile.")
        await alice.event("warning")
        bob.do("insert", 0, "bob.")
        await all_say(bob, text="bob.before.")
        await all_say(alice, text="bob.before.meanwhile.")
        await desk.grant(id, "write")

        await all_say(alice, bob, text="bob.before.meanwhile.")
        assert "read-only" in told["text"]


async def test_hocuspocus_is_told_that_it_may_only_read_and_what_it_typed_arrives_later() -> None:
    async with a_desk() as desk:
        (alice, id), (bob, _) = await desk.provider("hocuspocus"), await desk.provider("ywebsocket", "bob")
        alice.do("append", "before.")
        await all_say(bob, text="before.")
        await alice.until(lambda state: state["unsaved"] == 0)

        await desk.grant(id, "read")
        await alice.until(lambda state: state["scope"] == "readonly")
        alice.do("append", "meanwhile.")
        await alice.until(lambda state: state["unsaved"] == 1)
        bob.do("insert", 0, "bob.")
        await all_say(bob, text="bob.before.")
        await desk.grant(id, "write")

        await all_say(alice, bob, text="bob.before.meanwhile.")
        await alice.until(lambda state: state["scope"] == "read-write" and state["unsaved"] == 0)


async def test_a_writer_whose_grants_change_in_mid_sentence_ends_with_all_of_it() -> None:
    async with a_desk() as desk:
        (alice, id), (bob, _) = await desk.provider("hocuspocus"), await desk.provider("ywebsocket", "bob")
        words = [f"{number}," for number in range(200)]
        changes = asyncio.ensure_future(back_and_forth(desk, id))
        for word in words:
            alice.do("append", word)
            await asyncio.sleep(0)
        await changes

        await all_say(alice, bob, text="".join(words))
        await alice.until(lambda state: state["unsaved"] == 0)


async def back_and_forth(desk: Desk, id: str) -> None:
    for _ in range(5):
        await desk.grant(id, "read")
        await desk.grant(id, "write")


@pytest.mark.parametrize(("command", "code"), [("suspend", 4423), ("invalidate", 4401)])
async def test_y_websocket_does_not_come_back_with_a_session_that_was_stopped(command: str, code: int) -> None:
    async with a_desk() as desk:
        (alice, id), (bob, _) = await desk.provider("ywebsocket"), await desk.provider("hocuspocus", "bob")
        alice.do("show", "alice")
        await bob.until(lambda state: state["users"] == ["alice"])

        await desk.operator.put(id, command)

        assert (await alice.event("over"))["code"] == code
        await bob.until(lambda state: state["users"] == [])


async def test_hocuspocus_goes_on_with_a_new_token_after_a_wrong_one() -> None:
    async with a_desk() as desk, AsyncExitStack() as stack:
        _, token = await desk.operator.session()
        client = await stack.enter_async_context(provider("hocuspocus", desk.base, token[:-4] + "AAAA"))
        client.do("append", "typed before it was let in")
        refused = await client.event("refused")

        client.do("token", token)
        await client.until(lambda state: state["scope"] == "read-write")

        reader, _ = await desk.provider("ywebsocket", "bob")
        assert refused["reason"] == "invalid_token"
        client.do("append", ".")
        await all_say(reader, text="typed before it was let in.")
