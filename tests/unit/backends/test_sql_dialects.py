"""What a database URL says, what it must not show, and what errors of databases mean."""

import sqlite3
from typing import Any

import asyncmy.errors
import asyncpg
import pytest

from roomkey.backends.recovery import Kind
from roomkey.backends.sql.dialects import Dialect, Place, parse
from roomkey.backends.sql.failures import Undone, classify, is_duplicate
from roomkey.backends.sql.statements import Query, load
from roomkey.backends.sql.rows import SessionQueries
from roomkey.errors import ConfigurationError

SECRET = "s3cr3t"


def test_a_url_names_user_password_host_port_and_database() -> None:
    place = parse("postgresql://ada:p%40ss@db.example:6432/rooms?sslmode=require&schema=blue")

    assert place == Place(
        dialect=Dialect.POSTGRESQL,
        host="db.example",
        port=6432,
        user="ada",
        password="p@ss",
        database="rooms",
        schema="blue",
        tls={"sslmode": "require"},
    )


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "MARIADB"])
def test_mariadb_and_mysql_are_one(scheme: str) -> None:
    place = parse(f"{scheme}://root@localhost/rooms")

    assert (place.dialect, place.host, place.port, place.database) == (Dialect.MYSQL, "localhost", 3306, "rooms")


@pytest.mark.parametrize(
    ("url", "file"), [("sqlite:///rooms.db", "rooms.db"), ("sqlite:////var/lib/rooms.db", "/var/lib/rooms.db")]
)
def test_sqlite_takes_a_path(url: str, file: str) -> None:
    assert parse(url).database == file


@pytest.mark.parametrize(
    "url",
    [
        "",
        SECRET,
        f"oracle://ada:{SECRET}@db/rooms",
        f"postgresql://ada:{SECRET}@db",
        f"postgresql://ada:{SECRET}@db/",
        f"postgresql://ada:{SECRET}@db/a/b",
        f"postgresql://ada:{SECRET}@db:port/rooms",
        f"postgresql://ada:{SECRET}@db/rooms?sslmode=maybe",
        f"postgresql://ada:{SECRET}@db/rooms?magic=1",
        f"mysql://ada:{SECRET}@db/rooms?schema=blue",
        "sqlite://",
        "sqlite:///",
        "sqlite://rooms.db",
    ],
)
def test_what_names_no_database_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(url)

    assert SECRET not in str(caught.value)


def test_a_place_shows_no_password() -> None:
    place = parse(f"postgresql://ada:{SECRET}@db/rooms")

    assert SECRET not in f"{place} {place!r}"
    assert str(place) == "PostgreSQL at db:5432/rooms"


def _postgresql(sqlstate: str) -> BaseException:
    return asyncpg.PostgresError.new({"C": sqlstate, "M": SECRET})  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _sqlite(code: int) -> BaseException:
    error = sqlite3.OperationalError("")
    error.sqlite_errorcode = code
    return error


def _mysql(code: int) -> BaseException:
    return asyncmy.errors.OperationalError(code, SECRET)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_postgresql("40001"), Kind.BUSY),
        (_postgresql("40P01"), Kind.BUSY),
        (_postgresql("53300"), Kind.BUSY),
        (_postgresql("53100"), Kind.FULL),
        (_postgresql("25006"), Kind.READ_ONLY),
        (_postgresql("28P01"), Kind.REFUSED),
        (_postgresql("3D000"), Kind.REFUSED),
        (_postgresql("42P01"), Kind.WRONG),
        (_postgresql("57P01"), Kind.AWAY),
        (_postgresql("57P03"), Kind.BUSY),
        (_postgresql("57014"), Kind.SLOW),
        (_postgresql("22003"), Kind.WRONG),
        (asyncpg.InterfaceError("connection is closed"), Kind.AWAY),
        (_mysql(1213), Kind.BUSY),
        (_mysql(1205), Kind.BUSY),
        (_mysql(1040), Kind.BUSY),
        (_mysql(1021), Kind.FULL),
        (_mysql(1290), Kind.READ_ONLY),
        (_mysql(1836), Kind.READ_ONLY),
        (_mysql(1045), Kind.REFUSED),
        (_mysql(1049), Kind.REFUSED),
        (_mysql(1146), Kind.WRONG),
        (_mysql(1153), Kind.WRONG),
        (_mysql(2013), Kind.AWAY),
        (_mysql(1969), Kind.SLOW),
        (_sqlite(sqlite3.SQLITE_BUSY), Kind.BUSY),
        (_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), Kind.BUSY),
        (_sqlite(sqlite3.SQLITE_FULL), Kind.FULL),
        (_sqlite(sqlite3.SQLITE_READONLY), Kind.READ_ONLY),
        (_sqlite(sqlite3.SQLITE_CANTOPEN), Kind.REFUSED),
        (_sqlite(sqlite3.SQLITE_CORRUPT), Kind.WRONG),
        (ConnectionRefusedError(111, "Connection refused"), Kind.AWAY),
        (EOFError(), Kind.AWAY),
    ],
)
def test_an_error_says_how_the_server_failed_and_shows_nothing(error: BaseException, kind: Kind) -> None:
    failure = classify(error)

    assert failure is not None
    assert failure.kind is kind
    assert SECRET not in failure.detail


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), ConfigurationError("x")])
def test_a_mistake_of_ours_is_not_the_servers(error: Exception) -> None:
    assert classify(error) is None


def test_a_transaction_that_was_not_committed_is_undone_even_if_the_connection_broke() -> None:
    undone = Undone()
    undone.__cause__ = ConnectionResetError(104, "Connection reset by peer")

    failure, broken = classify(undone), classify(ConnectionResetError(104, "Connection reset by peer"))

    assert failure is not None
    assert broken is not None
    assert (failure.kind, failure.is_undone) == (Kind.AWAY, True)
    assert not broken.is_undone


@pytest.mark.parametrize("error", [_postgresql("23505"), _mysql(1062), _sqlite(sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)])
def test_a_key_that_exists_is_told_from_other_errors(error: BaseException) -> None:
    assert is_duplicate(error)
    assert not is_duplicate(_mysql(1048))


@pytest.mark.parametrize("dialect", Dialect)
def test_every_statement_is_there_in_every_dialect(dialect: Dialect) -> None:
    queries: tuple[Any, ...] = load("sessions", dialect, SessionQueries)

    assert all(isinstance(query, Query) and query.text for query in queries)


def test_lists_are_filled_up_so_that_few_texts_are_met() -> None:
    query = Query("SELECT 1 FROM t WHERE a = ? AND b IN (*) AND c IN (*)", Dialect.SQLITE)

    text, parameters = query.prepared([1, [2, 3, 4], []])

    assert text == "SELECT 1 FROM t WHERE a = ? AND b IN (?, ?, ?, ?) AND c IN (?)"
    assert parameters == [1, 2, 3, 4, 4, None]
