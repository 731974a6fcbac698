"""
Statements as they stand in the files of ``queries/``, and how they reach a driver.

A file has statements under names, for all dialects or for some::

    -- name: epoch_of
    SELECT epoch FROM roomkey_epochs WHERE user_id = ?

    -- name: put_epochs (mysql, sqlite)
    ...

``?`` stands for a parameter; ``IN (*)`` for a list of them, of any length. A statement that is run for many rows at
once (``run_many``) gets on PostgreSQL the columns as arrays, for ``unnest``; for MySQL it says with ``{(?, ?)|, }``
what is repeated for each row, and what stands between; on SQLite it is run for each row, within one call.

Statements go to the driver itself: SQLAlchemy keeps the connections. Its own way to the driver costs more than what we
ask of the server.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.dialects import Dialect

ROWS_PER_STATEMENT: Final = 256
BYTES_PER_STATEMENT: Final = 1024 * 1024
"""Maximum size of the rows of one statement, unless a single row is larger."""

Row = Sequence[Any]
QueriesT = TypeVar("QueriesT", bound=tuple[Any, ...])

_LIST: Final = "IN (*)"
_REPEATED: Final = re.compile(r"\{(.*?)\|(.*?)\}", re.DOTALL)
_NAME: Final = re.compile(r"^-- name: (\w+)(?: \(([\w, ]+)\))?$", re.MULTILINE)


class Query(NamedTuple):
    """A statement in one dialect, with ``?`` for parameters."""

    text: str
    dialect: Dialect

    def prepared(self, parameters: Sequence[Any]) -> tuple[str, list[Any]]:
        """The text that the driver takes, and its parameters. A parameter of ``IN (*)`` is a list."""
        if self.dialect is Dialect.POSTGRESQL:
            return _numbered(self.text.replace(_LIST, "= ANY(?)")), list(parameters)
        if _LIST not in self.text:
            return _placed(self.text, self.dialect), list(parameters)
        flat: list[Any] = []
        text = self.text
        for parameter in parameters:
            if isinstance(parameter, list):
                values: list[Any] = _padded(parameter)  # pyright: ignore[reportUnknownArgumentType]
                text = text.replace(_LIST, f"IN ({', '.join('?' * len(values))})", 1)
                flat += values
            else:
                flat.append(parameter)
        return _placed(text, self.dialect), flat


def load(name: str, dialect: Dialect, kind: type[QueriesT]) -> QueriesT:
    """The statements of the file ``queries/NAME.sql``; ``kind`` is a ``NamedTuple`` whose fields are their names."""
    text = files("roomkey.backends.sql").joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    found: dict[str, Query] = {}
    for title, dialects, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if dialects is None or dialect.value in dialects.split(", "):
            found[title] = Query(body.strip().removesuffix(";"), dialect)
    return kind(**found)


async def run(connection: AsyncConnection, query: Query, *parameters: Any) -> list[Row]:
    """Run a statement; the rows that it returns."""
    text, values = query.prepared(parameters)
    return await execute(connection, query.dialect, text, values)


async def touched(connection: AsyncConnection, query: Query, *parameters: Any) -> int:
    """
    Run a statement that writes; how many rows it has changed.

    On PostgreSQL and SQLite it says RETURNING, whatever of. On MySQL a row that was written as it was does not count.
    """
    rows = await run(connection, query, *parameters)
    if query.dialect is not Dialect.MYSQL:
        return len(rows)
    ((number,),) = await execute(connection, query.dialect, "SELECT row_count()", ())
    return number


async def run_many(connection: AsyncConnection, query: Query, rows: Sequence[Row]) -> None:
    """Run a statement that returns nothing for many rows, in as few statements as possible."""
    if not rows:
        return
    for chunk in _chunks(rows):
        await _run_chunk(connection, query, chunk)


async def _run_chunk(connection: AsyncConnection, query: Query, rows: Sequence[Row]) -> None:
    driver = driver_connection(connection)
    match query.dialect:
        case Dialect.POSTGRESQL:
            await driver.fetch(_numbered(query.text), *map(list, zip(*rows, strict=True)))
        case Dialect.MYSQL:
            flat = [value for row in rows for value in row]
            await execute(connection, query.dialect, _repeated(query.text, len(rows)), flat)
        case Dialect.SQLITE:
            await driver.executemany(query.text, rows)


async def execute(connection: AsyncConnection, dialect: Dialect, text: str, parameters: Sequence[Any]) -> list[Row]:
    """Run a statement in the driver's own words."""
    driver = driver_connection(connection)
    match dialect:
        case Dialect.POSTGRESQL:
            return await driver.fetch(text, *parameters)
        case Dialect.MYSQL:
            cursor = driver.cursor()
            await cursor.execute(text, parameters or None)
            return await cursor.fetchall()
        case Dialect.SQLITE:
            return await driver.execute_fetchall(text, parameters)


async def say(connection: AsyncConnection, dialect: Dialect, text: str) -> None:
    """Run a statement without parameters that returns nothing, such as COMMIT."""
    driver = driver_connection(connection)
    if dialect is Dialect.POSTGRESQL:
        await driver.execute(text)  # as it is: there is nothing to prepare
    else:
        await execute(connection, dialect, text, ())


def driver_connection(connection: AsyncConnection) -> Any:
    """The connection of the driver."""
    return connection.sync_connection.connection.driver_connection  # pyright: ignore[reportOptionalMemberAccess]


def _chunks(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    start, size = 0, 0
    for number, row in enumerate(rows):
        weight = sum(len(value) for value in row if isinstance(value, bytes))
        if number > start and (number - start == ROWS_PER_STATEMENT or size + weight > BYTES_PER_STATEMENT):
            yield rows[start:number]
            start, size = number, 0
        size += weight
    yield rows[start:]


_numbered_texts: dict[str, str] = {}


def _numbered(text: str) -> str:
    """With ``$1`` and so on in the place of ``?``."""
    known = _numbered_texts.get(text)
    if known is None:
        first, *rest = text.split("?")
        known = first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
        _numbered_texts[text] = known
    return known


def _placed(text: str, dialect: Dialect) -> str:
    return text.replace("%", "%%").replace("?", "%s") if dialect is Dialect.MYSQL else text


def _repeated(text: str, number: int) -> str:
    match = _REPEATED.search(text)
    if match is None:
        raise AssertionError(f"this statement does not say what to repeat: {text}")
    rows = match[2].join([match[1]] * number)
    return _placed(text[: match.start()] + rows + text[match.end() :], Dialect.MYSQL)


def _padded(values: list[Any]) -> list[Any]:
    """As many values that a power of two is full, so that few texts are met; the last one is repeated."""
    if not values:
        return [None]
    size = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (size - len(values))]
