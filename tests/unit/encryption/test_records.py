"""A sealed record opens where it was sealed, as it was sealed, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.encryption.records import MARK, OVERHEAD_BYTES, RECORDS_PER_CIPHER, Ciphers, SealedRecords
from roomkey.errors import Serialization, Storage
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, RecordCodec, RecordKind, SealingCodec

OLD, NEW = b"old ", b"new "
KEYS = {OLD: bytes(32), NEW: bytes([1]) * 32}
SESSION, EVENT, OBJECT = RecordKind.SESSION, RecordKind.EVENT, RecordKind.OBJECT


class Refused(list[tuple[RecordKind, bytes, str]]):
    """What was refused."""

    def note(self, kind: RecordKind, id: bytes, reason: str) -> None:
        self.append((kind, id, reason))


def codec(*, reads_unsealed: bool = False, refused: Refused | None = None) -> SealedRecords:
    ciphers = Ciphers()
    ciphers.use(KEYS, writing=NEW, reads_unsealed=reads_unsealed)
    return SealedRecords(ciphers, (Refused() if refused is None else refused).note, store="sessions")


places = st.tuples(st.sampled_from(RecordKind), st.binary(max_size=40), st.integers(0, 2**63))


@given(place=places, record=st.binary(max_size=3000))
def test_every_record_comes_back_and_nothing_of_it_is_seen(place: tuple[RecordKind, bytes, int], record: bytes) -> None:
    sealed = codec().encode(*place, record)

    assert codec().decode(*place, sealed) == record
    if not (place[0] is OBJECT and place[1].startswith(b"keys\0")):
        assert len(sealed) == len(record) + OVERHEAD_BYTES
        assert len(record) < 8 or record not in sealed


@given(here=places, there=places, record=st.binary(min_size=1, max_size=100))
def test_a_record_that_was_moved_or_replaced_by_an_older_one_is_refused(
    here: tuple[RecordKind, bytes, int], there: tuple[RecordKind, bytes, int], record: bytes
) -> None:
    records = codec()
    sealed = records.encode(*here, record)

    if here != there:
        with pytest.raises(Serialization):
            records.decode(*there, sealed)


def test_a_change_of_any_bit_and_a_cut_anywhere_are_refused_and_reported() -> None:
    refused = Refused()
    records = codec(refused=refused)
    sealed = records.encode(SESSION, b"id", 3, b"a record")

    for bit in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Serialization, match="refused"):
            records.decode(SESSION, b"id", 3, bytes(altered))
    for size in range(len(sealed)):
        with pytest.raises(Serialization, match="refused"):
            records.decode(SESSION, b"id", 3, sealed[:size])

    assert {(kind, id) for kind, id, _ in refused} == {(SESSION, b"id")}
    assert len(refused) == 9 * len(sealed)


def test_records_of_one_store_cannot_take_the_place_of_those_of_another() -> None:
    records = codec()

    with pytest.raises(Serialization):
        records.within("documents").decode(
            SESSION, b"id", 0, records.within("sessions").encode(SESSION, b"id", 0, b"x")
        )


def test_no_nonce_comes_twice_neither_in_one_process_nor_in_several() -> None:
    nonces = [codec().encode(SESSION, b"", 0, b"")[5:29] for _ in range(300)]
    records = codec()
    nonces += [records.encode(SESSION, b"", 0, b"")[5:29] for _ in range(3000)]

    assert len(set(nonces)) == len(nonces)
    assert len({nonce[:12] for nonce in nonces}) == 301


def test_a_cipher_is_replaced_before_chance_could_repeat_a_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomkey.encryption.records.RECORDS_PER_CIPHER", 10)
    records = codec()

    sealed = [records.encode(SESSION, b"", 0, b"%d" % number) for number in range(35)]

    assert RECORDS_PER_CIPHER <= 2**32
    assert [len({each[:17] for each in sealed[start : start + 35]}) for start in (0, 11, 22)] == [4, 3, 2]
    assert [records.decode(SESSION, b"", 0, each) for each in sealed] == [b"%d" % number for number in range(35)]


def test_new_records_are_under_the_new_key_and_old_ones_are_read_until_theirs_is_retired() -> None:
    ciphers = Ciphers()
    ciphers.use({OLD: KEYS[OLD]}, writing=OLD, reads_unsealed=False)
    records = SealedRecords(ciphers)
    before = records.encode(SESSION, b"", 0, b"before")
    assert records.is_current(before)

    ciphers.use(KEYS, writing=NEW, reads_unsealed=False)

    after = records.encode(SESSION, b"", 0, b"after")
    assert (records.is_current(before), records.is_current(after)) == (False, True)
    assert records.decode(SESSION, b"", 0, before) == b"before"
    ciphers.use({NEW: KEYS[NEW]}, writing=NEW, reads_unsealed=False)
    with pytest.raises(Serialization, match=f"no data key {OLD.hex()}"):
        records.decode(SESSION, b"", 0, before)
    assert records.decode(SESSION, b"", 0, after) == b"after"


@pytest.mark.parametrize("unsealed", [CHECKSUMMED_RECORDS, PLAIN_RECORDS])
def test_records_from_before_are_read_only_as_long_as_that_is_allowed(
    unsealed: RecordCodec,
) -> None:
    record = unsealed.encode(SESSION, b"id", 0, b"\x01 from before")
    refused = Refused()

    assert codec(reads_unsealed=True).reading(unsealed).decode(SESSION, b"id", 0, record) == b"\x01 from before"
    with pytest.raises(Serialization, match="not sealed"):
        codec(refused=refused).reading(unsealed).decode(SESSION, b"id", 0, record)
    assert len(refused) == 1


def test_an_altered_record_is_refused_also_while_others_from_before_are_read() -> None:
    refused = Refused()
    records = codec(reads_unsealed=True, refused=refused)
    sealed = records.encode(SESSION, b"id", 0, b"x")

    with pytest.raises(Serialization, match="refused"):
        records.decode(SESSION, b"other", 0, sealed)
    with pytest.raises(Serialization, match="checksum"):
        records.decode(SESSION, b"id", 0, b"\x01damaged as ever")
    assert len(refused) == 1


def test_keys_themselves_are_not_sealed_and_nothing_else_passes_for_one() -> None:
    records = codec()

    stored = records.encode(OBJECT, b"keys\0data-keys", 7, b"wrapped")

    assert stored == CHECKSUMMED_RECORDS.encode(OBJECT, b"keys\0data-keys", 7, b"wrapped")
    assert records.decode(OBJECT, b"keys\0data-keys", 7, stored) == b"wrapped"
    with pytest.raises(Serialization):
        records.decode(OBJECT, b"subjects\0data-keys", 7, stored)
    assert records.encode(OBJECT, b"keys-not\0a", 7, b"x").startswith(MARK)
    assert records.encode(SESSION, b"keys\0a", 7, b"x").startswith(MARK)


def test_before_there_are_keys_nothing_is_read_or_written_and_without_any_records_pass_as_they_are() -> None:
    ciphers = Ciphers()
    records = SealedRecords(ciphers)
    with pytest.raises(Storage):
        records.encode(SESSION, b"id", 0, b"x")
    with pytest.raises(Serialization):
        records.decode(SESSION, b"id", 0, CHECKSUMMED_RECORDS.encode(SESSION, b"id", 0, b"x"))

    ciphers.use({}, writing=None, reads_unsealed=True)

    stored = records.encode(SESSION, b"id", 0, b"x")
    assert stored == CHECKSUMMED_RECORDS.encode(SESSION, b"id", 0, b"x")
    assert records.decode(SESSION, b"id", 0, stored) == b"x"
    assert records.is_current(stored)


def test_who_has_not_read_the_keys_for_too_long_seals_nothing_and_calls_no_unknown_key_a_forgery() -> None:
    time, refused = [0.0], Refused()
    ciphers = Ciphers(lambda: time[0])
    ciphers.use({OLD: KEYS[OLD]}, writing=OLD, reads_unsealed=False, good_until=60.0)
    records = SealedRecords(ciphers, refused.note, store="sessions")
    known, unknown = records.encode(SESSION, b"", 0, b"x"), codec().encode(SESSION, b"", 0, b"y")
    with pytest.raises(Serialization):
        records.decode(SESSION, b"", 0, unknown)
    refused.clear()

    time[0] = 60.1

    with pytest.raises(Storage):
        records.encode(SESSION, b"", 0, b"x")
    with pytest.raises(Storage):
        records.decode(SESSION, b"", 0, unknown)
    assert records.decode(SESSION, b"", 0, known) == b"x"
    assert refused == []


def test_it_is_a_sealing_codec() -> None:
    assert isinstance(codec(), SealingCodec)
    assert not isinstance(CHECKSUMMED_RECORDS, SealingCodec)
