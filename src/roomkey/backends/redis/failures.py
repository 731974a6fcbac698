"""What the errors of a Redis and of the way to it say of the server."""

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from roomkey.backends.recovery import Failure, Kind


class ReplyError(Exception):
    """A server's answer that is an error. ``code`` is its first word, such as ``MOVED``."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code, _, self.rest = message.partition(" ")


class Broken(Exception):  # it is what happened to the connection
    """The connection ended before the answer came."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def classify(error: BaseException) -> Failure | None:
    """What ``error`` says of the server; ``None`` if it says nothing."""
    if isinstance(error, Broken):
        return error.failure
    if isinstance(error, ReplyError):
        return _reply(error)
    return None


def unreachable(error: BaseException, seconds: float) -> Failure | None:
    """Why a connection could not be opened; ``None`` if ``error`` is not about that. Nothing was asked yet."""
    if isinstance(error, TimeoutError):
        return Failure(Kind.SLOW, f"no connection within {seconds:g} s", is_undone=True)
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or "the handshake failed"
        return Failure(Kind.REFUSED, f"TLS: {str(reason).lower().replace('_', ' ')}", is_undone=True)
    if isinstance(error, socket.gaierror):
        return Failure(Kind.AWAY, "the name of its host is not known", is_undone=True)
    if isinstance(error, OSError):
        return Failure(Kind.AWAY, os.strerror(error.errno).lower() if error.errno else "no connection", is_undone=True)
    if isinstance(error, Broken):
        return Failure(error.failure.kind, error.failure.detail, is_undone=True)
    failure = classify(error)
    return None if failure is None else Failure(failure.kind, failure.detail, is_undone=True)


def _reply(error: ReplyError) -> Failure:
    message = str(error)
    if error.code in _CODES:
        kind, detail = _CODES[error.code]
        return Failure(kind, detail, is_undone=True)
    if error.code == "ERR" and "max number of clients" in message:
        return Failure(Kind.BUSY, "it has as many clients as it may have", is_undone=True)
    # What others say may quote arguments, which may be secrets.
    plain = message.partition(", with args")[0].partition("`")[0]
    return Failure(Kind.WRONG, plain[:_SHOWN])


_SHOWN: Final = 120

_CODES: Final[Mapping[str, tuple[Kind, str]]] = {
    "LOADING": (Kind.BUSY, "it is loading its data"),
    "BUSY": (Kind.BUSY, "a script keeps it busy"),
    "TRYAGAIN": (Kind.BUSY, "a slot is moving to another node"),
    "CLUSTERDOWN": (Kind.BUSY, "the cluster is down"),
    "MASTERDOWN": (Kind.BUSY, "its master is away"),
    "MOVED": (Kind.BUSY, "a slot has moved to another node"),
    "ASK": (Kind.BUSY, "a slot is moving to another node"),
    "NOREPLICAS": (Kind.BUSY, "too few replicas are there"),
    "READONLY": (Kind.READ_ONLY, "it is a replica"),
    "OOM": (Kind.FULL, "its memory is full (maxmemory)"),
    "MISCONF": (Kind.FULL, "it cannot write to its disk (MISCONF)"),
    "NOAUTH": (Kind.REFUSED, "it wants a password"),
    "WRONGPASS": (Kind.REFUSED, "the user or the password is wrong"),
    "NOPERM": (Kind.REFUSED, "the user may not do this (NOPERM)"),
    "WRONGTYPE": (Kind.WRONG, "under a name of Roomkey lies a key of another type (WRONGTYPE)"),
}
"""Each of them comes before anything was done: our scripts look at everything before they write, and the first that
they write is what needs memory."""
