"""The limits of stores rest on what a store sends: that it is seen, and that what is repeated of it is really done."""

from pathlib import Path

import pytest

from benchmarks import databases
from benchmarks.databases import Database
from benchmarks.httpload import Unexpected
from benchmarks.sql_limits import Sizes, filled_in, for_rows
from benchmarks.store_limits import RedisBenchmark, commands_of, for_anybody, monitored, unescaped
from roomkey.backends.redis.layout import id_key
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.statements import Query
from roomkey.domain.session import SessionId

ID = SessionId("35fik6hpacrq7aunsmg2ea5rbrwt")
USER = "user-000000000123"


def test_what_a_monitor_quotes_is_read_as_it_was_sent() -> None:
    assert unescaped(rb"\x00\xff\"\\\r\n\t\a\b plain") == b'\x00\xff"\\\r\n\t\a\b plain'


def test_a_command_that_creates_one_session_becomes_one_that_creates_another_each_time() -> None:
    key = id_key(ID)
    assert key is not None
    command = [b"EVALSHA", b"{roomkey:35}d", key, b"a record of " + ID.encode(), USER.encode() + b"\0"]

    anybody = for_anybody(command, ID, USER)

    number = b"__rand_int__"
    record = b"a record of " + ID.encode()[:-12] + number
    assert anybody == [b"EVALSHA", b"{roomkey:35}d", key[:-12] + number, record, b"user-" + number + b"\1"]
    assert [len(argument) for argument in anybody] == [len(argument) for argument in command]


async def test_commands_are_seen_and_repeated_and_one_that_stores_nothing_is_not_counted(tmp_path: Path) -> None:
    with databases.redis(tmp_path) as redis:
        if not isinstance(redis, Database):
            pytest.skip(redis.reason)
        benchmark = RedisBenchmark(redis.port, [[b"SET", b"key-__rand_int__", b"x" * 300]], grows=True)

        with monitored(redis.port) as commands:
            benchmark.measure(0.01, 1, 4)
            seen = commands()
        nothing = await commands_of(redis.port, _nothing)

        sets = [command for command in seen if command[0] == b"SET"]
        assert len({command[1] for command in sets}) == len(sets) > 1
        assert nothing == []
        with pytest.raises(Unexpected, match="does not store"):
            RedisBenchmark(redis.port, [[b"SET", b"key", b"x"]], grows=True).measure(0.01, 1, 4)
        with pytest.raises(Unexpected, match="refuses"):
            RedisBenchmark(redis.port, [[b"INCR", b"key"]]).measure(0.01, 1, 4)


async def _nothing() -> None:
    pass


def test_parameters_of_a_statement_become_expressions_in_their_order() -> None:
    query = Query("SELECT ?::bytea[] WHERE id IN (*) AND at > ?", Dialect.POSTGRESQL)

    assert filled_in(query, ["one", ":two", "3"]) == "SELECT one::bytea[] WHERE id = ANY(:two) AND at > 3"


def test_what_a_statement_repeats_is_there_for_every_row() -> None:
    query = Query("INSERT INTO t (a, b) VALUES {(?, ?)|, } ON DUPLICATE KEY UPDATE a = 1", Dialect.MYSQL)

    text, parameters = for_rows(query, [(1, 2), (3, 4)])

    assert text == "INSERT INTO t (a, b) VALUES (%s, %s), (%s, %s) ON DUPLICATE KEY UPDATE a = 1"
    assert parameters == [1, 2, 3, 4]


def test_a_transaction_has_as_many_sessions_as_wait_and_fewer_partitions() -> None:
    many, few = Sizes.of(256, 200, 100), Sizes.of(2, 200, 100)

    assert (many.sessions, many.partitions) == (128, 81)
    assert (few.sessions, few.partitions) == (1, 1)
