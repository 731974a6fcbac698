"""The providers of y-websocket and Hocuspocus as editors use them, against ``roomkey serve``."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.support.calls import Caller, calling
from tests.support.providers import KINDS, Provider, needs_providers, provider
from tests.support.server import Server, lasting_server, running_server
from tests.support.typist import Typist, typing

pytestmark = needs_providers


NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server


class Editors:
    """An operator who lets clients into a document, of which no other test knows, and the clients."""

    def __init__(self, server: Server, operator: Caller, stack: AsyncExitStack) -> None:
        self.server = server
        self.operator = operator
        self.document = f"plan-{next(NUMBERS)}"
        self._stack = stack

    @property
    def base(self) -> str:
        return self.server.url.replace("http", "ws", 1)

    async def provider(self, kind: str, user: str = "alice", *, page: bool = False) -> tuple[Provider, str]:
        """A synchronised provider of a user, and the id of its session."""
        id, token = await self.operator.session(user)
        client = await self.begin(kind, token, page=page)
        await client.until(lambda state: state["synced"])
        return client, id

    async def begin(self, kind: str, token: str, *, page: bool = False) -> Provider:
        """A provider that begins to connect, from a page or not."""
        origin = self.server.url if page else None
        return await self._stack.enter_async_context(provider(kind, self.base, token, self.document, origin=origin))

    async def typist(self) -> Typist:
        _, token = await self.operator.session("pycrdt")
        return await self._stack.enter_async_context(typing(lambda: self.base, token, self.document))

    async def grant(self, id: str, access: str) -> None:
        body = {"grants": [{"documents": self.document, "access": access}]}
        answer = await self.operator.http.put(f"/sessions/{id}/grants", json=body)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def editors_on(server: Server) -> AsyncGenerator[Editors]:
    async with calling(server) as operator, AsyncExitStack() as stack:
        yield Editors(server, operator, stack)


async def all_say(*clients: Provider, text: str) -> None:
    for client in clients:
        await client.until(lambda state: state["text"] == text)


async def test_both_kinds_and_pycrdt_edit_one_document_and_arrive_at_the_same(server: Server) -> None:
    async with editors_on(server) as editors:
        (first, _), (second, _) = [await editors.provider(kind) for kind in KINDS]
        third = await editors.typist()

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
async def test_what_was_typed_offline_arrives_when_it_is_back(kind: str, server: Server) -> None:
    async with editors_on(server) as editors:
        (away, _), (here, _) = await editors.provider(kind), await editors.provider("ywebsocket", "bob")
        away.do("insert", 0, "before.")
        await all_say(here, text="before.")

        away.do("disconnect")
        await away.event("close")
        away.do("append", "away.")
        here.do("insert", 0, "here.")
        await all_say(here, text="here.before.")
        away.do("connect")

        await all_say(away, here, text="here.before.away.")


async def test_both_kinds_see_each_other_come_and_go(server: Server) -> None:
    async with editors_on(server) as editors:
        (alice, _), (bob, _) = await editors.provider("ywebsocket"), await editors.provider("hocuspocus", "bob")

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


@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_comes_back_sees_who_stayed_although_nobody_repeats_it(kind: str, server: Server) -> None:
    async with editors_on(server) as editors:
        (away, _), *others = [await editors.provider(kind), *[await editors.provider(kind, "bob") for kind in KINDS]]
        clients = [away, *[other for other, _ in others]]
        await all_see_each_other(*clients)

        away.do("disconnect")
        await away.event("close")
        for other in clients[1:]:
            await other.until(lambda state: state["users"] == ["1", "2"])
        await away.until(lambda state: state["users"] == ["0"])
        away.do("connect")

        for client in clients:
            await client.until(lambda state: state["users"] == ["0", "1", "2"])


async def test_whoever_comes_back_to_a_server_that_was_restarted_sees_who_else_does(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path))
    async with AsyncExitStack() as stack:
        async with running_server(*data, storage="file") as first, calling(first) as operator:
            editors = Editors(first, operator, stack)
            clients = [(await editors.provider(kind))[0] for kind in KINDS]
            await all_see_each_other(*clients)

            await first.stop()
            for number, client in enumerate(clients):
                await client.until(lambda state, name=str(number): state["users"] == [name])

        async with running_server(*data, storage="file", port=first.port):
            for client in clients:
                await client.until(lambda state: state["users"] == ["0", "1"])


async def all_see_each_other(*clients: Provider) -> None:
    """Have each show its number, once, and wait until all of them show all of these."""
    names = [str(number) for number in range(len(clients))]
    for client, name in zip(clients, names, strict=True):
        client.do("sayOnce")
        client.do("show", name)
    for client in clients:
        await client.until(lambda state: state["users"] == names)


async def test_y_websocket_is_told_that_it_may_only_read_and_what_it_typed_arrives_later(server: Server) -> None:
    async with editors_on(server) as editors:
        (alice, id), (bob, _) = await editors.provider("ywebsocket"), await editors.provider("ywebsocket", "bob")
        alice.do("append", "before.")
        await all_say(bob, text="before.")

        await editors.grant(id, "read")
        told = await alice.event("warning")
        alice.do("append", "meanwhile.")
        await alice.event("warning")
        bob.do("insert", 0, "bob.")
        await all_say(bob, text="bob.before.")
        await all_say(alice, text="bob.before.meanwhile.")
        await editors.grant(id, "write")

        await all_say(alice, bob, text="bob.before.meanwhile.")
        assert "read-only" in told["text"]


async def test_hocuspocus_is_told_that_it_may_only_read_and_what_it_typed_arrives_later(server: Server) -> None:
    async with editors_on(server) as editors:
        (alice, id), (bob, _) = await editors.provider("hocuspocus"), await editors.provider("ywebsocket", "bob")
        alice.do("append", "before.")
        await all_say(bob, text="before.")
        await alice.until(lambda state: state["unsaved"] == 0)

        await editors.grant(id, "read")
        await alice.until(lambda state: state["scope"] == "readonly")
        alice.do("append", "meanwhile.")
        await alice.until(lambda state: state["unsaved"] == 1)
        bob.do("insert", 0, "bob.")
        await all_say(bob, text="bob.before.")
        await editors.grant(id, "write")

        await all_say(alice, bob, text="bob.before.meanwhile.")
        await alice.until(lambda state: state["scope"] == "read-write" and state["unsaved"] == 0)


async def test_a_writer_whose_grants_change_in_mid_sentence_ends_with_all_of_it(server: Server) -> None:
    async with editors_on(server) as editors:
        (alice, id), (bob, _) = await editors.provider("hocuspocus"), await editors.provider("ywebsocket", "bob")
        words = [f"{number}," for number in range(200)]
        changes = asyncio.ensure_future(back_and_forth(editors, id))
        for word in words:
            alice.do("append", word)
            await asyncio.sleep(0)
        await changes

        await all_say(alice, bob, text="".join(words))
        await alice.until(lambda state: state["unsaved"] == 0)


async def back_and_forth(editors: Editors, id: str) -> None:
    for _ in range(5):
        await editors.grant(id, "read")
        await editors.grant(id, "write")


async def test_y_websocket_does_not_come_back_with_a_session_that_was_ended(server: Server) -> None:
    async with editors_on(server) as editors:
        (alice, id), (bob, _) = await editors.provider("ywebsocket"), await editors.provider("hocuspocus", "bob")
        alice.do("show", "alice")
        await bob.until(lambda state: state["users"] == ["alice"])

        await editors.operator.put(id, "invalidate", "spam")

        over = await alice.event("over")
        assert (over["code"], over["reason"]) == (4401, "session_invalidated: spam")
        await bob.until(lambda state: state["users"] == [])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_waits_while_its_session_is_suspended_and_is_back_when_it_is_resumed(
    kind: str, server: Server
) -> None:
    async with editors_on(server) as editors:
        (alice, id), (bob, _) = await editors.provider(kind, page=True), await editors.provider("ywebsocket", "bob")

        await editors.operator.put(id, "suspend", "under review")
        thrown_out, refused = [await closed(alice) for _ in range(2)]
        alice.do("append", "typed meanwhile")
        await closed(alice)
        await editors.operator.put(id, "resume")

        await all_say(bob, text="typed meanwhile")
        await alice.until(lambda state: state["synced"])
        assert thrown_out == refused == (4503, "session_suspended: under review")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_that_waits_is_told_that_its_session_has_ended(kind: str, server: Server) -> None:
    async with editors_on(server) as editors:
        alice, id = await editors.provider(kind, page=True)
        await editors.operator.put(id, "suspend")
        await closed(alice)

        await editors.operator.put(id, "invalidate", "spam")

        assert await told(kind, alice) == "session_invalidated: spam"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_that_is_opened_with_an_ended_session_is_told_so(kind: str, server: Server) -> None:
    async with editors_on(server) as editors:
        id, token = await editors.operator.session()
        await editors.operator.put(id, "invalidate", "spam")

        alice = await editors.begin(kind, token, page=True)

        assert await told(kind, alice) == "session_invalidated: spam"


async def closed(client: Provider) -> tuple[int, str]:
    event = await client.event("close")
    return event["code"], event["reason"]


async def told(kind: str, client: Provider) -> str:
    """What ends the attempts of a provider: y-websocket goes by the close code, Hocuspocus by what it is told."""
    if kind == "ywebsocket":
        over = await client.event("over")
        assert over["code"] == 4401
        return over["reason"]
    while (reason := (await client.event("refused"))["reason"]).startswith("session_suspended"):
        pass
    return reason


async def test_hocuspocus_goes_on_with_a_new_token_after_a_wrong_one(server: Server) -> None:
    async with editors_on(server) as editors, AsyncExitStack() as stack:
        _, token = await editors.operator.session()
        client = await stack.enter_async_context(
            provider("hocuspocus", editors.base, token[:-4] + "AAAA", editors.document)
        )
        client.do("append", "typed before it was let in")
        refused = await client.event("refused")

        client.do("token", token)
        await client.until(lambda state: state["scope"] == "read-write")

        reader, _ = await editors.provider("ywebsocket", "bob")
        assert refused["reason"] == "invalid_token"
        client.do("append", ".")
        await all_say(reader, text="typed before it was let in.")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_two_typed_while_the_server_was_away_is_all_there_when_it_is_back(kind: str, tmp_path: Path) -> None:
    storage = f"lmdb://{tmp_path}"
    async with AsyncExitStack() as stack:
        async with running_server(storage=storage) as server, calling(server) as operator:
            editors = Editors(server, operator, stack)
            (alice, _), (bob, _) = await editors.provider(kind), await editors.provider("ywebsocket", "bob")
            alice.do("insert", 0, "before.")
            await all_say(alice, bob, text="before.")
            if kind == "hocuspocus":
                await alice.until(lambda state: state["unsaved"] == 0)
            await server.stop(signal.SIGKILL)
        for client in (alice, bob):
            await client.event("close")
        alice.do("append", "alice.")
        bob.do("insert", 0, "bob.")
        await alice.until(lambda state: state["text"] == "before.alice.")
        await bob.until(lambda state: state["text"] == "bob.before.")

        async with running_server(storage=storage, port=server.port):
            await all_say(alice, bob, text="bob.before.alice.")
