"""The operations on API keys: they translate between HTTP and the commands, and decide nothing else."""

from datetime import timedelta
from functools import partial
from typing import Final, cast

from roomkey.api.authentication import address_of
from roomkey.api.http_messages import Reply, empty_reply, json_reply
from roomkey.api.key_schemas import KeyBody, KeyRotation, KeysBody, MintedKeyBody, NewKey, key_body
from roomkey.api.operations import Answer, Request, operation
from roomkey.errors import Conflict, KeyConfigured, KeyExists, KeyNotFound, TooManyKeys
from roomkey.keys import DEFAULT_OVERLAP
from roomkey.security import authorization
from roomkey.security.authorization import Action
from roomkey.security.events import SecurityEventType
from roomkey.security.narrowing import EVERYTHING

CHANGE: Final = (KeyNotFound, KeyConfigured, Conflict)

_on_key: Final = partial(operation, tag="Keys")


@_on_key("List API keys", action=Action.SEE_KEYS, answers={200: Answer("Every key.", KeysBody)})
async def list_keys(request: Request) -> Reply:
    """The keys of the configuration and those that are stored. None of their secrets is known here."""
    return json_reply(KeysBody([key_body(key) for key in await request.keys.list()]))


@_on_key("Get an API key", action=Action.SEE_KEYS, answers={200: Answer("The key.", KeyBody)}, errors=(KeyNotFound,))
async def get_key(request: Request) -> Reply:
    """The key, without its secret."""
    return json_reply(key_body(await request.keys.get(_name(request))))


@_on_key(
    "Make an API key",
    action=Action.CHANGE_KEYS,
    body=NewKey,
    answers={201: Answer("The key and the only copy of its secret.", MintedKeyBody, location=True)},
    errors=(KeyExists, TooManyKeys, Conflict),
    idempotent=True,
)
async def create_key(request: Request) -> Reply:
    """
    Make a key, which is good on every node within a second.

    The secret is shown in this answer only; what the server keeps is its hash. With an `Idempotency-Key` the answer,
    secret included, is held as that of a new session is. A key that is narrowed makes none that can do more than it.
    """
    new, caller = cast("NewKey", request.body), request.caller
    only = EVERYTHING if new.only is None else new.only.narrowing()
    authorization.check_key(caller, only)
    minted = await request.keys.create(new.name, new.role, only=only, lifetime=new.span, actor=caller.actor)
    _report(request, SecurityEventType.PRIVILEGE_CHANGE, "key_created", new.name)
    location = f"{request.root}/keys/{new.name}".encode()
    return json_reply(MintedKeyBody(key_body(minted.key), minted.secret), 201, (b"location", location))


@_on_key(
    "Rotate an API key",
    action=Action.CHANGE_KEYS,
    body=KeyRotation,
    body_required=False,
    answers={200: Answer("The key and the only copy of its new secret.", MintedKeyBody)},
    errors=CHANGE,
    idempotent=True,
)
async def rotate_key(request: Request) -> Reply:
    """
    Give the key a new secret. The one before it is accepted for `overlap` seconds, any older one no more.

    With an overlap of 0 it is refused at once here, and on every node within a second.
    """
    seconds = cast("KeyRotation", request.body).overlap
    minted = await request.keys.rotate(
        _name(request),
        overlap=DEFAULT_OVERLAP if seconds is None else timedelta(seconds=seconds),
        actor=request.caller.actor,
        check=partial(authorization.check_key, request.caller),
    )
    _report(request, SecurityEventType.KEY_ROTATED, "key_rotated", minted.key.name)
    return json_reply(MintedKeyBody(key_body(minted.key), minted.secret))


@_on_key("Revoke an API key", action=Action.CHANGE_KEYS, answers={204: Answer("It opens nothing.")}, errors=CHANGE)
async def revoke_key(request: Request) -> Reply:
    """End the key: at once here, and on every node within a second. Sessions that it has issued go on."""
    name = _name(request)
    await request.keys.revoke(name, check=partial(authorization.check_key, request.caller))
    _report(request, SecurityEventType.PRIVILEGE_CHANGE, "key_revoked", name)
    return empty_reply()


def _name(request: Request) -> str:
    return request.path("key_name")


def _report(request: Request, kind: SecurityEventType, cause: str, name: str) -> None:
    request.services.events.report(
        kind, cause, actor=request.caller.actor, address=address_of(request.scope), details={"key": name}
    )
