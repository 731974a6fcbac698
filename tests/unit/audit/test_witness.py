"""A witness for others: what it signs, what it answers to everything else, and how it is asked."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.audit import witness as module
from roomkey.audit.checkpoints import Checkpoint, hash_text
from roomkey.audit.merkle import EMPTY_ROOT, consistency_path, leaf_hash, proof_of
from roomkey.audit.notes import Note, Signer, signatures
from roomkey.audit.tiles import grown, hashes_in, root_of
from roomkey.audit.witness import MAX_REQUEST_BYTES, Decision, WitnessApp, submission
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.errors import Conflict, InvalidInput, RoomkeyError, Storage
from roomkey.ports import ObjectStore
from roomkey.ports.objects import Changes
from tests.support.audit import LOG_KEY, NOON, ORIGIN, WitnessInProcess, entry, key_of

LOG = Signer(ORIGIN, key_of(1))
TILES = grown(0, {}, [leaf_hash(entry(number)) for number in range(300)])
OTHER = grown(0, {}, [leaf_hash(b"other %d" % number) for number in range(300)])


def head(size: int, *, tiles: Any = TILES, origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, size, root_of(size, tiles))


def asking(old: int, new: Checkpoint, *, tiles: Any = TILES, signer: Signer = LOG) -> bytes:
    proof = proof_of(consistency_path(old, new.size), hashes_in(tiles))
    lines = [f"old {old}", *map(hash_text, proof), "", str(Note(new.text, [signer.sign(new.text)]))]
    return "\n".join(lines).encode()


def new_witness(objects: ObjectStore | None = None) -> WitnessInProcess:
    return WitnessInProcess("w.example", [LOG_KEY], objects)


async def seen_by(witness: WitnessInProcess, size: int) -> None:
    assert (await witness.service.add(asking(0, head(size)))).status == 200


async def test_it_signs_what_continues_what_it_has_signed() -> None:
    witness = new_witness()
    for old, new in ((0, 0), (0, 1), (1, 8), (8, 8), (8, 300)):
        decision = await witness.service.add(asking(old, head(new)))

        assert decision.status == 200
        (signature,) = signatures(decision.text)
        assert witness.signer.key.signed_at(head(new).text, signature.content) == NOON


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (asking(0, head(12)), 409, "10\n"),
        (asking(9, head(12)), 409, "10\n"),
        (asking(11, head(12)), 409, "10\n"),
        (asking(5, head(5)), 409, "10\n"),
        (asking(10, head(10, tiles=OTHER)), 409, "10\n"),
        (asking(10, head(12, tiles=OTHER), tiles=OTHER), 422, None),
        (asking(10, head(12)).replace(b"old 10\n", b"old 10\n" + hash_text(EMPTY_ROOT).encode() + b"\n"), 422, None),
        (asking(10, head(12), signer=Signer(ORIGIN, key_of(9))), 403, None),
        (asking(10, head(12)).replace(b" ", b" ", 1).replace(b"\n12\n", b"\n13\n"), 403, None),
        (asking(10, head(12, origin="unknown/log")), 404, None),
        (asking(12, head(12)).replace(b"\n12\n", b"\n12\n").replace(b"old 12", b"old 13"), 400, None),
        (b"nonsense", 400, None),
        (b"", 400, None),
    ],
)
async def test_everything_else_is_refused_and_changes_nothing(body: bytes, status: int, text: str | None) -> None:
    witness = new_witness()
    await seen_by(witness, 10)

    decision = await witness.service.add(body)

    assert decision.status == status
    assert text is None or decision == Decision(409, text, "text/x.tlog.size")
    assert (await witness.service.add(asking(10, head(20)))).status == 200


async def test_of_two_heads_at_once_that_contradict_each_other_one_is_signed() -> None:
    class Slow(MemoryObjectStore):
        async def commit(self, space: str, changes: Changes, **more: Any) -> None:
            await asyncio.sleep(0)
            await super().commit(space, changes, **more)

    witness = new_witness(Slow())
    bodies = asking(0, head(12)), asking(0, head(12, tiles=OTHER), tiles=OTHER), asking(0, head(5))

    decisions = await asyncio.gather(*map(witness.service.add, bodies))

    assert sorted(decision.status for decision in decisions) == [200, 409, 409]


async def test_it_remembers_over_a_restart() -> None:
    witness = new_witness()
    await seen_by(witness, 10)

    again = new_witness(witness.objects)

    assert (await again.service.add(asking(0, head(12)))).text == "10\n"


async def test_nothing_is_signed_that_could_not_be_kept() -> None:
    class Failing(MemoryObjectStore):
        def __init__(self, error: RoomkeyError) -> None:
            super().__init__()
            self._error = error

        async def commit(self, *_args: Any, **_more: Any) -> None:
            raise self._error

    with pytest.raises(Storage):
        await new_witness(Failing(Storage("full"))).service.add(asking(0, head(3)))
    assert (await new_witness(Failing(Conflict("others"))).service.add(asking(0, head(3)))).status == 503


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_are_a_submission_or_refused(content: bytes, at: int) -> None:
    good = asking(3, head(7))
    for body in (content, good[:at] + content + good[at:], good[:at], good[at:]):
        try:
            asked = submission(body)
        except InvalidInput:
            continue
        assert asked.old >= 0


# --- over ASGI ----------------------------------------------------------------------------------------


async def answer(app: WitnessApp, method: str, path: str, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    sent: list[MutableMapping[str, Any]] = []
    waiting = [*parts]

    async def receive() -> MutableMapping[str, Any]:
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


async def test_it_is_asked_by_posting_to_one_path() -> None:
    app = WitnessApp(new_witness().service)
    body = asking(0, head(3))

    assert (await answer(app, "POST", "/any/prefix/add-checkpoint", body[:10], body[10:]))[0] == 200
    status, headers, said = await answer(app, "POST", "/add-checkpoint", body)
    assert (status, headers["content-type"], said) == (409, "text/x.tlog.size", b"3\n")
    assert (await answer(app, "GET", "/add-checkpoint"))[:1] == (405,)
    assert (await answer(app, "POST", "/elsewhere"))[0] == 404


async def test_a_request_is_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    app = WitnessApp(new_witness().service)
    status, *_ = await answer(app, "POST", "/add-checkpoint", *[bytes(10_000)] * (MAX_REQUEST_BYTES // 10_000 + 1))
    assert status == 413

    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.01)
    sent: list[MutableMapping[str, Any]] = []

    async def never() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/add-checkpoint"}, never, send)
    assert sent[0]["status"] == 408
