"""A node as a whole: run after run."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from roomkey.config import load
from roomkey.domain.access import Access, Grant
from roomkey.node import Node
from roomkey.settings import SourcedValue
from tests.support.documents import YClient, connected_to
from tests.support.rawsocket import serving

EVERYWHERE = (Grant("**", Access.WRITE),)


def a_node(**storage: str) -> Node:
    given = {f"storage.{name}": SourcedValue(value, "test") for name, value in storage.items()}
    return Node(load(None, given, environment={}))


@asynccontextmanager
async def an_editor(node: Node, token: str) -> AsyncGenerator[YClient]:
    async with (
        serving("picows", node, node.config.websocket, app=node.app) as port,
        connected_to(f"ws://127.0.0.1:{port}", token) as editor,
    ):
        yield editor


@pytest.mark.parametrize("runs", [1, 2, 3])
async def test_in_every_run_a_revocation_ends_the_sockets_that_are_open_then(runs: int) -> None:
    node = a_node(url="memory")
    codes: list[int] = []

    for _ in range(runs):
        async with node.running():
            issued = await node.sessions.create_session("alice", grants=EVERYWHERE)
            await node.sessions.activate_session(issued.id)
            async with an_editor(node, issued.token) as editor:
                await editor.missing()
                await node.sessions.invalidate_session(issued.id)
                codes.append((await editor.end())[0])

    assert codes == [4401] * runs
