"""
Asking witnesses to sign a head (C2SP tlog-witness): they sign only what continues what they have signed before.

A witness that answers that it has seen otherwise is an alarm: somebody was shown another log than this one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from roomkey.audit.checkpoints import Checkpoint, hash_text, number
from roomkey.audit.merkle import Range, consistency_path
from roomkey.audit.notes import Note, Signature, SignatureType, VerifierKey, signatures, verifier_key
from roomkey.audit.settings import WitnessSettings
from roomkey.errors import ConfigurationError, ContradictingHead, InvalidInput, NotProven, Storage

ADD: Final = "add-checkpoint"
TRIES: Final = 4
MAX_ANSWER_BYTES: Final = 64 * 1024

REFUSALS: Final = {
    400: "it did not understand the request",
    403: "it does not know the key of this log: give it the current one",
    404: "it does not know this log: its operator has to add the origin and the key",
}
"""What a witness says by a status, and who has to do something about it."""


class Answer(NamedTuple):
    """What a witness has answered."""

    status: int
    body: bytes


class Transport(Protocol):
    """What carries requests to witnesses."""

    async def post(self, url: str, body: bytes) -> Answer:
        """
        The answer to ``body``.

        Raises:
            Storage: If there is none in time.
        """
        ...


class HttpTransport:
    """Requests over HTTP; follows no redirects, and reads a bounded answer."""

    def __init__(self, timeout: timedelta) -> None:
        self._seconds = timeout.total_seconds()

    async def post(self, url: str, body: bytes) -> Answer:
        """See ``Transport``."""
        import httpx  # noqa: PLC0415  # whoever has no witness does without it

        answer = bytearray()
        try:
            async with (
                asyncio.timeout(self._seconds),
                httpx.AsyncClient(timeout=self._seconds) as client,
                client.stream("POST", url, content=body, headers={"content-type": "text/plain"}) as response,
            ):
                async for some in response.aiter_bytes():
                    answer += some
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise Storage("it answers with too much")
                return Answer(response.status_code, bytes(answer))
        except TimeoutError:
            raise Storage("it did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Storage(f"it cannot be reached: {type(error).__name__}") from None


class Witness:
    """One witness, and the size of the head that it has signed last; ``None`` before it was asked."""

    def __init__(self, settings: WitnessSettings) -> None:
        try:
            self.key: VerifierKey = verifier_key(settings.key)
        except InvalidInput as error:
            raise ConfigurationError(f"audit.witnesses: {error}") from None
        if self.key.type is not SignatureType.COSIGNATURE:
            raise ConfigurationError(f"audit.witnesses: the key of {self.key.name} is not that of a witness (type 04)")
        self.url = f"{settings.url.rstrip('/')}/{ADD}"
        self.seen: int | None = None


class Witnesses:
    """All witnesses of a log."""

    def __init__(
        self,
        settings: Iterable[WitnessSettings],
        proof: Callable[[Iterable[Range]], Awaitable[list[bytes]]],
        transport: Transport,
    ) -> None:
        """``proof`` computes hashes over ranges of the log."""
        self._witnesses = [Witness(each) for each in settings]
        self._proof = proof
        self._transport = transport
        self.failures: dict[str, str] = {}
        """Why a witness has not signed when it was asked last, by its name."""

    def __len__(self) -> int:
        return len(self._witnesses)

    @property
    def unasked(self) -> int:
        """Number of witnesses that have not said yet what they have seen."""
        return sum(witness.seen is None for witness in self._witnesses)

    async def sign(self, head: Checkpoint, signed: Note) -> Sequence[Signature]:
        """
        The signatures of those that sign ``head``, which the log has ``signed``.

        Raises:
            ContradictingHead: If one has seen another log under this name and key.
            Conflict, AuditLogDamaged: As the proofs.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._outcome(witness, head, signed)) for witness in self._witnesses]
        outcomes = [task.result() for task in tasks]
        for outcome in outcomes:
            if isinstance(outcome, ContradictingHead):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Signature)]

    async def _outcome(self, witness: Witness, head: Checkpoint, signed: Note) -> Signature | ContradictingHead | None:
        name = witness.key.name
        try:
            signature = await self._ask(witness, head, signed)
        except ContradictingHead as error:
            return error
        except (Storage, NotProven, InvalidInput) as error:
            self.failures[name] = str(error)
            return None
        self.failures.pop(name, None)
        return signature

    async def _ask(self, witness: Witness, head: Checkpoint, signed: Note) -> Signature:
        old = min(witness.seen or 0, head.size)
        for _ in range(TRIES):
            hashes = await self._proof(consistency_path(old, head.size))
            body = "".join(f"{line}\n" for line in (f"old {old}", *map(hash_text, hashes), "")) + str(signed)
            answer = await self._transport.post(witness.url, body.encode())
            if answer.status == 200:
                signature = _cosignature(witness.key, signed, answer.body)
                witness.seen = head.size
                return signature
            if answer.status not in (409, 422):
                raise Storage(REFUSALS.get(answer.status, f"it answered {answer.status}"))
            seen = _size(answer) if answer.status == 409 else old
            if seen > head.size or seen == old:
                raise ContradictingHead(_contradiction(witness.key.name, seen, head))
            witness.seen = old = seen
        raise Storage("it is told of other heads all the time")


def _cosignature(key: VerifierKey, signed: Note, body: bytes) -> Signature:
    """The signature of ``key`` among those in the answer, which may be of several keys."""
    try:
        lines = body.decode()
    except UnicodeDecodeError:
        raise InvalidInput("its answer is not text") from None
    for signature in signatures(lines):
        if (signature.name, signature.key_id) == (key.name, key.id):
            key.signed_at(signed.text, signature.content)
            return signature
    raise NotProven("it has answered with signatures of other keys than the one in audit.witnesses")


def _size(answer: Answer) -> int:
    try:
        return number(answer.body.decode().removesuffix("\n"))
    except UnicodeDecodeError:
        raise InvalidInput("its answer is not text") from None


def _contradiction(name: str, seen: int, head: Checkpoint) -> str:
    if seen > head.size:
        return (
            f"the witness {name} has seen {seen} entries signed by this log, and the storage has {head.size}: an older "
            f"backup was restored, or somebody else signs with the key of the log"
        )
    return (
        f"the witness {name} has seen other entries up to number {seen} signed by this log than the storage has: they "
        f"were changed here, or somebody else signs with the key of the log"
    )
