"""What the errors of PostgreSQL, MariaDB, MySQL and SQLite and of their drivers say of the server."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from roomkey.backends.recovery import Failure, Kind

AWAY, BUSY, READ_ONLY, FULL, REFUSED, WRONG, SLOW = (
    Kind.AWAY,
    Kind.BUSY,
    Kind.READ_ONLY,
    Kind.FULL,
    Kind.REFUSED,
    Kind.WRONG,
    Kind.SLOW,
)

SQLSTATES: Final[Mapping[str, tuple[Kind, str]]] = {
    "08": (AWAY, "the connection broke"),
    "40001": (BUSY, "others wrote at the same moment"),
    "40P01": (BUSY, "a deadlock"),
    "55P03": (BUSY, "others hold what is needed"),
    "53300": (BUSY, "it has too many connections; raise max_connections, or lower pool_size"),
    "53": (FULL, "its memory or disk has no room left"),
    "54": (WRONG, "a limit of the server is too low for this"),
    "57014": (SLOW, "it gave up after statement_timeout"),
    "57P03": (BUSY, "it is starting"),
    "57P": (AWAY, "it is shutting down"),
    "57": (AWAY, "it was interrupted by its operator"),
    "58030": (FULL, "its disk does not work"),
    "25006": (READ_ONLY, "it takes no writes: a standby, or default_transaction_read_only"),
    "25P03": (AWAY, "it ended a transaction that stood still"),
    "25P04": (AWAY, "it ended a transaction that took too long"),
    "28": (REFUSED, "it does not accept this user or password"),
    "3D000": (REFUSED, "there is no such database"),
    "3F000": (REFUSED, "there is no such schema"),
    "42501": (REFUSED, "the user lacks rights on its tables"),
    "42P01": (WRONG, "a table is missing; `roomkey migrate` makes it"),
    "42703": (WRONG, "a column is missing; `roomkey migrate` makes it"),
    "XX": (WRONG, "it reports damage; its log says more"),
}
"""Of PostgreSQL, by the beginning of a code; the longest one that fits counts."""

ERRORS: Final[Mapping[int, tuple[Kind, str]]] = {
    **dict.fromkeys((2000, 2001, 2002, 2003, 2004, 2005, 2006, 2013, 2055), (AWAY, "the connection broke")),
    **dict.fromkeys((1053, 1077, 1079, 1927, 4031), (AWAY, "it is shutting down, or ended the connection")),
    **dict.fromkeys((1213, 1020), (BUSY, "a deadlock")),
    1205: (BUSY, "others hold what is needed"),
    **dict.fromkeys(
        (1040, 1203, 1226), (BUSY, "it has too many connections; raise max_connections, or lower pool_size")
    ),
    **dict.fromkeys((1290, 1836, 1792), (READ_ONLY, "it takes no writes: a replica, or read_only")),
    **dict.fromkeys((1021, 1026, 1037, 1038, 1041, 1114, 3), (FULL, "its memory or disk has no room left")),
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1698, 1862), (REFUSED, "it does not accept this user or password")),
    **dict.fromkeys((1129, 1130), (REFUSED, "it does not accept this host")),
    **dict.fromkeys((1046, 1049), (REFUSED, "there is no such database")),
    **dict.fromkeys((1146, 1054), (WRONG, "a table or column is missing; `roomkey migrate` makes it")),
    **dict.fromkeys((1153, 1301), (WRONG, "max_allowed_packet is too small for this")),
    **dict.fromkeys((1969, 3024, 1317), (SLOW, "it gave up after its time limit for statements")),
    **dict.fromkeys((1033, 1034, 1035, 1194, 1712), (WRONG, "it reports damage; its log says more")),
}
"""Of MariaDB and MySQL."""

SQLITE: Final[Mapping[int, tuple[Kind, str]]] = {
    3: (REFUSED, "the file may not be read or written"),
    5: (BUSY, "another process is writing"),
    6: (BUSY, "another connection is writing"),
    7: (FULL, "there is not enough memory"),
    8: (READ_ONLY, "the file is read-only"),
    9: (SLOW, "it was interrupted"),
    10: (FULL, "the disk does not work"),
    11: (WRONG, "the file is damaged"),
    13: (FULL, "the disk has no room left"),
    14: (REFUSED, "the file cannot be opened"),
    23: (REFUSED, "this is not allowed"),
    26: (WRONG, "the file is not a SQLite database"),
}
"""Of SQLite, by the primary result code."""


class Undone(Exception):  # said of what was asked for, not of an error
    """The transaction was not committed and will not be; the cause says why."""


def classify(error: BaseException) -> Failure | None:
    """``recovery.Classify`` for all three technologies."""
    if isinstance(error, Undone):
        cause = error.__cause__
        if isinstance(cause, TimeoutError):
            return Failure(SLOW, "no answer in time", is_undone=True)
        failure = None if cause is None else classify(cause)
        return None if failure is None else replace(failure, is_undone=True)
    family = list(_family(error))
    for each in family:
        # First, because drivers wrap it into errors that say less.
        if isinstance(each, ssl.SSLError):
            return Failure(REFUSED, f"TLS: {each.reason or 'the handshake failed'}", is_undone=True)
    for each in family:
        if (failure := _of_one(each)) is not None:
            return failure
    return None


def _family(error: BaseException) -> Iterator[BaseException]:
    """An error, what SQLAlchemy has wrapped into it, and what that came from."""
    while True:
        yield error
        inner = getattr(error, "orig", None) or error.__cause__
        if not isinstance(inner, BaseException):
            return
        error = inner


def is_duplicate(error: BaseException) -> bool:
    """Whether a row was refused because there is one with this key."""
    codes = (getattr(error, "sqlstate", None), getattr(error, "sqlite_errorcode", None), *error.args[:1])
    return any(code in {"23505", 1062, 1555, 2067} for code in codes)


def _of_one(error: BaseException) -> Failure | None:
    judge = _JUDGES.get(type(error).__module__.partition(".")[0])
    if judge is not None:
        return judge(error)
    if isinstance(error, (OSError, EOFError)) and not isinstance(error, TimeoutError):
        return Failure(AWAY, getattr(error, "strerror", None) or "the connection broke")
    return None


def _of_postgresql(error: BaseException) -> Failure:
    code = getattr(error, "sqlstate", None)
    if not isinstance(code, str):
        return Failure(AWAY, "the connection broke")  # InterfaceError: it was closed meanwhile
    for length in (5, 3, 2):
        known = SQLSTATES.get(code[:length])
        if known is not None:
            kind, detail = known
            return Failure(kind, detail, is_undone=kind not in {AWAY, SLOW})
    return Failure(WRONG, f"it refused a statement (SQLSTATE {code})", is_undone=True)


def _of_mysql(error: BaseException) -> Failure:
    code = error.args[0] if error.args else 0
    if code in ERRORS:
        kind, detail = ERRORS[code]
        return Failure(kind, detail, is_undone=kind not in {AWAY, SLOW})
    if not isinstance(code, int) or code == 0:
        return Failure(AWAY, "the connection broke")
    return Failure(WRONG, f"it refused a statement (error {code})", is_undone=True)


def _of_sqlite(error: BaseException) -> Failure:
    code = getattr(error, "sqlite_errorcode", None)
    # Its messages name tables and columns, and show no values.
    kind, detail = SQLITE.get((code or 0) & 0xFF, (WRONG, f"it refused a statement: {error}"))
    return Failure(kind, detail, is_undone=True)


def _of_sqlalchemy(error: BaseException) -> Failure | None:
    match type(error).__name__:
        case "TimeoutError":
            return Failure(BUSY, "all connections are in use; raise pool_size", is_undone=True)
        case "ResourceClosedError" | "InvalidRequestError" | "PendingRollbackError":
            return Failure(AWAY, "the connection broke")
        case _:
            return None


_JUDGES: Final[Mapping[str, Callable[[BaseException], Failure | None]]] = {
    "asyncpg": _of_postgresql,
    "asyncmy": _of_mysql,
    "sqlite3": _of_sqlite,
    "sqlalchemy": _of_sqlalchemy,
}
"""By the package that an error comes from."""
