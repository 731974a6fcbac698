"""Who may do what: the rules, asked without any interface in front of them."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from msgspec.structs import replace

from roomkey.domain.access import Access, Grant, Role
from roomkey.domain.session import Session, SessionFilter, SessionId, SessionState
from roomkey.errors import CapReached, CredentialsMissing, DocumentNotFound, Forbidden, NotFound, SessionPending
from roomkey.ports import Author
from roomkey.security import authorization
from roomkey.security.apikeys import ApiKey
from roomkey.security.authorization import DEVELOPER, RULES, STRANGER, Action, Caller, CallerKind

NOON: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def session(id: str, user: str = "alice", *grants: Grant, state: SessionState = SessionState.ACTIVE) -> Session:
    return Session(
        id=SessionId(id),
        user_id=user,
        state=state,
        created_at=NOON,
        expires_at=NOON + timedelta(hours=1),
        idle_timeout=None,
        activation_timeout=timedelta(minutes=5),
        last_seen_at=NOON,
        version=2,
        grants=grants,
    )


OWN, SIBLING, FOREIGN = session("own"), session("sibling"), session("foreign", "bob")
ALICE = Caller.of_session(OWN, "a token")
PENDING = Caller.of_session(replace(OWN, state=SessionState.PENDING))
ADMIN = Caller.of_key(ApiKey("operator", Role.ADMIN, "ab" * 32))
SERVICE = Caller.of_key(ApiKey("backend", Role.SERVICE, "cd" * 32))


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)


def test_a_caller_is_what_it_presented() -> None:
    callers = [ADMIN, SERVICE, ALICE, PENDING, STRANGER, DEVELOPER]

    assert [caller.kind for caller in callers] == [
        CallerKind.ADMIN,
        CallerKind.SERVICE,
        CallerKind.SESSION,
        CallerKind.PENDING,
        CallerKind.STRANGER,
        CallerKind.ADMIN,
    ]
    assert [caller.actor for caller in callers] == [
        "key:operator",
        "key:backend",
        "user:alice",
        "user:alice",
        "anonymous",
        "dev",
    ]


def test_a_caller_writes_under_its_name_and_a_session_under_that_of_its_user() -> None:
    assert ADMIN.author == Author("key:operator")
    assert ALICE.author == Author("user:alice", OWN.id, "alice")


def test_a_caller_never_shows_its_token() -> None:
    assert ALICE.token == "a token"
    assert "a token" not in repr(ALICE)


# --- callers and actions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "action", "refusal"),
    [
        (STRANGER, Action.LIST_SESSIONS, CredentialsMissing),
        (DEVELOPER, Action.READ_OWN_SESSION, CredentialsMissing),
        (ADMIN, Action.LOG_OUT, Forbidden),
        (ALICE, Action.SUSPEND_SESSION, Forbidden),
        (PENDING, Action.LIST_SESSIONS, SessionPending),
        (PENDING, Action.TAKE_TICKET, SessionPending),
        (PENDING, Action.SUSPEND_SESSION, Forbidden),
        (SERVICE, Action.SEE_FIGURES, Forbidden),
    ],
)
def test_who_may_not_learns_why(caller: Caller, action: Action, refusal: type[Exception]) -> None:
    with pytest.raises(refusal) as refused:
        authorization.check(caller, action)

    assert type(refused.value) is refusal
    assert not authorization.permits(caller, action)


@pytest.mark.parametrize(
    ("caller", "action"),
    [
        (ADMIN, Action.SEE_FIGURES),
        (DEVELOPER, Action.CREATE_SESSIONS),
        (SERVICE, Action.REVOKE_USER),
        (ALICE, Action.REVOKE_USER),
        (PENDING, Action.ACTIVATE_SESSION),
        (STRANGER, Action.SEE_HEALTH),
    ],
)
def test_who_may_is_let_through(caller: Caller, action: Action) -> None:
    authorization.check(caller, action)

    assert authorization.permits(caller, action)


# --- sessions and users -------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [OWN, SIBLING, FOREIGN])
def test_a_key_may_do_it_to_every_session(named: Session) -> None:
    assert authorization.is_open(SERVICE, named.id)
    assert authorization.check_session(SERVICE, Action.SUSPEND_SESSION, named) is named


@pytest.mark.parametrize("caller", [ALICE, PENDING])
@pytest.mark.parametrize("action", [Action.READ_SESSION, Action.ROTATE_TOKEN])
def test_a_session_may_do_it_to_itself(caller: Caller, action: Action) -> None:
    assert authorization.is_open(caller, OWN.id)
    assert authorization.check_session(caller, action, OWN) is OWN


@pytest.mark.parametrize("action", [Action.READ_SESSION, Action.DELETE_SESSION])
def test_a_session_sees_and_deletes_those_of_its_user(action: Action) -> None:
    assert not authorization.is_open(ALICE, SIBLING.id)
    assert authorization.check_session(ALICE, action, SIBLING) is SIBLING


@pytest.mark.parametrize("action", [Action.ACTIVATE_SESSION, Action.INVALIDATE_SESSION, Action.ROTATE_TOKEN])
def test_a_session_changes_no_other_one_of_its_user(action: Action) -> None:
    with pytest.raises(Forbidden):
        authorization.check_session(ALICE, action, SIBLING)


@pytest.mark.parametrize("action", [Action.READ_SESSION, Action.ROTATE_TOKEN])
def test_a_session_of_another_user_is_answered_like_one_that_does_not_exist(action: Action) -> None:
    refusals: list[str] = []
    for named in (FOREIGN, None):
        with pytest.raises(NotFound) as refused:
            authorization.check_session(ALICE, action, named)
        refusals.append(str(refused.value))

    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("named", [SIBLING, FOREIGN, None])
def test_a_pending_session_knows_of_no_other(named: Session | None) -> None:
    with pytest.raises(SessionPending):
        authorization.check_session(PENDING, Action.READ_SESSION, named)


def test_a_key_is_told_that_a_session_does_not_exist() -> None:
    with pytest.raises(NotFound):
        authorization.check_session(ADMIN, Action.READ_SESSION, None)


def test_a_session_knows_its_own_user_and_a_key_all() -> None:
    authorization.check_user(ALICE, "alice")
    authorization.check_user(SERVICE, "bob")

    with pytest.raises(NotFound):
        authorization.check_user(ALICE, "bob")


def test_a_list_shows_a_session_those_of_its_user_and_a_key_all() -> None:
    everything, active = SessionFilter(), SessionFilter(state=SessionState.ACTIVE)

    assert authorization.visible(ADMIN, everything) is everything
    assert authorization.visible(ALICE, active) == SessionFilter(user_id="alice", state=SessionState.ACTIVE)
    with pytest.raises(Forbidden):
        authorization.visible(ALICE, SessionFilter(user_id="bob"))


def test_only_a_session_is_its_own() -> None:
    assert authorization.own_session(ALICE) is OWN
    with pytest.raises(Forbidden):
        authorization.own_session(ADMIN)


def test_a_batch_has_as_many_sessions_of_one_user_as_a_user_may_have() -> None:
    authorization.check_batch([], 2)
    authorization.check_batch(["alice", "bob", "alice"], 2)

    with pytest.raises(CapReached):
        authorization.check_batch(["alice", "bob", "alice", "alice"], 2)


# --- documents ----------------------------------------------------------------------------------------

READER = Caller.of_session(session("reader", "alice", Grant("notes/*", Access.READ)))


def test_a_key_may_do_everything_with_every_document() -> None:
    for action in (Action.READ_DOCUMENT, Action.WRITE_DOCUMENT, Action.DELETE_DOCUMENT):
        authorization.check_document(SERVICE, action, "notes/a", None)

    assert authorization.key_access(SERVICE) is Access.ADMIN


def test_a_session_does_with_a_document_what_its_access_says() -> None:
    authorization.check_document(READER, Action.READ_DOCUMENT, "notes/a", Access.READ)

    for action in (Action.WRITE_DOCUMENT, Action.DELETE_DOCUMENT, Action.IMPORT_DOCUMENT):
        with pytest.raises(Forbidden):
            authorization.check_document(READER, action, "notes/a", Access.READ)


@pytest.mark.parametrize("action", [Action.READ_DOCUMENT, Action.DELETE_DOCUMENT])
def test_a_document_that_a_session_may_not_read_does_not_exist(action: Action) -> None:
    with pytest.raises(DocumentNotFound):
        authorization.check_document(READER, action, "secret", None)
