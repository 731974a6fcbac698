"""Who awareness says that somebody is: what is put into states, what is refused, and what passes as it came."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from roomkey.domain.session import Session
from roomkey.realtime.protocol.shown_user import ShownUser
from roomkey.realtime.settings import AwarenessIdentity
from roomkey.testing.clock import ManualClock
from tests.support.sockets import NOON, FakeSessions


def session(name: object = None) -> Session:
    metadata = None if name is None else {"name": name}
    issued, _ = FakeSessions(ManualClock(NOON)).issue("alice")
    return replace(issued, metadata=metadata)


def shown(mode: AwarenessIdentity = AwarenessIdentity.STAMP, name: object = None) -> ShownUser:
    return ShownUser(session(name), mode)


def after(user: ShownUser, state: bytes) -> Any:
    """The state as others read it."""
    said = user.identify(state) if user.concerns(state) else state
    return None if said is None else json.loads(said)


@pytest.mark.parametrize(
    "state",
    [
        b'{"user":{"id":"mallory","name":"Al","color":"#fff"},"cursor":{"anchor":1.50}}',
        b'{"user":{"name":"Al","color":"#fff"},"cursor":{"anchor":1.50}}',
        b'{"user":{"id":7,"name":"Al","color":"#fff"},"cursor":{"anchor":1.50}}',
        b' {"user" : {"id":null,"name":"Al","color":"#fff"} , "cursor":{"anchor":1.50}}',
        b'{"\\u0075ser":{"\\u0069d":"mallory","name":"Al","color":"#fff"},"cursor":{"anchor":1.50}}',
        b'{"user":{"id":"alice"},"user":{"id":"mallory","name":"Al","color":"#fff"},"cursor":{"anchor":1.50}}',
        b'{"user":{"id":"alice","id":"mallory","name":"Al","color":"#fff"},"cursor":{"anchor":1.50}}',
    ],
    ids=["another", "none", "a number", "spaces", "escapes", "the last of two users", "the last of two ids"],
)
def test_the_id_of_a_user_is_the_sessions_and_the_rest_is_the_clients(state: bytes) -> None:
    said = after(shown(), state)

    assert said == {"user": {"id": "alice", "name": "Al", "color": "#fff"}, "cursor": {"anchor": 1.5}}


def test_the_rest_of_a_stamped_state_is_as_it_was_written() -> None:
    said = shown().identify(b'{"user":{"color": "#fff"},"big":12345678901234567890123,"cursor":{"anchor":1.50}}')

    assert said is not None
    assert b'"big":12345678901234567890123,"cursor":{"anchor":1.50}' in said


def test_the_name_of_a_user_is_the_sessions_if_it_has_one() -> None:
    state = b'{"user":{"id":"alice","name":"The Boss"}}'

    assert after(shown(name="Alice"), state) == {"user": {"id": "alice", "name": "Alice"}}
    assert after(shown(name="Ren\u00e9e \N{GRINNING FACE}"), state)["user"]["name"] == "Ren\u00e9e \N{GRINNING FACE}"
    for nothing in (None, "", 7, ["Alice"]):
        assert after(shown(name=nothing), state) == {"user": {"id": "alice", "name": "The Boss"}}


@pytest.mark.parametrize(
    "state",
    [
        b'{ "user" : { "id" : "alice" , "name":"\\u0041lice" } }',
        b'{"cursor":{"user":{"id":"mallory"}}}',
        b'{"user":"mallory"}',
        b'{"user":null}',
        b'["user",{"id":"mallory"}]',
        b'"user"',
        b'{"name":"\\ud83d"}',
    ],
)
@pytest.mark.parametrize("mode", [AwarenessIdentity.STAMP, AwarenessIdentity.CHECK])
def test_a_state_that_is_right_or_shows_no_user_passes_as_it_came(mode: AwarenessIdentity, state: bytes) -> None:
    assert shown(mode, "Alice").identify(state) is state


def test_a_state_without_the_word_is_not_looked_at() -> None:
    assert not shown().concerns(b'{"cursor":{"anchor":1}}')


def test_half_a_character_does_not_hide_a_user() -> None:
    state = b'{"user":{"id":"mallory","name":"\\ud83d"}}'

    assert after(shown(), state) == {"user": {"id": "alice", "name": "\ud83d"}}
    assert shown().identify(b'{"user":{"id":"mallory"},"\\ud83d":1e400}') is None


@pytest.mark.parametrize(
    "state",
    [b'{"user":{"id":"mallory"}}', b'{"user":{"id":"alice","name":"Mallory"}}', b'{"user":{"id":7}}'],
)
def test_checked_a_state_that_shows_somebody_else_is_refused(state: bytes) -> None:
    assert shown(AwarenessIdentity.CHECK, "Alice").identify(state) is None


def test_checked_a_user_that_does_not_say_who_it_is_passes() -> None:
    state = b'{"user":{"color":"#fff"}}'

    assert shown(AwarenessIdentity.CHECK, "Alice").identify(state) is state


def test_switched_off_everything_passes() -> None:
    assert not shown(AwarenessIdentity.OFF).concerns(b'{"user":{"id":"mallory"}}')


@pytest.mark.parametrize("mode", [AwarenessIdentity.STAMP, AwarenessIdentity.CHECK])
def test_a_name_does_not_turn_the_text_around_it(mode: AwarenessIdentity) -> None:
    state = json.dumps({"user": {"id": "alice", "name": "Al\u202egnp\u200b", "color": "#fff"}, "cursor": 1}).encode()

    assert after(shown(mode), state) == {"user": {"id": "alice", "name": "Algnp", "color": "#fff"}, "cursor": 1}


@pytest.mark.parametrize("name", ["محمد", "\u05d0\u200f", "\U0001f469\u200d\U0001f467", "Zoe\u0308", "half \ud83d"])
def test_a_name_in_any_script_passes_as_it_came(name: str) -> None:
    state = json.dumps({"user": {"id": "alice", "name": name}}).encode()

    assert shown().identify(state) == state
