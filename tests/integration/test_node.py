"""A node as a whole: run after run, wherever its sessions and documents are stored."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from roomkey.config import load
from roomkey.documents.service import DocumentService
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import SessionId
from roomkey.node import Node
from roomkey.settings import SourcedValue
from tests.support.documents import YClient, connected_to, edit, text_of
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


async def furnished(node: Node) -> SessionId:
    """The id of a session that was made in a run of this node, and that has written something."""
    async with node.running():
        issued = await node.sessions.create_session("alice", grants=EVERYWHERE)
        await node.sessions.activate_session(issued.id)
        async with an_editor(node, issued.token) as editor:
            await editor.send(edit("hello"))
            await editor.missing()
    return issued.id


async def test_sessions_and_documents_in_two_directories_are_there_after_a_restart(tmp_path: Path) -> None:
    places = {"url": f"lmdb://{tmp_path / 'rooms'}", "documents": f"lmdb://{tmp_path / 'notes'}"}
    id = await furnished(a_node(**places))

    node = a_node(**places)
    async with node.running():
        session = await node.sessions.get_session(id)
        reading = await DocumentService(node.documents).read("plan")

    assert session is not None
    assert text_of(reading.update) == "hello"
    assert (tmp_path / "rooms" / "data.mdb").exists()
    assert not (tmp_path / "rooms" / "documents").exists()
    assert (tmp_path / "notes" / "documents" / "data.mdb").exists()


async def test_documents_stay_when_sessions_are_forgotten_with_the_process(tmp_path: Path) -> None:
    places = {"url": "memory", "documents": f"lmdb://{tmp_path}"}
    id = await furnished(a_node(**places))

    node = a_node(**places)
    async with node.running():
        session = await node.sessions.get_session(id)
        reading = await DocumentService(node.documents).read("plan")

    assert session is None
    assert text_of(reading.update) == "hello"


async def test_sessions_stay_when_documents_are_forgotten_with_the_process(tmp_path: Path) -> None:
    places = {"url": f"lmdb://{tmp_path}", "documents": "memory"}
    id = await furnished(a_node(**places))

    node = a_node(**places)
    async with node.running():
        session = await node.sessions.get_session(id)
        record = await DocumentService(node.documents).find("plan")

    assert session is not None
    assert record is None
