"""The event log in slots reads like one log per partition."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkey.backends.lmdb.file import DataFile, FileSystemSettings
from roomkey.backends.lmdb.layout import ENDED, LIVE, Counters, UserEntry, user_prefix
from roomkey.backends.lmdb.log import Log
from roomkey.backends.records import encode_event
from roomkey.domain.session import Activated, SessionId
from roomkey.ports import PLAIN_RECORDS
from roomkey.testing.storage.suite import NOON, SECOND
from tests.support.effort import examples

QUICK = FileSystemSettings(durable=False)
PARTITIONS = 5


@contextmanager
def empty_log(path: Path) -> Generator[Log]:
    """A log in a transaction that is never committed."""
    file = DataFile(path, QUICK, PLAIN_RECORDS)
    transaction = file.environment.begin(write=True)
    try:
        yield Log(transaction, file, Counters(None))
    finally:
        transaction.abort()
        file.close()


def event(number: int) -> bytes:
    """The record of an event, ``number`` seconds after noon."""
    return encode_event(activated(number))


def activated(number: int) -> Activated:
    return Activated(session=SessionId("x"), user="x", version=2, at=NOON + number * SECOND)


@pytest.fixture(autouse=True)
def _small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomkey.backends.lmdb.log.SLOT_SIZE", 4)


@settings(max_examples=examples(60))
@given(
    st.lists(st.integers(0, PARTITIONS - 1), max_size=120),
    st.lists(st.integers(0, 140), max_size=3),
    st.integers(1, 50),
)
def test_any_log_is_read_and_purged_like_lists(partitions: list[int], purges: list[int], limit: int) -> None:
    model: dict[int, list[tuple[int, int]]] = {partition: [] for partition in range(PARTITIONS)}
    heads = dict.fromkeys(range(PARTITIONS), 0)

    with TemporaryDirectory() as folder, empty_log(Path(folder)) as log:
        for number, partition in enumerate(partitions):
            log.append(partition, event(number))
            heads[partition] += 1
            model[partition].append((heads[partition], number))

        for before in (0, *purges):
            log.purge(NOON + before * SECOND, limit)
            purgeable = limit
            for partition, entries in model.items():
                old = [entry for entry in entries if entry[1] < before][:purgeable]
                purgeable -= len(old)
                model[partition] = entries[len(old) :]

            for partition, entries in model.items():
                for after in range(heads[partition] + 2):
                    expected = [(sequence, activated(number)) for sequence, number in entries if sequence > after]
                    assert [(each.sequence, each.event) for each in log.after(partition, after)] == expected


def test_a_rare_event_is_found_in_a_long_log(tmp_path: Path) -> None:
    random = Random(3)

    with empty_log(tmp_path) as log:
        rare = sorted(random.sample(range(3000), 20))
        for number in range(3000):
            log.append(7 if number in rare else random.randrange(3), event(number))

        for after in range(20):
            found = list(log.after(7, after))
            assert [each.sequence for each in found] == list(range(after + 1, 21))
            assert [each.event for each in found] == [activated(number) for number in rare[after:]]


def test_what_was_purged_leaves_nothing_behind(tmp_path: Path) -> None:
    with empty_log(tmp_path) as log:
        log.append(9, event(0))  # a partition in which nothing happens any more
        for number in range(400):
            log.append(number % 3, event(number))

        for before in range(0, 401, 40):
            log.purge(NOON + timedelta(seconds=before), 1000)

        assert log._transaction.stat(log._events)["entries"] == 0  # pyright: ignore[reportPrivateUsage]  # what it is about
        assert log._transaction.stat(log._slots)["entries"] == 1  # pyright: ignore[reportPrivateUsage]


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_users_keys_are_within_anothers(one: bytes, other: bytes) -> None:
    keys = [UserEntry(0, b"id").key(user_prefix(one), part) for part in (LIVE, ENDED)]

    assert one == other or not any(key.startswith(user_prefix(other)) for key in keys)
    assert UserEntry.of(keys[0], user_prefix(one)) == UserEntry(0, b"id")
    assert UserEntry.unpack(UserEntry(5, b"id").pack()) == UserEntry(5, b"id")
