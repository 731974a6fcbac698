"""
A witness for logs of others (C2SP tlog-witness): it signs a head only if that continues the last one it has signed.

Whoever is shown a head with its signature knows that the witness was not shown another one. For that it keeps one head
for each log, and compares and replaces it in one commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from msgspec import Struct

from roomkey.audit.checkpoints import Checkpoint, checkpoint, hashes_of, number
from roomkey.audit.merkle import EMPTY_ROOT, MOST_HASHES, proves_consistency
from roomkey.audit.notes import MAX_NOTE_BYTES, Note, Signer, VerifierKey, note
from roomkey.audit.witnessing import ADD
from roomkey.errors import Conflict, InvalidInput, NotProven, OutcomeUnknown, RoomkeyError
from roomkey.ports import Clock, ObjectStore
from roomkey.ports.objects import ABSENT

SPACE: Final = "witness"

MOST_PROOF_LINES: Final = MOST_HASHES - 1
MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 4096
"""A note, 63 hashes of 45 characters, and the line with the old size."""

REQUEST_SECONDS: Final = 10.0
TRIES: Final = 5

TEXT: Final = "text/plain; charset=utf-8"
SIZE: Final = "text/x.tlog.size"

_log = structlog.get_logger("roomkey.witness")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Submission(Struct, frozen=True):
    """What a log asks to be signed: a head that continues one of size ``old``, as the ``proof`` shows."""

    old: int
    proof: Sequence[bytes]
    head: Checkpoint
    signed: Note


class Decision(NamedTuple):
    """The answer to a submission: a status of HTTP, and what is said."""

    status: int
    text: str
    media: str = TEXT


class Seen(Struct, frozen=True, array_like=True):
    """The head that was signed last."""

    origin: str
    size: int = 0
    root: bytes = EMPTY_ROOT


def submission(body: bytes) -> Submission:
    """
    What a request asks for.

    Raises:
        InvalidInput: If it is none.
    """
    try:
        above, separator, below = body.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise InvalidInput("a submission is text in UTF-8") from None
    old, *lines = above.split("\n")
    if not separator or not old.startswith("old "):
        raise InvalidInput("a submission begins with old and a size, and has an empty line before its checkpoint")
    signed = note(below)
    proof = hashes_of(lines, MOST_PROOF_LINES)
    return Submission(number(old.removeprefix("old ")), proof, checkpoint(signed.text), signed)


def refusal(asked: Submission, keys: Sequence[VerifierKey] | None, seen: Seen) -> Decision | None:
    """Why a head is not signed; ``None`` if it is. ``keys`` are those of its log, ``None`` if that is not known."""
    head = asked.head
    if keys is None:
        return Decision(404, "this log is not known here\n")
    try:
        is_signed = bool(asked.signed.verified(keys))
    except NotProven:
        is_signed = False
    if not is_signed:
        return Decision(403, "no key of the log that is known here has signed the checkpoint\n")
    if asked.old > head.size:
        return Decision(400, "the old size is larger than that of the checkpoint\n")
    if asked.old != seen.size or (asked.old == head.size and head.root != seen.root):
        return Decision(409, f"{seen.size}\n", SIZE)
    if not proves_consistency(seen.size, seen.root, head.size, head.root, asked.proof):
        return Decision(422, "the proof does not show that the checkpoint continues the last one\n")
    return None


class WitnessService:
    """Signs the heads of ``logs``, whose keys are given by their origins."""

    def __init__(
        self, objects: ObjectStore, logs: Mapping[str, Sequence[VerifierKey]], signer: Signer, clock: Clock
    ) -> None:
        self._objects = objects
        self._logs = logs
        self._signer = signer
        self._clock = clock

    async def add(self, body: bytes) -> Decision:
        """
        The answer to a submission. What was signed is durable before this returns.

        Raises:
            Storage: If it cannot be looked at, or kept, what was signed.
        """
        try:
            asked = submission(body)
        except InvalidInput as error:
            return Decision(400, f"{error}\n")
        for _ in range(TRIES):
            try:
                return await self._decide(asked)
            except (Conflict, OutcomeUnknown):
                continue  # another head was signed at this moment: look again
        return Decision(503, "others submit heads of this log all the time\n")

    async def _decide(self, asked: Submission) -> Decision:
        head = asked.head
        name = f"head/{sha256(head.origin.encode()).hexdigest()}"
        found = await self._objects.get(SPACE, name)
        seen = Seen(head.origin) if found is None else msgspec.msgpack.decode(found.value, type=Seen)
        refused = refusal(asked, self._logs.get(head.origin), seen)
        if refused is not None:
            if refused.status in (409, 422):
                # Signed by the log, and not what it had signed before: that may be a proof of what went wrong.
                _log.warning("head_not_signed", status=refused.status, seen=seen.size, note=str(asked.signed))
            return refused
        after = msgspec.msgpack.encode(Seen(head.origin, head.size, head.root))
        expected = {name: ABSENT if found is None else found.revision}
        await self._objects.commit(SPACE, {name: after}, expected=expected)
        return Decision(200, self._signer.sign(head.text, self._clock.now()).line)


class WitnessApp:
    """An ASGI application: ``POST …/add-checkpoint``, and nothing else."""

    def __init__(self, service: WitnessService) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        decision = await self._decision(scope, receive)
        headers = [(b"content-type", decision.media.encode()), (b"cache-control", b"no-store")]
        if decision.status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": decision.status, "headers": headers})
        await send({"type": "http.response.body", "body": decision.text.encode()})

    async def _decision(self, scope: Scope, receive: Receive) -> Decision:
        if scope["path"].rpartition("/")[2] != ADD:
            return Decision(404, "there is nothing here\n")
        if scope["method"] != "POST":
            return Decision(405, "submissions are posted\n")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            return Decision(408, "the request took too long\n")
        if body is None:
            return Decision(413, "the request is too large\n")
        try:
            return await self._service.add(body)
        except RoomkeyError as error:
            _log.exception("witness_failed", code=error.code)
            return Decision(503, "the storage of the witness is not available\n")


async def _body(receive: Receive) -> bytes | None:
    """What was sent; ``None`` if it is too long, or its sender has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)
