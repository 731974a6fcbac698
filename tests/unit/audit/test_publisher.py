"""Heads: two that contradict each other are never signed, keys are changed, witnesses sign."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.log import AuditLog
from roomkey.audit.merkle import EMPTY_ROOT, leaf_hash
from roomkey.audit.notes import Note, SignatureType, Signer, note
from roomkey.audit.settings import AuditSettings
from roomkey.audit.stored import SPACE
from roomkey.audit.witness import submission
from roomkey.audit.witnessing import Answer
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.config import Config
from roomkey.errors import ConfigurationError, Conflict, ContradictingHead, NotPublished, Storage
from roomkey.node import Node
from tests.support.audit import (
    LOG_KEY,
    NOON,
    ORIGIN,
    SETTINGS,
    WitnessesInProcess,
    WitnessInProcess,
    entry,
    filled_log,
    key_of,
    new_log,
    witnessed,
)


async def backup_of(objects: MemoryObjectStore) -> dict[str, bytes]:
    return {found.name: found.value for found in await objects.list(SPACE, limit=1000)}


async def restored(backup: dict[str, bytes]) -> MemoryObjectStore:
    objects = MemoryObjectStore()
    await objects.commit(SPACE, dict(backup))
    return objects


async def signed_head(objects: MemoryObjectStore) -> Checkpoint:
    found = await objects.get(SPACE, "log/signed")
    if found is None:
        return Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    return checkpoint(note(found.value).text)


async def with_more(log: AuditLog, *entries: bytes) -> None:
    await log.append(entries)
    await log.integrate()


# --- what was signed before ---------------------------------------------------------------------------


async def test_a_signature_is_durable_before_it_leaves() -> None:
    signed: list[Checkpoint] = []
    objects = MemoryObjectStore()

    class Looking:
        async def post(self, url: str, body: bytes) -> Answer:
            del url
            durable = await signed_head(objects)
            assert submission(body).head.size <= durable.size
            signed.append(durable)
            raise Storage("away")

    witness = WitnessInProcess("w.example", [LOG_KEY])
    log = new_log(objects, settings=witnessed(witness), transport=Looking())
    await with_more(log, b"a", b"b")

    assert signed[-1].size == 2
    assert (await log.checkpoint()).text == signed[-1].text


async def test_an_older_backup_is_not_signed_where_a_file_remembers(tmp_path: Path) -> None:
    settings = replace(SETTINGS, remembered_head=tmp_path / "head")
    objects = MemoryObjectStore()
    log = await filled_log(5, objects, settings=settings)
    backup = await backup_of(objects)
    await with_more(log, b"lost")

    objects = await restored(backup)
    log = new_log(objects, settings=settings)
    for entries in ([], [b"another"], [b"more", b"and more"]):
        if entries:
            await log.append(entries)
        with pytest.raises(ContradictingHead, match=r"6 entries was signed.*older backup.*audit\.origin"):
            await log.integrate()
        assert (await signed_head(objects)).size == 5

    renamed = new_log(objects, settings=replace(settings, origin="another/log"))
    await renamed.integrate()
    assert (await renamed.checkpoint()).text.startswith("another/log\n8\n")


async def test_an_older_backup_that_has_grown_again_is_not_signed_either(tmp_path: Path) -> None:
    settings = replace(SETTINGS, remembered_head=tmp_path / "head")
    objects = MemoryObjectStore()
    log = await filled_log(5, objects, settings=settings)
    backup = await backup_of(objects)
    await with_more(log, b"lost")

    log = new_log(await restored(backup), settings=settings)
    await log.append([b"another", b"one more", b"and more"])
    with pytest.raises(ContradictingHead, match="others"):
        await log.integrate()


async def test_the_newer_backup_is_signed_again(tmp_path: Path) -> None:
    settings = replace(SETTINGS, remembered_head=tmp_path / "head")
    objects = MemoryObjectStore()
    await filled_log(5, objects, settings=settings)

    log = new_log(await restored(await backup_of(objects)), settings=settings)
    await with_more(log, b"more")

    assert (await log.status()).published == 6


async def test_every_node_remembers_what_another_one_has_signed(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    log = await filled_log(5, objects)
    backup = await backup_of(objects)
    await with_more(log, b"lost")
    other = new_log(objects, node="other", settings=replace(SETTINGS, remembered_head=tmp_path / "head"))
    await other._publisher.watch()  # pyright: ignore[reportPrivateUsage]

    log = new_log(await restored(backup), settings=replace(SETTINGS, remembered_head=tmp_path / "head"))
    await log.append([b"x"])
    with pytest.raises(ContradictingHead):
        await log.integrate()


async def test_changed_hashes_are_not_signed_again() -> None:
    objects = MemoryObjectStore()
    log = await filled_log(300, objects)
    name = "log/tile/0/0000000000000000000"  # a full one, which integrating does not look at
    found = await objects.get(SPACE, name)
    assert found is not None
    await objects.commit(SPACE, {name: leaf_hash(b"x") + found.value[32:]})
    tree = await objects.get(SPACE, "log/tile/1/0000000000000000000")
    assert tree is not None

    await log.append([b"x"])
    await log.integrate()  # the level above is untouched, so the head still continues what was signed
    assert (await log.status()).published == 301

    await objects.commit(SPACE, {"log/signed": str(_signed_by_log(300, leaf_hash(b"other"))).encode()})
    await log.append([b"y"])
    with pytest.raises(ContradictingHead, match="storage"):
        await log.integrate()


def _signed_by_log(size: int, root: bytes) -> Note:
    text = Checkpoint(ORIGIN, size, root).text
    return Note(text, [Signer(ORIGIN, key_of(1)).sign(text)])


async def test_a_file_that_is_no_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "head"
    file.write_text("nonsense")
    log = new_log(settings=replace(SETTINGS, remembered_head=file))

    await log.append([b"x"])
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        await log.integrate()


async def test_a_file_that_cannot_be_written_keeps_the_head_back(tmp_path: Path) -> None:
    log = new_log(settings=replace(SETTINGS, remembered_head=tmp_path / "missing" / "head"))

    await log.append([b"x"])
    with pytest.raises(Storage, match="remembered_head"):
        await log.integrate()
    with pytest.raises(NotPublished):
        await log.checkpoint()


# --- keys ---------------------------------------------------------------------------------------------


async def test_old_and_new_key_sign_for_a_time() -> None:
    objects = MemoryObjectStore()
    old, new = (Signer(ORIGIN, key_of(number)).key for number in (1, 2))
    await filled_log(3, objects)

    both = new_log(objects, settings=replace(SETTINGS, keys=(2, 1)))
    await both.integrate()
    assert (await both.checkpoint()).verified([old, new]).keys() == {old, new}
    assert both.keys == [new, old]

    after = new_log(objects, settings=replace(SETTINGS, keys=(2,)))
    await with_more(after, b"x")
    assert (await after.checkpoint()).verified([old, new]).keys() == {new}


async def test_a_log_without_a_name_is_named_after_its_first_key() -> None:
    logs = [new_log(settings=replace(SETTINGS, origin=None, keys=keys)) for keys in ((1,), (2, 1), (2,))]

    names = {log.keys[0].name for log in logs}

    assert len(names) == 1
    assert names.pop().startswith("roomkey.invalid/audit/")


@pytest.mark.parametrize("wrong", [{"keys": ()}, {"keys": (1, 1)}, {"keys": (0,)}, {"quorum": 1}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"keys|quorum"):
        AuditSettings(**wrong)


# --- witnesses ----------------------------------------------------------------------------------------


async def test_witnesses_sign_every_head() -> None:
    one, other = (WitnessInProcess(name, [LOG_KEY]) for name in ("one.example", "other.example"))
    log = await filled_log(5, settings=witnessed(one, other), transport=WitnessesInProcess(one, other))
    await with_more(log, b"x")

    signed = (await log.checkpoint()).verified([one.signer.key, other.signer.key])

    assert signed == {one.signer.key: NOON, other.signer.key: NOON}
    assert log.degradations() == {}


async def test_a_witness_that_is_away_is_named_and_asked_again() -> None:
    witness = WitnessInProcess("w.example", [LOG_KEY])
    witness.is_away = True
    log = await filled_log(5, settings=witnessed(witness), transport=WitnessesInProcess(witness))
    assert (await log.checkpoint()).verified([witness.signer.key]) == {}
    assert log.degradations() == {"audit witness w.example": "it is away"}

    witness.is_away = False
    await with_more(log, b"x")

    assert witness.signer.key in (await log.checkpoint()).verified([witness.signer.key])
    assert log.degradations() == {}


async def test_without_a_quorum_nothing_is_published_and_everything_is_recorded() -> None:
    one, other = (WitnessInProcess(name, [LOG_KEY]) for name in ("one.example", "other.example"))
    log = new_log(settings=witnessed(one, other, quorum=2), transport=WitnessesInProcess(one, other))
    other.is_away = True
    await log.append([b"a"])

    with pytest.raises(Storage, match=r"1 witnesses have answered.*other\.example: it is away"):
        await log.integrate()
    with pytest.raises(NotPublished):
        await log.checkpoint()
    assert await log.append([b"b"]) == 1

    other.is_away = False
    await log.integrate()
    assert (await log.status()).published == 2


async def test_a_restarted_node_goes_on_where_the_witness_is() -> None:
    witness, objects = WitnessInProcess("w.example", [LOG_KEY]), MemoryObjectStore()
    settings, transport = witnessed(witness, quorum=1), WitnessesInProcess(witness)
    await filled_log(300, objects, settings=settings, transport=transport)

    log = new_log(objects, settings=settings, transport=transport)
    await with_more(log, b"x")

    assert witness.signer.key in (await log.checkpoint()).verified([witness.signer.key])


@pytest.mark.parametrize("more", [0, 1, 3])
async def test_an_older_backup_is_not_signed_where_a_witness_knows_better(more: int) -> None:
    witness, objects = WitnessInProcess("w.example", [LOG_KEY]), MemoryObjectStore()
    settings, transport = witnessed(witness), WitnessesInProcess(witness)
    log = await filled_log(5, objects, settings=settings, transport=transport)
    backup = await backup_of(objects)
    await with_more(log, b"lost", b"too")

    objects = await restored(backup)
    log = new_log(objects, settings=settings, transport=transport)
    await log.append([b"x"] * (more + 1))
    with pytest.raises(ContradictingHead, match=r"witness w\.example has seen 7 entries"):
        await log.integrate()

    assert (await signed_head(objects)).size == 5


async def test_a_storage_that_is_empty_again_is_not_signed_where_a_witness_knows_better() -> None:
    witness = WitnessInProcess("w.example", [LOG_KEY])
    settings, transport = witnessed(witness), WitnessesInProcess(witness)
    await filled_log(5, settings=settings, transport=transport)

    log = new_log(settings=settings, transport=transport)
    await log.append([b"x"] * 9)
    with pytest.raises(ContradictingHead):
        await log.integrate()


async def test_a_witness_that_was_shown_other_entries_is_an_alarm() -> None:
    witness = WitnessInProcess("w.example", [LOG_KEY])
    settings, transport = witnessed(witness), WitnessesInProcess(witness)
    await filled_log(5, settings=settings, transport=transport)

    objects = MemoryObjectStore()
    await new_log(objects).append([b"other"] * 5)
    await new_log(objects).integrate()  # signed with the key of the log, and not shown to the witness
    log = new_log(objects, settings=settings, transport=transport)
    await log.append([b"x"])

    with pytest.raises(ContradictingHead, match="other entries up to number 5"):
        await log.integrate()
    assert (await signed_head(objects)).size == 5


class Meanwhile:
    """Lets something else happen before the second request."""

    def __init__(self, transport: WitnessesInProcess, act: Callable[[], Awaitable[None]]) -> None:
        self._transport = transport
        self._act = act
        self._count = 0

    async def post(self, url: str, body: bytes) -> Answer:
        self._count += 1
        if self._count == 2:
            await self._act()
        return await self._transport.post(url, body)


async def test_a_node_that_was_overtaken_at_the_witness_raises_no_alarm() -> None:
    witness, objects = WitnessInProcess("w.example", [LOG_KEY]), MemoryObjectStore()
    transport = WitnessesInProcess(witness)
    fast = new_log(objects, settings=witnessed(witness), node="fast", transport=transport)
    meanwhile = Meanwhile(transport, lambda: with_more(fast, b"y"))
    slow = new_log(objects, settings=witnessed(witness), node="slow", transport=meanwhile)
    await slow.append([b"x"])

    with pytest.raises(Conflict):
        await slow.integrate()

    assert (await fast.status()).published == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, b"nonsense\n"), "not a signature"),
        (Answer(200, b"\xff"), "not text"),
        (Answer(200, Signer("w.example", bytes(32)).sign("x\n").line.encode()), "other keys"),
        (Answer(403, b""), "does not know the key"),
        (Answer(404, b""), "does not know this log"),
        (Answer(400, b""), "did not understand"),
        (Answer(500, b""), "answered 500"),
        (Answer(409, b"minus one\n"), "decimal"),
    ],
)
async def test_a_witness_that_answers_nonsense_does_not_count(answer: Answer, words: str) -> None:
    witness = WitnessInProcess("w.example", [LOG_KEY])
    witness.instead = answer

    log = await filled_log(3, settings=witnessed(witness), transport=WitnessesInProcess(witness))

    assert words in log.degradations()["audit witness w.example"]
    assert (await log.checkpoint()).verified([LOG_KEY])


async def test_a_cosignature_of_another_head_does_not_count() -> None:
    witness = WitnessInProcess("w.example", [LOG_KEY])
    witness.instead = Answer(200, witness.signer.sign("another\n", NOON).line.encode())

    log = await filled_log(3, settings=witnessed(witness), transport=WitnessesInProcess(witness))

    assert "not one of its key" in log.degradations()["audit witness w.example"]


def test_a_witness_signs_with_the_time() -> None:
    plain = Signer("w.example", bytes(32), SignatureType.ED25519).key
    witness = WitnessInProcess("w.example", [])
    settings = replace(SETTINGS, witnesses=(replace(witness.settings, key=str(plain)),))

    with pytest.raises(ConfigurationError, match="type 04"):
        new_log(settings=settings)


# --- the node -----------------------------------------------------------------------------------------


async def test_a_contradiction_is_a_security_event_and_degrades_health(tmp_path: Path) -> None:
    (tmp_path / "head").write_text(str(_signed_by_log(9, leaf_hash(b"x"))))
    config = Config()
    node = Node(
        replace(
            config,
            storage=replace(config.storage, url="memory"),
            audit=replace(SETTINGS, remembered_head=tmp_path / "head"),
        )
    )
    events: list[str] = []
    node.events.listen(lambda event: events.append(f"{event.type}: {event.cause}"))

    await node.audit.log.append([entry(0)])
    await node.audit.log._look()  # pyright: ignore[reportPrivateUsage]
    await node.audit.log._look()  # pyright: ignore[reportPrivateUsage]

    assert events == ["audit_gap: contradicting_head"]
    assert "older backup" in (await node.health.status()).checks["audit log"]
