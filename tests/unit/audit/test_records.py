"""What an entry says to whoever has the log alone, what only keys open, and what is left after a person was erased."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.audit.records import (
    MAX_ENTRY_BYTES,
    SALT_BYTES,
    AuditRecord,
    Outcome,
    decode,
    divide,
    encode,
    encode_personal,
)
from roomkey.audit.sealing import Personality
from roomkey.domain.session import Client
from roomkey.errors import Serialization
from tests.support.audit_trail import NOON, Office


def record(**fields: Any) -> AuditRecord:
    complete: dict[str, Any] = {"type": "session.created", "at": NOON, **fields}
    return AuditRecord(**complete)


FULL = record(
    actor="user:alice@example.com",
    user="alice@example.com",
    session="00aaaaaaaaaaaaaaaaaaaaaaaaaa",
    client=Client("192.0.2.1", "Mozilla", "Alice's telephone"),
    address="192.0.2.7",
    agent="curl",
    object="home/alice@example.com/diary",
    cause="Alice has asked for it",
    request="r-1",
    node="n-1",
    event=(0, 7),
    details={"epoch": 3},
)
SECRETS = (b"alice", b"Alice", b"192.0.2", b"Mozilla", b"curl", b"diary")


async def test_whoever_has_the_log_alone_reads_what_happened_and_nothing_of_the_person() -> None:
    office = Office()

    [entry] = await office.sealed(FULL)

    line = decode(entry)
    assert (line.type, line.at, line.actor, line.session) == (FULL.type, NOON, "user", FULL.session)
    assert (line.request, line.node, line.event, line.details) == ("r-1", "n-1", (0, 7), {"epoch": 3})
    assert not [secret for secret in SECRETS if secret in entry]


async def test_an_entry_is_json_behind_a_version_and_a_salt() -> None:
    office = Office()

    [entry] = await office.sealed(record(actor="key:ops"))

    assert entry[:1] == b"\x01"
    assert msgspec.json.decode(entry[1 + SALT_BYTES :]) == {
        "type": "session.created",
        "at": "2026-01-02T12:00:00Z",
        "actor": "key:ops",
    }


async def test_the_same_record_is_never_the_same_entry() -> None:
    office = Office()

    first, second = await office.sealed(record(actor="key:ops"), record(actor="key:ops"))

    assert first != second
    assert decode(first) == decode(second)


async def test_with_the_key_everything_is_read_again() -> None:
    office = Office()

    [opened] = await office.sealer.open(5, await office.sealed(FULL))

    assert (opened.number, opened.personality) == (5, Personality.SHOWN)
    assert opened.personal == {
        "actor": "user:alice@example.com",
        "user": "alice@example.com",
        "address": "192.0.2.7",
        "agent": "curl",
        "client": {"ip": "192.0.2.1", "user_agent": "Mozilla", "device": "Alice's telephone"},
        "object": "home/alice@example.com/diary",
        "cause": "Alice has asked for it",
    }


async def test_who_may_not_see_persons_is_told_that_there_is_one() -> None:
    office = Office()

    [hidden] = await office.sealer.open(0, await office.sealed(FULL), show=False)

    assert (hidden.personal, hidden.personality) == ({}, Personality.HIDDEN)


async def test_what_is_left_of_an_erased_person_is_what_happened() -> None:
    office = Office()
    [entry] = await office.sealed(FULL)

    await office.erase("alice@example.com")

    [opened] = await office.sealer.open(0, [entry])
    assert (opened.personal, opened.personality) == ({}, Personality.ERASED)
    assert opened.line == decode(entry)


async def test_a_person_who_comes_back_after_being_erased_does_not_open_what_was() -> None:
    office = Office()
    before = await office.sealed(FULL)
    await office.erase("alice@example.com")

    after = await office.sealed(FULL)

    opened = await office.sealer.open(0, [*before, *after])
    assert [each.personality for each in opened] == [Personality.ERASED, Personality.SHOWN]


async def test_where_an_operator_was_outlives_the_person_whose_session_was_ended() -> None:
    office = Office()
    [entry] = await office.sealed(record(actor="key:ops", user="alice", address="192.0.2.7"))

    await office.erase("alice")

    [opened] = await office.sealer.open(0, [entry])
    assert opened.personal == {"address": "192.0.2.7"}
    assert opened.personality is Personality.ERASED


async def test_strangers_of_a_month_are_erased_together() -> None:
    office = Office()
    entries = await office.sealed(
        record(actor="anonymous", address="192.0.2.7"),
        record(actor="anonymous", address="192.0.2.8", at=NOON + timedelta(days=31)),
    )

    await office.erase("\0nobody 2026-01")

    opened = await office.sealer.open(0, entries)
    assert [each.personal for each in opened] == [{}, {"address": "192.0.2.8"}]


async def test_what_is_sealed_in_one_entry_opens_nothing_in_another() -> None:
    office = Office()
    first, second = await office.sealed(FULL, FULL)
    forged = second[: 1 + SALT_BYTES] + first[1 + SALT_BYTES :]

    [opened] = await office.sealer.open(0, [forged])

    assert (opened.personal, opened.personality) == ({}, Personality.UNREADABLE)


@pytest.mark.parametrize("cause", ["logout", "token_reused", "system:janitor", "A1"])
def test_a_code_is_readable(cause: str) -> None:
    assert divide(record(user="bob", cause=cause)).line.cause == cause


@pytest.mark.parametrize("cause", ["has left us", "bob", "bob_left", "naïve", "x" * 65, "<b>", "a.b@c"])
def test_what_somebody_typed_is_not(cause: str) -> None:
    line, personal = divide(record(user="bob", cause=cause))

    assert line.cause is None
    assert personal["bob"]["cause"] == cause


def test_what_a_record_of_nobody_says_can_be_erased_with_its_month() -> None:
    line, personal = divide(record(actor="system", cause="typed by hand"))

    assert line.cause is None
    assert personal == {"\0nobody 2026-01": {"cause": "typed by hand"}}


@pytest.mark.parametrize("entry", [b"", b"\x02" + bytes(16) + b"{}", b"\x01" + bytes(16), b"\x01" + bytes(16) + b"[]"])
async def test_an_entry_that_is_none_of_ours_is_said_to_be_unreadable(entry: bytes) -> None:
    with pytest.raises(Serialization):
        decode(entry)

    [opened] = await Office().sealer.open(0, [entry])
    assert (opened.line.type, opened.personality) == ("unreadable", Personality.UNREADABLE)


TEXTS = st.none() | st.text(max_size=40) | st.integers(0, 4).map(lambda size: "\0é\U0001f600" * 10**size)


@given(
    st.builds(
        AuditRecord,
        type=st.just("view.x"),
        at=st.integers(0, 10**6).map(lambda hours: NOON + timedelta(hours=hours)),
        actor=st.sampled_from(["system", "anonymous", "key:ops", "user:a", "user:b"]),
        outcome=st.sampled_from(Outcome),
        user=st.none() | st.sampled_from(["a", "b"]) | st.text(min_size=1, max_size=64),
        session=TEXTS,
        client=st.none() | st.builds(Client, TEXTS, TEXTS, TEXTS),
        address=TEXTS,
        agent=TEXTS,
        object=TEXTS,
        cause=TEXTS,
        request=TEXTS,
        details=st.none() | st.dictionaries(st.text(max_size=5), TEXTS, max_size=3),
    )
)
def test_whatever_is_recorded_fits_into_an_entry_and_is_in_one_of_its_two_parts(record: AuditRecord) -> None:
    line, personal = divide(record)

    sealed = [("0" * 64, encode_personal(fields) + bytes(36)) for fields in personal.values()]
    entry = encode(msgspec.structs.replace(line, sealed=sealed), bytes(SALT_BYTES))
    assert len(entry) <= MAX_ENTRY_BYTES
    assert decode(entry).type == record.type
    if record.user and record.user != "user":
        assert record.user in {fields.get("user") for fields in personal.values()}
        readable = [line.object, line.cause, encode_personal(dict(line.details or {})).decode()]
        assert not [text for text in readable if text and record.user in text]


def test_a_secret_in_the_wrong_field_is_not_written_down() -> None:
    token, key = "00" + "a" * 26 + "." + "S" * 43, "rkey_" + "K" * 43
    texts = dict.fromkeys(("user", "session", "object", "cause", "request", "agent", "address"), f"{token} {key}")

    line, personal = divide(record(actor="key:ops", details={"actor": key, "list": [token]}, **texts))

    written = encode(line, bytes(SALT_BYTES)) + b"".join(map(encode_personal, personal.values()))
    assert b"S" * 43 not in written
    assert b"K" * 43 not in written
    assert b"a" * 26 in written
