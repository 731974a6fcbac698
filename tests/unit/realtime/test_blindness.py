"""What sockets do while it is not known what happens to sessions, and afterwards."""

import asyncio

from roomkey.domain.session import Invalidated
from roomkey.errors import Storage
from roomkey.realtime.refusals import RefusedConnection
from roomkey.realtime.transport import Accepted, Refused
from tests.support.loops import in_no_time
from tests.support.sockets import FakeSocket, Node


async def test_nobody_is_let_in_until_everything_is_seen_again_and_whoever_is_there_stays() -> None:
    node = Node()
    caller = await node.member()
    _, token = node.sessions.issue("bob")

    node.handler.let_nobody_in()
    refused = await node.knock(token)
    node.handler.let_in()
    accepted = await node.knock(token)

    assert isinstance(refused, Refused)
    assert (refused.status, b'"storage"' in refused.body) == (503, True)
    assert isinstance(accepted, Accepted)
    assert caller.closed_with is None


async def test_a_page_is_told_by_a_close_code_that_it_may_come_back() -> None:
    node, socket = Node(), FakeSocket()
    _, token = node.sessions.issue()

    node.handler.let_nobody_in()
    answer = await node.knock(token, headers={"origin": "https://rooms.example"})
    assert isinstance(answer, Accepted)
    assert isinstance(answer.conversation, RefusedConnection)
    answer.conversation.opened(socket)

    assert socket.closed_with == (1013, "unavailable")


async def test_who_was_on_the_way_in_is_not_let_in() -> None:
    node = Node()
    _, token = node.sessions.issue()
    node.sessions.before_returning = node.handler.let_nobody_in

    answer = await node.knock(token)

    assert isinstance(answer, Refused)
    assert node.remembered()["peers"] == 0


async def test_all_sockets_are_closed_and_may_come_back() -> None:
    node = Node()
    callers = [await node.client(name) for name in "abc"]

    node.handler.close_all()

    assert [caller.closed_with for caller in callers] == [(1013, "unavailable")] * 3


async def test_in_doubt_nothing_passes_until_storage_has_answered() -> None:
    node = Node()
    caller = await node.member()

    node.handler.doubt_all()
    id = caller.edit("in doubt")
    held = [message for message in caller.news() if message["id"] == id]
    await node.answer()

    assert held == []
    assert caller.answer_to(id)["message_type"] == "ack"


@in_no_time
async def test_everybody_is_verified_and_whose_end_nobody_told_of_is_closed() -> None:
    node = Node()
    callers = [await node.client(f"user {number}") for number in range(100)]
    ended = callers[70]
    node.sessions.change(ended.session.id, Invalidated, tell=False)

    async with node.at_work():
        began = asyncio.get_running_loop().time()
        await node.handler.verify_all()
        took = asyncio.get_running_loop().time() - began
        await asyncio.sleep(0.1)

    assert [caller for caller in callers if caller.closed_with is not None] == [ended]
    assert took >= 0.04  # not all at once


@in_no_time
async def test_whoever_cannot_be_verified_goes() -> None:
    node = Node()
    caller = await node.client()
    node.sessions.failure = Storage("away")

    async with node.at_work():
        await node.handler.verify_all()
        await asyncio.sleep(0.1)

    assert caller.closed_with == (1013, "unavailable")


async def test_nobody_is_let_in_while_what_is_done_cannot_be_recorded_and_whoever_is_there_stays() -> None:
    node = Node()
    caller = await node.member()
    _, token = node.sessions.issue("bob")

    node.is_audit_behind = True
    refused = await node.knock(token)
    node.is_audit_behind = False
    accepted = await node.knock(token)

    assert isinstance(refused, Refused)
    assert (refused.status, b'"audit_behind"' in refused.body) == (503, True)
    assert ("retry-after", "1") in refused.headers
    assert isinstance(accepted, Accepted)
    assert caller.closed_with is None
