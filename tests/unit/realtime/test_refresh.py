"""New credentials on an open connection: the same session, or another one of the same user."""

from datetime import timedelta
from typing import Any

import pytest

from roomkey.domain.session import Expired, Invalidated, SessionState, Suspended
from roomkey.errors import Storage, TokenRotated
from tests.support.sockets import READ_ONLY, Caller, Node


async def refresh(caller: Caller, token: str) -> dict[str, Any]:
    id = caller.say("session_refresh", {"token": token})
    await caller.node.answer()
    return caller.answer_to(id)


async def test_the_same_session_is_confirmed() -> None:
    node = Node()
    session, token = node.sessions.issue()
    caller = await node.enter(token)

    answer = await refresh(caller, token)

    assert answer["message_type"] == "session_refreshed"
    assert answer["payload"] == {
        "session_id": session.id,
        "expires_at": "2026-01-03T12:00:00Z",
        "idle_expires_at": "2026-01-02T13:00:00Z",
    }


async def test_another_session_of_the_user_takes_the_connection_over() -> None:
    node = Node()
    caller, bob = await node.member(lifetime=timedelta(minutes=5), idle=None), await node.member(user_id="bob")
    former = caller.session
    session, token = node.sessions.issue(idle=None)

    answer = await refresh(caller, token)
    node.sessions.change(former.id, Invalidated)
    node.pass_time(minutes=10)
    await node.answer()
    caller.edit("x")

    assert answer["payload"]["session_id"] == session.id
    assert caller.closed_with is None
    assert bob.payload_of("realtime_edit")["session_info"]["session_id"] == session.id


async def test_the_connection_ends_with_the_session_that_took_it_over() -> None:
    node = Node()
    caller = await node.client()
    session, token = node.sessions.issue()
    await refresh(caller, token)

    node.sessions.change(session.id, Invalidated)

    assert caller.closed_with == (4401, "session_invalidated")
    assert node.handler.statistics().sessions == 0


async def test_presence_moves_with_the_connection() -> None:
    node = Node()
    caller, bob = await node.member(), await node.member(user_id="bob")
    caller.say("user_presence", {"document": "d", "status": "here", "color": "red"})
    bob.news()
    session, token = node.sessions.issue()

    await refresh(caller, token)

    gone, come = [message["payload"] for message in bob.news()]
    assert (gone["status"], gone["session_info"]["session_id"]) == ("offline", caller.session.id)
    assert (come["status"], come["session_info"]["session_id"], come["color"]) == ("here", session.id, "red")


async def test_fewer_grants_count_at_once() -> None:
    node = Node()
    caller, bob = await node.member(), await node.member(user_id="bob")
    _, token = node.sessions.issue(grants=())

    id = caller.say("session_refresh", {"token": token})
    caller.edit("judged by the new grants")
    await node.answer()

    types = [message["message_type"] for message in caller.news()]
    assert types == ["unsubscribed", "session_refreshed", "error"]
    assert caller.answer_to(id)["message_type"] == "session_refreshed"
    assert bob.news() == []


async def test_more_grants_count_at_once() -> None:
    node = Node()
    caller = await node.member(grants=READ_ONLY)
    _, token = node.sessions.issue()

    caller.say("session_refresh", {"token": token})
    caller.edit("judged by the new grants")
    await node.answer()

    assert [message["message_type"] for message in caller.news()] == ["access_changed", "session_refreshed", "ack"]


async def test_the_session_of_somebody_else_changes_nothing() -> None:
    node = Node()
    caller = await node.member()
    _, token = node.sessions.issue("mallory")

    answer = await refresh(caller, token)
    caller.edit("x")

    assert answer["payload"]["code"] == "FORBIDDEN"
    assert caller.news()[-1]["message_type"] == "ack"


@pytest.mark.parametrize("kind", [Expired, Invalidated, Suspended], ids=lambda kind: kind.tag())
async def test_an_ended_session_is_no_new_credential(kind: type[Any]) -> None:
    node = Node()
    caller = await node.client()
    session, token = node.sessions.issue()
    node.sessions.change(session.id, kind)

    answer = await refresh(caller, token)

    assert answer["payload"]["code"] == "INVALID_SESSION"
    assert caller.closed_with is None


async def test_a_pending_session_is_no_new_credential() -> None:
    node = Node()
    caller = await node.client()
    _, token = node.sessions.issue(state=SessionState.PENDING)

    assert (await refresh(caller, token))["payload"]["code"] == "INVALID_SESSION"


@pytest.mark.parametrize(("failure", "reason"), [(None, "invalid_token"), (TokenRotated("replaced"), "token_rotated")])
async def test_a_token_that_opens_nothing_is_unauthorized(failure: Exception | None, reason: str) -> None:
    node = Node()
    caller = await node.client()
    node.sessions.failure = failure

    answer = await refresh(caller, "no-such-token")

    assert answer["payload"]["code"] == "UNAUTHORIZED"
    assert answer["payload"]["details"]["code"] == reason
    assert "no-such-token" not in str(answer)
    assert caller.closed_with is None


async def test_guessing_tokens_ends_the_connection() -> None:
    node = Node(forbidden_patience=5)
    caller = await node.client()

    for number in range(6):
        caller.say("session_refresh", {"token": f"guess-{number}"})
        await node.answer()

    assert caller.closed_with == (4403, "forbidden")


async def test_a_storage_that_is_away_is_no_fault_of_the_client() -> None:
    node = Node()
    caller = await node.member()
    node.sessions.failure = Storage("away")

    answer = await refresh(caller, "token")
    node.sessions.failure = None
    id = caller.edit("x")

    assert (answer["payload"]["code"], answer["payload"]["retry"]) == ("SERVER_ERROR", True)
    assert caller.answer_to(id)["message_type"] == "ack"


async def test_a_session_that_ends_while_its_token_is_checked_takes_nothing_over() -> None:
    node = Node()
    caller, bob = await node.member(), await node.member(user_id="bob")
    session, token = node.sessions.issue()
    # The event comes before anyone knows that it matters to this connection.
    node.sessions.before_returning = lambda: node.sessions.change(session.id, Invalidated)

    caller.say("session_refresh", {"token": token})
    caller.edit("refused")
    await node.answer()

    assert caller.closed_with == (4401, "session_invalidated")
    assert bob.news() == []


async def test_a_session_has_no_more_connections_by_refreshing() -> None:
    node = Node(max_connections_per_session=1)
    _, token = node.sessions.issue()
    await node.enter(token)
    caller = await node.client()

    answer = await refresh(caller, token)

    assert answer["payload"]["code"] == "RATE_LIMITED"


async def test_ids_that_the_new_session_used_are_remembered() -> None:
    node = Node()
    _, token = node.sessions.issue()
    elsewhere = await node.enter(token)
    elsewhere.say("subscribe", {"document": "d"})
    elsewhere.edit("one", id="same")
    caller = await node.member()

    await refresh(caller, token)
    caller.edit("one", id="same")

    assert caller.answer_to("same")["payload"]["position"]["offset"] == 1


async def test_the_token_is_in_no_representation_of_what_waits() -> None:
    node = Node()
    caller = await node.client()

    caller.say("session_refresh", {"token": "sesame"})

    assert "sesame" not in repr(node.questions.get_nowait())
