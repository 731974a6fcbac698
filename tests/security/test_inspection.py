"""Attacks on what lies behind Roomkey, over REST and sockets: refused in names, reported in texts, as it is set."""

from typing import Any

import pytest

from roomkey.security.events import SecurityEventType
from roomkey.security.injection import InspectionSettings, Inspector, Reaction, Suspicion
from tests.support.rest import Rest, documents_at_work
from tests.support.sockets import Node

ATTACK = "<script>alert(1)</script>"


def detect(text: str) -> Suspicion | None:
    """As libinjection, which tests/unit/security/test_injection.py is about."""
    return Suspicion.HTML if "<script" in text else None


def inspector(**settings: Any) -> Inspector:
    return Inspector(InspectionSettings(**settings), detect)


NEW_SESSIONS = {
    "the user id": {"user_id": ATTACK},
    "the device": {"user_id": "alice", "client": {"device": ATTACK}},
    "a key of metadata": {"user_id": "alice", "metadata": {ATTACK: 1}},
    "a value of metadata": {"user_id": "alice", "metadata": {"name": {"first": [ATTACK]}}},
}


@pytest.mark.parametrize("new", NEW_SESSIONS.values(), ids=NEW_SESSIONS.keys())
async def test_an_attack_in_an_identity_is_refused_and_reported(new: dict[str, Any]) -> None:
    rest = Rest(inspector=inspector())

    one = await rest.call("POST", "/sessions", token=rest.service, json=new)
    many = await rest.call("POST", "/sessions/batch", token=rest.service, json={"create": [{"user_id": "bob"}, new]})

    for answer in (one, many):
        assert (answer.status, answer.code) == (422, "suspicious_input")
        assert b"script" not in answer.body
    assert [event.type for event in rest.reported] == [SecurityEventType.INVALID_INPUT] * 2
    assert [event.cause for event in rest.reported] == ["suspicious_input"] * 2
    assert not (await rest.sessions.list_sessions()).sessions


async def test_what_is_only_flagged_passes_and_is_reported_once_a_minute() -> None:
    rest = Rest(inspector=inspector(identities=Reaction.FLAG))

    for _ in range(3):
        answer = await rest.call("POST", "/sessions", token=rest.service, json={"user_id": ATTACK})
        assert answer.status == 201

    (event,) = rest.reported
    assert (event.cause, event.details, event.actor) == (
        "suspicious_input",
        {"looks_like": "active_html"},
        "key:backend",
    )


async def test_text_in_documents_is_reported_and_refused_only_where_that_is_set() -> None:
    patch = {"content-type": "application/merge-patch+json"}
    for reaction, status in ((Reaction.FLAG, 200), (Reaction.REJECT, 422), (Reaction.OFF, 200)):
        async with documents_at_work(inspector=inspector(free_text=reaction)) as rest:
            await rest.call("PUT", "/documents/d", token=rest.admin, json={"map": {"a": 1}})
            put = await rest.call("PUT", "/documents/d", token=rest.admin, json={"map": {"a": ATTACK}})
            patched = await rest.call(
                "PATCH", "/documents/d", token=rest.admin, json={"map": {"b": ATTACK}}, headers=patch
            )
            label = await rest.call("POST", "/documents/d/versions", token=rest.admin, json={"label": ATTACK})

        assert [put.status, patched.status, label.status] == [status, status, 422]
        expected = {Reaction.FLAG: 2, Reaction.REJECT: 3, Reaction.OFF: 1}
        assert len(rest.reported) == expected[reaction]


async def test_a_message_that_looks_like_an_attack_passes_and_is_reported_once_a_minute() -> None:
    node = Node(inspector=inspector())
    alice, bob = await node.member(), await node.member(user_id="bob")

    for _ in range(3):
        alice.edit(ATTACK)

    assert [message["payload"]["text"] for message in bob.news()] == [ATTACK] * 3
    (event,) = node.reported
    assert (event.type, event.session, event.user) == (SecurityEventType.INVALID_INPUT, alice.session.id, "alice")
    assert (event.place, event.details) == ("/ws", {"looks_like": "active_html"})
    node.pass_time(seconds=61)
    alice.edit(ATTACK)
    assert len(node.reported) == 2


async def test_a_message_is_refused_where_that_is_set_and_who_goes_on_is_closed() -> None:
    node = Node(inspector=inspector(free_text=Reaction.REJECT), malformed_patience=2)
    alice, bob = await node.member(), await node.member(user_id="bob")

    id = alice.edit(ATTACK)
    assert alice.answer_to(id)["payload"]["code"] == "INVALID_MESSAGE"
    for _ in range(2):
        alice.edit(ATTACK)

    assert bob.news() == []
    assert alice.closed_with == (4400, "malformed")
    assert len(node.reported) == 1


async def test_without_anybody_who_looks_everything_passes() -> None:
    node, rest = Node(inspector=Inspector(InspectionSettings(), None)), Rest()
    alice, bob = await node.member(), await node.member(user_id="bob")

    alice.edit(ATTACK)

    assert len(bob.news()) == 1
    assert (await rest.call("POST", "/sessions", token=rest.service, json={"user_id": ATTACK})).status == 201
    assert node.reported == rest.reported == []


@pytest.mark.parametrize(
    "new",
    [
        {"user_id": "p\u0430ypal"},
        {"user_id": "admin\u200b"},
        {"user_id": "Zoe\u0308"},
        {"user_id": "a", "metadata": {"name": "\u202eevil"}},
        {"user_id": "a", "metadata": {"k\u2066": 1}},
        {"user_id": "a", "client": {"device": "lap\u200btop"}},
    ],
    ids=ascii,
)
async def test_names_that_deceive_are_refused_and_old_ones_can_still_be_ended(new: dict[str, Any]) -> None:
    rest = Rest()

    answer = await rest.call("POST", "/sessions", token=rest.service, json=new)
    ended = await rest.call("DELETE", "/users/p%D0%B0ypal/sessions", token=rest.service)

    assert answer.status == 422
    assert ended.status == 200
