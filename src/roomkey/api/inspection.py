"""What is looked for in requests, and reported: see ``security.injection`` for what, and for what is done about it."""

from collections.abc import Iterable, Iterator
from typing import Any

from roomkey.api.operations import Request
from roomkey.api.schemas import NewSession
from roomkey.errors import SuspiciousInput
from roomkey.security.events import SecurityEventType
from roomkey.security.injection import Suspicion, texts_in

Field = tuple[str, str | None]


def inspect_sessions(request: Request, news: Iterable[NewSession]) -> None:
    """
    Look at who sessions are for.

    Raises:
        SuspiciousInput: If something in it looks like an attack, and is to be refused.
    """
    for new in news:
        inspect_identity(request, _fields(new))


def inspect_identity(request: Request, fields: Iterable[Field]) -> None:
    """Look at these fields, by name. Raises as ``inspect_sessions``."""
    found = request.services.inspector.look_at_identity(fields)
    if found is not None:
        _report(request, found)


def inspect_text(request: Request, value: Any) -> None:
    """Look at the texts in a JSON value that goes into a document. Raises as ``inspect_sessions``."""
    inspector = request.services.inspector
    if not inspector.reads_text:
        return
    found = inspector.look_at_text(value)
    if found is None:
        return
    if inspector.rejects_text:
        raise SuspiciousInput("the text looks like an attack")
    _report(request, found)


def _fields(new: NewSession) -> Iterator[Field]:
    yield "user_id", new.user_id
    if new.client is not None:
        yield "client.device", new.client.device
    for text in texts_in(dict(new.metadata or {})):
        yield "metadata", text


def _report(request: Request, found: Suspicion) -> None:
    services, caller = request.services, request.caller
    now = services.sessions.clock.now()
    if services.inspector.is_news(caller.actor if caller.session is None else caller.session.id, now):
        services.events.report(
            SecurityEventType.INVALID_INPUT,
            SuspiciousInput.code,
            **request.whereabouts,
            details={"looks_like": found.value},
        )
